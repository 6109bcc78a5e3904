"""Renders a diff: as plain text, as Markdown for a comment on a pull request, or as plain data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..board.board import Column
from ..output.markdown import markdown_text
from ..output.text import title
from .diff import Change, Changed, Diff, Position

SAME = "no rank and no mean changed"
LIMIT = 25_000  # characters of each of the two tables: GitHub takes 65,536 in a comment


def as_text(diff: Diff) -> str:
    lines = [f"suite: {each}" for each in diff.suite]
    for changed in diff.columns:
        lines += ["", title(changed.table), f"  {_head(changed)}"]
        for change in changed.changes:
            lines.append(f"    {change.row}: {_places(change, changed.column)}")
            lines += [f"      {reason.text}" for reason in change.why]
    lines += ["", _summary(diff)] if diff.changed else [_summary(diff)]
    return "\n".join(lines).lstrip("\n") + "\n"


def as_markdown(diff: Diff) -> str:
    """Markdown: a table of changed ranks, with everything else folded below it."""
    parts = [f"**Leaderboard:** {_summary(diff)}"]
    if diff.suite:
        parts.append("\n".join(f"- suite: {markdown_text(each)}" for each in diff.suite[:20]))
    moved = [(c, change) for c in diff.columns for change in c.changes if change.moved]
    still = [(c, change) for c in diff.columns for change in c.changes if not change.moved]
    if moved:
        parts.append(_table(moved))
    if still:
        head = f"<details><summary>{len(still)} with the same rank and another mean</summary>"
        parts.append(f"{head}\n\n{_table(still)}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _table(found: list[tuple[Changed, Change]]) -> str:
    lines = [
        "| table | column | row | before | after | why |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for changed, change in found:
        why = "; ".join(reason.text for reason in change.why)
        places = [_place(place, changed.column) for place in (change.before, change.after)]
        cells = [title(changed.table), _head(changed), change.row, *places, why]
        lines.append(f"| {' | '.join(map(markdown_text, cells))} |")
    ends = itertools.accumulate(len(line) for line in lines)
    kept = [line for line, end in zip(lines, ends, strict=True) if end <= LIMIT]
    if len(kept) < len(lines):
        kept.append(f"\n{len(lines) - len(kept)} more: `sslbench leaderboard diff` lists them all.")
    return "\n".join(kept)


def _summary(diff: Diff) -> str:
    changes = [change for changed in diff.columns for change in changed.changes]
    counts = [
        (sum(change.moved for change in changes), "rank", "changed"),
        (sum(not change.moved for change in changes), "mean", "changed under the same rank"),
        (len(diff.added), "record", "added"),
        (len(diff.gone), "record", "gone"),
    ]
    told = [f"{n} {what}{'s' * (n != 1)} {how}" for n, what, how in counts if n]
    return ", ".join(told if diff.changed else [SAME, *told])


def _head(changed: Changed) -> str:
    column, was = changed.column, changed.was
    before = f" (was {was.protocol})" if was and was.protocol != column.protocol else ""
    return f"{column.protocol} {column.metric}{before}"


def _places(change: Change, column: Column) -> str:
    return f"{_place(change.before, column)} -> {_place(change.after, column)}"


def _place(place: Position | None, column: Column) -> str:
    if place is None:
        return "not there"
    if place.mean is None:
        return "no value"
    value = f"{place.mean:.4g} {column.unit}" if column.unit else f"{100 * place.mean:.2f}"
    if not place.rank:
        return f"{value} (n={place.n})"
    rank = f"{place.rank}" if place.rank == place.rank_to else f"{place.rank}-{place.rank_to}"
    return f"#{rank} {value} (n={place.n})"


def plain(diff: Diff) -> Iterator[dict[str, object]]:
    """What changed as plain data: one object per table, column and row."""
    for changed in diff.columns:
        for change in changed.changes:
            yield {
                "table": vars(changed.table),
                "column": vars(changed.column),
                "protocol_before": changed.was.protocol if changed.was else None,
                "row": change.row,
                "before": vars(change.before) if change.before else None,
                "after": vars(change.after) if change.after else None,
                "why": [vars(reason) for reason in change.why],
            }
