"""The store: the folder with cells and records. Its files are atomic, checked and locked.

Nothing damaged is ever used. It imports plugins and what lies below.
"""

from __future__ import annotations

from .folder import CellFolder, Store, newest, record_name

__all__ = ["CellFolder", "Store", "newest", "record_name"]
