"""Keeps the state of a plan up to date, and looks no closer than it must."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ...disk import cannot_read, names_in
from ...errors import UserError
from ...plan.planning import make_plan
from ...plan.selection import Selection
from ...plugins import Registry
from ..board import making
from ..board.planned import material_of
from ..board.printable import printable
from .cells import Looker
from .state import state_of

PATIENCE = 1.0  # seconds for which a state is new enough for every reader
REST = 4.0  # times as long as a plan took to make, before it is made again


class Watcher:
    """The state of a selection's plan: made again once its store has other records."""

    def __init__(self, options: Selection, registry: Registry) -> None:
        """UserError where the selection cannot be planned, or its records make no table."""
        self.options, self.registry = options, registry
        self.trouble = ""  # why the page shows what was before
        self._lock = threading.Lock()
        self._looker = Looker()
        self._made = (0.0, b"")
        self._rest = 0.0  # no plan is made before
        self._records = self._stamps()
        self._plan()

    def state(self) -> bytes:
        """The state as JSON, a second old at most."""
        with self._lock:
            at, known = self._made
            if not known or time.monotonic() - at > PATIENCE:
                known = json.dumps(self._state(), allow_nan=False).encode()
                self._made = time.monotonic(), known
            return known

    def _state(self) -> dict[str, Any]:
        self._refresh()
        cells = [self._looker.look(p, self.plan.store.cell(p.cell.id)) for p in self.plan.cells]
        state = state_of(self.plan, cells, self.board)
        if self.trouble:
            state["trouble"] = [printable(self.trouble), *state["trouble"]]
        return {**state, "at": datetime.now().astimezone().isoformat(timespec="seconds")}

    def _refresh(self) -> None:
        """Makes the plan and its board again where a record came or went."""
        try:
            begun, stamps = time.monotonic(), self._stamps()
            if stamps != self._records and begun >= self._rest:
                self._plan()
                self._records = stamps
            self.trouble = ""
        except UserError as error:
            self.trouble = f"the page shows what was before: {error}"

    def _plan(self) -> None:
        begun = time.monotonic()
        try:
            self.plan = make_plan(self.options, self.registry, preflight=False, read_only=True)
            self.board = making.board_of(material_of(self.plan, self.registry))
        finally:
            now = time.monotonic()
            self._rest = now + REST * (now - begun)

    def _stamps(self) -> dict[Path, int]:
        """When a record last came or went, by the folder of records."""
        return dict(_times(self.options.store / "cells"))


def _times(root: Path) -> Iterator[tuple[Path, int]]:
    for two in names_in(root):
        for name in names_in(root / two):
            records = root / two / name / "records"
            try:
                yield records, records.stat().st_mtime_ns
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise cannot_read(records, error) from error
