"""A pool that stores each repeated part of nested data once.

Cells of one suite share most of their details: data set, recipe, versions, machine. Each object or
list is replaced by [i], the i-th part of the pool. Within a part, values are texts, numbers, true,
false, null, or [i] again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Plain = str | int | float | bool | list[int] | None


class Pool:
    """Parts, each stored once, and their numbers."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Plain] | list[Plain]] = []
        self._known: dict[Any, int] = {}

    def add(self, value: Any) -> Plain:
        """Stores a value and returns what stands for it."""
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)  # JSON has no such numbers
        if value is None or isinstance(value, str | int | float):
            return value
        if isinstance(value, Mapping):
            fields = {str(key): self.add(item) for key, item in value.items()}
            return self._kept(fields, ("{", *((k, _key(v)) for k, v in fields.items())))
        if isinstance(value, list | tuple):
            items = [self.add(item) for item in value]
            return self._kept(items, ("[", *map(_key, items)))
        return str(value)

    def _kept(self, part: dict[str, Plain] | list[Plain], key: Any) -> list[int]:
        at = self._known.setdefault(key, len(self.parts))
        if at == len(self.parts):
            self.parts.append(part)
        return [at]


def _key(value: Plain) -> Any:
    """A key that tells 1, 1.0 and true apart, which are equal in Python."""
    return tuple(value) if isinstance(value, list) else (type(value), value)
