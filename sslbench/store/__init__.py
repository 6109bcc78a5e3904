"""The store: the folder with cells and records. Its files are atomic, checked and locked.

Nothing damaged is ever used. It imports cells and what lies below. Data, train and all
above may import it.
"""

from __future__ import annotations

from .folder import CellFolder, Store, newest, predictions_of, record_name
from .predictions import Answers, answers, packed, read_predictions
from .sheets import png

__all__ = [
    "Answers",
    "CellFolder",
    "Store",
    "answers",
    "newest",
    "packed",
    "png",
    "predictions_of",
    "read_predictions",
    "record_name",
]
