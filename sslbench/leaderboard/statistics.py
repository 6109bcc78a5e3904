"""Means, t intervals, paired comparisons by seed, ranks with ties: plain floats in and out.

Few seeds: the t interval covers 95 % of the time even at three, where 1.96 standard errors cover
82 % and the percentile bootstrap 75 %. Nothing here corrects for the number of comparisons.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import nctdtrinc, stdtrit  # scipy.stats takes a second to import

Interval = tuple[float, float]
LEVEL = 0.95


def mean(values: Sequence[float]) -> float:
    """The same to the last bit in whatever order the seeds come."""
    if not values:
        raise ValueError("the mean of no values was asked for; give at least one")
    return math.fsum(values) / len(values)


def sd(values: Sequence[float]) -> float:
    """Standard deviation of the population the sample is from (n - 1 below the line)."""
    if len(values) < 2:
        raise ValueError(f"a standard deviation needs two values, got {len(values)}")
    centre = mean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Two-sided interval for the mean; None for one value, which says nothing of its spread."""
    centre = mean(values)
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return values[0], values[0]
    half = critical(len(values), level) * sd(values) / math.sqrt(len(values))
    return centre - half, centre + half


@functools.lru_cache(maxsize=256)
def critical(n: int, level: float = LEVEL) -> float:
    """The t at which a two-sided test of n values begins to reject."""
    return float(stdtrit(n - 1, (1 + level) / 2))


@dataclass(frozen=True)
class Paired:
    """a - b, seed by seed; the seeds only one of them has do not count."""

    differences: Mapping[int, float]
    mean: float | None  # None: no common seed
    interval: Interval | None  # None: fewer than two
    all_positive: bool

    @property
    def separated(self) -> int:
        """1 or -1 when the interval leaves out 0 on that side, else 0."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return 0
        return 1 if self.interval[0] > 0 else -1


def paired(a: Mapping[int, float], b: Mapping[int, float], *, level: float = LEVEL) -> Paired:
    """Compares what the same seeds gave."""
    differences = {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}
    found = list(differences.values())
    if not found:
        return Paired({}, None, None, False)
    return Paired(differences, mean(found), t_interval(found, level), min(found) > 0)


def ranks(
    rows: Sequence[Mapping[int, float]], *, higher_is_better: bool = True, level: float = LEVEL
) -> list[int | None]:
    """Ranks from 1; None for a row without a value.

    A row is beaten by another when their paired difference by common seeds separates from 0:
    with fewer than two common seeds nothing does. Its rank is 1 + the number of rows that beat
    it, and no row is ranked ahead of one with a better mean. Equal ranks are ties.
    """
    sign = 1 if higher_is_better else -1
    means = {i: sign * mean(list(row.values())) for i, row in enumerate(rows) if row}
    own = {
        i: 1 + sum(paired(rows[j], rows[i], level=level).separated == sign for j in means)
        for i in means
    }
    return [
        max(own[j] for j in means if j == i or means[j] > means[i]) if row else None
        for i, row in enumerate(rows)
    ]


def mde(sd: float, n: int, *, power: float = 0.8, level: float = LEVEL) -> float | None:
    """Smallest true mean difference that a paired t test of n seeds finds with this power.

    `sd` is that of the differences by seed. None for fewer than two seeds: no difference is found.
    """
    if n < 2:
        return None
    # The chance of rejecting on the wrong side, below 1e-3 of the power, is left out.
    shift = float(nctdtrinc(n - 1, 1 - power, critical(n, level)))
    return shift * sd / math.sqrt(n)
