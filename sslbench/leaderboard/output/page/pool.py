"""Nested data with every part that occurs more than once stored once.

Cells of one suite share most of what is known of them: data set, recipe, versions, machine. A part
is [i], the i-th of the pool, in which an object's values and a list's items are texts, numbers,
true, false, null, or again [i].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Plain = str | int | float | bool | list[int] | None


class Pool:
    def __init__(self) -> None:
        self.parts: list[dict[str, Plain] | list[Plain]] = []
        self._known: dict[Any, int] = {}

    def add(self, value: Any) -> Plain:
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
    """1, 1.0 and true are equal in Python, and others here."""
    return tuple(value) if isinstance(value, list) else (type(value), value)
