"""A plan: the cells of a suite, and how each stands in the store."""

from __future__ import annotations

from dataclasses import dataclass

from ..cells.cell import Cell
from ..cells.protocol import Judge
from ..cells.suite import Suite
from ..records import Record
from ..store import Store
from .selection import Selection


@dataclass(frozen=True)
class PlannedJudge:
    judge: Judge
    state: str  # done missing skipped failed
    record: Record | None = None


@dataclass(frozen=True)
class Planned:
    """One cell of a plan and how it stands in the store."""

    cell: Cell
    state: str  # done missing stale evaluate failed unsupported
    why: str
    judges: tuple[PlannedJudge, ...]
    baseline: bool = False
    needed_by: str | None = None  # the method that alone needs this cell, as its pretext
    trial: tuple[int, str] | None = None  # of a tuning trial: its number, what was drawn
    train: Record | None = None

    @property
    def open(self) -> bool:
        return self.state in ("missing", "stale", "evaluate", "failed")

    @property
    def finished(self) -> bool:
        """Whether it is trained."""
        return self.train is not None and self.train.status == "ok"


@dataclass
class Plan:
    suite: Suite
    suite_id: str
    cells: list[Planned]
    options: Selection
    store: Store
    waiting: int = 0  # further cells, whose settings the unfinished trials will choose
    notes: tuple[str, ...] = ()  # what a reader of the table must know of the tuning
    targets: frozenset[str] = frozenset()  # datasets of a source and a target domain

    @property
    def open(self) -> list[Planned]:
        """The cells that `run` would run."""
        left = ("failed",) if self.options.skip_failed else ()
        return [c for c in self.within if c.open and c.state not in left]

    @property
    def within(self) -> list[Planned]:
        """The cells that `run` may touch."""
        only, train = self.options.only, self.options.how.train
        cells = [c for c in self.cells if not only or c.cell.method in only]
        return [c for c in cells if train or c.finished]
