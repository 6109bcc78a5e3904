"""What the three have in common: one run a cell, the names of curves, hyperparameters as config."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from sslbench import UserError
from sslbench.api import CellInfo, RunInfo, Tracker
from sslbench.events import CellDone, EpochDone, Event, Judged, Progress


def needs(library: str, extra: str) -> None:
    """Before anything runs, so that nobody finds an empty dashboard in the morning."""
    if find_spec(library) is None:
        raise UserError(
            f"--track {extra} needs {library}, which is not installed: "
            f"pip install 'sslbench-trackers[{extra}]'"
        )


class PerCell(Tracker):
    """Opens a run at the first event of a cell, and ends it when the cell is done."""

    run: RunInfo

    def __init__(self) -> None:
        self._open: dict[str, Any] = {}

    def start(self, run: RunInfo) -> None:
        self.run = run

    def __call__(self, event: Event, cell: CellInfo) -> None:
        if isinstance(event, Progress):
            return  # the unit of a curve is the epoch
        if cell.id not in self._open:
            self._open[cell.id] = self.begin(cell)
        held = self._open[cell.id]
        if isinstance(event, EpochDone):
            self.epoch(held, event.stage, event.epoch, dict(curves(event)))
        elif isinstance(event, Judged) and event.value is not None:
            self.judged(held, dict(metrics(event)))
        elif isinstance(event, CellDone):
            del self._open[cell.id]
            self.finish(held, event.status, event.sentence)

    def close(self) -> None:
        for held in self._open.values():
            self.finish(held, "interrupted", "the run broke off")

    @abstractmethod
    def begin(self, cell: CellInfo) -> Any:
        """Of the cell's run, whatever the other three want back; a run begun earlier goes on."""

    @abstractmethod
    def epoch(self, held: Any, stage: str, number: int, values: Mapping[str, float]) -> None:
        """Points of curves after so many epochs of a stage; `main` is the method itself."""

    @abstractmethod
    def judged(self, held: Any, values: Mapping[str, float]) -> None:
        """What a judge found of the finished encoder."""

    @abstractmethod
    def finish(self, held: Any, status: str, sentence: str) -> None:
        """ok, failed, skipped or interrupted, and why."""


def curves(event: EpochDone) -> Iterator[tuple[str, float]]:
    """`loss`, `images_per_second`, `watch/knn-1.acc`; those of a stage as `agree/loss`."""
    before = "" if event.stage == "main" else f"{event.stage}/"
    if event.loss is not None:
        yield f"{before}loss", event.loss
    if event.images_per_second is not None:
        yield f"{before}images_per_second", event.images_per_second
    for name, value in event.watched:
        yield f"{before}{name.replace('watch.', 'watch/', 1)}", value


def metrics(event: Judged) -> Iterator[tuple[str, float]]:
    """`judge/knn-1.acc`."""
    for name, value in event.metrics:
        yield f"judge/{event.protocol}.{name}", value


def config(cell: CellInfo, run: RunInfo) -> dict[str, Any]:
    """All that a reader may want to sort, filter or group runs by."""
    return {
        "method": cell.method,
        "backbone": cell.backbone,
        "dataset": cell.dataset,
        "seed": cell.seed,
        "precision": cell.identity.get("precision"),
        "hyperparameters": dict(cell.hyperparameters),
        "recipe": dict(cell.recipe),
        "cell": cell.id,
        "suite": run.suite,
        "store": run.store.name,
        "sslbench": run.version,
    }


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, bool | int | float | str]:
    """`{"recipe": {"lr": 0.3}}` as `{"recipe.lr": 0.3}`; what is no scalar as JSON."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{before}{key}.")
        else:
            scalar = isinstance(value, bool | int | float | str)
            found[f"{before}{key}"] = value if scalar else json.dumps(value)
    return found


def slug(text: str) -> str:
    """Of a name that anybody may have chosen, what can stand in one component of a path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:80]
