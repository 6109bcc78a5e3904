"""Compares the rows of a table: ranks, best marks, differences, and who is below the floor."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .. import statistics
from .board import Column, Flag, Row, Score


def order(row: Row, columns: Sequence[Column]) -> tuple[Any, ...]:
    """Sort key of rows: methods before baselines, then by mean under the first column."""
    score = row.scores[0] if columns else None
    if score is None or score.mean is None:
        return row.baseline, True, 0.0, row.label
    return row.baseline, False, -_sign(columns[0]) * score.mean, row.label


def _sign(column: Column) -> int:
    return 1 if column.higher_is_better else -1


def rank(
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


def compare(rows: Sequence[Row], scores: list[list[Score]], index: int, level: float) -> None:
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


def flagged(row: Row, rows: Sequence[Row], columns: Sequence[Column]) -> Row:
    """Adds a flag such as `below-untrained` where a ranking mean is worse than without training."""
    if not row.trained:
        return row
    flags = []
    for start in (r for r in rows if r.anchor and not r.trained):
        for column, own, other in zip(columns, row.scores, start.scores, strict=True):
            # better features may be worse calibrated or of lower rank: that is not a fault
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
