"""Renders all files of a published leaderboard from its board."""

from __future__ import annotations

from collections.abc import Iterator

from ..board import agreement
from ..board.board import Board, Overall
from . import latex, references
from .export import as_csv, as_json
from .markdown import as_markdown, markdown_table, markdown_text
from .page import as_html
from .text import title

NAMES = ("README.md", "leaderboard.csv", "leaderboard.json", "leaderboard.tex", "index.html")


def files_of(board: Board) -> dict[str, str]:
    """Files by name; the same board gives the same bytes."""
    return {
        "README.md": _readme(board),
        "leaderboard.csv": as_csv(board),
        "leaderboard.json": as_json(board),
        "leaderboard.tex": latex.as_latex(board) + references.as_latex(board.references),
        "index.html": as_html(board),
    }


def _readme(board: Board) -> str:
    parts = [f"# {markdown_text(board.title or board.suite_id)}", markdown_text(board.summary)]
    if board.authors:
        parts.append(markdown_text(f"By {', '.join(board.authors)}."))
    parts.append(as_markdown(board).rstrip())
    if board.overall:
        parts += ["## Across data sets", *_overall(board)]
    several = len(board.blocks) > 1
    orders = []
    for block in board.blocks:
        orders += [f"### {markdown_text(title(block.setting))}"] if several else []
        orders.append(agreement.as_markdown(block).rstrip())
    parts += ["## Do the judges agree?", *orders, references.as_markdown(board.references).rstrip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _overall(board: Board) -> Iterator[str]:
    for each in board.overall:
        yield f"On {each.backbone}, over {markdown_text(', '.join(each.datasets))}:"
        heads = [f"{each.protocol} {each.metric}", "mean rank", f"{100 * board.level:g} %"]
        yield markdown_table(list(map(markdown_text, heads)), list(_standings(each)))
        if each.lacking:
            lacking = markdown_text(", ".join(each.lacking))
            yield f"Not ranked, for they lack a value on some data set: {lacking}."
    few = [each for each in board.overall if each.standings[0].interval is None]
    basis = "; below six data sets no interval is given" if few else ""
    yield f"Mean of the ranks over data sets, its interval by bootstrap over data sets{basis}."


def _standings(overall: Overall) -> Iterator[list[str]]:
    for each in overall.standings:
        low, high = each.interval or (None, None)
        interval = "-" if low is None else f"{low:.1f} to {high:.1f}"
        yield [markdown_text(each.label), f"{each.rank:.1f}", interval]
