"""What `plan --mde` says: against simulation, and stores made up for it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from test_leaderboard import baseline, board, cells

from sslbench.cli.app import program
from sslbench.leaderboard.board.power import POINT, detectable, smallest
from sslbench.leaderboard.chance import MOST
from sslbench.leaderboard.together import together

CHOSEN = {f"m{i}" for i in range(20)}


def call(*args: str) -> Result:
    result = CliRunner().invoke(program, args)
    assert result.exit_code == 0, result.output
    return result


def missing(methods, seeds):
    return board(*(cells(f"m{i}", *[None] * seeds) for i in range(methods)))


def only(found, chosen=CHOSEN):
    (one,) = detectable(found, chosen)
    return one


def test_before_anything_is_known_differences_are_in_sds():
    found = only(missing(2, 3))
    assert (found.seeds, found.methods, found.noise) == (3, 2, None)
    # that of a paired t test of three seeds, 3.3 SDs of a difference
    assert found.least == pytest.approx(3.26 * math.sqrt(2), rel=0.01)
    assert found.aim == 0.5


def test_more_seeds_find_less_and_more_methods_share_their_noise():
    least = [only(missing(4, seeds)).least for seeds in (2, 3, 5, 10)]
    assert least == sorted(least, reverse=True)
    assert only(missing(4, 3)).least < only(missing(2, 3)).least


def test_one_seed_and_one_method_detect_nothing():
    assert only(missing(2, 1)).least is None
    alone = only(missing(1, 3))
    assert (alone.methods, alone.least, alone.needed) == (1, None, None)


def test_many_methods_and_seeds_take_no_time():
    found = only(missing(200, 2), {f"m{i}" for i in range(200)})
    assert found.least > 0


@pytest.mark.parametrize(("methods", "seeds"), [(2, 4), (6, 3), (6, 8)])
def test_the_power_really_is_four_in_five(methods, seeds):
    least = smallest(1.0, methods, seeds, 0.95)
    draw = np.random.default_rng(methods * seeds)
    boards = 1500
    separated = 0
    for values in draw.normal(size=(boards, methods, seeds)):
        values[0] += least
        rows = [dict(enumerate(row)) for row in values.tolist()]
        separated += together(rows).separated[0, 1] == 1
    assert separated / boards == pytest.approx(0.8, abs=0.03)


def test_the_suggested_seeds_are_enough_and_one_less_is_not():
    needed = only(missing(4, 3)).needed
    assert smallest(1.0, 4, needed, 0.95) <= 0.5 < smallest(1.0, 4, needed - 1, 0.95)


def test_what_all_methods_share_by_seed_is_no_noise():
    # the seed moves every method by a lot, their differences by little
    shared = board(cells("m0", 0.51, 0.9, 0.1), cells("m1", 0.4, 0.8, 0.01))
    assert only(shared).noise < 0.01


def test_known_noise_gives_points_and_seeds_for_one_point():
    made = board(
        cells("m0", 0.90, 0.91, 0.92), cells("m1", 0.80, 0.83, 0.81), cells("m2", 0.70, 0.75, 0.72)
    )
    found = only(made)
    assert found.in_points
    assert found.least == pytest.approx(only(missing(3, 3)).least * found.noise)
    assert found.aim == POINT
    assert smallest(found.noise, 3, found.needed, 0.95) <= POINT
    assert found.needed <= MOST


def test_baselines_and_methods_not_chosen_are_not_counted():
    made = board(
        cells("m0", 0.90, 0.91, 0.92),
        cells("m1", 0.80, 0.83, 0.81),
        cells("other", 0.70, 0.75, 0.72),
        baseline("untrained", 0.1, 0.9, 0.5),
    )
    found = only(made, {"m0", "m1"})
    assert found.methods == 2  # `other` tells of the noise
    without = board(cells("m0", 0.90, 0.91, 0.92), cells("m1", 0.80, 0.83, 0.81))
    assert only(without).noise != found.noise


SUITE = """
summary: A tiny suite
datasets: ["digits[train=64,test=32]"]
backbones: [test_resnet]
methods: [simclr, simsiam]
baselines: [untrained]
evaluators: [knn, linear]
once: [clustering]
seeds: [0, 1, 2]
epochs: 1
batch: 32
"""


@pytest.fixture
def suite(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "tiny.yaml").write_text(SUITE)
    return ("--suite", str(tmp_path / "tiny.yaml"), "--store", str(tmp_path / "store"))


def test_the_plan_prints_a_table_and_sentences(suite, tmp_path):
    lines = call("plan", *suite, "--mde").output.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("dataset "))
    rows = [re.split(r"\s{2,}", line)[2:] for line in lines[at + 1 : at + 4]]
    assert rows == [
        ["knn-1", "2", "3", "unknown", "4.6 SDs", "65 seeds for half an SD"],
        ["linear-2", "2", "3", "unknown", "4.6 SDs", "65 seeds for half an SD"],
        ["clustering-1", "2", "1", "unknown", "none", "65 seeds for half an SD"],
    ]
    assert lines[at + 4].startswith("detected: smallest true difference between two of the methods")
    assert lines[at + 6].startswith("with fewer than two seeds no difference can be detected")
    assert not (tmp_path / "store").exists()  # nothing was trained


def test_what_is_asked_for_counts(suite):
    more = ("--methods", "simclr,simsiam,vicreg", "--seeds", "0,1,2,3,4", "--evaluators", "knn")
    found = json.loads(call("plan", *suite, *more, "--mde", "--json").stdout)["detectable"]
    assert [(each["protocol"], each["seeds"], each["methods"]) for each in found] == [
        ("knn-1", 5, 3)
    ]
    assert found[0]["least"] > 0
    assert "detectable" not in json.loads(call("plan", *suite, "--json").stdout)
