"""From records to a board: which rows may be compared, and what the numbers say.

Rows share a table when dataset bytes, backbone, precision, epochs and label budget agree, and a
column when evaluator, version and parameters do.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...records import HEALTH, canonical, digest
from .. import statistics
from .board import Block, Board, Column, Flag, Gap, MeanCosts, Row, Score, Setting, Trouble
from .details import details_of
from .mce import normalised
from .member import Member, judged_as
from .overall import across
from .printable import printable

if TYPE_CHECKING:
    from ...records import MetricValue, Record

Key = tuple[str, ...]  # of a column: evaluator, judge, metric, split
SHOWN = ("nmi", "ari")  # metrics that narrow tables show beside the first of each evaluator


def build(
    members: Iterable[Member],
    *,
    suite_id: str,
    level: float = statistics.LEVEL,
    shown: Sequence[str] = SHOWN,
    notes: Sequence[str] = (),
    normaliser: str | None = None,
    summary: str = "",
    command: str = "",
) -> Board:
    """The board of a suite's cells. ValueError when one cell is given twice.

    `normaliser` is the method by whose errors those under corruption are divided (mce.py);
    `command` is what runs the suite, without what says which of its rows.
    """
    members = list(members)
    if normaliser:
        members, more = normalised(members, normaliser)
        notes = (*notes, *more)
    for cell, count in Counter(m.cell_id for m in members).items():
        if count > 1:
            raise ValueError(f"cell {cell!r} was given {count} times; a board takes each cell once")
    blocks = [
        _block(setting, group, level, shown, command)
        for setting, group in _by_setting(members).items()
    ]
    given = map(printable, notes)
    return Board(
        printable(suite_id),
        level,
        tuple(blocks),
        (*_notes(blocks), *given),
        printable(summary),
        tuple(across(blocks, level)),
    )


# ---- which rows share a table ----------------------------------------------------------------


def _setting(member: Member) -> Setting:
    identity = member.known
    return Setting(
        printable(member.dataset),
        printable(member.backbone),
        fingerprint=_plain_text(identity.fingerprint),
        size=identity.size,
        precision=_plain_text(identity.precision),
        epochs=identity.recipe.get("epochs"),
        budget=identity.budget,
    )


def _plain_text(value: Any) -> str | None:
    return None if value is None else printable(str(value))


def _by_setting(members: Sequence[Member]) -> dict[Setting, list[Member]]:
    """Members by table, in order of appearance; what fits into others needs none of its own."""
    own: dict[Setting, list[tuple[int, Member]]] = {}
    for at, member in enumerate(members):
        own.setdefault(_setting(member), []).append((at, member))
    found = {}
    for setting in own:
        if not any(other != setting and other.admits(setting) for other in own):
            admitted = [pair for other in own if setting.admits(other) for pair in own[other]]
            found[setting] = [member for _, member in sorted(admitted, key=lambda pair: pair[0])]
    return found


def _notes(blocks: Sequence[Block]) -> Iterable[str]:
    seen: dict[tuple[str, str], list[Setting]] = {}
    for block in blocks:
        seen.setdefault((block.setting.dataset, block.setting.backbone), []).append(block.setting)
    for (dataset, backbone), settings in seen.items():
        if len(settings) > 1:
            yield (
                f"{dataset} on {backbone} is in {len(settings)} tables, whose rows cannot be "
                f"compared: {_differences(settings)}"
            )
    for block in blocks:
        protocols: dict[str, dict[str, None]] = {}
        for column in block.columns:
            protocols.setdefault(column.evaluator, {})[column.protocol] = None
        for evaluator, found in protocols.items():
            if len(found) > 1:
                yield (
                    f"{evaluator} judged {block.setting.dataset} on {block.setting.backbone} under "
                    f"{' and '.join(found)}, which cannot be compared: each has its own columns"
                )


def _differences(settings: Sequence[Setting]) -> str:
    parts = []
    for item in dataclasses.fields(Setting):
        values = [getattr(s, item.name) for s in settings]
        if len(set(values)) > 1:
            shown = (str(v)[:12] if v is not None else "none" for v in dict.fromkeys(values))
            parts.append(f"{item.name} {', '.join(shown)}")
    return "; ".join(parts)


# ---- one table -------------------------------------------------------------------------------


def _block(
    setting: Setting, members: Sequence[Member], level: float, shown: Sequence[str], command: str
) -> Block:
    keyed = _columns(members, shown)
    rows = [_row(label, group, keyed, level, command) for label, group in _groups(members).items()]
    columns = _without_echoes(list(keyed.values()), rows)
    scores = [list(row.scores) for row in rows]
    for index, column in enumerate(columns):
        _rank(rows, scores, index, column, level)
        if column.ranks:
            _compare(rows, scores, index, level)
    rows = [
        dataclasses.replace(row, scores=tuple(own)) for row, own in zip(rows, scores, strict=True)
    ]
    rows = [_flagged(row, rows, columns) for row in rows]
    return Block(setting, columns, tuple(sorted(rows, key=lambda row: _order(row, columns))))


def _without_echoes(columns: list[Column], rows: Sequence[Row]) -> tuple[Column, ...]:
    """Narrow tables show no number twice: `linear-1[layers=true]` has the top1 of `linear-1`.

    What such a protocol adds is shown in its place.
    """
    for j, column in enumerate(columns):
        if column.narrow and _said(columns, j, rows):
            columns[j] = dataclasses.replace(column, narrow=False)
            more = [k for k in range(j + 1, len(columns)) if _own(columns, k, column, rows)]
            if more:
                columns[more[0]] = dataclasses.replace(columns[more[0]], narrow=True)
    return tuple(columns)


def _said(columns: Sequence[Column], j: int, rows: Sequence[Row]) -> bool:
    """Whether every value of column j stands in an earlier one of the same evaluator."""

    def kind(column: Column) -> tuple[str, str]:
        return column.evaluator.partition("[")[0], column.metric

    for i in range(j):
        pairs = [(row.scores[i].values, row.scores[j].values) for row in rows]
        alike = kind(columns[i]) == kind(columns[j]) and any(b for _, b in pairs)
        if alike and all(b.items() <= a.items() for a, b in pairs):
            return True
    return False


def _own(columns: Sequence[Column], k: int, column: Column, rows: Sequence[Row]) -> bool:
    """Whether column k is of the same protocol and says what no earlier one does."""
    if columns[k].narrow or columns[k].protocol != column.protocol:
        return False
    return not _said(columns, k, rows)


def _order(row: Row, columns: Sequence[Column]) -> tuple[Any, ...]:
    """Methods before baselines, by the first column's mean: ranks never run against it."""
    score = row.scores[0] if columns else None
    if score is None or score.mean is None:
        return row.baseline, True, 0.0, row.label
    return row.baseline, False, -_sign(columns[0]) * score.mean, row.label


class Group(NamedTuple):
    """The cells of one row."""

    members: Sequence[Member]
    settings: Mapping[str, Any]  # in which it differs from the other rows of its method


def _groups(members: Sequence[Member]) -> dict[str, Group]:
    """By the label of their row: a method, or one variant of it."""
    variants: dict[str, dict[str, list[Member]]] = {}
    for member in members:
        own = canonical(member.known.settings())
        variants.setdefault(member.method, {}).setdefault(own, []).append(member)
    groups: dict[str, Group] = {}
    for method, found in variants.items():
        unknown = found.pop("{}", [])  # cells nobody knows more of: not yet run
        if len(found) == 1:
            next(iter(found.values())).extend(unknown)
        elif unknown:
            found["{}"] = unknown
        for group in _parted(list(found.values())):
            inner = ",".join(f"{key}={value}" for key, value in group.settings.items())
            label = printable(f"{method}[{inner}]" if inner else method)
            for alike in _once_a_seed(group.members):
                groups[_free(label, groups)] = Group(alike, group.settings)
    return groups


def _parted(groups: Sequence[list[Member]]) -> Iterable[Group]:
    variants = [group[0].known.settings() for group in groups]
    keys = sorted({key for variant in variants for key in variant})
    differing = [k for k in keys if len({canonical(v.get(k)) for v in variants}) > 1]
    for variant, group in zip(variants, groups, strict=True):
        yield Group(group, {k: variant[k] for k in differing if k in variant})


def _once_a_seed(group: Sequence[Member]) -> Iterable[list[Member]]:
    """Cells of one label that differ in what no label shows stay apart, one row each."""
    seeds = [member.seed for member in group]
    if len(set(seeds)) < len(seeds):  # nothing says which seeds belong together
        return [[member] for member in group]
    return [sorted(group, key=lambda member: member.seed)]


def _free(label: str, taken: Mapping[str, Any]) -> str:
    number = 1
    while (name := label if number == 1 else f"{label} ({number})") in taken:
        number += 1
    return name


# ---- columns ---------------------------------------------------------------------------------


def _columns(members: Sequence[Member], shown: Sequence[str]) -> dict[Key, Column]:
    """Columns by evaluator, protocol and metric, as they appear."""
    found: dict[str, dict[str, list[Record]]] = {}
    for member in members:
        for evaluator, record in member.evaluations.items():
            protocols = found.setdefault(evaluator, {})
            if record is not None and record.status == "ok":
                protocols.setdefault(judged_as(record), []).append(record)
    columns: dict[Key, Column] = {}
    for evaluator, protocols in found.items():
        if not protocols:
            name = printable(_asked_protocol(members, evaluator))
            columns[evaluator, ""] = Column(printable(evaluator), name, "", ranks=True, narrow=True)
        named = [records[0].protocol or evaluator for records in protocols.values()]
        for (judge, records), name in zip(protocols.items(), named, strict=True):
            if named.count(name) > 1:
                name = f"{name} ({digest(judge)[:6]})"
            columns.update(_of_protocol(evaluator, judge, printable(name), records, shown))
    return columns or {("", ""): Column("", "nothing judged", "", narrow=True)}


def _of_protocol(
    evaluator: str, judge: str, name: str, records: Sequence[Record], shown: Sequence[str]
) -> dict[Key, Column]:
    metrics: dict[tuple[str, str], MetricValue] = {}
    for record in records:
        for metric in record.metrics:
            metrics.setdefault((metric.name, metric.split), metric)
    return {
        (evaluator, judge, *key): Column(
            printable(evaluator),
            name,
            printable(metric.name),
            printable(metric.split),
            metric.higher_is_better,
            printable(metric.unit),
            ranks=first == 0,
            narrow=first == 0 or metric.name in shown,
        )
        for first, (key, metric) in enumerate(metrics.items())
    }


def _asked_protocol(members: Sequence[Member], evaluator: str) -> str:
    records = (m.evaluations.get(evaluator) for m in members)
    return next((r.protocol for r in records if r and r.protocol), evaluator)


# ---- rows ------------------------------------------------------------------------------------


def _row(
    label: str, group: Group, columns: Mapping[Key, Column], level: float, command: str
) -> Row:
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
    """The failure nearest to the start: that of the cell before that of its judges."""
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
    """Each reason for which values are missing, once, with its seeds."""
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


# ---- rows against rows -----------------------------------------------------------------------


def _sign(column: Column) -> int:
    return 1 if column.higher_is_better else -1


def _rank(
    rows: Sequence[Row], scores: list[list[Score]], index: int, column: Column, level: float
) -> None:
    """Sets rank and best mark under one column; baselines take no part."""
    values = [
        {} if row.baseline else own[index].values for row, own in zip(rows, scores, strict=True)
    ]
    ranks: Sequence[int | None] = [None] * len(rows)
    if column.ranks:
        ranks = statistics.ranks(values, higher_is_better=column.higher_is_better, level=level)
    counts = Counter(ranks)
    sign = _sign(column)
    means = [
        None if not v else sign * (s[index].mean or 0) for v, s in zip(values, scores, strict=True)
    ]
    top = max((m for m in means if m is not None), default=None)
    for own, rank, mean in zip(scores, ranks, means, strict=True):
        own[index] = dataclasses.replace(
            own[index],
            rank=rank,
            tied=rank is not None and counts[rank] > 1,
            best=mean is not None and mean == top,
        )


def _compare(rows: Sequence[Row], scores: list[list[Score]], index: int, level: float) -> None:
    """Sets the paired differences from the best row and from each baseline.

    Each p is corrected for all comparisons of its kind under the column.
    """
    held = {r.label: s[index].values for r, s in zip(rows, scores, strict=True) if r.baseline}
    first = next((own[index].values for own in scores if own[index].best), None)
    behind: dict[str, statistics.Paired] = {}
    against: dict[str, statistics.Paired] = {}
    ranked = [at for at, row in enumerate(rows) if not row.baseline]
    for at in ranked:
        own = scores[at][index]
        if first is not None and own.values and not own.best:
            behind[f"{at}"] = statistics.paired(own.values, first, level=level)
        for label, values in held.items():
            against[f"{at} {label}"] = statistics.paired(own.values, values, level=level)
    behind, against = statistics.corrected(behind), statistics.corrected(against)
    for at in ranked:
        pairs = {label: against[f"{at} {label}"] for label in held}
        scores[at][index] = dataclasses.replace(
            scores[at][index], behind=behind.get(f"{at}"), against=pairs
        )


def _flagged(row: Row, rows: Sequence[Row], columns: Sequence[Column]) -> Row:
    """`below-untrained`, say, where a ranking mean is worse than what no training gives."""
    if not row.trained:
        return row
    flags = []
    for start in (r for r in rows if r.anchor and not r.trained):
        for column, own, other in zip(columns, row.scores, start.scores, strict=True):
            # a worse calibration or a lower rank of better features is no fault of the fit
            scored = column.ranks and column.higher_is_better and not column.unit
            if not scored or own.mean is None or other.mean is None:
                continue
            if own.mean < other.mean:
                message = (
                    f"{column.protocol} {column.metric} is {100 * own.mean:.1f} %, "
                    f"{start.label} has {100 * other.mean:.1f} %"
                )
                flags.append(Flag(f"below-{start.anchor}", message, tuple(own.values), True))
    return dataclasses.replace(row, flags=(*row.flags, *flags))
