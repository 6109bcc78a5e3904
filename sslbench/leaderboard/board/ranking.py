"""Compares the rows of a table: ranks, best marks, differences, and who is below the floor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..together import Together, together
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
) -> Together | None:
    """Sets ranks, the best mark and differences under one column; returns how its rows compare.

    Methods are ranked, baselines are what they are held against. None: the column ranks nothing.
    """
    sign = _sign(column)
    means = [
        None if row.baseline or own[index].mean is None else sign * (own[index].mean or 0)
        for row, own in zip(rows, scores, strict=True)
    ]
    top = max((m for m in means if m is not None), default=None)
    for own, mean in zip(scores, means, strict=True):
        own[index] = dataclasses.replace(own[index], best=mean is not None and mean == top)
    if not column.ranks:
        return None
    values = [own[index].values for own in scores]
    found = together(values, [row.baseline for row in rows], level)
    methods = [at for at, row in enumerate(rows) if not row.baseline]
    ranked = [at for at in methods if len(values[at]) > 1]
    signs = sign * found.separated[np.ix_(ranked, ranked)]
    for at, own_signs in zip(ranked, signs, strict=True):
        scores[at][index] = dataclasses.replace(
            scores[at][index],
            rank=1 + int((own_signs < 0).sum()),
            rank_to=len(ranked) - int((own_signs > 0).sum()),
        )
    first = next((at for at in methods if scores[at][index].best), None)
    for at in methods:
        score = scores[at][index]
        behind = None
        if first is not None and score.values and not score.best:
            behind = found.paired(values, at, first)
        against = {
            row.label: found.paired(values, at, other)
            for other, row in enumerate(rows)
            if row.baseline
        }
        scores[at][index] = dataclasses.replace(score, behind=behind, against=against)
    return found


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
