"""Trackers, and what they are told of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..events import Event


@dataclass(frozen=True)
class CellInfo:
    """What a tracker is told of a cell, as plain data."""

    id: str
    title: str  # as the terminal shows it
    method: str
    backbone: str
    dataset: str
    seed: int
    identity: Mapping[str, Any]  # exactly what is meant to change the number
    hyperparameters: Mapping[str, Any]  # resolved
    recipe: Mapping[str, Any]  # resolved; empty where nothing is trained


@dataclass(frozen=True)
class RunInfo:
    """What a tracker is told of a run before its first event, as plain data."""

    suite: str  # id
    store: Path
    version: str  # of sslbench


class Tracker(ABC):
    """Shows a running run elsewhere. The bracket of its name sets keyword-only parameters.

    It is made before anything runs: errors.UserError, such as for a missing library, ends the
    command. Its methods are called in order, in a thread of their own beside the run. A tracker
    that raises there is closed and left out, and the run goes on.
    """

    def start(self, run: RunInfo) -> None:
        """Called once, before the first event."""
        return

    @abstractmethod
    def __call__(self, event: Event, cell: CellInfo) -> None:
        """Called for each event of `sslbench.events`, with its cell. Cells interleave."""

    def close(self) -> None:
        """Called once, however the run ends. Cells without a CellDone were interrupted."""
        return
