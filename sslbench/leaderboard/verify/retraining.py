"""Trains a cell of a bundle again from scratch, and compares it with the seeds of its row."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...cells.protocol import judged_identity
from ...errors import CheckFailed
from ...one_cell.building import Builder
from ...one_cell.workbench import Workbench
from ...store import Store, newest
from ...train.options import RunOptions
from ..statistics import mean, sd
from .noise import critical

if TYPE_CHECKING:
    from ...api import Place
    from ...plan.plan import Planned
    from ...plugins import Registry

LEVEL = 0.01  # share of honest metrics outside, if seeds vary normally


@dataclass(frozen=True)
class Again:
    """The first metric of an evaluator on a cell that was trained again."""

    protocol: str
    metric: str
    reported: float
    found: float
    interval: tuple[float, float] | None  # where one more seed falls; None: one seed has no spread

    @property
    def inside(self) -> bool:
        if self.interval is None or self.found == self.reported:
            return True
        return self.interval[0] <= self.found <= self.interval[1]


def retrain(
    planned: Planned, row: Iterable[Planned], registry: Registry, place: Place, device: torch.device
) -> tuple[Again, ...]:
    """Trains a cell again and compares its metrics.

    `row` has its cells of all seeds: their reported numbers tell how much seeds vary.
    """
    seeds = list(row)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch))
        store.create()
        judges = [j.judge for j in planned.judges if j.record and j.record.status == "ok"]
        builder = Builder(registry, place, device)
        done = Workbench(builder, store, RunOptions()).do(planned.cell, judges)
        if done.status != "ok":
            raise CheckFailed(
                f"{planned.cell.title} could not be trained again ({done.status}): {done.sentence}"
            )
        records = store.cell(planned.cell.id).records()
    found = []
    for judge in judges:
        made = newest(records, "evaluation", judged_identity(planned.cell, judge))
        values = _reported(seeds, judge.name)
        first = made.metric() if made else None
        if first is not None and planned.cell.seed in values:
            own = values[planned.cell.seed]
            spread = prediction(list(values.values()))
            found.append(Again(judge.protocol, first.name, own, first.value, spread))
    return tuple(found)


def _reported(seeds: Iterable[Planned], judge: str) -> dict[int, float]:
    """Reported values of an evaluator's first metric, by seed."""
    found = {}
    for planned in seeds:
        for each in planned.judges:
            metric = each.record.metric() if each.record else None
            if each.judge.name == judge and metric is not None:
                found[planned.cell.seed] = metric.value
    return found


def prediction(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Interval in which one more value falls, except with probability `level`."""
    if len(values) < 2:
        return None
    half = critical(len(values) - 1, level) * sd(values) * math.sqrt(1 + 1 / len(values))
    return mean(values) - half, mean(values) + half
