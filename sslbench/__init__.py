"""A benchmark harness for self-supervised learning of visual features."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public names, loaded when first asked for: `import sslbench` must not import torch.
_API = """
Backbone Batch Card CellInfo DataInfo Dataset Epoch Evaluator Guesses Images Judgement Labels Method Metric
Place Pretext Recipe Run RunInfo Split Stream Tracker Update Value View
"""
_HOMES = {
    **dict.fromkeys(_API.split(), "sslbench.api"),
    "hookimpl": "sslbench.hookspecs",
    "load": "sslbench.one_cell.loading",
    "read": "sslbench.leaderboard",
    "UserError": "sslbench.errors",
}
__all__ = sorted(["__version__", *_HOMES])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sslbench' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
