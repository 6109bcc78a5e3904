"""Estimates how long a plan takes, by timing a few real steps of each method."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..api import Method, Recipe
from ..cells.cell import Cell
from ..cells.identity import Identity
from ..errors import Interrupted
from ..one_cell.building import Builder, Unsupported
from ..records import Stage, digest
from ..store import Store
from ..train.device import pick_device
from ..train.feed import Feed
from ..train.loop import Session, fit_main
from ..train.options import RunOptions
from .plan import Plan, Planned

if TYPE_CHECKING:
    from ..plugins import Registry

WARM, TIMED = 1, 3  # steps


@dataclass(frozen=True)
class Estimate:
    """The time of one stage, for all cells that differ only in their seed."""

    method: str
    stage: str  # "main" for the method itself
    backbone: str
    dataset: str
    cells: int
    step: float  # seconds
    images: int  # a step
    steps: int  # a cell

    @property
    def seconds(self) -> float:
        return self.step * self.steps * self.cells


@dataclass
class _Clock:
    """Notes the time after each step, and stops the loop once enough are timed."""

    device: torch.device
    times: list[float] = field(default_factory=list)

    def __call__(self) -> bool:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times.append(time.perf_counter())
        return len(self.times) > WARM + TIMED

    def step(self) -> float:
        """The median time of a step in seconds."""
        pairs = zip(self.times[WARM:], self.times[WARM + 1 :], strict=False)
        return sorted(after - before for before, after in pairs)[TIMED // 2]


@dataclass(frozen=True)
class _Bench:
    """A builder, and a temporary store in which methods are timed."""

    builder: Builder
    store: Store


def estimate(plan: Plan, registry: Registry, device: str = "auto") -> list[Estimate]:
    """Times every stage of every open cell, once for all seeds. It does not write to the store."""
    groups: dict[str, list[Planned]] = {}
    for planned in plan.open:
        if planned.state != "evaluate" and planned.cell.trained:
            key = digest(Identity(planned.cell.identity()).without_seed())
            groups.setdefault(key, []).append(planned)
    with tempfile.TemporaryDirectory(prefix="sslbench-timing-") as folder:
        builder = Builder(registry, plan.options.place, pick_device(device))
        bench = _Bench(builder, Store(Path(folder)))
        return [e for group in groups.values() for e in _timed(bench, group[0].cell, len(group))]


def _timed(bench: _Bench, cell: Cell, cells: int) -> Iterator[Estimate]:
    assert cell.recipe is not None
    recipes = {**{name: recipe for name, (_, recipe) in cell.stages.items()}, "main": cell.recipe}
    for stage, recipe in recipes.items():
        if recipe.epochs == 0:
            continue
        try:
            seconds, length = _step(bench, _only(cell, stage))
        except Unsupported:
            return
        yield Estimate(
            method=cell.method,
            stage=stage,
            backbone=cell.backbone,
            dataset=cell.dataset,
            cells=cells,
            step=seconds,
            images=recipe.batch,
            steps=length // recipe.batch * recipe.epochs,
        )


def _only(cell: Cell, stage: str) -> Cell:
    """The cell with just enough epochs of one stage to time it, and none of the others."""
    assert cell.recipe is not None
    stages: Mapping[str, tuple[int, Recipe]] = {
        name: (
            version,
            dataclasses.replace(recipe, epochs=WARM + TIMED + 1 if name == stage else 0),
        )
        for name, (version, recipe) in cell.stages.items()
    }
    epochs = WARM + TIMED + 1 if stage == "main" else 0
    recipe = dataclasses.replace(cell.recipe, epochs=epochs)
    return dataclasses.replace(cell, recipe=recipe, stages=stages)


def _step(bench: _Bench, cell: Cell) -> tuple[float, int]:
    """Times one step in the training loop; returns seconds and the number of training images."""
    builder = bench.builder
    module, pretraining = builder.build(cell)
    assert isinstance(module, Method)
    assert cell.recipe is not None
    clock = _Clock(builder.device)
    folder = bench.store.cell(cell.id)
    folder.write_identity(cell.identity())
    session = Session(
        cell=cell,
        folder=folder,
        feed=Feed(
            pretraining.images,
            pretraining.labels,
            builder.device,
            pretraining.clips,
            pretraining.domains,
        ),
        info=pretraining.info,
        device=builder.device,
        pretrain=lambda pretext: _unlearned(builder, pretext),
        stop=clock,
        how=RunOptions(checkpoint_seconds=math.inf),
    )
    try:
        fit_main(session, module, cell.recipe)
    except Interrupted:
        return clock.step(), len(pretraining.images)
    raise ValueError(f"{cell.method} took {len(clock.times)} steps only, too few to time")


def _unlearned(builder: Builder, cell: Cell) -> tuple[Method, list[Stage]]:
    """Builds a pretext without training it: its own cell is timed by itself."""
    module, _ = builder.build(cell)
    assert isinstance(module, Method)
    return module, []
