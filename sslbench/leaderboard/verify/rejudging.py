"""Judges a cell's weights again, as they are and on replicas that differ in the last bit."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...api import Place
from ...cells.cell import Cell, derive
from ...cells.protocol import Judge, judged_identity
from ...data import Pretraining
from ...one_cell.building import Builder
from ...one_cell.workbench import Workbench
from ...records import Record
from ...store import Store, newest
from ...train.options import RunOptions
from ...train.state import restore, tensors_of
from .noise import FEW, MANY, Deviation, Key, Reported, Shift, deviations, exact, shift

if TYPE_CHECKING:
    from ...plugins import Registry

JudgeRecord = tuple[Judge, Record]  # an evaluator and its reported record
MACHINE = ("s", "ms", "images/s", "bytes", "MiB")  # units of metrics that depend on the machine


@dataclass(frozen=True)
class Rejudgement:
    """The result of one evaluator that judged one cell again, compared with its record."""

    record: Record
    status: str  # of the run: ok skipped failed
    sentence: str = ""
    metrics: Mapping[Key, Deviation] = field(default_factory=dict)  # {}: the very same numbers
    shift: Shift | None = None
    compared: int = 0  # metrics
    left: tuple[str, ...] = ()  # names of metrics not compared: they depend on the machine

    @property
    def inside(self) -> bool:
        return self.status == self.record.status and all(m.inside for m in self.metrics.values())


class Rejudging:
    """Judges one cell of a bundle again, in this process."""

    def __init__(
        self, cell: Cell, train: Record, saved: Mapping[str, Tensor] | None, bench: Bench
    ) -> None:
        """ValueError if `saved`, the tensors of its model, do not fit its network."""
        self.cell, self.train, self.bench = cell, train, bench
        self.tensors = bench.tensors(cell, saved)
        self._runs: dict[str, list[dict[Key, float]]] = {}  # by judge

    def judge(self, asked: Sequence[JudgeRecord], level: float) -> list[Rejudgement]:
        """Compares records with what their evaluators give here.

        level: chance of refusing any one of them wrongly.
        """
        first = self._run(asked, 0)
        found = {}
        for judge, record in asked:
            known = self._first(record, first[judge.name])
            if known is not None:
                found[judge.name] = known
        for count in (FEW, MANY):
            open_ = [a for a in asked if a[0].name not in found or not found[a[0].name].inside]
            found |= self._compared([a for a in open_ if a[0].name in self._runs], count, level)
        return [found[judge.name] for judge, _ in asked]

    def again(
        self, asked: Sequence[JudgeRecord], found: Sequence[Rejudgement], level: float
    ) -> list[Rejudgement]:
        """Compares again after as many runs as are allowed (MANY)."""
        noisy = [each for each, seen in zip(asked, found, strict=True) if seen.metrics]
        more = self._compared(noisy, MANY, level)
        return [more.get(a[0].name, seen) for a, seen in zip(asked, found, strict=True)]

    def _first(self, record: Record, made: Record) -> Rejudgement | None:
        """The result if the first run settles it; None if noise must be measured."""
        if made.status != record.status or record.status != "ok":
            return Rejudgement(record, made.status, made.sentence)
        reported, left = _reported(record)
        run = _values(made)
        if run.keys() != reported.keys():
            lacking = sorted(name for name, _ in reported.keys() ^ run.keys())
            return Rejudgement(record, "failed", f"other metrics here: {', '.join(lacking[:5])}")
        if exact(reported, run):
            return Rejudgement(record, "ok", compared=len(reported), left=left)
        self._runs[str(record.evaluator)] = [run]
        return None

    def _compared(
        self, asked: Sequence[JudgeRecord], count: int, level: float
    ) -> dict[str, Rejudgement]:
        """Compares after so many runs, by evaluator."""
        for replica in range(1, count):
            wanting = [a for a in asked if len(self._runs[a[0].name]) <= replica]
            for name, made in (self._run(wanting, replica) if wanting else {}).items():
                self._runs[name].append(_values(made))
        return {
            judge.name: self._held(record, self._runs[judge.name], level) for judge, record in asked
        }

    def _held(self, record: Record, runs: Sequence[dict[Key, float]], level: float) -> Rejudgement:
        reported, left = _reported(record)
        if any(run.keys() != reported.keys() for run in runs):
            return Rejudgement(record, "failed", "it has other metrics from one run to the next")
        items = self.bench.items(self.cell)
        return Rejudgement(
            record,
            "ok",
            metrics=deviations(reported, runs, items=items, level=level),
            shift=shift(reported, runs, items=items),
            compared=len(reported),
            left=left,
        )

    def _run(self, asked: Sequence[JudgeRecord], replica: int) -> dict[str, Record]:
        """Records of evaluators on a replica; number 0 has the weights as they are."""
        state = jittered(self.tensors, replica) if replica else self.tensors
        threads = max(_threads(record) for _, record in asked)
        with tempfile.TemporaryDirectory() as scratch, _with_threads(threads):
            store = Store(Path(scratch))
            folder = store.cell(self.cell.id)
            folder.write_identity(self.cell.identity())
            folder.add(self.train.model_copy(update={"weights": {}}))  # a replica has others
            folder.save("model", state, {})
            self.bench.rounding = 0 if state else replica
            bench = Workbench(self.bench, store, RunOptions(train=False))
            bench.do(self.cell, [judge for judge, _ in asked])
            records = folder.records()
        found = {}
        for judge, _ in asked:
            made = newest(records, "evaluation", judged_identity(self.cell, judge))
            if made is None:
                raise ValueError(f"{judge.protocol} left no record of {self.cell.title}")
            found[judge.name] = made
        return found


class Bench:
    """Builds cells to judge; without weights, their features are changed in the last bit instead."""

    def __init__(self, registry: Registry, place: Place, device: torch.device) -> None:
        self.builder, self.place = Builder(registry, place, device), place
        self.registry, self.device = registry, device
        self.data, self.begin = self.builder.data, self.builder.begin
        self.warnings = self.builder.warnings
        self.rounding = 0  # replica whose features are changed; 0: none

    def build(self, cell: Cell) -> tuple[nn.Module, Pretraining]:
        module, pretraining = self.builder.build(cell)
        if number := self.rounding:

            def rounded(_: nn.Module, __: Any, features: Tensor) -> Tensor:
                ones = {"features": torch.ones_like(features[:1])}
                return features * jittered(ones, number)["features"]

            module.register_forward_hook(rounded)
        return module, pretraining

    def tensors(self, cell: Cell, saved: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """A cell's weights: the saved ones, or else those that its identity builds."""
        module, _ = self.build(cell)
        if saved is not None:
            restore(module, saved, what=f"the model of {cell.title}")
        return tensors_of(module)

    def items(self, cell: Cell) -> int:
        return len(self.data(cell.dataset).test.labels)


def jittered(tensors: Mapping[str, Tensor], replica: int) -> dict[str, Tensor]:
    """The tensors with every floating-point number moved by one rounding step, up or down."""
    found = {}
    for name, tensor in sorted(tensors.items()):
        if tensor.is_floating_point():
            draw = torch.Generator().manual_seed(derive("replica", replica, name))
            sign = torch.randint(0, 2, tensor.shape, generator=draw) * 2 - 1
            step = sign.to(tensor) * torch.finfo(tensor.dtype).eps
            found[name] = tensor + tensor * step
        else:
            found[name] = tensor
    return found


def _reported(record: Record) -> tuple[dict[Key, Reported], tuple[str, ...]]:
    """Metrics that can be compared, and names of those that depend on the machine."""
    own = [m for m in record.metrics if m.unit not in MACHINE]
    left = tuple(m.name for m in record.metrics if m.unit in MACHINE)
    found = {(m.name, m.split): Reported(m.value, m.n, m.unit, m.higher_is_better) for m in own}
    return found, left


def _values(record: Record) -> dict[Key, float]:
    return {(m.name, m.split): m.value for m in record.metrics if m.unit not in MACHINE}


def _threads(record: Record) -> int:
    """The number of threads of the record, if allowed here: then its numbers come out exactly."""
    said, here = record.environment.get("threads"), torch.get_num_threads()
    return said if isinstance(said, int) and 1 <= said <= here else here


@contextlib.contextmanager
def _with_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
