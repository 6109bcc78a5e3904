"""Runs what is missing of a plan."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..events import CellDone, EvaluationDone, Event, Listener
from ..plan.plan import Plan
from ..plan.planning import make_plan
from ..plugins import Registry

if TYPE_CHECKING:
    from .local import Spare


@dataclass
class Outcome:
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    trained: int = 0
    evaluated: int = 0
    interrupted: bool = False


def run(
    plan: Plan,
    registry: Registry,
    listener: Listener = lambda event: None,
    stop: threading.Event | None = None,
    spare: Spare | None = None,
) -> Outcome:
    """Runs the open cells of a plan, trials before the cells whose settings they choose.

    A failed cell never ends the run. `spare`: a process that was started already.
    """
    stop = stop or threading.Event()
    outcome = Outcome()

    def counting(event: Event) -> None:
        """Counts what this run made; another one may work in the same store."""
        outcome.evaluated += isinstance(event, EvaluationDone) and event.status == "ok"
        listener(event)

    _do(plan, registry, outcome, counting, stop, spare)
    if plan.waiting and plan.options.how.train:
        chosen = make_plan(plan.options, registry)
        plan.cells, plan.waiting, plan.notes = chosen.cells, chosen.waiting, chosen.notes
        if stop.is_set():
            outcome.interrupted = True
        elif not plan.waiting:
            _do(plan, registry, outcome, counting, stop)
    outcome.skipped += sum(p.state == "unsupported" for p in plan.cells)
    return outcome


def _do(
    plan: Plan,
    registry: Registry,
    outcome: Outcome,
    listener: Listener,
    stop: threading.Event,
    spare: Spare | None = None,
) -> None:
    """Runs the open cells of the plan, and then updates how its cells stand."""
    from .local import LocalProcesses

    todo = plan.open
    if todo:
        plan.store.create()
        with LocalProcesses(plan, registry, listener, spare) as processes:
            for done in processes.work(todo, stop):
                _count(outcome, done)
        outcome.interrupted |= processes.left > 0
    outcome.failed += sum(p.state == "failed" for p in plan.cells if plan.options.skip_failed)
    after = make_plan(plan.options, registry, preflight=False)
    known = {p.cell.id: p for p in after.cells}
    unsupported = {p.cell.id: p for p in plan.cells if p.state == "unsupported"}
    plan.cells = [unsupported.get(p.cell.id) or known.get(p.cell.id, p) for p in plan.cells]


def _count(outcome: Outcome, done: CellDone) -> None:
    if done.status == "interrupted":
        outcome.interrupted = True
        return
    if done.status == "skipped":
        return  # counted at the end, with those that nobody tried
    setattr(outcome, done.status, getattr(outcome, done.status) + 1)
    outcome.trained += done.trained and done.status == "ok"
