"""Compares two rows of a table under each protocol, as the table does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...errors import UnknownName, UserError
from ..statistics import LEVEL
from ..together import Paired, together
from .board import Block, Column, Row


@dataclass(frozen=True)
class Comparison:
    """One row minus another under a ranking column, as the whole table compares them."""

    column: Column
    one: str
    other: str
    paired: Paired

    @property
    def leads(self) -> str:
        """Label of the better row, if they separate; else empty."""
        found = self.paired
        if found.interval is None or found.interval[0] <= 0 <= found.interval[1]:
            return ""
        return self.one if (found.interval[0] > 0) == self.column.higher_is_better else self.other


def compared(
    block: Block, pairs: Sequence[tuple[str, str]], level: float = LEVEL
) -> Iterator[Comparison]:
    """Compares each pair of rows under each ranking column.

    All rows of the table are compared with them: asking for fewer pairs separates no more.

    Raises:
        UserError: a name fits no row, or several.
    """
    rows = [(_row(block, one), _row(block, other)) for one, other in pairs]
    place = {row.label: at for at, row in enumerate(block.rows)}
    for index, column in enumerate(block.columns):
        if not column.ranks:
            continue
        values = [row.scores[index].values for row in block.rows]
        found = together(values, [row.baseline for row in block.rows], level)
        for one, other in rows:
            paired = found.paired(values, place[one.label], place[other.label])
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
