"""From the name of a data set to its splits: opened, the tenth held out, corrupted copies.

It imports plugins and what lies below.
"""

from __future__ import annotations

from .opening import Data, Pretraining, default_roots, open_data

__all__ = ["Data", "Pretraining", "default_roots", "open_data"]
