"""Tests whether reported numbers are what an evaluator gives for fixed weights, up to its noise.

On fixed weights an evaluator uses the same random numbers again. Only the order of its sums differs
on another machine or with other threads. This noise is measured: the evaluator runs again on
replicas whose weights differ in their last bit.

- One metric passes if it lies within an item (or 1e-6) of what the runs gave, or inside their t
  prediction interval.
- All metrics of a row are tested together, to catch a small shift in one direction: the mean
  deviation of each evaluator, in units of its noise, is summed over evaluators and cells, and
  compared with its spread among the replicas. Metrics of one evaluator move together, so each
  evaluator counts once; evaluators and cells are taken as independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from ..statistics import mean, sd

Key = tuple[str, str]  # of a metric: its name and split
LEVEL = 0.01  # share of honest bundles that each of the two tests may refuse
RELATIVE = 1e-6  # tolerance of a number that is not a count divided by n
WHOLE = 1e-6  # of an item
FEW, MANY = 5, 16  # runs before the first test, and before a refusal
QUANTUM = 0.5  # mean deviation, in units, that rounding to whole items explains


@dataclass(frozen=True)
class Reported:
    """A metric as a record reports it."""

    value: float
    n: int | None = None
    unit: str = ""
    higher_is_better: bool = True


@dataclass(frozen=True)
class Deviation:
    """How far one metric of one evaluator on one cell is from the runs."""

    reported: float
    found: float  # by the run on the weights as they are
    tolerance: float  # on either side of the mean of the runs
    unit: float  # the noise, or one item if that is more
    towards: float  # deviation from the mean of the runs, in units; above 0: better
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
    """Compares each metric with the runs; the first run is on the weights as they are.

    items: size of the test split. level: chance of refusing any metric wrongly.
    """
    return {
        key: _deviation(metric, [run[key] for run in runs], items, level / len(reported))
        for key, metric in reported.items()
    }


def _deviation(metric: Reported, runs: Sequence[float], items: int, level: float) -> Deviation:
    step = _step(metric, runs, items)
    centre, spread = mean(runs), sd(runs)
    # too narrow with fewer runs than MANY: that leads to more runs, never to a refusal
    half = max(step, critical(MANY - 1, level) * spread * math.sqrt(1 + 1 / len(runs)))
    off = metric.value - centre
    seen = min(runs) - step <= metric.value <= max(runs) + step
    unit = max(step, spread)
    sign = 1 if metric.higher_is_better else -1
    inside = seen or abs(off) <= half
    return Deviation(metric.value, runs[0], half, unit, sign * off / unit, inside)


def _step(metric: Reported, runs: Sequence[float], items: int) -> float:
    """The smallest step of a metric: one item of those counted."""
    if metric.unit:
        return RELATIVE * max(abs(metric.value), *map(abs, runs))
    n = metric.n or items
    counted = all(abs(v * n - round(v * n)) <= WHOLE * n for v in (metric.value, *runs))
    return 1 / n if counted else 1 / items


# ---- all of a row ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shift:
    """Mean deviation of one evaluator on one cell, over its metrics."""

    towards: float  # in units; above 0: better
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
    """Deviation of all evaluators on all cells of a row together."""

    shift: float  # in standard deviations of the noise; above 0: reported too good
    critical: float

    @property
    def inside(self) -> bool:
        return abs(self.shift) <= self.critical


def joint(shifts: Sequence[Shift], level: float = LEVEL) -> Joint:
    """Sums up the shifts of a row; an evaluator that gave the same numbers has none."""
    if not shifts:
        return Joint(0.0, critical(1, level))
    variance = math.fsum(s.spread**2 * (1 + 1 / s.runs) + QUANTUM**2 for s in shifts)
    degrees = len(shifts) * (MANY - 1)
    return Joint(
        math.fsum(s.towards for s in shifts) / math.sqrt(variance), critical(degrees, level)
    )


def critical(degrees: int, level: float) -> float:
    """Two-sided critical t: a share `level` lies beyond it."""
    return float(stdtrit(degrees, 1 - level / 2))
