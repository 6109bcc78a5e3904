"""Means, t intervals, paired comparisons by seed, ranks with ties: plain floats in and out.

Few seeds: the t interval covers 95 % of the time even at three, where 1.96 standard errors cover
82 % and the percentile bootstrap 75 %. Comparisons are corrected for their number by Holm's step-down
(Scand. J. Statist. 6, 1979). Bootstrap only over data sets, and only where there are enough.
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
DATASETS = 6  # fewest over which a bootstrap is made: of five, too few resamples differ
RESAMPLES = 10_000
REMOTE = 1e4  # critical t beyond which no difference is found for practical purposes


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
    return steady(math.hypot(*(v - centre for v in values)) / math.sqrt(len(values) - 1))


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
    return steady(float(stdtrit(n - 1, (1 + level) / 2)))


def steady(value: float) -> float:
    """Twelve digits: builds of libm, BLAS and scipy differ in the last bits of special functions.

    So the same records give the same page, byte for byte, on another machine.
    """
    return float(f"{value:.12g}")


@dataclass(frozen=True)
class Paired:
    """a - b, seed by seed; the seeds only one of them has do not count."""

    differences: Mapping[int, float]
    mean: float | None  # None: no common seed
    interval: Interval | None  # None: fewer than two; of this difference alone, not corrected
    all_positive: bool
    p: float | None = None  # two-sided paired t test; None: fewer than two
    holm: float | None = None  # p corrected for the comparisons made beside this one

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
    """Each p as corrected for all of them; None, where nothing was tested, stays so."""
    found = _holm(np.array([math.nan if p is None else p for p in ps], dtype=float)).tolist()
    return [None if math.isnan(p) else p for p in found]


def _holm(ps: Floats) -> Floats:
    """The same with NaN for None."""
    order = np.argsort(ps)  # NaN last
    known = int(np.isfinite(ps).sum())
    steps = np.minimum(1, (known - np.arange(known)) * ps[order[:known]])
    found = np.full_like(ps, np.nan)
    found[order[:known]] = np.maximum.accumulate(steps)
    return found


def corrected(pairs: Mapping[str, Paired]) -> dict[str, Paired]:
    """The comparisons with the p that each has among them all."""
    adjusted = holm([pair.p for pair in pairs.values()])
    return {k: replace(v, holm=p) for (k, v), p in zip(pairs.items(), adjusted, strict=True)}


def all_pairs(rows: Sequence[Mapping[int, float]]) -> tuple[Floats, Floats]:
    """[k, k] mean paired differences (row minus column) and their p by Holm over the k (k - 1) / 2.

    NaN and 1 where there are fewer than two common seeds, and on the diagonal.
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
    """Ranks from 1, as tie groups; None for a row without a value.

    A row is beaten by another when their paired difference by common seeds separates from 0, after
    Holm's correction for all pairs of rows: with fewer than two common seeds nothing does. Its rank
    is 1 + the number of rows that beat it, and no row is ranked ahead of one with a better mean.
    Equal ranks are ties.
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
    """Of rows [k] under data sets [D], values [D][k]: mean rank and its interval over data sets.

    Equal values share their mean rank. The interval is the percentile bootstrap's over the data sets,
    from DATASETS of them on, with a fixed seed.
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
    """Ranks from 1, the mean of them for equal values."""
    array = np.asarray(values, dtype=float) * (-1 if higher_is_better else 1)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def mde(sd: float, n: int, *, power: float = 0.8, level: float = LEVEL) -> float | None:
    """Smallest true mean difference that a paired t test of n seeds finds with this power.

    `sd` is that of the differences by seed. None where no difference is found: for fewer
    than two seeds, or for a level that two seeds never reach.
    """
    if n < 2:
        return None
    far = critical(n, level)
    if far > REMOTE:
        return None
    # The chance of rejecting on the wrong side, below 1e-3 of the power, is left out.
    shift = float(nctdtrinc(n - 1, 1 - power, far))
    return shift * sd / math.sqrt(n)
