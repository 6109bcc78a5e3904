"""Makes a row from its cells: values by column, what is missing and why, and costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ...records import HEALTH
from .. import statistics
from .board import Column, Flag, Gap, MeanCosts, Row, Score, Trouble
from .columns import Key
from .details import details_of
from .member import Member, judged_as
from .printable import printable
from .variants import Group


def row_of(
    label: str, group: Group, columns: Mapping[Key, Column], level: float, command: str
) -> Row:
    """Makes one row of a table; `command` runs its suite."""
    members = group.members
    first = members[0]
    scores = tuple(_score(members, key, level) for key in columns)
    return Row(
        label=label,
        method=printable(first.method),
        baseline=first.baseline,
        anchor=printable(first.anchor) if first.anchor else None,
        trained=any(m.known.trained for m in members),
        cells={m.seed: m.cell_id for m in members},
        scores=scores,
        costs=_costs(members),
        troubles=_troubles(members, list(dict.fromkeys(key[0] for key in columns))),
        flags=_warned(members),
        health=_health(members),
        details=details_of(members, group.settings, command),
    )


def _score(members: Sequence[Member], key: Key, level: float) -> Score:
    values, gaps = {}, {}
    for member in members:
        found = _value(member, key)
        if isinstance(found, Gap):
            gaps[member.seed] = found
        else:
            values[member.seed] = found
    if not values:
        return Score(values, gaps)
    numbers = list(values.values())
    return Score(
        values,
        gaps,
        statistics.mean(numbers),
        statistics.sd(numbers) if len(numbers) > 1 else None,
        statistics.t_interval(numbers, level),
    )


def _value(member: Member, key: Key) -> float | Gap:
    evaluator, judge, *metric = key
    record = member.evaluations.get(evaluator)
    if record is None or record.status != "ok":
        return _gap(member, evaluator)
    if judged_as(record) == judge:
        for each in record.metrics:
            if [each.name, each.split] == metric:
                return each.value
    return Gap("absent")


def _gap(member: Member, evaluator: str) -> Gap:
    """Why a value is missing: the training's failure, or else the evaluator's."""
    if evaluator and evaluator not in member.evaluations:
        return Gap("absent")
    own = member.evaluations.get(evaluator)
    for record, whose in ((member.train, ""), (own, evaluator)):
        if record is not None and record.status != "ok":
            error = record.error
            sentence = record.sentence or (error.message if error else "")
            kind = error.kind if error else ""
            return Gap(record.status, printable(kind), printable(sentence), printable(whose))
    if member.train is not None:
        return Gap("missing", evaluator=printable(evaluator))
    state = {"unsupported": "skipped", "failed": "failed"}.get(member.state, "missing")
    return Gap(state, sentence=printable(member.sentence))


def _troubles(members: Sequence[Member], evaluators: Sequence[str]) -> tuple[Trouble, ...]:
    """Each reason for missing values once, with its seeds."""
    found: dict[Gap, dict[int, None]] = {}
    for member in members:
        for evaluator in evaluators:
            record = member.evaluations.get(evaluator)
            if evaluator and evaluator not in member.evaluations:
                continue
            if record is None or record.status != "ok":
                found.setdefault(_gap(member, evaluator), {})[member.seed] = None
    return tuple(Trouble(gap, tuple(seeds)) for gap, seeds in found.items())


def _warned(members: Sequence[Member]) -> tuple[Flag, ...]:
    found: dict[tuple[str, str], dict[int, None]] = {}
    for member in members:
        seen = member.known.labels
        if seen != "none" and not member.baseline:
            how_many = "every label" if seen == "all" else f"{member.known.budget} labels"
            found.setdefault(("sees-labels", f"trained with {how_many}"), {})[member.seed] = None
        for record in (member.train, *member.evaluations.values()):
            for warning in record.warnings if record else ():
                key = printable(warning.code), printable(warning.message)
                found.setdefault(key, {})[member.seed] = None
    return tuple(
        Flag(code, message, tuple(seeds), code in HEALTH)
        for (code, message), seeds in found.items()
    )


def _health(members: Sequence[Member]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for member in members:
        if member.train and member.train.status == "ok":
            for name, value in member.train.health.items():
                found.setdefault(printable(name), []).append(value)
    return {name: statistics.mean(values) for name, values in found.items()}


def _costs(members: Sequence[Member]) -> MeanCosts:
    found = [m.train.costs for m in members if m.train and m.train.status == "ok" and m.train.costs]
    means: dict[str, Any] = {}
    for name in (
        f.name for f in dataclasses.fields(MeanCosts) if f.name not in ("stages", "trials")
    ):
        known = [getattr(c, name) for c in found if getattr(c, name) is not None]
        means[name] = statistics.mean(known) if known else None
    stages: dict[str, list[float]] = {}
    for costs in found:
        for stage in costs.stages:
            stages.setdefault(printable(stage.name), []).append(stage.seconds)
    trials = max((m.trials for m in members), default=0)
    return MeanCosts(
        **means, stages={k: statistics.mean(v) for k, v in stages.items()}, trials=trials
    )
