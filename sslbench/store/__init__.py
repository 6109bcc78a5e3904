"""The folder with cells and records: atomic files, checksums, leases.

Nothing damaged is ever used. It imports plugins and what lies below.
"""

from __future__ import annotations

from .folder import STORE, CellFolder, Store, default_store, newest, record_name

__all__ = ["STORE", "CellFolder", "Store", "default_store", "newest", "record_name"]
