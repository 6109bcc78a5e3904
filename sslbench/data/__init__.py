"""Opens datasets by name: their splits, the held-out tenth, and corrupted test splits.

It imports the store, cells and what lies below. Train and all above may import it.
"""

from __future__ import annotations

from .opening import Data, Pretraining, default_roots, open_data

__all__ = ["Data", "Pretraining", "default_roots", "open_data"]
