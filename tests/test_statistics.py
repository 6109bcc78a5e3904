"""Means, intervals, and ranks against scipy.stats, simulation and cases by hand."""

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


def test_statistics_do_without_the_slow_import():
    code = "import sys, sslbench.leaderboard.together; assert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
