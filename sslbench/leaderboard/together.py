"""Compares all rows of a column at once, as a blocked design of rows by seeds.

A seed fixes where networks start and in which order they see the data, so it moves all rows alike.
What is left of a value after the mean of its row and that of its seed is noise. The rows of all
methods together estimate its variance; a pair alone has only as many differences as seeds.

- Methods: a difference is held against the range that means of so many rows have by chance (Tukey's
  studentised range).
- Methods whose spreads differ (Bartlett's test): each has a variance of its own, drawn towards that
  of the others (Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004), and Bonferroni corrects.
- In both cases a pair whose own differences spread more is held against its own spread.
- A baseline is no method, and may be noisier, or moved by no seed: it has a variance of its own,
  that of its distance from what a seed adds to all methods. Methods are held against it by Dunnett's test
  (J. Am. Stat. Assoc. 50, 1955).
- What is left, baselines against each other or a method alone, has paired t tests under Bonferroni.

So there are as many questions in a column as baselines and one more, each corrected for all its
pairs. A row with one seed says nothing of its noise and takes no part. `benchmarks/ranking.py`
counts by simulation how often this errs, and how much it finds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, polygamma, psi, stdtr

from .chance import dunnett_p, farthest, farthest_t, fewest, least, passed, range_p
from .statistics import LEVEL, Floats, Interval, mean, steady

UNEVEN = 0.05  # p of Bartlett's test below which each method has a variance of its own
DIGITS = 9  # of a p that are kept


@dataclass(frozen=True)
class Paired:
    """One row minus another, over the seeds that both have."""

    differences: Mapping[int, float]  # by seed
    mean: float | None  # None: no common seed
    interval: Interval | None = None  # leaves out 0 where they separate; None: fewer than two seeds
    p: float | None = None  # corrected for all pairs of its question; None likewise


@dataclass(frozen=True)
class Together:
    """What k rows say of each other; entry [i, j] is of row i minus row j."""

    means: Floats  # [k, k], over the seeds that both have; NaN: not compared
    errors: Floats  # [k, k], standard errors of these; NaN: not compared
    ps: Floats  # [k, k], corrected for all pairs of their question; 1: not compared
    reach: Floats  # [k, k], the least difference that separates the pair; NaN: not compared
    methods: int  # number of methods that take part
    noise: float | None  # standard deviation of what is left of a value; None: no two have any
    freedom: float  # its degrees of freedom
    uneven: bool  # whether each method has a variance of its own
    level: float = LEVEL

    @property
    def separated(self) -> NDArray[np.int_]:
        """Signs of the differences of rows that separate, else 0; [k, k]."""
        with np.errstate(invalid="ignore"):
            apart = np.abs(self.means) > self.reach
        return np.where(apart, np.sign(np.nan_to_num(self.means)), 0).astype(int)

    def least(self, seeds: int) -> float | None:
        """A difference below which no two methods of so many seeds separate; None: unknown."""
        if self.noise is None or self.uneven or seeds < 2 or self.methods < 2:
            return None
        far = farthest(self.methods, self.freedom, self.level)
        return steady(far * self.noise / math.sqrt(seeds))

    def needed(self, one: int, other: int, seeds: int) -> int | None:
        """Fewest seeds with which two methods that have so many would separate, at their difference.

        None where nobody can tell, or it takes more than MOST.
        """
        if self.noise is None or self.uneven or not self.means[one, other]:
            return None
        noise = float(self.errors[one, other]) * math.sqrt(seeds / 2)
        apart = abs(float(self.means[one, other]))
        return fewest(lambda n: least(noise, self.methods, n, self.level) < apart)

    def paired(self, rows: Sequence[Mapping[int, float]], one: int, other: int) -> Paired:
        """Row `one` minus row `other` of the rows that were compared."""
        a, b = rows[one], rows[other]
        differences = {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}
        if not differences:
            return Paired({}, None)
        centre = mean(list(differences.values()))
        reach = float(self.reach[one, other])
        if math.isnan(reach):
            return Paired(differences, centre)
        interval = steady(centre - reach), steady(centre + reach)
        # p is 1 less a sum: its last digits are those of the machine
        return Paired(differences, centre, interval, round(float(self.ps[one, other]), DIGITS))


def together(
    rows: Sequence[Mapping[int, float]],
    baselines: Sequence[bool] | None = None,
    level: float = LEVEL,
) -> Together:
    """Compares rows of finite values by seed; a row is a method unless `baselines` says otherwise."""
    seeds = sorted({seed for row in rows for seed in row})
    values = np.array([[row.get(seed, math.nan) for seed in seeds] for row in rows], dtype=float)
    values = values.reshape(len(rows), len(seeds))  # [k, S]
    values[np.isfinite(values).sum(1) < 2] = math.nan
    scale = _scale(values)
    values = values / scale
    differences = values[:, None] - values[None]  # [k, k, S]
    n = np.isfinite(differences).sum(-1)
    np.fill_diagonal(n, 0)
    compared = n >= 2
    n = np.where(compared, n, 2)
    means = np.where(compared, np.nansum(differences, -1) / n, math.nan)
    own = np.nansum((differences - means[..., None]) ** 2, -1) / (n - 1)  # variance of one
    pairs = _Pairs(means, own, n, level)
    apart = np.array([False] * len(rows) if baselines is None else baselines, dtype=bool)
    methods = ~apart & np.isfinite(values).any(1)

    pairs.alone(np.ones_like(compared))
    noise = _noise(values[methods])
    uneven = False
    if noise is not None and noise.variance > 0:
        pairs.alone(apart[:, None] & apart[None])
        uneven = _bartlett(noise) < UNEVEN
        rest = _moderated(noise) if uneven else _Rest.of(noise)
        pairs.among(methods, rest, uneven)
        for at in np.flatnonzero(apart & np.isfinite(values).any(1)):
            pairs.against(int(at), methods, rest, values[at] - noise.seeds)
    return Together(
        scale * means,
        np.where(compared, scale * pairs.errors, math.nan),
        np.where(compared, pairs.told(), 1.0),
        np.where(compared, scale * pairs.reach, math.nan),
        int(methods.sum()),
        steady(scale * math.sqrt(noise.variance)) if noise and noise.variance > 0 else None,
        noise.freedom if noise else 0.0,
        uneven,
        level,
    )


# ---- noise -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Noise:
    """What is left of values after their rows and seeds."""

    variance: float
    freedom: float
    rows: Floats  # [m], variance of each row by itself
    freedoms: Floats  # [m], theirs; they add up to `freedom`
    seeds: Floats  # [S], what each adds to all rows; NaN: seeds that no two rows tie to the others


@dataclass(frozen=True)
class _Rest:
    """The variance by which each method is judged, and its degrees of freedom."""

    rows: Floats  # [m]
    freedom: float

    @classmethod
    def of(cls, noise: _Noise) -> _Rest:
        return cls(np.full_like(noise.rows, noise.variance), noise.freedom)


def _scale(values: Floats) -> float:
    """How far values are apart at most, so that squares of scaled ones neither over- nor underflow."""
    known = values[np.isfinite(values)]
    apart = float(np.abs(known - known[0]).max()) if len(known) else 0.0
    return apart if apart > 0 and math.isfinite(apart) else 1.0


def _noise(values: Floats) -> _Noise | None:
    """The noise of rows [m, S], NaN for what is missing; None where nothing is left to chance."""
    there = np.isfinite(values)
    shown = there.any(0)
    if len(values) < 2:
        return None
    y = values - values[there].mean()
    added = np.full(values.shape[1], math.nan)
    if there[:, shown].all():
        y = y[:, shown]
        m, freedom = len(y), (len(y) - 1) * (y.shape[1] - 1)
        added[shown] = y.mean(0)
        rest = y - y.mean(1, keepdims=True) - y.mean(0)
        squares: Floats = (rest**2).sum(1)
        freedoms = np.full(m, freedom / m)
    else:
        row, seed = np.nonzero(there)
        own, theirs = np.eye(len(y))[row], np.eye(y.shape[1])[seed]  # [N, m], [N, S]
        effects = np.hstack([own, theirs])
        left, sizes, right = np.linalg.svd(effects, full_matrices=False)
        kept = sizes > 1e-9 * sizes[0]
        left, sizes, right = left[:, kept], sizes[kept], right[kept]
        freedom = len(row) - len(sizes)
        fitted = left.T @ y[there]
        rest = y[there] - left @ fitted  # [N]
        squares = rest**2 @ own
        freedoms = (1 - (left**2).sum(1)) @ own
        if len(sizes) == len(y) + int(shown.sum()) - 1:  # all seeds are tied by some rows
            added[shown] = (right.T @ (fitted / sizes))[len(y) :][shown]
    if not freedom:
        return None
    squares[squares < 1e-24 * (y[np.isfinite(y)] ** 2).sum()] = 0  # rounding
    free = np.maximum(freedoms, 1e-9)
    return _Noise(float(squares.sum() / freedom), float(freedom), squares / free, freedoms, added)


def _bartlett(noise: _Noise) -> float:
    """p of Bartlett's test (Proc. R. Soc. A 160, 1937) that all rows have one variance."""
    known = noise.freedoms > 1e-6
    if known.sum() < 3:  # what is left of two rows is the same but for its sign
        return 1.0
    each, total = noise.freedoms[known], noise.freedom
    logs = np.log(np.maximum(noise.rows[known], 1e-12 * noise.variance))
    found = total * math.log(noise.variance) - float(each @ logs)
    scale = 1 + (float((1 / each).sum()) - 1 / total) / (3 * (len(each) - 1))
    return float(chdtrc(len(each) - 1, max(found / scale, 0.0)))


def _moderated(noise: _Noise) -> _Rest:
    """Each row's variance, drawn towards the others' as far as they resemble each other."""
    known = (noise.rows > 0) & (noise.freedoms > 1e-6)
    half = noise.freedoms[known] / 2
    logs = np.log(noise.rows[known]) - psi(half) + np.log(half)
    spread = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if spread <= 0:
        return _Rest.of(noise)
    prior = 2 * _inverse_trigamma(spread)
    centre = math.exp(logs.mean() + float(psi(prior / 2)) - math.log(prior / 2))
    rows = (prior * centre + noise.freedoms * noise.rows) / (prior + noise.freedoms)
    return _Rest(rows, min(prior + float(noise.freedoms.mean()), noise.freedom))


def _inverse_trigamma(value: float) -> float:
    """The x whose trigamma is `value`, by Newton's steps on its inverse, which is nearly straight."""
    x = 0.5 + 1 / value
    for _ in range(20):
        now = float(polygamma(1, x))
        x += now * (1 - now / value) / float(polygamma(2, x))
    return x


# ---- pairs -----------------------------------------------------------------------------------


class _Pairs:
    """What separates each pair, filled in question by question."""

    def __init__(self, means: Floats, own: Floats, n: Floats, level: float) -> None:
        self.means, self.own, self.n, self.level = means, own, n, level
        self.errors, self.reach, self.ps = (np.full_like(means, math.nan) for _ in range(3))

    def alone(self, which: NDArray[np.bool_]) -> None:
        """Paired t tests of these pairs."""
        self._by_t(which, np.sqrt(self.own / self.n), self.n - 1)

    def among(self, methods: NDArray[np.bool_], rest: _Rest, uneven: bool) -> None:
        """Methods against each other."""
        which = methods[:, None] & methods[None]
        variances = np.zeros(len(methods))
        variances[methods] = rest.rows
        both = variances[:, None] + variances[None]
        errors = np.sqrt(np.maximum(both, self.own) / self.n)
        if uneven:
            self._by_t(which, errors, rest.freedom)
            return
        rows = int(methods.sum())
        ps = range_p(math.sqrt(2) * _far(self.means, errors), rows, rest.freedom)
        self._put(which, errors, farthest(rows, rest.freedom, self.level) / math.sqrt(2), ps)

    def against(self, at: int, methods: NDArray[np.bool_], rest: _Rest, away: Floats) -> None:
        """Methods against the baseline in row `at`; `away` [S] is its distance from their mean."""
        away = away[np.isfinite(away)]
        if len(away) < 2:
            return
        means, count = self.means[at, methods], int(methods.sum())  # [m], m
        its = float(away.var(ddof=1))
        both = rest.rows + its
        errors = np.sqrt(both / self.n[at, methods])
        # Satterthwaite: degrees of freedom of a sum of two variances
        freedom = both**2 / (rest.rows**2 / rest.freedom + its**2 / (len(away) - 1))
        reach, ps = np.empty_like(errors), np.empty_like(errors)
        kinds = np.stack([its / both, freedom], 1)  # where spreads do not differ, all of one kind
        for kind in np.unique(kinds, axis=0):
            own = (kinds == kind).all(1)
            shared, free = map(float, kind)
            ps[own] = dunnett_p(_far(means[own], errors[own]), count, shared, free)
            far = passed(lambda x: dunnett_p(x, count, shared, free), self.level)  # noqa: B023
            reach[own] = far * errors[own]
        for each, found in ((self.errors, errors), (self.reach, reach), (self.ps, ps)):
            each[at, methods] = each[methods, at] = found

    def told(self) -> Floats:
        """p, on the side of 1 - level where the difference is of its reach; both are rounded."""
        with np.errstate(invalid="ignore"):
            apart = np.abs(self.means) > self.reach
        error = 1 - self.level
        return np.where(apart, np.minimum(self.ps, error - 1e-9), np.maximum(self.ps, error))

    def _by_t(self, which: NDArray[np.bool_], errors: Floats, freedom: Floats | float) -> None:
        """t tests of these pairs, corrected for those that can be compared."""
        count = max(1, int(np.triu(which & np.isfinite(self.means), 1).sum()))
        ps = np.minimum(1, count * _t(self.means, errors, freedom))
        self._put(which, errors, farthest_t(freedom, count, self.level), ps)

    def _put(
        self, which: NDArray[np.bool_], errors: Floats, far: Floats | float, ps: Floats
    ) -> None:
        self.errors = np.where(which, errors, self.errors)
        self.reach = np.where(which, far * errors, self.reach)
        self.ps = np.where(which, ps, self.ps)


def _far(means: Floats, errors: Floats) -> Floats:
    """Differences in their standard errors; a difference without error is infinitely far."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.nan_to_num(means) == 0, 0.0, np.abs(means) / errors)


def _t(means: Floats, errors: Floats, freedom: Floats | float) -> Floats:
    """Two-sided p of Student's t."""
    found: Floats = 2 * stdtr(np.maximum(freedom, 1e-3), -_far(means, errors))
    return found
