"""Compares two rows of a table, seed by seed, under each protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...errors import UnknownName, UserError
from .. import statistics
from .board import Block, Column, Row


@dataclass(frozen=True)
class Comparison:
    """One row minus another under a ranking column; `paired.holm` is over all pairs asked for."""

    column: Column
    one: str
    other: str
    paired: statistics.Paired

    @property
    def leads(self) -> str:
        """Label of the better row, if they differ after Holm's correction; else empty."""
        found = self.paired
        if found.holm is None or found.mean is None or found.holm >= 1 - statistics.LEVEL:
            return ""
        return self.one if (found.mean > 0) == self.column.higher_is_better else self.other


def compared(block: Block, pairs: Sequence[tuple[str, str]]) -> Iterator[Comparison]:
    """Compares each pair of rows under each ranking column.

    Raises:
        UserError: a name fits no row, or several.
    """
    rows = [(_row(block, one), _row(block, other)) for one, other in pairs]
    for index, column in enumerate(block.columns):
        if not column.ranks:
            continue
        found = {
            f"{at}": statistics.paired(one.scores[index].values, other.scores[index].values)
            for at, (one, other) in enumerate(rows)
        }
        for (one, other), paired in zip(rows, statistics.corrected(found).values(), strict=True):
            yield Comparison(column, one.label, other.label, paired)


def _row(block: Block, name: str) -> Row:
    """The row with this label, with or without its distribution in front."""
    exact = [row for row in block.rows if row.label == name]
    found = exact or [row for row in block.rows if row.label.partition("/")[2] == name]
    if len(found) > 1:
        raise UserError(
            f"{name!r} could be {' or '.join(row.label for row in found)}; write one in full"
        )
    if not found:
        raise UnknownName("row", name, [row.label for row in block.rows])
    return found[0]
