"""Checks of what every tracker promises."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..api import CellInfo, RunInfo
from ..events import CellDone, CellStarted, EpochDone, EvaluationDone, Progress
from ..plugins import Registry
from ..run.tracking import make_trackers
from .promise import require

CELL = CellInfo("0" * 64, "a cell", "a-method", "a-backbone", "a-dataset", 0, {}, {"width": 3}, {})
EVENTS = (
    CellStarted(CELL.id, CELL.title),
    Progress(CELL.id, "main", 0, 2, 1, 4, 0.5, 100.0),
    Progress(CELL.id, "main", 0, 2, 2, 4, None, None),
    EpochDone(CELL.id, "main", 1, 2, 0.4, 100.0, (("watch.a-judge-1.top1", 0.5),)),
    EpochDone(CELL.id, "main", 2, 2, None, None),
    EvaluationDone(CELL.id, "a-judge-1", "ok", "top1", 0.6),
    EvaluationDone(CELL.id, "a-judge-1[k=5]", "failed", "", None),
    CellDone(CELL.id, CELL.title, "ok", 1.5),
)


@dataclass(eq=False)
class TrackerTrial:
    """A trackers entry to be checked, with `folder` as its working directory."""

    registry: Registry
    name: str  # with its bracket
    folder: Path


def follows_a_run(trial: TrackerTrial) -> None:
    """It takes every event, even of a cell with odd names, and closes."""
    with _inside(trial.folder):
        (made,) = make_trackers([trial.name], trial.registry)
        tracker = made.tracker
        tracker.start(RunInfo("a-suite", trial.folder, __version__))
        odd = CellInfo("f" * 64, "../<b>\x1b[31m", "x/y", "b[a=1]", "d:/p q", 1, {}, {}, {})
        for cell in (CELL, odd):
            for event in EVENTS:
                tracker(event, cell)
        tracker.close()
    left = [path for path in trial.folder.parent.iterdir() if path.name not in {"tracked"}]
    require(not left, f"it writes beside the folder it was started in: {left[:3]}")


def ends_without_events(trial: TrackerTrial) -> None:
    """It can be started and closed without an event, as in a run with nothing to do."""
    with _inside(trial.folder):
        (made,) = make_trackers([trial.name], trial.registry)
        made.tracker.start(RunInfo("a-suite", trial.folder, __version__))
        made.tracker.close()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


TRACKER_CHECKS = (follows_a_run, ends_without_events)
