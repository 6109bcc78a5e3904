"""Makes the columns, one for each metric of each protocol, and marks those of narrow tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...records import digest
from .board import Column, Row
from .member import Member, judged_as
from .printable import printable

if TYPE_CHECKING:
    from ...records import MetricValue, Record

Key = tuple[str, ...]  # of a column: evaluator, judge, metric, split


SHOWN = ("nmi", "ari")  # metrics that narrow tables show beside the first of each evaluator


def without_echoes(columns: list[Column], rows: Sequence[Row]) -> tuple[Column, ...]:
    """Takes columns that repeat an earlier one out of narrow tables.

    `linear-1[layers=true]` repeats the top1 of `linear-1`; narrow tables show its next metric
    instead.
    """
    for j, column in enumerate(columns):
        if column.narrow and _said(columns, j, rows):
            columns[j] = dataclasses.replace(column, narrow=False)
            more = [k for k in range(j + 1, len(columns)) if _own(columns, k, column, rows)]
            if more:
                columns[more[0]] = dataclasses.replace(columns[more[0]], narrow=True)
    return tuple(columns)


def _said(columns: Sequence[Column], j: int, rows: Sequence[Row]) -> bool:
    """Whether an earlier column of the same evaluator has every value of column j."""

    def kind(column: Column) -> tuple[str, str]:
        return column.evaluator.partition("[")[0], column.metric

    for i in range(j):
        pairs = [(row.scores[i].values, row.scores[j].values) for row in rows]
        alike = kind(columns[i]) == kind(columns[j]) and any(b for _, b in pairs)
        if alike and all(b.items() <= a.items() for a, b in pairs):
            return True
    return False


def _own(columns: Sequence[Column], k: int, column: Column, rows: Sequence[Row]) -> bool:
    """Whether column k has the same protocol, is not narrow, and repeats no earlier column."""
    if columns[k].narrow or columns[k].protocol != column.protocol:
        return False
    return not _said(columns, k, rows)


def columns_of(members: Sequence[Member], shown: Sequence[str]) -> dict[Key, Column]:
    """Columns by evaluator, protocol and metric, in order of appearance."""
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
