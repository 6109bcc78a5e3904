"""Two rows image by image, from what was predicted: by hand, against scipy, on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from made_up import judged, suite_of, train
from scipy import stats

from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.leaderboard.folder import folder as folders
from sslbench.leaderboard.folder.images import Images
from sslbench.store import Answers, packed, predictions_of

IMAGES, CLASSES = 400, 4


def guesses(seed, wrong, truth):
    """The truth, but for so many images, which are taken for the next class."""
    draw = np.random.default_rng(seed)
    found = truth.copy()
    places = draw.choice(len(truth), wrong, replace=False)
    found[places] = (found[places] + 1) % CLASSES
    return found


@pytest.fixture
def truth():
    return np.random.default_rng(0).integers(0, CLASSES, IMAGES)


def made(root, said, truths):
    """A leaderboard of the methods in `said`: name -> seed -> predictions, or None for no file."""
    suite = suite_of(list(said), evaluators=("knn",))
    records, kept = [], {}
    for method, by_seed in said.items():
        for seed, predicted in by_seed.items():
            cell = train(method, seed)
            truth = truths[method, seed] if isinstance(truths, dict) else truths
            answers = None if predicted is None else Answers(predicted, truth)
            top1 = 0.5 if predicted is None else float((predicted == truth).mean())
            more = {"predictions": answers.digest()} if answers else {}
            record = judged(cell, "knn", {"top1": top1}, **more)
            records += [cell, record]
            if answers:
                kept[record.record_id] = packed(answers)
    folders.add(root, suite, records)
    folder = folders.read(root)
    for each in folder.kept:
        if each.record.record_id in kept:
            predictions_of(root / each.path).write_bytes(kept[each.record.record_id])
    return folders.read(root)


def found(folder, one, other):
    board = folders.board_of(folder)
    (block,) = board.blocks
    rows = {row.label: row for row in block.rows}
    return Images(folder, block, board.level).compared(block.columns[0], rows[one], rows[other])


def test_two_rows_are_compared_over_images_with_the_mean_of_their_seeds(tmp_path, truth):
    said = {
        "moco": {s: guesses(s, 100, truth) for s in range(3)},
        "swav": {s: guesses(10 + s, 160, truth) for s in range(3)},
        "byol": {s: guesses(20 + s, 100, truth) for s in range(3)},
    }
    one = found(made(tmp_path / "a", said, truth), "moco", "swav")
    right = [np.mean([said[m][s] == truth for s in range(3)], axis=0) for m in ("moco", "swav")]
    apart = right[0] - right[1]
    error = stats.sem(apart)
    assert (one.images, one.seeds) == (IMAGES, (0, 1, 2))
    assert one.mean == pytest.approx(apart.mean()) == pytest.approx(60 / IMAGES)
    expected = stats.ttest_1samp(apart, 0).pvalue
    assert one.p == pytest.approx(min(1, 3 * expected))  # three rows are three pairs
    far = stats.t.ppf(1 - 0.05 / 6, IMAGES - 1)
    assert one.interval == pytest.approx((apart.mean() - far * error, apart.mean() + far * error))
    assert one.leads == 1
    drawn = np.random.default_rng(1).integers(0, IMAGES, (4000, IMAGES))
    assert apart[drawn].mean(1).std() == pytest.approx(error, rel=0.05)  # the paired bootstrap's


def test_one_seed_is_mcnemars_test_without_its_correction(tmp_path, truth):
    said = {"moco": {0: guesses(0, 90, truth)}, "swav": {0: guesses(1, 120, truth)}}
    one = found(made(tmp_path / "a", said, truth), "moco", "swav")
    a, b = (said[m][0] == truth for m in said)
    only = (a & ~b).sum(), (b & ~a).sum()
    mcnemar = stats.chi2.sf((only[0] - only[1]) ** 2 / sum(only), 1)
    assert one.p == pytest.approx(mcnemar, rel=0.05)
    assert one.right == only
    assert all(a[place] and not b[place] for place in one.furthest[0])
    assert len(one.furthest[1]) == min(5, only[1])


def test_classes_are_told_apart(tmp_path, truth):
    good, blind = truth.copy(), truth.copy()
    blind[truth == 2] = 0
    said = {"moco": {0: good, 1: good}, "swav": {0: blind, 1: blind}}
    one = found(made(tmp_path / "a", said, truth), "moco", "swav")
    assert [each.number for each in one.by_class] == list(range(CLASSES))
    assert [each.one for each in one.by_class] == [1.0] * 4
    assert [each.other for each in one.by_class] == [1.0, 1.0, 0.0, 1.0]
    assert sum(each.images for each in one.by_class) == IMAGES
    assert one.balanced == (1.0, 0.75)
    turned = found(folders.read(tmp_path / "a"), "swav", "moco")
    assert (turned.mean, turned.leads) == (-one.mean, -1)


def test_the_same_answers_do_not_differ(tmp_path, truth):
    same = guesses(0, 50, truth)
    one = found(made(tmp_path / "a", {"moco": {0: same}, "swav": {0: same}}, truth), "moco", "swav")
    assert (one.mean, one.interval, one.p, one.leads) == (0, (0, 0), 1.0, 0)


def test_only_seeds_that_both_have_count_and_none_is_no_answer(tmp_path, truth):
    said = {
        "moco": {0: guesses(0, 50, truth), 1: None},
        "swav": {0: guesses(1, 50, truth), 1: guesses(2, 50, truth)},
        "byol": {0: None, 1: None},
    }
    folder = made(tmp_path / "a", said, truth)
    assert found(folder, "moco", "swav").seeds == (0,)
    assert found(folder, "moco", "byol") is None


def test_answers_to_other_images_are_refused(tmp_path, truth):
    truths = {("moco", 0): truth, ("swav", 0): np.roll(truth, 1)}
    said = {"moco": {0: guesses(0, 50, truth)}, "swav": {0: guesses(1, 50, truth)}}
    folder = made(tmp_path / "a", said, truths)
    with pytest.raises(UserError, match=r"swav, seed 0, was judged by knn-1 on other images than"):
        found(folder, "moco", "swav")


def test_the_command_answers_both_questions(tmp_path, truth):
    said = {
        "moco": {s: guesses(s, 100, truth) for s in range(2)},
        "swav": {s: guesses(10 + s, 160, truth) for s in range(2)},
    }
    made(tmp_path / "a", said, truth)
    line = ["leaderboard", "compare", str(tmp_path / "a"), "moco,swav"]
    text = CliRunner().invoke(program, line).output
    assert "Would other trainings come out so? (over seeds)" in text
    assert "Do these trained encoders differ on other images like these? (over images)" in text
    assert text.count("knn-1 top1") == 2
    (plain,) = json.loads(CliRunner().invoke(program, [*line, "--json"]).output)
    assert plain["over_images"]["images"] == IMAGES
    assert len(plain["over_images"]["by_class"]) == CLASSES
