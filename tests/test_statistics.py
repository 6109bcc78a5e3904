"""Means, intervals, comparisons and ranks against scipy.stats, simulation and cases by hand."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from sslbench.leaderboard import statistics as st


def by_seed(*values):
    return dict(enumerate(values))


def test_mean_and_sd_are_numpys_with_n_minus_one():
    values = [0.91, 0.87, 0.9, 0.95]
    assert st.mean(values) == pytest.approx(np.mean(values), rel=1e-15)
    assert st.sd(values) == pytest.approx(np.std(values, ddof=1), rel=1e-14)


def test_the_order_of_seeds_changes_no_bit():
    draw = random.Random(0)
    values = [draw.random() for _ in range(50)]
    for _ in range(20):
        other = draw.sample(values, len(values))
        assert (st.mean(other), st.sd(other)) == (st.mean(values), st.sd(values))
        assert st.t_interval(other) == st.t_interval(values)


def test_no_values_have_no_mean_and_one_no_deviation():
    with pytest.raises(ValueError, match="mean of no values"):
        st.mean([])
    with pytest.raises(ValueError, match="needs two values, got 1"):
        st.sd([0.5])


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_students(n, level):
    values = np.random.default_rng(n).normal(0.8, 0.02, n)
    low, high = st.t_interval(values.tolist(), level)
    expected = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected, rel=1e-9)


def test_one_value_has_no_interval_and_equal_ones_an_empty_one():
    assert st.t_interval([0.7]) is None
    assert st.t_interval([0.1, 0.1, 0.1]) == (0.1, 0.1)


def test_at_three_seeds_the_interval_covers_what_it_says():
    draws = np.random.default_rng(0).normal(0.8, 0.01, (8000, 3))
    hits = sum(low <= 0.8 <= high for low, high in map(st.t_interval, draws.tolist()))
    assert hits / len(draws) == pytest.approx(0.95, abs=0.008)  # standard error .0024


def test_a_pair_is_compared_by_the_seeds_it_shares():
    found = st.paired({0: 0.9, 1: 0.8, 2: 0.7}, {2: 0.6, 1: 0.5, 7: 0.1})
    assert list(found.differences) == [1, 2]
    assert found.mean == pytest.approx(0.2)
    assert found.interval == pytest.approx(st.t_interval([0.3, 0.1]))
    assert found.all_positive
    assert found.separated == 0  # two seeds, far apart


def test_pairing_agrees_with_the_paired_t_test():
    draw = np.random.default_rng(1)
    verdicts = set()
    for _ in range(200):
        a, b = draw.normal(0.8, 0.01, 4), draw.normal(0.79, 0.01, 4)
        found = st.paired(by_seed(*a.tolist()), by_seed(*b.tolist()))
        assert (found.separated != 0) == (stats.ttest_rel(a, b).pvalue < 0.05)
        verdicts.add(found.separated)
    assert {0, 1} <= verdicts


def test_a_pair_without_common_seeds_says_nothing():
    found = st.paired({0: 0.9}, {1: 0.1})
    assert (found.differences, found.mean, found.interval) == ({}, None, None)
    assert not found.all_positive
    assert found.separated == 0
    one = st.paired({0: 0.9}, {0: 0.1})
    assert (one.mean, one.interval, one.separated) == (pytest.approx(0.8), None, 0)


def test_a_zero_or_negative_difference_is_not_all_positive():
    assert not st.paired(by_seed(0.5, 0.6), by_seed(0.5, 0.5)).all_positive
    assert not st.paired(by_seed(0.4, 0.6), by_seed(0.5, 0.5)).all_positive


def test_rows_that_separate_get_their_own_rank_and_others_share_one():
    clear, near, far = (
        by_seed(0.90, 0.91, 0.92),
        by_seed(0.91, 0.90, 0.91),
        by_seed(0.7, 0.71, 0.72),
    )
    assert st.ranks([far, clear, near]) == [3, 1, 1]


def test_pairing_separates_what_overlapping_intervals_hide():
    a, b = by_seed(0.70, 0.80, 0.90), by_seed(0.69, 0.788, 0.891)
    low, high = st.t_interval(list(a.values()))
    assert low < st.mean(list(b.values())) < high
    assert st.ranks([a, b]) == [1, 2]


def test_where_lower_is_better_the_smallest_is_first():
    small, large = by_seed(0.10, 0.11, 0.12), by_seed(0.20, 0.21, 0.22)
    assert st.ranks([large, small], higher_is_better=False) == [2, 1]
    assert st.ranks([large, small]) == [1, 2]


def test_one_seed_ties_and_no_seed_has_no_rank():
    assert st.ranks([{0: 0.9}, {0: 0.1}, {}]) == [1, 1, None]
    assert st.ranks([]) == []


def test_no_row_is_ranked_ahead_of_one_with_a_better_mean():
    first, second = by_seed(0.90, 0.91, 0.92), by_seed(0.89, 0.90, 0.911)
    wild = by_seed(0.99, 0.40, 0.70)  # separates from nobody
    rows = [first, second, wild]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        found = st.ranks([rows[i] for i in order])
        assert dict(zip(order, found, strict=True)) == {0: 1, 1: 2, 2: 2}


def test_p_is_that_of_the_paired_t_test():
    draw = np.random.default_rng(2)
    for n in (2, 3, 7):
        a, b = draw.normal(0.8, 0.01, n), draw.normal(0.79, 0.01, n)
        found = st.paired(by_seed(*a.tolist()), by_seed(*b.tolist()))
        assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    assert st.paired({0: 0.9}, {0: 0.1}).p is None
    assert st.paired(by_seed(0.5, 0.5), by_seed(0.25, 0.25)).p == 0
    assert st.paired(by_seed(0.5, 0.5), by_seed(0.5, 0.5)).p == 1


def test_holm_steps_down_and_never_falls():
    # by hand: .01 * 4, .02 * 3, max(.03 * 2, .06), .9 * 1
    assert st.holm([0.03, 0.9, 0.01, 0.02]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert st.holm([0.5, None, 0.6]) == [1.0, None, 1.0]
    assert st.holm([]) == []


def test_holm_keeps_the_rate_of_any_false_finding():
    draws = np.random.default_rng(3).normal(0, 0.01, (2000, 6, 4))  # no row is better than another
    false = sum(len(set(st.ranks([by_seed(*row) for row in rows]))) > 1 for rows in draws.tolist())
    assert false / len(draws) < 0.065  # 5 % and three standard errors
    alone = sum(
        any(st.paired(by_seed(*rows[0]), by_seed(*other)).separated for other in rows[1:])
        for rows in draws[:500].tolist()
    )
    assert alone / 500 > 0.1  # what five uncorrected comparisons would have found


def test_all_pairs_are_each_pair_by_itself():
    draw = random.Random(4)
    rows = [{s: draw.random() for s in draw.sample(range(6), draw.randrange(7))} for _ in range(7)]
    means, ps = st.all_pairs(rows)
    pairs = {(i, j): st.paired(rows[i], rows[j]) for i in range(7) for j in range(i + 1, 7)}
    adjusted = st.holm([pair.p for pair in pairs.values()])
    assert any(pair.p is None for pair in pairs.values())
    for ((i, j), pair), p in zip(pairs.items(), adjusted, strict=True):
        assert ps[i, j] == ps[j, i] == pytest.approx(1.0 if p is None else p)
        if p is not None:
            assert means[i, j] == -means[j, i] == pytest.approx(pair.mean)


def test_a_rank_needs_more_than_the_interval_of_one_difference():
    rows = [by_seed(0.90, 0.91, 0.92), *(by_seed(*(0.8 + x for x in d)) for d in WILD)]
    assert st.paired(rows[0], rows[1]).separated == 1
    assert st.ranks(rows[:2]) == [1, 2]
    assert st.ranks(rows) == [1] * len(rows)


WILD = [
    (0.00, 0.02, 0.04),
    (0.03, 0.0, 0.05),
    (0.05, 0.01, 0.0),
    (0.02, 0.06, 0.01),
    (0.07, 0.0, 0.03),
]


def test_average_ranks_are_means_with_ties_shared():
    found = st.average_ranks([[0.9, 0.8, 0.8], [0.1, 0.2, 0.3]])
    assert found == [(2.0, None), (2.25, None), (1.75, None)]
    assert st.average_ranks([[0.1, 0.3]], higher_is_better=False) == [(1.0, None), (2.0, None)]
    assert st.average_ranks([]) == []


def test_the_interval_over_data_sets_begins_at_six_and_is_scipys_bootstrap():
    draws = np.random.default_rng(5).normal([0.8, 0.79, 0.6], 0.02, (8, 3))
    assert all(interval is None for _, interval in st.average_ranks(draws[:5].tolist()))
    ranks = stats.rankdata(-draws, axis=1)
    for column, (mean, interval) in zip(ranks.T, st.average_ranks(draws.tolist()), strict=True):
        assert mean == pytest.approx(column.mean())
        other = stats.bootstrap(
            (column,), np.mean, method="percentile", rng=np.random.default_rng(6)
        )
        assert interval == pytest.approx(other.confidence_interval, abs=0.13)  # steps of 1/8


def test_the_smallest_detectable_difference_shrinks_with_seeds():
    assert st.mde(1.0, 1) is None
    assert [round(st.mde(1.0, n), 1) for n in (3, 5, 10)] == [3.3, 1.7, 1.0]
    assert st.mde(0.02, 5) == pytest.approx(0.02 * st.mde(1.0, 5))
    assert st.mde(1.0, 5, power=0.9) > st.mde(1.0, 5)


@pytest.mark.parametrize("n", [3, 6])
def test_the_detectable_difference_is_detected_as_often_as_it_says(n):
    draws = np.random.default_rng(n).normal(st.mde(0.01, n), 0.01, (6000, n))
    found = stats.ttest_1samp(draws, 0, axis=1)
    assert np.mean(found.pvalue < 0.05) == pytest.approx(0.8, abs=0.02)


def test_statistics_do_without_the_slow_import():
    code = "import sys, sslbench.leaderboard.statistics; assert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
