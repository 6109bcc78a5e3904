"""What differences between rows chance makes: the studentised range, Dunnett's distances, and power."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy.special import gammainccinv, gammaincinv, gammaln, ndtr, stdtrit

from .statistics import Floats

LEAST = 1e-15  # p that counts as 0
MOST = 100  # seeds that are counted up to
MANY = 64  # distances from a baseline, each with a p of its own
NODES, FEWER = 120, 60  # of a quadrature, in each of its two directions


def least(noise: float, methods: int, seeds: int, level: float) -> float:
    """The least difference of so many methods that separates, where all have all of so many seeds."""
    freedom = (methods - 1) * (seeds - 1)
    return noise * farthest(methods, freedom, level) / math.sqrt(seeds)


def detected(methods: int, seeds: int, level: float, power: float) -> float:
    """True difference of two of so many methods that separates with this power, in SDs of noise."""
    freedom = (methods - 1) * (seeds - 1)
    far = farthest(methods, freedom, level) / math.sqrt(2)  # standard errors
    pooled, weights = _scales(freedom)
    if methods > 2:  # a pair whose own differences spread more is held against those
        own, theirs = _scales(seeds - 1)
        pooled, weights = np.maximum.outer(pooled, own), np.multiply.outer(weights, theirs)
    low, high = 0.0, 1e6
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        enough = float((weights * ndtr(middle - far * pooled)).sum()) > power
        low, high = (low, middle) if enough else (middle, high)
    return high * math.sqrt(2 / seeds)


def fewest(enough: Callable[[int], bool]) -> int | None:
    """Fewest seeds that are enough, if more are too; None: more than MOST."""
    if not enough(MOST):
        return None
    low, high = 1, MOST  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def range_p(far: Floats, rows: int, freedom: float) -> Floats:
    """Chance that the studentised range of so many means is at least this far."""
    known, ps = _ranges(rows, freedom)
    logs = np.interp(np.log(np.clip(far, known[0], known[-1])), np.log(known), np.log(ps))
    return np.where(far <= known[0], 1.0, np.where(logs <= math.log(LEAST), 0.0, np.exp(logs)))


@functools.lru_cache(maxsize=1024)
def farthest(rows: int, freedom: float, level: float) -> float:
    """The studentised range of so many means that chance passes in 1 - `level` of cases."""
    return passed(lambda far: _range_p(far, rows, freedom), level)


@functools.lru_cache(maxsize=64)
def _ranges(rows: int, freedom: float) -> tuple[Floats, Floats]:
    """Ranges, and the chance of at least these, to be read between them: there may be many pairs."""
    far = np.concatenate(
        [np.geomspace(1e-2, 0.5, 20), np.geomspace(0.51, 60, 400), np.geomspace(61, 1e7, 120)]
    )
    return far, np.minimum.accumulate(np.clip(_range_p(far, rows, freedom), LEAST, 1.0))


def _range_p(far: Floats, rows: int, freedom: float) -> Floats:
    """Does the work of `range_p`, each by itself.

    It is the range of `rows` standard normal values over the root of an independent chi-square by
    its degrees of freedom. scipy.stats has it, but takes a second to import and 10 ms for each.
    """
    z, normal = _normal()
    scale, chi = _scales(freedom)
    found = np.empty_like(far)
    for at, each in enumerate(far):
        within = ndtr(z) - ndtr(z - each * scale[:, None])  # [scales, greatest of the values]
        found[at] = chi @ (1 - rows * within ** (rows - 1) @ normal)
    return found


def dunnett_p(far: Floats, rows: int, shared: float, freedom: float) -> Floats:
    """Chance that any of so many differences from one baseline is at least this far, two-sided.

    shared: the baseline's part of a difference's variance.
    """
    if len(far) > MANY:  # read between some
        known = np.geomspace(0.05, 1e3, MANY)
        logs = np.log(np.maximum(dunnett_p(known, rows, shared, freedom), LEAST))
        between = np.interp(np.log(np.clip(far, known[0], known[-1])), np.log(known), logs)
        return np.where(far < known[0], 1.0, np.where(far > known[-1], 0.0, np.exp(between)))
    z, normal = _normal(FEWER)
    scale, chi = _scales(freedom, FEWER)
    shared = min(shared, 0.999)
    its, own = math.sqrt(shared) * z, math.sqrt(1 - shared)
    found = np.zeros_like(far)
    for at, each in enumerate(far):
        if math.isfinite(each):
            reach = each * scale[:, None]
            within = ndtr((its + reach) / own) - ndtr((its - reach) / own)  # [scales, baseline's]
            found[at] = chi @ ((1 - within**rows) @ normal)
    return np.where(found <= LEAST, 0.0, np.minimum(found, 1.0))


def passed(p_of: Callable[[Floats], Floats], level: float) -> float:
    """The distance that chance passes in 1 - `level` of cases, by halving."""
    low, high = math.log(1e-2), math.log(1e7)
    while high - low > 1e-6:
        middle = (low + high) / 2
        p = float(p_of(np.array([math.exp(middle)]))[0])
        low, high = (middle, high) if p > 1 - level else (low, middle)
    return math.exp(high)


def farthest_t(freedom: Floats | float, pairs: int, level: float) -> Floats:
    """Critical t of so many tests under Bonferroni's correction."""
    found: Floats = stdtrit(freedom, 1 - (1 - level) / (2 * pairs))
    return found


@functools.cache
def _legendre(count: int) -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return nodes, weights


def _normal(count: int = NODES) -> tuple[Floats, Floats]:
    """Nodes and weights of a standard normal value."""
    nodes, weights = _legendre(count)
    density = 9 * weights * np.exp(-((9 * nodes) ** 2) / 2)
    return 9 * nodes, density / density.sum()


def _scales(freedom: float, count: int = NODES) -> tuple[Floats, Floats]:
    """Nodes and weights of the root of a chi-square by its degrees of freedom."""
    nodes, weights = _legendre(count)
    half = freedom / 2
    low, high = np.log(gammaincinv(half, LEAST)), np.log(gammainccinv(half, LEAST))
    logs = low + (high - low) * (nodes + 1) / 2  # of half of the chi-square
    density = weights * np.exp(half * logs - np.exp(logs) - gammaln(half))
    return np.sqrt(np.exp(logs) / half), density / density.sum()
