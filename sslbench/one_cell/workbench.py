"""Runs one cell: trains or loads it, then judges it by the evaluators that have not yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..api import Method
from ..cells.cell import Cell
from ..cells.protocol import Judge
from ..disk import DiskError
from ..errors import Interrupted
from ..events import CellDone, CellStarted, Listener
from ..records import Stage
from ..store import Store
from ..train.device import prepare
from ..train.options import RunOptions
from .building import Builds, Means, Unsupported
from .judging import judge_all
from .provenance import add_failure, failure
from .training import CellFailed, trained


class Workbench:
    """Runs cells one after the other, in one process on one device."""

    def __init__(
        self,
        builder: Builds,
        store: Store,
        how: RunOptions,
        *,
        suite: str = "",
        listener: Listener = lambda event: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """`suite` is the suite's id, for records; `stop` is called between steps and evaluators.

        It sets how this process computes: exactly and, where asked, repeatably.
        """
        prepare(builder.device, deterministic=how.deterministic)
        self.builder, self.store = builder, store
        self.build = builder.build  # plugins' tests ask a trial's bench for modules
        self.means = Means(builder, store, how, suite, listener, stop)

    def do(self, cell: Cell, judges: Sequence[Judge]) -> CellDone:
        """Runs what is missing of a cell, and returns how it went. Raises only DiskError."""
        begun = time.monotonic()
        self.means.listener(CellStarted(cell.id, cell.title))
        folder = self.store.cell(cell.id)
        fresh = False

        def done(status: str, sentence: str = "") -> CellDone:
            seconds = time.monotonic() - begun
            return CellDone(cell.id, cell.title, status, seconds, sentence, fresh)

        with folder.lock(waiting=lambda: not self.means.stop()) as held:
            if not held:
                return done("interrupted", "another run holds this cell")
            try:
                before = len(folder.records())
                module, _ = trained(self.means, cell, folder, self.pretext)
                fresh = len(folder.records()) > before
                failed = judge_all(self.means, cell, module, folder, judges)
            except (DiskError, KeyboardInterrupt):
                raise
            except Unsupported as error:
                return done("skipped", str(error))
            except Interrupted as error:
                return done("interrupted", str(error))
            except CellFailed as error:
                return done("failed", str(error))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - of a plugin's dataset, say
                return done("failed", self.broken_off(cell, error))
        return done("failed", failed[0]) if failed else done("ok")

    def broken_off(self, cell: Cell, error: BaseException) -> str:
        """Records that a cell failed by something that nothing else caught; returns the sentence."""
        wrong = failure(error, cell, None)
        add_failure(self.store.cell(cell.id), cell, wrong, suite=self.means.suite)
        return wrong.message

    def pretext(self, cell: Cell) -> tuple[Method, list[Stage]]:
        """Trains or loads a pretext; waits where another process is training it."""
        folder = self.store.cell(cell.id)
        with folder.lock(waiting=lambda: not self.means.stop()) as held:
            if not held:
                raise Interrupted(f"while another run trains {cell.title}")
            try:
                module, stages = trained(self.means, cell, folder, self.pretext)
            except (CellFailed, Unsupported) as error:
                raise ValueError(f"its pretext {cell.method} cannot be used: {error}") from error
        if not isinstance(module, Method):
            raise ValueError(f"{cell.method} is never trained, so it is not a pretext")
        return module, stages
