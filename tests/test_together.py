"""All rows at once: against scipy, formulas for whole designs, simulation and cases by hand."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sslbench.leaderboard import together as at_once
from sslbench.leaderboard.chance import dunnett_p, farthest, range_p
from sslbench.leaderboard.chance import least as least_of
from sslbench.leaderboard.together import together

LEVEL = 0.95


def by_seed(values):
    return [dict(enumerate(row)) for row in np.asarray(values, dtype=float).tolist()]


def drawn(rows, seeds, scale=1.0, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(0, 1, (1, seeds)) + scale * draw.normal(0, 1, (rows, seeds))


# ---- distributions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "freedom"), [(2, 1), (2, 2), (3, 4), (4, 6), (18, 34), (20, 10), (200, 796)]
)
def test_the_range_is_scipys(rows, freedom):
    far = np.array([0.5, 2.0, 3.5, 5.0, 8.0])
    expected = stats.studentized_range.sf(far, rows, freedom)
    assert range_p(far, rows, freedom) == pytest.approx(expected, rel=2e-3, abs=2e-5)
    assert farthest(rows, freedom, LEVEL) == pytest.approx(
        stats.studentized_range.ppf(LEVEL, rows, freedom), rel=1e-3
    )


def test_nothing_is_far_and_everything_is():
    assert range_p(np.array([0.0, math.inf]), 5, 8).tolist() == [1.0, 0.0]
    assert dunnett_p(np.array([0.0, math.inf]), 5, 0.5, 8) == pytest.approx([1.0, 0.0])


def test_dunnetts_test_is_scipys():
    draw = np.random.default_rng(0)
    rows, held = draw.normal(0, 1, (4, 6)), draw.normal(1, 1, 6)
    expected = stats.dunnett(*rows, control=held).pvalue
    pooled = np.mean([*rows.var(1, ddof=1), held.var(ddof=1)])
    far = np.abs(rows.mean(1) - held.mean()) / np.sqrt(2 * pooled / 6)
    assert dunnett_p(far, 4, 0.5, 25) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.9, 0.99])
def test_dunnetts_test_knows_how_much_of_a_difference_is_the_baselines(shared):
    draw = np.random.default_rng(1)
    rows, count = 7, 200_000
    normal = np.sqrt(1 - shared) * draw.normal(size=(rows, count))
    normal -= np.sqrt(shared) * draw.normal(size=count)
    scale = np.sqrt(draw.chisquare(9, count) / 9)
    found = np.mean((np.abs(normal) / scale).max(0) > 2.2)
    assert dunnett_p(np.array([2.2]), rows, shared, 9)[0] == pytest.approx(found, abs=4e-3)


# ---- whole designs -----------------------------------------------------------------------------


def test_methods_are_held_against_what_rows_and_seeds_leave():
    values = drawn(6, 4)
    found = together(by_seed(values))
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    variance = (rest**2).sum() / 15
    assert found.noise == pytest.approx(math.sqrt(variance))
    assert (found.freedom, found.methods, found.uneven) == (15, 6, False)
    for i in range(6):
        for j in range(6):
            if i == j:
                assert math.isnan(found.means[i, j])
                continue
            mean = values[i].mean() - values[j].mean()
            own = (values[i] - values[j]).var(ddof=1)
            error = math.sqrt(max(2 * variance, own) / 4)
            assert found.means[i, j] == pytest.approx(mean)
            assert found.errors[i, j] == pytest.approx(error)
            far = abs(mean) / error * math.sqrt(2)
            p = stats.studentized_range.sf(far, 6, 15)
            assert found.ps[i, j] == pytest.approx(p, rel=2e-3, abs=2e-5)
            assert (found.separated[i, j] != 0) == (p < 0.05)


def test_two_rows_are_a_paired_t_test():
    for seed in range(20):
        values = drawn(2, 4, seed=seed)
        p = stats.ttest_rel(*values).pvalue
        assert together(by_seed(values)).ps[0, 1] == pytest.approx(p, rel=2e-3, abs=2e-5)


def test_what_all_rows_share_by_seed_is_no_noise():
    values = drawn(5, 3)
    moved = together(by_seed(values + np.array([0, 5, -7])))
    assert moved.noise == pytest.approx(together(by_seed(values)).noise)
    assert moved.ps == pytest.approx(together(by_seed(values)).ps)


def test_the_scale_and_the_order_of_rows_change_nothing():
    values = drawn(7, 3)
    found, scaled = together(by_seed(values)), together(by_seed(1e-6 * values))
    assert scaled.ps == pytest.approx(found.ps, rel=1e-6)
    turned = together(by_seed(values[::-1]))
    assert turned.ps[::-1, ::-1] == pytest.approx(found.ps)


def test_rows_may_lack_seeds():
    values = drawn(5, 4)
    values[1, 2] = values[4, 0] = math.nan
    rows = [{s: v for s, v in row.items() if math.isfinite(v)} for row in by_seed(values)]
    found = together(rows)
    row, seed = np.nonzero(np.isfinite(values))
    design = np.zeros((len(row), 9))
    design[np.arange(len(row)), row] = design[np.arange(len(row)), 5 + seed] = 1

    fitted = design @ np.linalg.lstsq(design, values[row, seed])[0]
    squares = ((values[row, seed] - fitted) ** 2).sum()
    assert found.freedom == 18 - 8
    assert found.noise == pytest.approx(math.sqrt(squares / 10))
    assert found.paired(rows, 1, 4).differences.keys() == {1, 3}
    assert found.errors[1, 4] >= math.sqrt(2 * squares / 10 / 2) * (1 - 1e-9)


def test_rows_without_common_seeds_and_rows_of_one_seed_are_not_compared():
    rows = [{0: 0.9, 1: 0.8}, {2: 0.1, 3: 0.2}, {0: 0.5}, {0: 0.1, 1: 0.15}, {}]
    found = together(rows)
    for pair in ((0, 1), (0, 2), (2, 3), (0, 4)):
        assert math.isnan(found.means[pair])
        assert found.ps[pair] == 1
        assert not found.separated[pair]
    assert found.methods == 3
    assert found.paired(rows, 0, 2).mean == pytest.approx(0.4)  # said, and nothing is made of it
    assert found.paired(rows, 0, 2).interval is None
    assert found.paired(rows, 0, 1).mean is None


def test_no_rows_and_one_row_are_nothing_to_compare():
    assert together([]).ps.shape == (0, 0)
    assert together([{0: 1.0, 1: 2.0}]).noise is None


def test_where_nothing_moves_any_difference_is_one():
    found = together([{0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}, {0: 0.25, 1: 0.25}])
    assert found.noise is None
    assert found.separated.tolist() == [[0, 0, 1], [0, 0, 1], [-1, -1, 0]]
    assert found.ps[0].tolist() == [1.0, 1.0, 0.0]


# ---- spreads that differ -----------------------------------------------------------------------


def test_a_restless_pair_is_held_against_its_own_spread():
    values = 0.01 * drawn(12, 3, seed=3)
    values[0] += [0.06, -0.06, 0.0]
    found = together(by_seed(values))
    own = (values[0] - values[1]).var(ddof=1)
    assert found.errors[0, 1] >= math.sqrt(own / 3) * (1 - 1e-9) or found.uneven


def test_rows_whose_spreads_differ_are_found_and_have_their_own():
    values = drawn(10, 5, scale=0.01, seed=1)
    values[3] += [0.5, -0.7, 0.3, -0.4, 0.3]
    found = together(by_seed(values))
    assert found.uneven
    assert found.least(5) is None
    assert found.errors[3, 0] > 4 * found.errors[1, 0]
    assert not together(by_seed(drawn(10, 5, seed=1))).uneven


def test_variances_are_drawn_towards_each_other_as_limma_draws_them():
    """Smyth's estimate of the prior, from its two equations, solved by scipy."""
    from scipy.optimize import brentq
    from scipy.special import polygamma, psi

    rows = np.array([0.2, 1.0, 1.5, 0.05, 4.0, 9.0])
    freedoms = np.full(6, 3.0)
    noise = at_once._Noise(float(rows.mean()), 18.0, rows, freedoms, np.zeros(3))
    logs = np.log(rows) - psi(1.5) + np.log(1.5)
    spread = logs.var(ddof=1) - polygamma(1, 1.5)
    prior = brentq(lambda d: polygamma(1, d / 2) - spread, 1e-3, 1e6)
    centre = np.exp(logs.mean() + psi(prior / 2) - np.log(prior / 2))
    found = at_once._moderated(noise)
    assert found.rows == pytest.approx((prior * centre + 3 * rows) / (prior + 3))
    assert found.freedom == pytest.approx(min(prior + 3, 18))


def test_a_lone_noisy_row_is_held_against_its_own_spread_too():
    values = drawn(12, 3, scale=0.01, seed=2)
    values[5] += [0.4, -0.5, 0.1]
    found = together(by_seed(values))
    assert found.uneven
    own = (values[5] - values[0]).var(ddof=1)
    assert found.errors[5, 0] >= math.sqrt(own / 3) * (1 - 1e-9)


# ---- baselines -----------------------------------------------------------------------------------


def test_a_noisy_baseline_does_not_blur_the_methods():
    values = drawn(6, 3, scale=0.1)
    wild = np.vstack([values, [[3.0, -4.0, 9.0]]])
    held = [False] * 6 + [True]
    found = together(by_seed(wild), held)
    assert found.ps[:6, :6] == pytest.approx(together(by_seed(values)).ps)
    away = (wild[6] - values.mean(0)).var(ddof=1)
    assert found.errors[0, 6] == pytest.approx(math.sqrt((found.noise**2 + away) / 3))
    assert not found.separated[:6, 6].any()


def test_a_baseline_that_no_seed_moves_keeps_what_seeds_add():
    values = drawn(6, 4, scale=0.1) + 3
    still = np.vstack([values, np.zeros((1, 4))])
    found = together(by_seed(still), [False] * 6 + [True])
    shared = values.mean(0).var(ddof=1)
    assert found.errors[0, 6] == pytest.approx(math.sqrt((found.noise**2 + shared) / 4))
    assert found.separated[:6, 6].tolist() == [1] * 6


def test_a_seed_that_a_method_lacks_does_not_blur_the_others():
    rows = [
        {0: 0.90, 1: 0.905},
        {0: 0.55, 1: 0.55, 2: 0.556},
        {0: 0.501, 1: 0.50, 2: 0.50},
        {0: 0.40, 1: 0.404, 2: 0.40},
    ]
    found = together(rows, [False] * 3 + [True])
    assert found.separated[:3, 3].tolist() == [1, 1, 1]
    assert found.ps[1, 3] < 1e-3


def test_seeds_that_no_row_ties_together_are_compared_by_themselves():
    draw = np.random.default_rng(0)
    rows = [dict(enumerate(draw.normal(size=3).tolist())) for _ in range(3)]
    rows += [{s + 3: v for s, v in row.items()} for row in rows]
    rows.append(dict(enumerate(draw.normal(9, 1, 6).tolist())))  # a baseline with all seeds
    found = together(rows, [False] * 6 + [True])
    assert np.isfinite(found.ps).all()
    assert math.isnan(found.means[0, 3])
    assert np.isfinite(found.means[:6, 6]).all()


def test_baselines_among_themselves_are_paired_t_tests():
    values = drawn(5, 4)
    found = together(by_seed(values), [False] * 3 + [True] * 2)
    assert found.ps[3, 4] == pytest.approx(stats.ttest_rel(values[3], values[4]).pvalue)


def test_a_method_alone_is_compared_by_t_tests_of_its_own():
    values = drawn(3, 4)
    found = together(by_seed(values), [False, True, True])
    ps = [stats.ttest_rel(values[i], values[j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
    expected = [min(1, 3 * p) for p in ps]
    assert [found.ps[0, 1], found.ps[0, 2], found.ps[1, 2]] == pytest.approx(expected)
    assert found.noise is None


@pytest.mark.parametrize("held", [0, 2])
def test_an_interval_leaves_out_zero_where_p_says_so(held):
    for seed in range(30):
        values = drawn(6, 3, seed=seed) + np.arange(6)[:, None]
        rows = by_seed(values)
        found = together(rows, [at < held for at in range(6)])
        for i in range(6):
            for j in range(6):
                if i != j:
                    pair = found.paired(rows, i, j)
                    low, high = pair.interval
                    assert (pair.p < 0.05) == (not low <= 0 <= high) == bool(found.separated[i, j])


# ---- seeds that would do ---------------------------------------------------------------------------


def test_the_least_difference_is_that_which_separates():
    values = drawn(5, 3)
    found = together(by_seed(values))
    least = found.least(3)
    q = stats.studentized_range.ppf(0.95, 5, 8)
    assert least == pytest.approx(found.noise * q / math.sqrt(3), rel=1e-3)
    assert found.least(1) is None


def test_the_seeds_that_are_needed_are_enough_and_one_less_is_not():
    found = together(by_seed(drawn(5, 3)))
    for one, other in ((0, 1), (1, 4), (2, 3)):
        apart, own = abs(found.means[one, other]), found.errors[one, other] * math.sqrt(3 / 2)
        needed = found.needed(one, other, 3)
        least = [least_of(own, 5, n, 0.95) for n in (needed - 1, needed)]
        assert least[1] < apart <= least[0]
    same = together(by_seed(np.vstack([drawn(4, 3), np.full((2, 3), 0.5)])))
    assert same.needed(4, 5, 3) is None


# ---- how often it errs, and how much it finds ---------------------------------------------------------


def _ranking():
    path = Path(__file__).parents[1] / "benchmarks" / "ranking.py"
    spec = importlib.util.spec_from_file_location("ranking", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["ranking"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("case", "most"),
    [
        ({"rows": 18, "seeds": 3}, 0.06),
        ({"rows": 18, "seeds": 3, "spread": 0.7}, 0.10),
        ({"rows": 18, "seeds": 3, "heavy": 4}, 0.06),
        ({"rows": 4, "seeds": 3, "spread": 1.4}, 0.10),
    ],
)
def test_false_separations_are_as_rare_as_said_and_true_ones_five_times_as_many(case, most):
    ranking = _ranking()
    case, boards = ranking.Case(**case), 500
    found = ranking.tried(ranking.all_rows, case, boards)
    assert found.false <= most + 2 * math.sqrt(most * (1 - most) / boards)
    assert found.wrong <= 0.05
    if case.rows == 18:
        assert found.power > 5 * ranking.tried(ranking.each_pair, case, boards).power


def test_many_distances_are_read_between_some():
    far = np.linspace(0.0, 8.0, 200)
    alone = np.array([dunnett_p(far[[at]], 30, 0.6, 4.5)[0] for at in range(200)])
    assert dunnett_p(far, 30, 0.6, 4.5) == pytest.approx(alone, rel=0.03, abs=1e-4)
    assert dunnett_p(np.full(200, 1e9), 30, 0.6, 4.5).tolist() == [0.0] * 200


@pytest.mark.parametrize("scale", [1e-170, 1e-30, 1e30, 1e160])
def test_numbers_of_any_size_are_compared(scale):
    values = drawn(6, 3)
    held = [False] * 5 + [True]
    found, small = together(by_seed(scale * values), held), together(by_seed(values), held)
    assert found.ps == pytest.approx(small.ps, rel=1e-6)
    assert found.reach / scale == pytest.approx(small.reach, rel=1e-6, nan_ok=True)
    assert found.noise / scale == pytest.approx(small.noise)


def test_p_and_interval_agree_where_p_is_read_between_points():
    values = drawn(70, 8, seed=3) + np.linspace(0, 4, 70)[:, None]
    rows = by_seed(values)
    found = together(rows, [False] * 69 + [True])
    for at in range(69):
        pair = found.paired(rows, at, 69)
        assert (pair.p < 0.05) == (not pair.interval[0] <= 0 <= pair.interval[1])
