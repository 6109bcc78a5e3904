"""Whether reported numbers are those that a judge gives of fixed weights, up to its own noise.

A judge of fixed weights draws the same numbers again; what is left is the order of its sums, which
another machine or number of threads changes. That is measured: the judge runs again on replicas
whose weights differ in their last bit. Nothing here is assumed of a judge but that.

- One metric: the reported value lies within an item (or 1e-6) of what the runs gave, or inside
  their t prediction interval.
- All metrics of a row: each judge's mean deviation, in units of its noise, towards better; the sum
  over judges and cells is tested against its spread among the replicas. Metrics of one judge move
  together, so that a judge counts once; judges and cells do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from ..statistics import mean, sd

Key = tuple[str, str]  # of a metric: its name and split
LEVEL = 0.01  # honest bundles that each of the two tests refuses, at most
RELATIVE = 1e-6  # of a number that is not a share of items
WHOLE = 1e-6  # of an item
FEW, MANY = 5, 16  # runs before the first look, and before a refusal
QUANTUM = 0.5  # a judge's mean deviation, in units, that rounding to whole items explains


@dataclass(frozen=True)
class Reported:
    """A metric as a record has it."""

    value: float
    n: int | None = None
    unit: str = ""
    higher_is_better: bool = True


@dataclass(frozen=True)
class Deviation:
    """Of one metric of one judge on one cell."""

    reported: float
    found: float  # by the run on the weights as they are
    tolerance: float  # on either side of the mean of the runs
    unit: float  # noise, or an item where that is more
    towards: float  # better: mean deviation in units
    inside: bool


def exact(reported: Mapping[Key, Reported], run: Mapping[Key, float]) -> bool:
    return {k: m.value for k, m in reported.items()} == dict(run)


def deviations(
    reported: Mapping[Key, Reported],
    runs: Sequence[Mapping[Key, float]],
    *,
    items: int,
    level: float = LEVEL,
) -> dict[Key, Deviation]:
    """Each metric against the runs, the first of which is on the weights as they are.

    items: of the test split. level: of refusing any of them wrongly.
    """
    return {
        key: _deviation(metric, [run[key] for run in runs], items, level / len(reported))
        for key, metric in reported.items()
    }


def _deviation(metric: Reported, runs: Sequence[float], items: int, level: float) -> Deviation:
    step = _step(metric, runs, items)
    centre, spread = mean(runs), sd(runs)
    # with fewer runs than MANY too narrow, which makes for more of them, never for a refusal
    half = max(step, critical(MANY - 1, level) * spread * math.sqrt(1 + 1 / len(runs)))
    off = metric.value - centre
    seen = min(runs) - step <= metric.value <= max(runs) + step
    unit = max(step, spread)
    sign = 1 if metric.higher_is_better else -1
    inside = seen or abs(off) <= half
    return Deviation(metric.value, runs[0], half, unit, sign * off / unit, inside)


def _step(metric: Reported, runs: Sequence[float], items: int) -> float:
    """The least by which a number can differ: an item of those counted."""
    if metric.unit:
        return RELATIVE * max(abs(metric.value), *map(abs, runs))
    n = metric.n or items
    counted = all(abs(v * n - round(v * n)) <= WHOLE * n for v in (metric.value, *runs))
    return 1 / n if counted else 1 / items


# ---- all of a row ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shift:
    """Of one judge on one cell, all its metrics together."""

    towards: float  # better, in units
    spread: float  # of the same number among the runs
    runs: int


def shift(
    reported: Mapping[Key, Reported], runs: Sequence[Mapping[Key, float]], *, items: int
) -> Shift:
    found = deviations(reported, runs, items=items)
    own = [
        mean(
            [
                (1 if metric.higher_is_better else -1)
                * (run[key] - mean([r[key] for r in runs]))
                / found[key].unit
                for key, metric in reported.items()
            ]
        )
        for run in runs
    ]
    towards = mean([each.towards for each in found.values()])
    return Shift(towards, sd(own), len(runs))


@dataclass(frozen=True)
class Joint:
    """Of all judges on all cells of a row."""

    shift: float  # in standard deviations of what noise makes; above 0: reported too good
    critical: float

    @property
    def inside(self) -> bool:
        return abs(self.shift) <= self.critical


def joint(shifts: Sequence[Shift], level: float = LEVEL) -> Joint:
    """`shifts` are of those judges alone whose numbers were not the very same."""
    if not shifts:
        return Joint(0.0, critical(1, level))
    variance = math.fsum(s.spread**2 * (1 + 1 / s.runs) + QUANTUM**2 for s in shifts)
    degrees = len(shifts) * (MANY - 1)
    return Joint(
        math.fsum(s.towards for s in shifts) / math.sqrt(variance), critical(degrees, level)
    )


def critical(degrees: int, level: float) -> float:
    """The t beyond which, on both sides together, a share `level` lies."""
    return float(stdtrit(degrees, 1 - level / 2))
