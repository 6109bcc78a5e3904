"""Makes the board of a suite from records, wherever they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from .board import Board, LeftOut, Reference
from .material import Material
from .members import members_of
from .printable import printable
from .table import build


def board_of(
    material: Material, *, command: str = "", references: Sequence[Reference] = ()
) -> Board:
    """Makes the board of a suite and its records.

    Args:
        command: runs the suite; each row adds its own options
        references: published numbers to show beside it

    Raises:
        UserError: two records contradict each other.
    """
    suite = material.suite
    members, left = members_of(material)
    board = build(
        members,
        suite_id=suite.name,
        notes=(*suite.notes, *_said(left)),
        normaliser=suite.normaliser,
        summary=suite.summary,
        command=command,
    )
    return dataclasses.replace(
        board,
        title=printable(suite.title),
        authors=tuple(map(printable, suite.authors)),
        left_out=tuple(left),
        references=tuple(references),
    )


def _said(left: Sequence[LeftOut]) -> Iterator[str]:
    """Notes on what was left out: each reason once, with its number of records."""
    counts: dict[str, int] = {}
    for each in left:
        counts[each.reason] = counts.get(each.reason, 0) + 1
    for reason, count in counts.items():
        yield f"{count} record{'s' * (count != 1)} left out: {reason}"
