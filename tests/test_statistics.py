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
