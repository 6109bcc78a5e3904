"""The live page: a plan while it runs, as the store's files show it. It writes nothing anywhere."""

from __future__ import annotations

from .server import LiveServer
from .watcher import Watcher

__all__ = ["LiveServer", "Watcher"]
