"""What each cell of a plan is doing, from its records, its log and its lock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...disk import DiskError, read_file
from ...plan.plan import Planned
from ...store import CellFolder
from .log import Curve, Training, read_log

FRESH = 120.0  # seconds; checkpoints come once a minute
STATES = {  # of a plan -> of this page
    "done": "done",
    "missing": "missing",
    "stale": "missing",
    "evaluate": "to judge",
    "failed": "failed",
    "unsupported": "skipped",
}
AT_WORK = ("running", "perhaps")


@dataclass(frozen=True)
class Seen:
    """A cell, and what it is doing now."""

    planned: Planned
    state: str  # done running perhaps stopped to judge missing failed skipped
    training: Training | None = None  # of its log; None: no epoch has ended
    age: float | None = None  # seconds since its training wrote something

    @property
    def at_work(self) -> bool:
        return self.state in AT_WORK

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        cell = self.planned.cell
        recipes = [recipe for _, recipe in cell.stages.values()]
        return sum(each.epochs for each in (*recipes, cell.recipe) if each is not None)

    @property
    def share(self) -> float:
        """How much of its training is done."""
        if self.planned.finished:
            return 1.0
        done = sum(self.training.done.values()) if self.training else 0
        return min(1.0, done / self.epochs) if self.epochs else 0.0

    @property
    def curves(self) -> dict[str, Curve]:
        train = self.planned.train
        if train is not None and train.curves:
            return {name: list(points) for name, points in train.curves.items()}
        return self.training.curves if self.training else {}


class Looker:
    """Looks at cells again and again, and reads a log only when it has grown."""

    def __init__(self) -> None:
        self._logs: dict[Path, tuple[tuple[int, int], Training | None]] = {}

    def look(self, planned: Planned, folder: CellFolder) -> Seen:
        """How a cell stands now. Its lock is asked for, never taken."""
        state = STATES[planned.state]
        if not planned.open:
            return Seen(planned, state)
        training = self._training(folder.path / "log.txt")
        written = max(_written(folder), default=None)
        age = None if written is None else max(0.0, time.time() - written)
        if folder.held():
            return Seen(planned, "running", training, age)
        recorded = max(_times(folder.path / "records"), default=0.0)
        if written is not None and age is not None and written > recorded:
            return Seen(planned, "perhaps" if age < FRESH else "stopped", training, age)
        if state == "missing" and (training or planned.train):
            state = "stopped"
        return Seen(planned, state, training, age)

    def _training(self, path: Path) -> Training | None:
        try:
            known = path.stat()
            key = known.st_mtime_ns, known.st_size
            if path not in self._logs or self._logs[path][0] != key:
                self._logs[path] = key, read_log(read_file(path).decode(errors="replace"))
            return self._logs[path][1]
        except (OSError, ValueError, DiskError):
            return None  # a log that cannot be read is none


def _written(folder: CellFolder) -> Iterator[float]:
    """When the files were written that a training writes before it ends."""
    yield from _times(folder.path / "log.txt")
    for path in folder.path.glob("resume-*.safetensors"):
        yield from _times(path)


def _times(path: Path) -> Iterator[float]:
    try:
        yield path.stat().st_mtime
    except OSError:
        return
