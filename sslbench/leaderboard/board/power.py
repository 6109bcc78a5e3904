"""Power: the smallest difference between two methods that the chosen seeds would find.

It is for two methods of a table as the table compares all of them, found four times in five. Noise
is that of the methods in the store; where it has none, differences are in its standard deviations.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from ..chance import detected, fewest
from ..together import together
from .board import Block, Board

POWER = 0.8
POINT = 0.01  # a percentage point: the difference for which seeds are suggested
HALF = 0.5  # of the noise: the same, where nobody knows whether a point is much


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
    noise: float | None  # SD of a value beyond its method and seed; None: the store has none
    least: float | None  # smallest difference found; in SDs of noise if that is None; None: none
    aim: float  # the difference that `needed` finds, same unit
    needed: int | None  # seeds; None: more than together.MOST

    @property
    def in_points(self) -> bool:
        return self.noise is not None and not self.unit


def detectable(board: Board, chosen: Container[str]) -> list[Detectable]:
    """Detectable differences of every ranking column, measured yet or not.

    `chosen` are the methods to compare. The others help to estimate the noise.
    """
    return [
        _of(block, index, [row.method in chosen for row in block.rows], board.level)
        for block in board.blocks
        for index, column in enumerate(block.columns)
        if column.ranks
    ]


def _of(block: Block, index: int, chosen: Sequence[bool], level: float) -> Detectable:
    column = block.columns[index]
    known = [row.scores[index].values for row in block.rows if not row.baseline]
    scores = [row.scores[index] for row, asked in zip(block.rows, chosen, strict=True) if asked]
    seeds = max(
        (s.n + sum(g.state != "absent" for g in s.gaps.values()) for s in scores), default=0
    )
    noise, methods = together(known).noise, len(scores)
    spread = 1.0 if noise is None else noise
    aim = HALF * spread if noise is None or column.unit else POINT

    def enough(seeds: int) -> bool:
        found = smallest(spread, methods, seeds, level)
        return found is not None and found <= aim

    return Detectable(
        dataset=block.setting.dataset,
        backbone=block.setting.backbone,
        protocol=column.protocol,
        metric=column.metric,
        unit=column.unit,
        seeds=seeds,
        methods=methods,
        noise=noise,
        least=smallest(spread, methods, seeds, level),
        aim=aim,
        needed=fewest(enough),
    )


def smallest(noise: float, methods: int, seeds: int, level: float) -> float | None:
    """Smallest true difference that is found with POWER among so many methods.

    None where none is: with one seed, or with one method.
    """
    if seeds < 2 or methods < 2:
        return None
    return noise * detected(methods, seeds, level, POWER)
