"""Leaderboards: built from records, compared, rendered, verified and published.

This room imports plan and what lies below. testing and cli may import it.
"""

from .board.board import Board
from .board.member import Member
from .board.table import build
from .folder.folder import predictions, read
from .output.export import as_csv, as_json
from .output.latex import as_latex
from .output.markdown import as_markdown
from .output.text import as_rich, as_text

__all__ = [
    "Board",
    "Member",
    "as_csv",
    "as_json",
    "as_latex",
    "as_markdown",
    "as_rich",
    "as_text",
    "build",
    "predictions",
    "read",
]
