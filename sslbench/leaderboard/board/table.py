"""Builds a board from members: sorts them into tables and compares their rows.

Rows share a table when dataset bytes, backbone, precision, epochs and label budget agree. Values
share a column when evaluator, version and parameters agree.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from .. import statistics
from .board import Block, Board, Setting
from .columns import SHOWN, columns_of, without_echoes
from .findings import findings
from .mce import normalised
from .member import Member
from .overall import across
from .printable import printable
from .ranking import flagged, order, rank
from .rows import row_of
from .variants import groups_of


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
    """Builds the board of a suite's cells; ValueError if one cell is given twice.

    Errors under corruption are divided by those of the method `normaliser` (mce.py). `command`
    runs the suite; each row adds its own options.
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
    """Members by table, in order of appearance; one that fits into other tables gets none of its own."""
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
    keyed = columns_of(members, shown)
    rows = [
        row_of(label, group, keyed, level, command) for label, group in groups_of(members).items()
    ]
    columns = without_echoes(list(keyed.values()), rows)
    scores = [list(row.scores) for row in rows]
    compared = [rank(rows, scores, index, column, level) for index, column in enumerate(columns)]
    rows = [
        dataclasses.replace(row, scores=tuple(own)) for row, own in zip(rows, scores, strict=True)
    ]
    rows = [flagged(row, rows, columns) for row in rows]
    found = tuple(findings(rows, columns, compared))
    rows = sorted(rows, key=lambda row: order(row, columns))
    return Block(setting, columns, tuple(rows), found)
