"""A leaderboard as one page that needs nothing else: no network, no server, no other file.

Plots are drawn by Vega, embedded. Measured in bytes, minified: Plotly 4.1 has 1,192 k with lines and
points alone (basic), 1,500 k with heat maps (cartesian), 4,834 k whole; vl-convert 1.9's bundle of
Vega, Vega-Lite and Vega-Embed 898 k; Vega 6.4 and Vega-Lite 6.4 from npm 772 k; the parts of Vega used
here, with its interpreter of expressions, 442 k, licences included. Plots are written in Vega itself,
so Vega-Lite is not needed, and the interpreter stands in for the code generator that would need `eval`
allowed.

What a record says goes in escaped, or as JSON that scripts show as text and never as markup. The same
board gives the same bytes.
"""

from __future__ import annotations

from ...board.board import Board
from . import parts
from .assembly import assemble
from .markup import join, tag
from .payload import as_script


def as_html(board: Board) -> str:
    """The whole page."""
    summary = tag("p", board.summary, class_="summary") if board.summary else ""
    slots = {
        "title": join(f"{board.suite_id} · leaderboard"),
        "name": tag("h1", board.suite_id),
        "summary": join(summary),
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
