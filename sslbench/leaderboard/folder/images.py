"""Compares two rows of a leaderboard image by image, by what was predicted for each.

The table says whether other trainings would come out so. This says whether these trained encoders
differ on other images like those of test: seeds are as they are, and images are the sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ...errors import UserError
from ...store import Answers
from ..board.board import Block, Column, Row
from ..statistics import Interval, steady
from .folder import Leaderboard, RecordFile, predictions

SHOWN = 5  # images that are named on each side


class OfClass(NamedTuple):
    """How often images of one class are told right, by one row and by the other."""

    number: int
    images: int
    one: float
    other: float


@dataclass(frozen=True)
class Imagewise:
    """One row minus another over images; accuracies are fractions."""

    images: int
    seeds: tuple[int, ...]
    mean: float
    interval: Interval  # at the board's level, and
    p: float  # both corrected for all pairs of rows of the column with predictions
    balanced: tuple[float, float]  # mean over classes of the accuracy on each
    right: tuple[int, int]  # images that every seed of one row has right and no seed of the other
    furthest: tuple[tuple[int, ...], tuple[int, ...]]  # some of these, by their place in test
    by_class: tuple[OfClass, ...]

    @property
    def leads(self) -> int:
        """1 if the first row is better, -1 if the second is, 0 if they do not separate."""
        low, high = self.interval
        return int(low > 0) - int(high < 0)


class Images:
    """What was predicted under the columns of one table; files are read where they are asked for."""

    def __init__(self, folder: Leaderboard, block: Block, level: float) -> None:
        self.folder, self.block, self.level = folder, block, level
        self._kept: dict[tuple[str, str], RecordFile] = {}
        for kept in folder.kept:
            record = kept.record
            if record.status == "ok" and record.predictions and record.protocol:
                self._kept[record.cell_id, record.protocol] = kept

    def compared(self, column: Column, one: Row, other: Row) -> Imagewise | None:
        """Compares two rows under a column; None where no seed of both has predictions.

        Raises:
            UserError: their files are damaged, or of different images.
        """
        found = self._answers(column, one), self._answers(column, other)
        seeds = sorted(found[0].keys() & found[1].keys())
        if not seeds:
            return None
        truth = found[0][seeds[0]].truth
        for row, answers in zip((one, other), found, strict=True):
            for seed in seeds:
                if not np.array_equal(answers[seed].truth, truth):
                    raise UserError(
                        f"{row.label}, seed {seed}, was judged by {column.protocol} on other images "
                        f"than {one.label}, seed {seeds[0]}; judge both again on the same data set"
                    )
        right = [np.array([own[s].predicted == truth for s in seeds]) for own in found]  # [S, N]
        return self._of(right[0], right[1], truth, tuple(seeds), self._pairs(column))

    def _answers(self, column: Column, row: Row) -> Mapping[int, Answers]:
        found = {}
        for seed, cell in row.cells.items():
            kept = self._kept.get((cell, column.protocol))
            if kept and (answers := predictions(self.folder, kept)):
                found[seed] = answers
        return found

    def _pairs(self, column: Column) -> int:
        """How many pairs of rows could be compared."""
        there = sum(
            any((cell, column.protocol) in self._kept for cell in row.cells.values())
            for row in self.block.rows
        )
        return max(1, math.comb(there, 2))

    def _of(
        self,
        one: NDArray[np.bool_],
        other: NDArray[np.bool_],
        truth: NDArray[np.int_],
        seeds: tuple[int, ...],
        pairs: int,
    ) -> Imagewise:
        """From who is right: bool [S, N] of each row."""
        means = one.mean(0), other.mean(0)  # [N], shares of seeds
        apart = means[0] - means[1]
        n = len(truth)
        error = float(apart.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        mean = float(apart.mean())
        far = float(stdtrit(max(n - 1, 1), 1 - (1 - self.level) / (2 * pairs)))
        t = abs(mean) / error if error else math.inf * abs(mean) if mean else 0.0
        p = min(1.0, pairs * 2 * float(stdtr(max(n - 1, 1), -t)))
        by_class = tuple(
            OfClass(int(c), int(own.sum()), *(steady(float(m[own].mean())) for m in means))
            for c in np.unique(truth)
            for own in [truth == c]
        )
        sides = np.flatnonzero(apart == 1), np.flatnonzero(apart == -1)
        return Imagewise(
            n,
            seeds,
            steady(mean),
            (steady(mean - far * error), steady(mean + far * error)),
            steady(p),
            (
                steady(float(np.mean([each.one for each in by_class]))),
                steady(float(np.mean([each.other for each in by_class]))),
            ),
            (len(sides[0]), len(sides[1])),
            (_some(sides[0]), _some(sides[1])),
            by_class,
        )


def _some(places: NDArray[np.intp]) -> tuple[int, ...]:
    return tuple(map(int, places[:SHOWN]))
