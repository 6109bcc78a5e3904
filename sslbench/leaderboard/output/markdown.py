"""Renders a board as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..board.board import Block, Board, Row, Score
from .text import (
    COSTS,
    TUNED,
    WIDE,
    _spent,
    caption,
    conformance_said,
    foreign,
    health_said,
    metric_said,
    rank_said,
    remarked,
    seeds_said,
    title,
    value_said,
)


def as_markdown(board: Board) -> str:
    """Markdown in GitHub's dialect; no text of the board can become markup."""
    parts = [part for block in board.blocks for part in _markdown_block(block)] or ["No cells."]
    if board.notes:
        parts.append("\n".join(f"- Note: {markdown_text(note)}" for note in board.notes))
    parts.append(f"{markdown_text(caption(board, best='bold'))}.")
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block) -> Iterator[str]:
    yield f"### {markdown_text(title(block.setting))}"
    shown = [i for i, column in enumerate(block.columns) if column.narrow]
    names = [
        markdown_text(row.label) + (" (baseline)" if row.baseline else "") for row in block.rows
    ]
    for start in range(0, max(1, len(shown)), WIDE):
        yield _markdown_scores(block, shown[start : start + WIDE], names, first=start == 0)
    yield from map(markdown_text, block.findings)
    said = [
        f"- {', '.join(f'**{markdown_text(label)}**' for label in labels)}: {markdown_text(text)}"
        for text, labels in remarked(block).items()
    ]
    if said:
        yield "\n".join(said)
    tuned = any(row.costs.trials for row in block.rows)
    costs = [[name, *_spent(row.costs, tuned)] for name, row in zip(names, block.rows, strict=True)]
    yield markdown_table(["costs", *COSTS, *TUNED[:tuned]], costs)


def _markdown_scores(
    block: Block, shown: Sequence[int], names: Sequence[str], *, first: bool
) -> str:
    heads = [
        f"{markdown_text(column.protocol)}<br>{markdown_text(metric_said(column))}"
        for column in (block.columns[i] for i in shown)
    ]
    rows = [
        [
            name,
            seeds_said(row),
            *(_markdown_score(row.scores[i], row, block.columns[i].unit) for i in shown),
        ]
        for name, row in zip(names, block.rows, strict=True)
    ]
    if first and any(row.verdicts for row in block.rows):
        heads.append("health")
        for row, cells in zip(block.rows, rows, strict=True):
            cells.append(markdown_text(health_said(row)))
    if first and foreign(block):
        heads.append("kit")
        for row, cells in zip(block.rows, rows, strict=True):
            cells.append(markdown_text(conformance_said(row)))
    return markdown_table(["method", "n", *heads], rows)


def _markdown_score(score: Score, row: Row, unit: str) -> str:
    text = markdown_text(value_said(score, row, unit))
    text = f"**{text}**" if score.best else text
    return f"{text} {rank_said(score)}".rstrip()


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table from cells that are Markdown already."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def markdown_text(text: str) -> str:
    """Escapes text, so that Markdown shows it as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"[\\`*_{}\[\]~!$#]", r"\\\g<0>", text).replace("|", "&#124;")
    text = re.sub(r"^([-+])(?= )", r"\\\1", text)  # not a list
    text = re.sub(r"^(\d+)([.)])(?= )", r"\1\\\2", text)
    text = text.replace("@", "@&#8203;")  # not a mention of a user
    # a bare address would become a link
    return text.replace("://", r":\//").replace("www.", r"www\.")
