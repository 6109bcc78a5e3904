"""Names as people type them: `fashion-mnist[train=10000]`, `folder:/data/x[size=64]`.

name     = [owner "/"] base [":" argument] ["[" key "=" value {"," key "=" value} "]"]
owner    = a distribution, or "file:" and the stem of a plugin's file
argument = any text; one that ends in a bracket of its own is followed by an empty "[]"
value    = a scalar of YAML 1.2; quoted where it holds a comma, a bracket or a quote
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from .errors import UserError

Scalar = str | int | float | bool | None

_WORD = r"[A-Za-z0-9][\w-]*(?:\.[\w-]+)*"  # dots stand alone and inside: no name climbs
_VALUE = r"""\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,\[\]"']*)\s*"""
_ITEM = re.compile(rf"\s*([A-Za-z_]\w*)\s*=({_VALUE})(?:,|$)", re.ASCII)
_NAME = re.compile(
    rf"""(?P<base>(?:(?:file:)?{_WORD}/)?{_WORD})
         (?: : (?P<argument>.+?) )?
         (?: \[ (?P<params> (?:[^\[\]"'] | "(?:[^"\\]|\\.)*" | '[^']*')* ) \] )?""",
    re.ASCII | re.VERBOSE,
)
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("null", "Null", "NULL", "~"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", "+.inf"), math.inf),
    "-.inf": -math.inf,
    ".nan": math.nan,
}


@dataclass(frozen=True)
class Name:
    """What is asked for, and how it is to be made."""

    base: str
    argument: str | None = None
    params: Mapping[str, Scalar] = field(default_factory=dict)

    def __str__(self) -> str:
        """The canonical spelling: parameters sorted, values as short as they stay unambiguous."""
        items = ",".join(f"{key}={_written(self.params[key])}" for key in sorted(self.params))
        bracket = f"[{items}]" if items or (self.argument or "").endswith("]") else ""
        return f"{self.base}{'' if self.argument is None else f':{self.argument}'}{bracket}"

    def __hash__(self) -> int:
        return hash((self.base, self.argument))  # a mapping has no hash


def parse(text: str) -> Name:
    """Reads a name.

    Raises:
        UserError: the text is no name.
    """
    match = _NAME.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"{text!r} is no name; names look like cifar10, folder:/data/x or cifar10[train=1000]"
        )
    base, argument, params = match["base"], match["argument"], match["params"]
    try:
        if params is None and argument and argument.endswith("]"):
            raise ValueError("its bracket holds a bracket")
        return Name(base, argument, dict(_pairs(params or "")))
    except ValueError as fault:
        path = f"; where the bracket is part of the path, write {text.strip()}[]"
        raise UserError(
            f"{text!r} cannot be read: {fault}; a bracket looks like [size=64,train=1000]"
            f"{path if argument else ''}"
        ) from fault


def scalar(text: str) -> Scalar:
    """A scalar of YAML 1.2: null, true, 3, 1e-3, 'quoted', "quoted", or just text.

    PyYAML speaks 1.1, to which 1e-3 is text, 010 is eight and 1:30 is ninety.

    Raises:
        ValueError: a quote is not closed, or a number is longer than Python reads.
    """
    text = text.strip()
    if text in _WORDS:
        return _WORDS[text]
    if re.fullmatch(r"[-+]?\d+", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII):
        return float(text)
    if text.startswith('"'):
        return str(json.loads(text))
    if text.startswith("'"):
        if len(text) < 2 or not text.endswith("'"):
            raise ValueError(f"the quote of {text} is not closed")
        return text[1:-1].replace("''", "'")
    return text


def _pairs(params: str) -> Iterator[tuple[str, Scalar]]:
    seen: set[str] = set()
    place = 0
    while params[place:].strip():
        match = _ITEM.match(params, place)
        if match is None or not match[2].strip():
            raise ValueError(f"{params[place:].strip()!r} is no key=value")
        key, place = match[1], match.end()
        if key in seen:
            raise ValueError(f"it sets {key!r} twice")
        seen.add(key)
        yield key, scalar(match[2])


def _written(value: Scalar) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if not isinstance(value, str):
        return repr(value)
    plain = re.fullmatch(r"[^\s,\[\]\"'](?:[^,\[\]\"'\n\r]*[^\s,\[\]\"'])?", value)
    return value if plain and scalar(value) == value else json.dumps(value)


@functools.lru_cache(maxsize=1024)
def unplaced(dataset: str) -> str:
    """A data set's name without where it lies."""
    return str(replace(parse(dataset), argument=None))
