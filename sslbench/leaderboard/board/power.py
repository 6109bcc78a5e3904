"""Power: the smallest difference between two methods that the chosen seeds would find.

It is for a paired t test by seed at 80 % power, for one pair alone and for the first step of Holm
over all pairs of methods. The spread is that of the differences in the store; if it has none,
differences are given in standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import statistics
from .board import Block, Board

POWER = 0.8
POINT = 0.01  # a percentage point: the difference for which seeds are suggested
HALF = 0.5  # of the spread: the same, where nobody knows whether a point is much
MOST = 4096  # seeds that are suggested at most


@dataclass(frozen=True)
class Detectable:
    """The differences that the seeds of one ranking column can detect."""

    dataset: str
    backbone: str
    protocol: str
    metric: str  # "": not known before anything is judged
    unit: str
    seeds: int
    methods: int  # number of methods compared
    sd: float | None  # of differences by seed, pooled over `pairs`; None: the store has none
    pairs: int  # number of pairs of methods with two common seeds
    one: float | None  # smallest difference found for one pair; in SDs if `sd` is None; None: none
    many: float | None  # the same when every pair of methods is compared
    aim: float  # the difference that `seeds_one` and `seeds_many` find, same unit
    seeds_one: int | None  # None: more than MOST
    seeds_many: int | None

    @property
    def in_points(self) -> bool:
        return self.sd is not None and not self.unit


def detectable(board: Board, chosen: Container[str]) -> list[Detectable]:
    """Detectable differences of every ranking column, measured yet or not.

    `chosen` are the methods to compare. The others help to estimate the spread.
    """
    return [
        _of(block, index, [row.method in chosen for row in block.rows], 1 - board.level)
        for block in board.blocks
        for index, column in enumerate(block.columns)
        if column.ranks
    ]


def _of(block: Block, index: int, chosen: Sequence[bool], error: float) -> Detectable:
    column = block.columns[index]
    known = [row.scores[index].values for row in block.rows if not row.baseline]
    scores = [row.scores[index] for row, asked in zip(block.rows, chosen, strict=True) if asked]
    seeds = max(
        (s.n + sum(g.state != "absent" for g in s.gaps.values()) for s in scores), default=0
    )
    sd, pairs = pooled(known)
    spread = 1.0 if sd is None else sd
    compared = max(1, math.comb(len(scores), 2))
    aim = HALF * spread if sd is None or column.unit else POINT
    levels = (1 - error, 1 - error / compared)
    one, many = (_smallest(spread, seeds, level) for level in levels)
    needed = [_needed(spread, aim, level) for level in levels]
    return Detectable(
        dataset=block.setting.dataset,
        backbone=block.setting.backbone,
        protocol=column.protocol,
        metric=column.metric,
        unit=column.unit,
        seeds=seeds,
        methods=len(scores),
        sd=sd,
        pairs=pairs,
        one=one,
        many=many,
        aim=aim,
        seeds_one=needed[0],
        seeds_many=needed[1],
    )


def pooled(rows: Sequence[Mapping[int, float]]) -> tuple[float | None, int]:
    """Standard deviation of paired differences, pooled over pairs of rows, and the number of pairs.

    Only pairs with two or more common seeds count; None if there are none.
    """
    seeds = sorted({seed for row in rows for seed in row})
    values = np.array([[row.get(seed, math.nan) for seed in seeds] for row in rows])
    squares, freedom, pairs = 0.0, 0, 0
    for deviations, count in _deviations(values) if seeds else ():
        squares += float((deviations**2).sum())
        freedom += int((count - 1).sum())
        pairs += len(count)
    return (math.sqrt(squares / freedom), pairs) if freedom else (None, 0)


def _deviations(values: statistics.Floats) -> Iterator[tuple[statistics.Floats, statistics.Floats]]:
    """Per row: its differences from later rows about their mean [P, S], and seeds of each [P]."""
    for at in range(len(values) - 1):
        difference = values[at] - values[at + 1 :]
        count = (~np.isnan(difference)).sum(axis=1)
        difference, count = difference[count >= 2], count[count >= 2]
        mean = np.nansum(difference, axis=1) / count
        yield np.nan_to_num(difference - mean[:, None]), count


def _smallest(sd: float, seeds: int, level: float) -> float | None:
    return statistics.mde(sd, seeds, power=POWER, level=level)


def _needed(sd: float, aim: float, level: float) -> int | None:
    """Fewest seeds that find a difference of `aim`; None: more than MOST."""

    def enough(seeds: int) -> bool:
        found = _smallest(sd, seeds, level)
        return found is not None and found <= aim

    if not enough(MOST):
        return None
    low, high = 1, MOST  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
