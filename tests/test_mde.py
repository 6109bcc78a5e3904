"""What `plan --mde` says: against the facts, simulation, and stores made up for it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy import stats
from test_leaderboard import baseline, board, cells

from sslbench.cli.app import program
from sslbench.leaderboard.board.power import MOST, POINT, detectable, pooled

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


@pytest.mark.parametrize(("seeds", "sds"), [(3, 3.3), (5, 1.7), (10, 1.0)])
def test_before_anything_is_known_differences_are_in_sds(seeds, sds):
    found = only(missing(2, seeds))
    assert (found.seeds, found.methods, found.sd, found.pairs) == (seeds, 2, None, 0)
    assert round(found.one, 1) == sds
    assert found.many == found.one  # one pair has nothing to be corrected for


def test_one_seed_detects_nothing_and_two_little():
    assert (only(missing(2, 1)).one, only(missing(2, 1)).many) == (None, None)
    assert only(missing(2, 2)).one > 10


def test_with_two_seeds_and_many_pairs_nothing_is_in_reach_and_no_time_is_lost():
    found = only(missing(200, 2), {f"m{i}" for i in range(200)})
    assert found.many is None
    assert found.one == pytest.approx(only(missing(2, 2)).one)


def test_half_an_sd_takes_34_seeds_and_more_for_every_pair():
    assert only(missing(2, 3)).seeds_one == 34
    found = only(missing(10, 3))
    assert found.aim == 0.5
    assert found.seeds_many > found.seeds_one == 34


def power_of(shift, seeds, level, trials=6000):
    draws = np.random.default_rng(seeds).normal(shift, 1, (trials, seeds))
    return np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 1 - level)


@pytest.mark.parametrize("methods", [2, 6])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_power_really_is_four_in_five(methods, seeds):
    found = only(missing(methods, seeds))
    pairs = methods * (methods - 1) // 2
    # standard error .005
    assert power_of(found.one, seeds, 0.95) == pytest.approx(0.8, abs=0.02)
    assert power_of(found.many, seeds, 1 - 0.05 / pairs) == pytest.approx(0.8, abs=0.02)


def test_the_suggested_seeds_are_enough_and_one_less_is_not():
    found = only(missing(4, 3))
    assert power_of(0.5, found.seeds_one, 0.95) > 0.785
    assert power_of(0.5, found.seeds_one - 2, 0.95) < 0.8
    assert power_of(0.5, found.seeds_many, 1 - 0.05 / 6) > 0.785


def test_the_spread_is_that_of_differences_pooled_over_pairs():
    rows = [{0: 0.9, 1: 0.8, 2: 0.7}, {0: 0.5, 1: 0.45, 2: 0.2}, {0: 0.1, 1: 0.3}]
    squares, freedom = 0.0, 0
    for a, b in itertools.combinations(rows, 2):
        own = np.array([a[seed] - b[seed] for seed in a.keys() & b.keys()])
        squares, freedom = squares + own.var() * len(own), freedom + len(own) - 1
    sd, pairs = pooled(rows)
    assert pairs == 3
    assert sd == pytest.approx((squares / freedom) ** 0.5)
    assert pooled([{0: 0.9}, {0: 0.8}]) == (None, 0)
    assert pooled([{0: 0.9, 1: 0.8}, {2: 0.8, 3: 0.1}]) == (None, 0)
    assert pooled([]) == (None, 0)


def test_what_all_methods_share_by_seed_is_no_spread():
    # the seed moves every method by a lot, their differences by nothing
    found = only(board(cells("m0", 0.5, 0.9, 0.1), cells("m1", 0.4, 0.8, 0.0)))
    assert found.sd == pytest.approx(0, abs=1e-12)
    assert found.one == pytest.approx(0, abs=1e-9)
    assert found.seeds_one == 2


def test_a_known_spread_gives_points_and_seeds_for_one_point():
    made = board(
        cells("m0", 0.90, 0.91, 0.92), cells("m1", 0.80, 0.83, 0.81), cells("m2", 0.70, 0.75, 0.72)
    )
    found = only(made)
    assert found.in_points
    assert found.one == pytest.approx(only(missing(2, 3)).one * found.sd)
    assert found.aim == POINT
    small = found.sd / POINT
    assert power_of(1 / small, found.seeds_one, 0.95) > 0.785
    assert found.seeds_one < MOST


def test_baselines_and_methods_not_chosen_are_not_counted():
    made = board(
        cells("m0", 0.90, 0.91, 0.92),
        cells("m1", 0.80, 0.83, 0.81),
        cells("other", 0.70, 0.75, 0.72),
        baseline("untrained", 0.1, 0.9, 0.5),
    )
    found = only(made, {"m0", "m1"})
    assert (found.methods, found.pairs) == (2, 3)  # `other` tells of the spread
    assert found.many == found.one
    without = board(cells("m0", 0.90, 0.91, 0.92), cells("m1", 0.80, 0.83, 0.81))
    assert only(without).sd != found.sd


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
        ["knn-1", "3", "unknown", "3.3 SDs", "3.3 SDs (2 methods)", "34 and 34 for half an SD"],
        ["linear-2", "3", "unknown", "3.3 SDs", "3.3 SDs (2 methods)", "34 and 34 for half an SD"],
        ["clustering-1", "1", "unknown", "none", "none (2 methods)", "34 and 34 for half an SD"],
    ]
    assert lines[at + 4].startswith("smallest true difference that a paired t test by seed finds")
    assert lines[at + 6].startswith("with fewer than two seeds no difference can be detected")
    assert not (tmp_path / "store").exists()  # nothing was trained


def test_what_is_asked_for_counts(suite):
    more = ("--methods", "simclr,simsiam,vicreg", "--seeds", "0,1,2,3,4", "--evaluators", "knn")
    found = json.loads(call("plan", *suite, *more, "--mde", "--json").stdout)["detectable"]
    assert [(each["protocol"], each["seeds"], each["methods"]) for each in found] == [
        ("knn-1", 5, 3)
    ]
    assert round(found[0]["one"], 1) == 1.7
    assert found[0]["many"] > found[0]["one"]
    assert "detectable" not in json.loads(call("plan", *suite, "--json").stdout)
