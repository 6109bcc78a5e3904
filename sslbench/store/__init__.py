"""The store: the folder with cells and records. Its files are atomic, checked and locked.

Nothing damaged is ever used. It imports cells and what lies below. Data, train and all
above may import it.
"""

from __future__ import annotations

from .folder import CellFolder, Store, newest, record_name

__all__ = ["CellFolder", "Store", "newest", "record_name"]
