"""Trains a method on small data for the checks, and keeps every loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from shutil import copytree
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ..api import DataInfo, Method, Place, Update
from ..cells.cell import Cell
from ..cells.parameters import anatomy
from ..cells.settings import Context, Settings, resolve
from ..cells.suite import load_suite
from ..data import open_data
from ..events import CellDone
from ..names import parse
from ..one_cell.building import Builder
from ..one_cell.workbench import Workbench
from ..plugins import Registry
from ..store import Store
from ..train.options import RunOptions
from ..train.state import restore
from .promise import standing

CPU = torch.device("cpu")
PART = {"test": 20, "train": 96}  # images of a dataset on which methods are checked
LARGEST = 64  # of a queue, of clusters, of a width: small enough for 96 images and a quick test
# the class whose step yielded it, and its value; of a group beside a "main", the class and the group
Loss = tuple[str, Any]


class Stood(NamedTuple):
    """The states of the global generators before a step and after it."""

    before: Mapping[str, int]
    after: Mapping[str, int]
    seeds: tuple[int, int]  # of torch's


class Fit(NamedTuple):
    done: CellDone
    losses: list[Loss]
    weights: Mapping[str, Tensor]  # none before it is done
    warnings: list[str]
    stood: list[Stood]  # of each step


@dataclass(eq=False)
class Trial:
    """A methods entry to check on small data: 96 images, batches of 32, two epochs, on the CPU.

    Integer hyperparameters above 64, also of its pretexts, become 64 unless `settings` sets them.
    """

    registry: Registry
    name: str
    folder: Path  # for stores, one for each fit
    settings: Mapping[str, Any] = field(default_factory=dict)  # as --set: {"my-method.queue": 64}
    dataset: str = ""  # by default the quick suite's; a part of it where its bracket names none
    backbone: str = ""  # by default the quick suite's
    place: Place = field(default_factory=Place)
    on_a_gpu: dict[str, Any] = field(default_factory=dict, repr=False)  # by precision

    def __post_init__(self) -> None:
        suite = load_suite("quick", self.registry)
        self.dataset = _part(self.dataset or suite.datasets[0], self.registry, self.place)
        self.backbone = self.backbone or suite.backbones[0]
        self.parts = anatomy(self.registry.find("methods", self.name))
        self.kinds = [self.parts.target, *getattr(self.parts.target, "stages", {}).values()]
        self.data = open_data(self.dataset, self.registry, self.place)

    @property
    def info(self) -> DataInfo:
        """What the method is told of the data."""
        return self.data.pretraining("none").info

    def declined(self) -> str | None:
        """Why the method does not take this backbone or data, if it does not."""
        if not self.parts.recipe:
            return None
        asked = parse(self.backbone)
        create = self.registry.find("backbones", asked.base).load()
        backbone = create(asked.base, size=self.data.size, **asked.params)
        sentence: str | None = self.parts.target.needs(backbone, self.info)
        return sentence

    def cell(self, *, epochs: int = 2, precision: str = "fp32", **settings: Any) -> Cell:
        """Makes the cell, with `settings` over the trial's own."""
        of = self.data
        setting = Context(self.backbone, of.name, of.fingerprint, of.size, 0, precision, budget=40)
        asked: tuple[Any, ...] = (({}, self.settings), ({}, settings))
        large = resolve(self.name, self.registry, setting, Settings(asked))
        small = ({"epochs": epochs, "batch": 32}, _shrunk(self.name, large))
        return resolve(self.name, self.registry, setting, Settings((small, *asked)))

    def bench(
        self, store: str, stop: Callable[[], bool] = lambda: False, device: torch.device = CPU
    ) -> Workbench:
        builder = Builder(self.registry, self.place, device)
        return Workbench(builder, Store(self.folder / store), RunOptions(), stop=stop)

    def fit(self, store: str, cell: Cell, *, steps: int = 0) -> Fit:
        """Trains or continues the cell; stops after `steps` losses where that is not 0."""
        losses, stood = list[Loss](), list[Stood]()
        bench = self.bench(store, stop=lambda: 0 < steps <= len(losses))
        self._lend_pretexts(cell, bench.store)
        with ExitStack() as patches:
            patches.enter_context(patch("os.fsync"))  # these stores need not survive a power cut
            for kind in self.kinds:
                patches.enter_context(patch.object(kind, "step", _noting(kind, losses, stood)))
            patches.enter_context(patch.object(bench.builder, "data", lambda name: self.data))
            done = bench.do(cell, [])
        folder = bench.store.cell(cell.id)
        record, state = folder.current("train", cell.identity()), folder.load("model")
        said = record.warnings if record else ()
        warnings = [w.message for w in said if w.code != "data"]  # which is not the method's fault
        return Fit(done, losses, state[0] if state else {}, warnings, stood)

    def _lend_pretexts(self, cell: Cell, store: Store) -> None:
        """Copies the pretexts that the first fit trained, so that other fits load them.

        The checks thus also show that loading a pretext gives the same result as training it.
        """
        for pretext in cell.pretexts.values():
            whole = Store(self.folder / "whole").cell(pretext.id).path
            if whole.exists() and not store.cell(pretext.id).path.exists():
                copytree(whole, store.cell(pretext.id).path)

    @cached_property
    def fitted(self) -> Fit:
        """The complete fit, with which others are compared."""
        fit = self.fit("whole", self.cell())
        if fit.done.status != "ok":
            raise AssertionError(f"it did not train: {fit.done.sentence}")
        return fit

    @cached_property
    def module(self) -> nn.Module:
        """The module in eval mode, trained if it is a method."""
        module, _ = self.bench("whole").builder.build(self.cell())
        if isinstance(module, Method):
            restore(module, self.fitted.weights, what="the trained model")
        return module.eval()


def _part(dataset: str, registry: Registry, place: Place) -> str:
    """The name of a part of a dataset that is small enough; it may itself be as small."""
    asked = parse(dataset)
    if PART.keys() <= asked.params.keys():
        return dataset
    data = open_data(dataset, registry, place)
    sizes = {split: len(getattr(data, split).labels) for split in PART}
    part = {split: min(count, sizes[split]) for split, count in PART.items()}
    return str(replace(asked, params=part | dict(asked.params)))


def _shrunk(name: str, cell: Cell) -> dict[str, Any]:
    """Settings that reduce the too large hyperparameters of a cell and of its pretexts."""
    found: dict[str, Any] = {}
    for pretext, other in cell.pretexts.items():
        found |= _shrunk(pretext, other)
    for key, value in cell.hyperparameters.items():
        if type(value) is int and value > LARGEST:
            found[f"{name}.{key}"] = LARGEST
    return found


def _noting(kind: type[Method], losses: list[Loss], stood: list[Stood]) -> Callable[..., Any]:
    """Wraps the `step` of a class so that it notes each loss."""
    whole = kind.step

    def relay(step: Any, groups: Container[str]) -> Iterator[Any]:
        answer, before, seed = None, standing(), torch.initial_seed()
        while True:
            try:
                update = step.send(answer)
            except StopIteration:
                stood.append(Stood(before, standing(), (seed, torch.initial_seed())))
                return
            grouped = update if isinstance(update, Update) else Update(update)
            beside = grouped.group != "main" and "main" in groups
            name = f"{kind.__name__}.{grouped.group}" if beside else kind.__name__
            loss: Any = grouped.loss
            losses.append((name, loss.tolist() if isinstance(loss, Tensor) else loss))
            answer = yield update

    def step(self: Method, batch: Any) -> Any:
        made = whole(self, batch)
        return relay(made, self.groups()) if inspect.isgenerator(made) else made

    return step
