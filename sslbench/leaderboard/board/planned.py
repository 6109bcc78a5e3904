"""Turns a plan into the material of a board."""

from __future__ import annotations

import dataclasses

from ...cells.identity import Identity
from ...cells.protocol import find_judge
from ...cells.settings import recorded
from ...cells.suite import Suite
from ...data.opening import canonical
from ...names import published
from ...plan.plan import Plan
from ...plan.selection import whole_suite
from ...plugins import Registry
from ...records import Record
from .material import Blank, Material


def material_of(plan: Plan, registry: Registry) -> Material:
    """The whole suite of a plan with the options applied, and its current records."""
    suite = _as_recorded(whole_suite(plan.suite, plan.suite_id, plan.options), registry)
    asked = suite.methods if plan.options.methods else ()  # these count as methods, not baselines
    baselines = tuple(name for name in suite.baselines if name not in asked)
    suite = dataclasses.replace(suite, baselines=baselines, notes=(*suite.notes, *plan.notes))
    records: list[Record] = []
    blanks = []
    for planned in plan.cells:
        if planned.needed_by is not None or planned.trial is not None:
            continue
        cell = planned.cell
        if planned.train is None:
            blank = Blank(
                Identity(cell.identity()),
                cell.id,
                published(cell.dataset),
                planned.state,
                planned.why,
            )
            blanks.append(blank)
        else:
            judged = (judge.record for judge in planned.judges)
            records += [planned.train, *(record for record in judged if record is not None)]
    return Material(suite, records, blanks=blanks)


def _as_recorded(suite: Suite, registry: Registry) -> Suite:
    """The suite with names as records have them: a plugin's carry their distribution."""

    def method(name: str) -> str:
        return recorded(name, registry)

    def judge(name: str) -> str:
        return find_judge(name, registry)[0].name

    def setting(key: str) -> str:
        name, dot, rest = key.partition(".")
        return f"{method(name)}{dot}{rest}"

    return dataclasses.replace(
        suite,
        datasets=tuple(published(canonical(name, registry)) for name in suite.datasets),
        set={setting(key): value for key, value in suite.set.items()},
        methods=tuple(map(method, suite.methods)),
        baselines=tuple(map(method, suite.baselines)),
        floor=suite.floor and method(suite.floor),
        normaliser=suite.normaliser and method(suite.normaliser),
        evaluators=tuple(map(judge, suite.evaluators)),
        once=tuple(map(judge, suite.once)),
    )
