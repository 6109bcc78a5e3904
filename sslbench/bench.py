"""Runs what is missing of a plan."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .events import CellDone, Listener
from .identity import find_judge, is_adopted
from .planning import Plan, make_plan
from .plugins import Registry
from .selection import whole_suite
from .suite import Suite

if TYPE_CHECKING:
    from .leaderboard.member import Member
    from .records import Record


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
) -> Outcome:
    """Does what is missing, trials before the cells whose settings they choose.

    A failed cell never ends the run.
    """
    stop = stop or threading.Event()
    outcome = Outcome()
    _do(plan, registry, outcome, listener, stop)
    if plan.waiting and plan.options.train:
        chosen = make_plan(plan.options, registry)
        plan.cells, plan.waiting, plan.notes = chosen.cells, chosen.waiting, chosen.notes
        if not plan.waiting and not outcome.interrupted:
            _do(plan, registry, outcome, listener, stop)
    outcome.skipped += sum(p.state == "unsupported" for p in plan.cells)
    return outcome


def _do(
    plan: Plan, registry: Registry, outcome: Outcome, listener: Listener, stop: threading.Event
) -> None:
    """What is open in the plan, which then says how its cells stand."""
    from .executors.local import LocalProcesses

    todo = plan.open
    before = {p.cell.id: sum(j.state == "done" for j in p.judges) for p in plan.cells}
    if todo:
        plan.store.create()
        with LocalProcesses(plan, listener) as processes:
            for done in processes.work(todo, stop):
                _count(outcome, done)
    outcome.interrupted |= stop.is_set()
    outcome.failed += sum(p.state == "failed" for p in plan.cells if plan.options.skip_failed)
    after = make_plan(plan.options, registry, preflight=False)
    known = {p.cell.id: p for p in after.cells}
    unsupported = {p.cell.id: p for p in plan.cells if p.state == "unsupported"}
    plan.cells = [unsupported.get(p.cell.id) or known.get(p.cell.id, p) for p in plan.cells]
    for planned in plan.cells:
        done_now = sum(j.state == "done" for j in planned.judges)
        outcome.evaluated += max(0, done_now - before[planned.cell.id])


def _count(outcome: Outcome, done: CellDone) -> None:
    if done.status == "interrupted":
        outcome.interrupted = True
        return
    setattr(outcome, done.status, getattr(outcome, done.status) + 1)
    outcome.trained += done.trained and done.status == "ok"


def collect(plan: Plan, registry: Registry) -> tuple[Suite, list[Record]]:
    """What a leaderboard of the plan is made from: its suite, whole, and the current records."""
    suite = _as_recorded(whole_suite(plan.suite, plan.suite_id, plan.options), registry)
    found = []
    for planned in plan.cells:
        if planned.needed_by is None and planned.trial is None and planned.train is not None:
            judged = (judge.record for judge in planned.judges)
            found += [planned.train, *(record for record in judged if record is not None)]
    return dataclasses.replace(suite, notes=(*suite.notes, *plan.notes)), found


def _as_recorded(suite: Suite, registry: Registry) -> Suite:
    """With the names that records have: what a plugin provides stands with its owner."""

    def method(name: str) -> str:
        if is_adopted(name):
            return name
        entry = registry.find("methods", name)
        return entry.name if entry.builtin else entry.qualified

    def judge(name: str) -> str:
        return find_judge(name, registry)[0].name

    def setting(key: str) -> str:
        name, dot, rest = key.partition(".")
        return f"{method(name)}{dot}{rest}"

    return dataclasses.replace(
        suite,
        set={setting(key): value for key, value in suite.set.items()},
        methods=tuple(map(method, suite.methods)),
        baselines=tuple(map(method, suite.baselines)),
        floor=suite.floor and method(suite.floor),
        normaliser=suite.normaliser and method(suite.normaliser),
        evaluators=tuple(map(judge, suite.evaluators)),
        once=tuple(map(judge, suite.once)),
    )


def members(plan: Plan) -> list[Member]:
    """The plan's cells as the leaderboard takes them: from records alone."""
    from .leaderboard.member import Member

    return [
        Member(
            method=p.cell.method,
            backbone=p.cell.backbone,
            dataset=p.cell.dataset,
            seed=p.cell.seed,
            baseline=p.baseline,
            anchor=p.cell.method if p.cell.method == plan.suite.floor else None,
            cell_id=p.cell.id,
            identity=p.cell.identity(),
            train=p.train,
            evaluations={j.judge.name: j.record for j in p.judges},
            state=p.state,
            sentence=p.why,
            trials=plan.suite.tuning.trials if plan.suite.tuning and p.cell.trained else 0,
        )
        for p in plan.cells
        if p.needed_by is None and p.trial is None
    ]
