"""Stores and leaderboards united: order does not matter, nothing is lost, nothing overruled."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner
from made_up import judged, leaderboard, records_of, suite_of, train

from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.leaderboard.folder.folder import add, read
from sslbench.leaderboard.folder.merge import merge, unite
from sslbench.records import Costs
from sslbench.store import Store


def run(*args):
    return CliRunner().invoke(program, ["leaderboard", "merge", *map(str, args)])


def store(root, *records, **files):
    """A store with these records; `encoder` and the like lie in the first one's cell."""
    made = Store(root)
    made.create()
    for record in records:
        made.cell(record.cell_id).add(record)
    for name, content in files.items():
        (made.cell(records[0].cell_id).path / f"{name}.safetensors").write_bytes(content)
    return root


def tree(root):
    """Every file below it, with its bytes."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def ids(union):
    return [record.record_id for record in union.records]


CELL = train("moco", 0)
KNN = judged(CELL, "knn", {"top1": 0.9})
LATER = judged(CELL, "knn", {"top1": 0.9}, finished="2027-01-01T00:00:00.000Z",
               costs=Costs(seconds=99.0))  # fmt: skip
OTHER = judged(CELL, "knn", {"top1": 0.91}, finished="2027-01-01T00:00:00.000Z")


# ---- what is a contradiction -----------------------------------------------------------------


def test_of_two_honest_runs_with_the_same_numbers_the_earlier_is_kept():
    assert (
        ids(unite([CELL, LATER, KNN])) == ids(unite([KNN, CELL, LATER])) == ids(unite([CELL, KNN]))
    )


def test_another_number_is_a_conflict_and_neither_is_taken():
    for order in ([CELL, KNN, OTHER], [OTHER, CELL, KNN]):
        union = unite(order)
        assert ids(union) == [CELL.record_id]
        (conflict,) = union.conflicts
        assert (conflict.what, conflict.method, conflict.seed) == ("knn-1", "moco", 0)
        assert set(conflict.records) == {KNN.record_id, OTHER.record_id}
        assert set(conflict.differing["top1 (test)"]) == {0.9, 0.91}


def test_a_last_bit_is_another_number():
    almost = judged(CELL, "knn", {"top1": 0.9000000000000001})
    assert len(unite([CELL, KNN, almost]).conflicts) == 1


def test_attempts_that_failed_contradict_nobody_and_are_kept():
    failed = judged(CELL, "knn", {}, status="failed", sentence="oom")
    union = unite([CELL, failed, KNN])
    assert not union.conflicts
    assert set(ids(union)) == {CELL.record_id, failed.record_id, KNN.record_id}


def test_another_judge_version_seed_or_cell_is_no_conflict():
    others = [
        judged(CELL, "knn", {"top1": 0.5}, version=2),
        judged(CELL, "linear", {"top1": 0.4}),
        judged(train("moco", 1), "knn", {"top1": 0.3}),
    ]
    assert len(unite([CELL, KNN, *others]).records) == 5


def test_an_older_record_that_measured_less_gives_way_to_the_fuller_one():
    fuller = judged(CELL, "knn", {"top1": 0.9, "top5": 0.99}, finished="2027-01-01T00:00:00.000Z")
    assert ids(unite([KNN, fuller])) == ids(unite([fuller, KNN])) == [fuller.record_id]
    apart = judged(CELL, "knn", {"top1": 0.9, "nmi": 0.5})
    assert len(unite([fuller, apart]).conflicts) == 1


def test_a_cell_trained_to_another_end_takes_its_judgements_with_it():
    other = train("moco", 0, curves={"loss": [(1.0, 0.5)]})
    linear = judged(other, "linear", {"top1": 0.8})
    rest = train("swav", 0)
    union = unite([CELL, KNN, other, linear, rest])
    assert ids(union) == [rest.record_id]
    assert [c.what for c in union.conflicts] == ["train"]


# ---- stores ----------------------------------------------------------------------------------


def test_stores_unite_the_same_in_either_order_and_as_often_as_one_likes(tmp_path):
    swav = train("swav", 0)
    one = store(tmp_path / "a", CELL, KNN, encoder=b"weights")
    other = store(tmp_path / "b", swav, CELL, LATER, encoder=b"swav's")
    for name, pair in {"ab": (one, other), "ba": (other, one)}.items():
        assert merge(*pair, tmp_path / name).written
    united = tree(tmp_path / "ab")
    assert united == tree(tmp_path / "ba")
    assert len([name for name in united if "/records/" in name]) == 3
    assert united[f"cells/{CELL.cell_id[:2]}/{CELL.cell_id}/encoder.safetensors"] == b"weights"
    assert united[f"cells/{swav.cell_id[:2]}/{swav.cell_id}/encoder.safetensors"] == b"swav's"
    merge(tmp_path / "ab", one, tmp_path / "again")
    merge(tmp_path / "ab", tmp_path / "ab", tmp_path / "self")
    assert tree(tmp_path / "again") == tree(tmp_path / "self") == united


def test_weights_come_from_where_the_training_that_counts_was(tmp_path):
    failed = train("moco", 0, status="failed")
    one = store(tmp_path / "a", failed, encoder=b"a much longer file of a run that failed")
    other = store(tmp_path / "b", CELL, encoder=b"weights")
    merge(one, other, tmp_path / "c")
    cell = Store(tmp_path / "c").cell(CELL.cell_id)
    assert (cell.path / "encoder.safetensors").read_bytes() == b"weights"
    assert {r.status for r in cell.records()} == {"ok", "failed"}


def test_of_two_unfinished_runs_the_same_one_goes_on_in_either_order(tmp_path):
    failed = train("moco", 0, status="failed")
    one = store(tmp_path / "a", failed, resume=b"step 7", extra=b"longest")
    other = store(tmp_path / "b", failed, resume=b"step 9", extra=b"long")
    merge(one, other, tmp_path / "ab")
    merge(other, one, tmp_path / "ba")
    cell = Store(tmp_path / "ab").cell(failed.cell_id).path
    assert tree(tmp_path / "ab") == tree(tmp_path / "ba")
    assert (cell / "resume.safetensors").read_bytes() == b"step 9"
    assert (cell / "extra.safetensors").read_bytes() == b"longest"


def test_a_store_with_a_conflict_is_not_written_and_the_sources_stay_as_they_are(tmp_path):
    one, other = store(tmp_path / "a", CELL, KNN), store(tmp_path / "b", CELL, OTHER)
    before = tree(tmp_path)
    done = run(one, other, "--out", tmp_path / "c")
    assert done.exit_code == 5
    assert "conflict: knn-1 of moco · test_resnet · digits · seed 0" in done.stdout
    assert "top1 (test) 0.9 or 0.91" in done.stdout or "top1 (test) 0.91 or 0.9" in done.stdout
    assert "nothing was written" in done.stderr
    assert tree(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_conflicts_may_be_left_out_and_are_listed_all_the_same(tmp_path):
    one, other = store(tmp_path / "a", CELL, KNN), store(tmp_path / "b", CELL, OTHER)
    done = run(one, other, "--out", tmp_path / "c", "--skip-conflicts", "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert said["records"] == [CELL.record_id]
    assert said["conflicts"][0]["differing"] == {"top1 (test)": [0.9, 0.91]}
    assert [r.kind for r in Store(tmp_path / "c").cell(CELL.cell_id).records()] == ["train"]


def spoil(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"value": 0.9', '"value": NaN', "NaN"),
        ('"value": 0.9', '"value": "high"', "value"),
        ('"value": 0.9', '"value": 0.95', "does not match its record_id"),
        ('"1.0"', '"9.0"', "upgrade sslbench"),
    ],
)
def test_a_record_that_cannot_be_used_ends_it_and_is_not_set_aside(tmp_path, old, new, sentence):
    one, other = store(tmp_path / "a", CELL, KNN), store(tmp_path / "b", CELL)
    (path,) = one.rglob("knn-*.json")
    spoil(path, old, new)
    with pytest.raises(UserError, match=sentence):
        merge(one, other, tmp_path / "c")
    assert path.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_only_a_new_or_empty_folder_is_written(tmp_path):
    one = store(tmp_path / "a", CELL)
    (tmp_path / "empty").mkdir()
    assert merge(one, one, tmp_path / "empty").written
    for taken in ("a", "empty"):
        with pytest.raises(UserError, match="is there with something in it"):
            merge(one, one, tmp_path / taken)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is there with something in it"):
        merge(one, one, tmp_path / "link")
    with pytest.raises(UserError, match="is neither a store nor a leaderboard"):
        merge(one, tmp_path / "nothing", tmp_path / "c")


# ---- leaderboards ----------------------------------------------------------------------------


def test_leaderboards_of_one_suite_unite_and_their_methods_add_up(tmp_path):
    one = leaderboard(tmp_path / "a", suite_of(["swav", "moco"], set={"moco.lr": 0.1})).root
    other = leaderboard(tmp_path / "b", suite_of(["byol"], notes=("slow",))).root
    merge(one, other, tmp_path / "ab")
    merge(other, one, tmp_path / "ba")
    assert tree(tmp_path / "ab") == tree(tmp_path / "ba")
    united = read(tmp_path / "ab")
    assert united.suite.methods == ("byol", "moco", "swav")
    assert united.suite.set == {"moco.lr": 0.1}
    assert united.suite.notes == ("slow",)
    assert len(united.kept) == 27
    assert merge(tmp_path / "ab", one, tmp_path / "again").written
    assert tree(tmp_path / "again") == tree(tmp_path / "ab")


def test_leaderboards_of_two_suites_are_refused_with_what_differs(tmp_path):
    one = leaderboard(tmp_path / "a", suite_of(seeds=(0, 1), set={"moco.lr": 0.1})).root
    other = leaderboard(tmp_path / "b", suite_of(seeds=(0, 1, 2), set={"moco.lr": 0.3})).root
    with pytest.raises(UserError) as caught:
        merge(one, other, tmp_path / "c")
    assert "seeds (0, 1) and (0, 1, 2); set moco.lr 0.1 and 0.3" in str(caught.value)
    assert not (tmp_path / "c").exists()


def test_a_leaderboard_says_in_its_notes_what_was_left_out(tmp_path):
    suite = suite_of(["moco"])
    found = records_of(suite)
    first = next(r for r in found if r.evaluator == "knn")
    metric = first.metrics[0].model_copy(update={"value": 0.123})
    rival = first.model_copy(update={"metrics": (metric,)}).sealed()
    one = add(tmp_path / "a", suite, found).root
    other = add(tmp_path / "b", suite, [r if r is not first else rival for r in found]).root
    assert not merge(one, other, tmp_path / "c").written
    assert not (tmp_path / "c").exists()
    merge(one, other, tmp_path / "c", skip_conflicts=True)
    united = read(tmp_path / "c")
    assert len(united.kept) == len(found) - 1
    (note,) = united.suite.notes
    assert "knn-1 of moco on digits and test_resnet, seed 0, has records that differ" in note
    assert first.record_id[:12] in note
    assert rival.record_id[:12] in note


def test_a_store_and_a_leaderboard_are_not_two_of_a_kind(tmp_path):
    one, other = store(tmp_path / "a", CELL), leaderboard(tmp_path / "b").root
    with pytest.raises(UserError, match="merge two of a kind"):
        merge(one, other, tmp_path / "c")


def test_an_attestation_of_either_side_is_kept_and_two_of_one_name_are_refused(tmp_path):
    roots = [leaderboard(tmp_path / name).root for name in "ab"]
    for root, content in zip(roots, ({"x": 1}, {"x": 2}), strict=True):
        (root / "attestations").mkdir()
        (root / "attestations" / "same.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"same\.json is two attestations of one name"):
        merge(*roots, tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    assert yaml.safe_load((roots[0] / "suite.yaml").read_text())["name"] == "made-up"
