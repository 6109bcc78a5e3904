"""The events of a run, which listeners and trackers receive. They can be pickled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CellStarted:
    cell: str  # id
    title: str


@dataclass(frozen=True)
class Progress:
    cell: str
    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None
    images_per_second: float | None


@dataclass(frozen=True)
class EpochDone:
    cell: str
    stage: str
    epoch: int  # how many are done
    epochs: int
    loss: float | None
    images_per_second: float | None
    watched: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class EvaluationDone:
    cell: str
    protocol: str
    status: str
    metric: str  # the first one, which ranks
    value: float | None
    metrics: tuple[tuple[str, float], ...] = ()  # all of them, by name


@dataclass(frozen=True)
class CellDone:
    cell: str
    title: str
    status: str  # ok failed skipped interrupted
    seconds: float
    sentence: str = ""
    trained: bool = False


Judged = EvaluationDone  # its name in API 1.1, by which plugins import it
Event = CellStarted | Progress | EpochDone | EvaluationDone | CellDone
Listener = Callable[[Any], None]
