"""The table made from the records of one suite: statistics, board, renderings."""

from .board import Board
from .export import as_csv, as_json
from .latex import as_latex
from .member import Member
from .render import as_markdown, as_rich, as_text
from .table import build

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
]
