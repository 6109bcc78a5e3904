"""Parses names as people type them: `fashion-mnist[train=10000]`, `folder:/data/x[size=64]`.

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
from pathlib import PurePath

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
    **dict.fromkeys(("", "null", "Null", "NULL", "~"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{f"{sign}{word}": math.inf for word in (".inf", ".Inf", ".INF") for sign in ("", "+")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_WHOLE = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
FORMS = "40, 4/class, 10% or all"  # of a budget of labels
_BUDGET = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>/class|%|)", re.ASCII)
LONGEST = 400  # characters of a number: more than any float needs, fewer than Python refuses


@dataclass(frozen=True)
class Name:
    """A parsed name: base, argument and the parameters of its bracket."""

    base: str
    argument: str | None = None
    params: Mapping[str, Scalar] = field(default_factory=dict)

    def __str__(self) -> str:
        """The canonical spelling: sorted parameters, and the shortest unambiguous values."""
        items = ",".join(f"{key}={_written(self.params[key])}" for key in sorted(self.params))
        argument = self.argument or ""
        marked = items or argument.endswith("]") or _unclosed(argument)  # else read as a bracket
        bracket = f"[{items}]" if marked else ""
        return f"{self.base}{'' if self.argument is None else f':{self.argument}'}{bracket}"

    def __hash__(self) -> int:
        return hash((self.base, self.argument))  # a mapping has no hash


def parse(text: str) -> Name:
    """Parses a name.

    Raises:
        UserError: the text is not a name.
    """
    match = _NAME.fullmatch(text.strip())
    if match is None and _unclosed(text):
        raise UserError(
            f"the bracket of {_shown(text)} is not closed; a bracket looks like [size=64,train=1000]"
        )
    if match is None:
        raise UserError(
            f"{_shown(text)} is not a name; "
            f"names look like cifar10, folder:/data/x or cifar10[train=1000]"
        )
    base, argument, params = match["base"], match["argument"], match["params"]
    try:
        if params is None and _unclosed(argument or ""):
            raise ValueError("its bracket is not closed")
        if params is None and argument and argument.endswith("]"):
            raise ValueError("its bracket holds a bracket")
        return Name(base, argument, dict(_pairs(params or "")))
    except ValueError as fault:
        path = f"; where the bracket is part of the path, write {text.strip()[:LONGEST]}[]"
        raise UserError(
            f"{_shown(text)} cannot be read: {fault}; a bracket looks like [size=64,train=1000]"
            f"{path if argument else ''}"
        ) from fault


def scalar(text: str) -> Scalar:
    """Parses a scalar of YAML 1.2's core schema: null, true, 3, 1e-3, 0xff, 'quoted', or plain text.

    PyYAML follows 1.1, where 1e-3 is text, 010 is eight, 1:30 is ninety and yes is true.

    Raises:
        ValueError: a quote is not closed, or a number is longer than LONGEST.
    """
    text = text.strip()
    if text.startswith('"'):
        return str(json.loads(text))
    if text.startswith("'"):
        if len(text) < 2 or not text.endswith("'"):
            raise ValueError(f"the quote of {text} is not closed")
        return text[1:-1].replace("''", "'")
    return plain_scalar(text)


def plain_scalar(text: str) -> Scalar:
    """Parses a scalar without quotes.

    Raises:
        ValueError: it is a number longer than LONGEST.
    """
    if text in _WORDS:
        return _WORDS[text]
    whole = _WHOLE.fullmatch(text)
    if not whole and not _REAL.fullmatch(text):
        return text
    if len(text) > LONGEST:
        raise ValueError(
            f"a number of {len(text):,} characters is longer than the {LONGEST} that are read"
        )
    if not whole:
        return float(text)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def check_budget(budget: int | str, *, or_none: bool = False) -> int | str:
    """A budget of labels as it is kept: an integer, "4/class", "10%" or "all".

    or_none: 0 is one too, of a target domain whose source shows its labels.

    Raises:
        UserError: it is in none of these forms.
    """
    text = str(budget).strip()
    match = _BUDGET.fullmatch(text)
    if text == "all":
        return text
    whole = match is not None and (match["unit"] == "%" or "." not in match["number"])
    if match is None or not whole or isinstance(budget, bool):
        raise UserError(f"a label budget is {FORMS}, not {budget}")
    if or_none and text == "0":
        return 0
    if not 0 < float(match["number"]) <= (100 if match["unit"] == "%" else math.inf):
        raise UserError(f"a label budget of {text} was asked for; give {FORMS}")
    return text if match["unit"] else int(text)


def _unclosed(text: str) -> bool:
    """Whether text ends in the beginning of a bracket, such as `photos[size=32`."""
    return re.search(r"\[\s*[A-Za-z_]\w*\s*=[^\]]*$", text) is not None


def _shown(text: str) -> str:
    return repr(text if len(text) <= LONGEST else f"{text[:60]}...")


def _pairs(params: str) -> Iterator[tuple[str, Scalar]]:
    seen: set[str] = set()
    place = 0
    while params[place:].strip():
        match = _ITEM.match(params, place)
        if match is None or not match[2].strip():
            raise ValueError(f"{params[place:].strip()!r} is not key=value")
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
def published(dataset: str) -> str:
    """A dataset's name as records and pages have it: of a path from elsewhere the last part alone.

    Where the folder lies is nobody's business: `folder:/home/ann/photos` is `folder:photos`.
    """
    asked = parse(dataset)
    parts = PurePath(asked.argument or "").parts
    windows = re.match(r"[A-Za-z]:[\\/]", asked.argument or "")
    if not parts or not (parts[0].startswith(("/", "~")) or ".." in parts or windows):
        return str(asked)
    last = re.split(r"[\\/]+", (asked.argument or "").rstrip("\\/"))[-1]
    return str(replace(asked, argument=last.lstrip("~") or "root"))


@functools.lru_cache(maxsize=1024)
def unplaced(dataset: str) -> str:
    """A dataset's name without its path."""
    return str(replace(parse(dataset), argument=None))
