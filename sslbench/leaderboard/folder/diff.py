"""Compares two boards: which rows changed their rank or mean under a ranking column, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from ..board.board import Block, Board, Column, Row, Setting
from .reasons import Index, Reason, Seen, base, reasons, shown

if TYPE_CHECKING:
    from ...records import Record
    from .folder import Leaderboard

T = TypeVar("T")
Pair = tuple[T | None, T | None]  # before, after
NO_BLOCK = Block(Setting("", ""), (), ())


@dataclass(frozen=True)
class Side:
    """One of the two leaderboards."""

    board: Board
    records: Sequence[Record]
    suite: Mapping[str, Any]  # its fields


@dataclass(frozen=True)
class Position:
    """Where a row stands under one column."""

    rank: int | None  # best place, and
    rank_to: int | None  # worst
    mean: float | None  # a fraction, or in the column's unit
    n: int  # seeds


@dataclass(frozen=True)
class Change:
    """A row under one column, before and after."""

    row: str
    before: Position | None  # None: the row was not there
    after: Position | None
    why: tuple[Reason, ...]

    @property
    def moved(self) -> bool:
        """Whether its rank changed."""
        before, after = (
            (place.rank, place.rank_to) if place else None for place in (self.before, self.after)
        )
        return before != after


@dataclass(frozen=True)
class Changed:
    """One ranking column of one table, with the rows whose rank or numbers changed."""

    table: Setting
    column: Column
    was: Column | None  # the column before; None: there was none
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Diff:
    """Everything that changed between two leaderboards."""

    suite: tuple[str, ...]  # a text for each field that differs
    columns: tuple[Changed, ...]
    added: tuple[str, ...]  # record ids
    gone: tuple[str, ...]

    @property
    def changed(self) -> bool:
        return bool(self.columns)


def side_of(folder: Leaderboard) -> Side:
    from .folder import board_of

    suite = {f.name: getattr(folder.suite, f.name) for f in dataclasses.fields(folder.suite)}
    return Side(board_of(folder), folder.records, suite)


def between(old: Side, new: Side) -> Diff:
    """Compares two leaderboards.

    This sslbench makes both boards, so that all differences come from the records or suites.
    """
    ids = [{record.record_id for record in side.records} for side in (old, new)]
    names = sorted(old.suite.keys() | new.suite.keys())
    told = (
        f"{name} {shown(old.suite.get(name))} -> {shown(new.suite.get(name))}"
        for name in names
        if old.suite.get(name) != new.suite.get(name)
    )
    indices = Index(old.records), Index(new.records)
    columns = [
        changed
        for before, after in _tables(old.board.blocks, new.board.blocks)
        for changed in _columns(before or NO_BLOCK, after or NO_BLOCK, indices)
    ]
    added, gone = ids[1] - ids[0], ids[0] - ids[1]
    return Diff(tuple(told), tuple(columns), tuple(sorted(added)), tuple(sorted(gone)))


# ---- what is the same thing ------------------------------------------------------------------


def _paired(
    old: Iterable[T], new: Iterable[T], tests: Sequence[Callable[[T, T], bool]]
) -> Iterator[Pair[T]]:
    """Pairs old and new: first all that the first test matches, then the next; None: no match."""
    left, wanted = list(old), list(new)
    like: dict[int, T] = {}
    for test in tests:
        for at, it in enumerate(wanted):
            found = next((o for o in left if at not in like and test(o, it)), None)
            if found is not None:
                like[at] = found
                left = [o for o in left if o is not found]
    yield from ((like.get(at), it) for at, it in enumerate(wanted))
    yield from ((o, None) for o in left)


def _tables(old: Sequence[Block], new: Sequence[Block]) -> Iterator[Pair[Block]]:
    def near(fields: int) -> Callable[[Block, Block], bool]:
        def test(a: Block, b: Block) -> bool:
            one, two = (dataclasses.astuple(block.setting) for block in (a, b))
            return one[:2] == two[:2] and sum(map(lambda x, y: x != y, one, two)) <= fields

        return test

    return _paired(old, new, [near(0), near(1), near(len(dataclasses.fields(Setting)))])


def _rows(old: Sequence[Row], new: Sequence[Row]) -> Iterator[Pair[Row]]:
    """Pairs the rows: rows that share a cell are the same one, whatever their labels."""

    def cells(a: Row, b: Row) -> bool:
        return bool(set(a.cells.values()) & set(b.cells.values()))

    def only(rows: Sequence[Row], row: Row) -> bool:
        return [r.method for r in rows].count(row.method) == 1

    return _paired(
        old,
        new,
        [
            lambda a, b: cells(a, b) and a.label == b.label,
            cells,
            lambda a, b: a.label == b.label,
            lambda a, b: a.method == b.method and only(old, a) and only(new, b),
        ],
    )


def _ranking(block: Block) -> list[Column]:
    return [column for column in block.columns if column.ranks]


def _same_column(a: Column, b: Column) -> bool:
    return (a.evaluator, a.protocol, a.metric, a.split) == (
        b.evaluator,
        b.protocol,
        b.metric,
        b.split,
    )


def _raised(a: Column, b: Column) -> bool:
    """Whether evaluator and metric are the same, under whatever protocol."""
    return (base(a), a.metric) == (base(b), b.metric)


# ---- what changed ----------------------------------------------------------------------------


def _columns(old: Block, new: Block, indices: tuple[Index, Index]) -> Iterator[Changed]:
    rows = list(_rows(old.rows, new.rows))
    tests = [_same_column, _raised]
    for before, after in _paired(_ranking(old), _ranking(new), tests):
        entries = [
            _Compared(Seen(old, before, a, indices[0]), Seen(new, after, b, indices[1]))
            for a, b in rows
        ]
        changes = [
            Change(e.label, *e.places, reasons(e.old, e.new, _movers(e, entries)))
            for e in entries
            if not e.steady or e.places[0] != e.places[1]
        ]
        column = after or before
        if changes and column:
            yield Changed((new if after else old).setting, column, before, tuple(changes))


@dataclass(frozen=True)
class _Compared:
    """A row under one column, before and after."""

    old: Seen
    new: Seen

    @property
    def label(self) -> str:
        row = self.new.row or self.old.row
        return row.label if row else ""

    @cached_property
    def steady(self) -> bool:
        """Whether the row is on both sides with the same numbers."""
        there = self.old.row is not None and self.new.row is not None
        return there and self.old.values == self.new.values

    @cached_property
    def places(self) -> tuple[Position | None, Position | None]:
        return _place(self.old), _place(self.new)


def _place(seen: Seen) -> Position | None:
    if seen.row is None:
        return None
    score = seen.score
    if score is None:
        return Position(None, None, None, 0)
    return Position(score.rank, score.rank_to, score.mean, score.n)


def _movers(entry: _Compared, entries: Sequence[_Compared]) -> list[str]:
    """Rows with changed numbers that came ahead of this one, or fell behind it."""
    before, after = entry.places
    if not (before and after):
        return []
    if (before.rank, before.rank_to) == (after.rank, after.rank_to):
        return []
    others = [e for e in entries if e is not entry and not e.steady]
    crossed = [e for e in others if _ahead(e.old, entry.old) != _ahead(e.new, entry.new)]
    # among ties a rank may change although no row overtakes another
    chosen = crossed or ([] if not entry.steady else others)
    return [f"{e.label} ({_became(e)})" for e in chosen]


def _ahead(one: Seen, other: Seen) -> bool:
    mine, theirs = one.score, other.score
    if mine is None or mine.rank is None:
        return False
    if theirs is None or theirs.rank is None or mine.mean is None or theirs.mean is None:
        return True
    sign = 1 if one.column and one.column.higher_is_better else -1
    return sign * mine.mean > sign * theirs.mean


def _became(entry: _Compared) -> str:
    if entry.old.row is None:
        return "new"
    return "gone" if entry.new.row is None else "changed"
