"""Renders a leaderboard as one HTML page that needs no network, no server and no other file.

Plots are drawn by Vega, which is embedded because it is the smallest choice. Minified sizes: Plotly
4.1 with lines and points only 1,192 kB, with heat maps 1,500 kB, whole 4,834 kB; vl-convert 1.9's
bundle of Vega, Vega-Lite and Vega-Embed 898 kB; Vega 6.4 and Vega-Lite 6.4 from npm 772 kB; the parts
of Vega used here 442 kB, licences included. Plots are written in Vega itself, so Vega-Lite is not
needed. Vega's interpreter of expressions replaces its code generator, which would need `eval`.

Text of records is escaped, or passed as JSON that scripts show as text, never as markup. The same
board gives the same bytes.
"""

from __future__ import annotations

from ...board.board import Board
from . import parts
from .assembly import assemble
from .markup import join, tag
from .payload import as_script


def as_html(board: Board) -> str:
    """The whole page as HTML."""
    lines = [board.summary, f"by {', '.join(board.authors)}" if board.authors else ""]
    summary = (tag("p", line, class_="summary") for line in lines if line)
    slots = {
        "title": join(f"{board.title or board.suite_id} · leaderboard"),
        "name": tag("h1", board.title or board.suite_id),
        "summary": join(*summary),
        "facts": parts.facts(board),
        "tables": parts.tables(board),
        "words": parts.words(board),
        "notes": parts.notes(board),
        "left_out": parts.left_out(board),
        "elsewhere": parts.elsewhere(board),
        "data": as_script(board),
    }
    return assemble(slots)


__all__ = ["as_html"]
