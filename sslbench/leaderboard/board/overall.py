"""Average ranks across data sets, protocol by protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from .. import statistics
from .board import Block, Column, Overall, Setting, Standing

FIELDS = ("precision", "epochs", "budget")  # tables must agree in these to be averaged


def across(blocks: Sequence[Block], level: float) -> Iterator[Overall]:
    """Average ranks under each ranking protocol that judged two or more data sets.

    Baselines are left out. If a data set is in several tables (other bytes, another budget), the
    first counts.
    """
    alike: dict[tuple[object, ...], dict[str, Block]] = {}
    for block in blocks:
        alike.setdefault(_kind(block.setting), {}).setdefault(block.setting.dataset, block)
    for found in alike.values():
        for column in _common(found):
            yield from _overall(found, column, level)


def _kind(setting: Setting) -> tuple[object, ...]:
    return (setting.backbone, *(getattr(setting, name) for name in FIELDS))


def _bare(column: Column) -> Column:
    """The column without what may differ between tables."""
    return dataclasses.replace(column, narrow=False)


def _common(blocks: Mapping[str, Block]) -> list[Column]:
    seen = [_bare(c) for block in blocks.values() for c in block.columns if c.ranks and c.metric]
    return [column for column in dict.fromkeys(seen) if seen.count(column) > 1]


def _overall(blocks: Mapping[str, Block], column: Column, level: float) -> Iterator[Overall]:
    means: dict[str, dict[str, float]] = {}  # data set -> row -> mean
    for dataset, block in blocks.items():
        for at, other in enumerate(block.columns):
            if _bare(other) == column:
                means[dataset] = {
                    row.label: row.scores[at].mean or 0.0
                    for row in block.rows
                    if not row.baseline and row.scores[at].mean is not None
                }
    labels = list(dict.fromkeys(label for found in means.values() for label in found))
    whole = [label for label in labels if all(label in found for found in means.values())]
    if len(means) < 2 or len(whole) < 2:
        return
    values = [[found[label] for label in whole] for found in means.values()]
    ranks = statistics.average_ranks(values, higher_is_better=column.higher_is_better, level=level)
    standings = [Standing(label, *rank) for label, rank in zip(whole, ranks, strict=True)]
    yield Overall(
        next(iter(blocks.values())).setting.backbone,
        column.evaluator,
        column.protocol,
        column.metric,
        tuple(means),
        tuple(sorted(standings, key=lambda each: (each.rank, each.label))),
        tuple(label for label in labels if label not in whole),
    )
