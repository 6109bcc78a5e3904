"""Means, t intervals, comparisons paired by seed, and ranks with ties, on plain floats.

Seeds are few: at three, the t interval still covers 95 % of the time, where 1.96 standard errors
cover 82 % and the percentile bootstrap 75 %. Comparisons are corrected for their number by Holm's
step-down (Scand. J. Statist. 6, 1979). The bootstrap is used over data sets only, and only where
there are enough of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtrinc, stdtr, stdtrit  # scipy.stats takes a second to import

Interval = tuple[float, float]
Floats = NDArray[np.float64]
LEVEL = 0.95
DATASETS = 6  # fewest for a bootstrap: five give too few different resamples
RESAMPLES = 10_000
REMOTE = 1e4  # critical t beyond which no difference is found for practical purposes


def mean(values: Sequence[float]) -> float:
    """Mean of the values, the same to the last bit whatever their order."""
    if not values:
        raise ValueError("the mean of no values was asked for; give at least one")
    return math.fsum(values) / len(values)


def sd(values: Sequence[float]) -> float:
    """Sample standard deviation (divided by n - 1)."""
    if len(values) < 2:
        raise ValueError(f"a standard deviation needs two values, got {len(values)}")
    centre = mean(values)
    return steady(math.hypot(*(v - centre for v in values)) / math.sqrt(len(values) - 1))


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Two-sided t interval for the mean; None for a single value, which has no spread."""
    centre = mean(values)
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return values[0], values[0]
    half = critical(len(values), level) * sd(values) / math.sqrt(len(values))
    return centre - half, centre + half


@functools.lru_cache(maxsize=256)
def critical(n: int, level: float = LEVEL) -> float:
    """Critical t: beyond it a two-sided test of n values rejects."""
    return steady(float(stdtrit(n - 1, (1 + level) / 2)))


def steady(value: float) -> float:
    """Rounds to twelve digits, so that another machine makes the same page, byte for byte.

    Builds of libm, BLAS and scipy differ in the last bits of special functions.
    """
    return float(f"{value:.12g}")


@dataclass(frozen=True)
class Paired:
    """The differences a - b, seed by seed, over the seeds that both have."""

    differences: Mapping[int, float]
    mean: float | None  # None: no common seed
    interval: Interval | None  # None: fewer than two seeds; not corrected for other comparisons
    all_positive: bool
    p: float | None = None  # two-sided paired t test; None: fewer than two seeds
    holm: float | None = None  # p after Holm, for all comparisons made together

    @property
    def separated(self) -> int:
        """Sign of the difference if its interval leaves out 0, else 0."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return 0
        return 1 if self.interval[0] > 0 else -1


def paired(a: Mapping[int, float], b: Mapping[int, float], *, level: float = LEVEL) -> Paired:
    """Compares two sets of values by seed, over the seeds that both have."""
    differences = {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}
    found = list(differences.values())
    if not found:
        return Paired({}, None, None, False)
    return Paired(differences, mean(found), t_interval(found, level), min(found) > 0, _p_of(found))


def _p_of(differences: Sequence[float]) -> float | None:
    n = len(differences)
    if n < 2:
        return None
    centre, spread = mean(differences), sd(differences)
    if min(differences) == max(differences) or not spread:
        return 0.0 if centre else 1.0
    return steady(float(2 * stdtr(n - 1, -abs(centre) / spread * math.sqrt(n))))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction of each p for all of them; None (not tested) stays None."""
    found = _holm(np.array([math.nan if p is None else p for p in ps], dtype=float)).tolist()
    return [None if math.isnan(p) else p for p in found]


def _holm(ps: Floats) -> Floats:
    """Does the work of `holm`, with NaN for None."""
    order = np.argsort(ps)  # NaN last
    known = int(np.isfinite(ps).sum())
    steps = np.minimum(1, (known - np.arange(known)) * ps[order[:known]])
    found = np.full_like(ps, np.nan)
    found[order[:known]] = np.maximum.accumulate(steps)
    return found


def corrected(pairs: Mapping[str, Paired]) -> dict[str, Paired]:
    """The comparisons with Holm's p filled in, over all of them."""
    adjusted = holm([pair.p for pair in pairs.values()])
    return {k: replace(v, holm=p) for (k, v), p in zip(pairs.items(), adjusted, strict=True)}


def all_pairs(rows: Sequence[Mapping[int, float]]) -> tuple[Floats, Floats]:
    """Compares each pair of k rows: mean paired differences (row minus column) and p by Holm, [k, k].

    Holm's correction is over all k (k - 1) / 2 pairs. With fewer than two common seeds, and on the
    diagonal, the mean is NaN and p is 1.
    """
    seeds = sorted({seed for row in rows for seed in row})
    values = np.array([[row.get(seed, np.nan) for seed in seeds] for row in rows])
    values = values.reshape(len(rows), len(seeds))  # [k, S]
    differences = values[:, None] - values[None]  # [k, k, S]
    there = np.isfinite(differences)
    n = there.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(n >= 2, np.where(there, differences, 0).sum(-1) / n, np.nan)
        away = np.where(there, differences - means[..., None], 0)
        spread = np.sqrt((away**2).sum(-1) / (n - 1))
        ps = 2 * stdtr(n - 1, -np.abs(means) / spread * np.sqrt(n))
    lowest = np.where(there, differences, np.inf).min(-1, initial=np.inf)
    highest = np.where(there, differences, -np.inf).max(-1, initial=-np.inf)
    ps = np.where((n >= 2) & (lowest == highest), np.where(means == 0, 1.0, 0.0), ps)
    upper = np.triu_indices(len(rows), 1)
    adjusted = np.ones_like(ps)
    adjusted[upper] = np.nan_to_num(_holm(ps[upper]), nan=1.0)
    np.fill_diagonal(means, np.nan)
    return means, np.minimum(adjusted, adjusted.T)


def ranks(
    rows: Sequence[Mapping[int, float]], *, higher_is_better: bool = True, level: float = LEVEL
) -> list[int | None]:
    """Ranks rows from 1; equal ranks are ties, and a row without a value gets None.

    A row beats another when their difference, paired by common seeds, separates from 0 after Holm's
    correction for all pairs of rows. With fewer than two common seeds, neither beats the other. The
    rank of a row is 1 + the number of rows that beat it; no row is ranked ahead of one with a better
    mean.
    """
    sign = 1 if higher_is_better else -1
    known = [i for i, row in enumerate(rows) if row]
    means, ps = all_pairs([rows[i] for i in known])
    with np.errstate(invalid="ignore"):
        beaten = ((sign * means < 0) & (ps < 1 - level)).sum(1)
    own = [sign * mean(list(rows[i].values())) for i in known]
    found: list[int | None] = [None] * len(rows)
    worst = before = 0
    centre = None
    for at in sorted(range(len(known)), key=lambda at: -own[at]):
        if own[at] != centre:  # of equal means, none is better
            before, centre = worst, own[at]
        rank = max(1 + int(beaten[at]), before)
        worst = max(worst, rank)
        found[known[at]] = rank
    return found


def average_ranks(
    values: Sequence[Sequence[float]], *, higher_is_better: bool = True, level: float = LEVEL
) -> list[tuple[float, Interval | None]]:
    """Mean rank of each row over data sets, with its interval; `values` is [D][k].

    Equal values share their mean rank. The interval is a percentile bootstrap over data sets, with a
    fixed seed, and None for fewer than DATASETS of them.
    """
    if not values:
        return []
    placed = np.array([_placed(row, higher_is_better) for row in values])  # [D, k]
    centre = placed.mean(0).tolist()
    if len(values) < DATASETS:
        return [(rank, None) for rank in centre]
    draws = np.random.Generator(np.random.PCG64(0)).multinomial(
        len(values), np.full(len(values), 1 / len(values)), RESAMPLES
    )  # [R, D]
    means = draws @ placed / len(values)  # [R, k]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).tolist()
    return [(rank, (steady(a), steady(b))) for rank, a, b in zip(centre, low, high, strict=True)]


def _placed(values: Sequence[float], higher_is_better: bool) -> Floats:
    """Ranks from 1; equal values share their mean rank."""
    array = np.asarray(values, dtype=float) * (-1 if higher_is_better else 1)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def mde(sd: float, n: int, *, power: float = 0.8, level: float = LEVEL) -> float | None:
    """Smallest true mean difference that a paired t test of n seeds finds with this power.

    `sd` is that of the differences by seed. None where no difference can be found: with fewer than
    two seeds, or at a level so strict that so few seeds never reach it.
    """
    if n < 2:
        return None
    far = critical(n, level)
    if far > REMOTE:
        return None
    # The chance of rejecting on the wrong side, below 1e-3 of the power, is left out.
    shift = float(nctdtrinc(n - 1, 1 - power, far))
    return shift * sd / math.sqrt(n)
