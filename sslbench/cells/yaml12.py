"""Reads and writes YAML 1.2 (core schema), for every file and every --set.

It uses PyYAML's parser, with scalars by `names.plain_scalar`. Equal keys, keys that are not text,
merge keys, tags of programs and second documents are refused, since each is easily misread. Size,
nesting and aliases are bounded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..names import LONGEST, plain_scalar

BYTES = 1_000_000  # of a file
LEVELS = 16  # of nested lists and mappings
NODES = 10_000  # scalars, lists and mappings, with all that aliases repeat

_CORE = "tag:yaml.org,2002:"
_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "null": type(None),
}
_ADVICE = (  # what PyYAML says -> what would work
    (r"expected ',' or '\]', but got '\['", "a name with a bracket stands in quotes"),
    (r"escape", "in double quotes a backslash starts an escape, in single quotes it is itself"),
    (r"'\\t'", "indent with spaces"),
    (r"mapping values are not allowed", "a text with a colon and a space stands in quotes"),
    (r"character '[@`%]'|'\*'|alias", "a text that begins with a sign of YAML stands in quotes"),
    (r"expected ',' or|end of|while scanning a quoted", "close the bracket or the quote"),
)


def read(path: Path, what: str) -> Any:
    """Reads a YAML file; `what` names it in messages, such as `the suite mine.yaml`.

    Raises:
        UserError: it cannot be read, or is not such YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except OSError as error:
        raise UserError(f"{what} cannot be read: {error.strerror or error}") from error
    if len(content) > BYTES:
        raise UserError(f"{what} is longer than the {BYTES:,} bytes that are read; shorten it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{what}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8; "
            f"save the file as UTF-8"
        ) from error
    return load(text, what)


def load(text: str, what: str) -> Any:
    """Parses YAML; None where the text is empty.

    Raises:
        UserError: it is not such YAML.
    """
    try:
        return _parsed(text)
    except _Fault as fault:
        raise UserError(f"{what}, line {fault.line}: {fault}") from fault


def value(text: str, what: str) -> Any:
    """Parses a single value, as it stands behind NAME= or NAME: in a file.

    Raises:
        UserError: it is not such YAML.
    """
    try:
        found = _parsed(f"v: {text}")
    except _Fault as fault:
        raise UserError(f"{what} cannot be read: {fault}") from fault
    if set(found) != {"v"}:
        raise UserError(f"{what} cannot be read: it has several lines; give one value")
    return found["v"]


def written(value: Any) -> str:
    """Writes a value in the shortest form that `value` reads back: 0.3, cosine, [0.2,1.0], "64"."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_inside(k)}: {_inside(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_inside, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, str):
        return _text(value, inside="")
    return json.dumps(value, default=str)


def _inside(value: Any) -> str:
    return _text(value, inside=",[]{}:?") if isinstance(value, str) else written(value)


def _text(text: str, *, inside: str) -> str:
    """Writes text, without quotes where it reads back as itself.

    inside: characters that would end a text within brackets.
    """
    if text.strip() == text and text.isprintable() and not set(text) & set(inside):
        try:
            plain = _parsed(f"v: {text}") == {"v": text}
        except _Fault:
            plain = False
        if plain:
            return text
    return json.dumps(text).replace("\x7f", "\\u007f")


def dump(value: Any) -> str:
    """Writes a file that `load`, and readers of YAML 1.1 too, read as this value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as something else."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        # its stubs leave it untyped
        tag = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if kind is yaml.ScalarNode and implicit[0] and tag == f"{_CORE}str":
            try:
                return tag if isinstance(plain_scalar(value), str) else f"{_CORE}float"
            except ValueError:  # too long a number
                return f"{_CORE}int"
        return tag

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> Any:
        # these are line breaks in 1.1: outside double quotes PyYAML folds them into spaces
        style = '"' if set(text) & set("\x85\u2028\u2029") else None
        return self.represent_scalar(f"{_CORE}str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


# ---- from events to values -------------------------------------------------------------------


class _Fault(Exception):
    """A part of a document that is refused, with its line."""

    def __init__(self, mark: Any, sentence: str) -> None:
        super().__init__(sentence)
        self.line: int = mark.line + 1


def _parsed(text: str) -> Any:
    try:
        return _Reader(yaml.SafeLoader(text)).document()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = yaml.Mark("", error.position, before.count("\n"), 0, None, 0)
        sign = f"U+{ord(text[error.position]):04X}"
        raise _Fault(mark, f"the character {sign} is not allowed in YAML; remove it") from error
    except yaml.MarkedYAMLError as error:
        raise _Fault(error.problem_mark or error.context_mark, _said(error)) from error


@dataclass(frozen=True)
class _Built:
    """A value, with the nodes and levels that an alias of it would repeat."""

    value: Any
    nodes: int
    levels: int


@dataclass
class _Reader:
    """Builds values while PyYAML parses, so that it can stop early where they grow too large."""

    loader: Any
    anchors: dict[str, _Built] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)  # anchors whose value is not whole yet
    nodes: int = 0

    def document(self) -> Any:
        """Builds the only document; None where there is none."""
        take = self.loader.get_event
        take()  # of the stream
        if isinstance(self.loader.peek_event(), yaml.StreamEndEvent):
            return None
        take()  # of the document
        found = self._node(take(), 0).value
        take()
        second = take()
        if not isinstance(second, yaml.StreamEndEvent):
            raise _Fault(second.start_mark, "a second document begins; keep one")
        return found

    def _node(self, event: Any, level: int) -> _Built:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, level)
        self._count(event, 1)
        if event.anchor:
            self.open.add(event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            built = _Built(_scalar(event), 1, 0)
        else:
            built = self._collection(event, level + 1)
        if event.anchor:
            self.open.discard(event.anchor)
            self.anchors[event.anchor] = built
        return built

    def _collection(self, event: Any, level: int) -> _Built:
        if level > LEVELS:
            raise _Fault(
                event.start_mark, f"more than {LEVELS} levels of lists and mappings; use fewer"
            )
        before = self.nodes
        sequence = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in (None, "!", f"{_CORE}{'seq' if sequence else 'map'}"):
            raise _Fault(event.start_mark, _of_tag(event.tag))
        parts = list(self._items(level)) if sequence else list(self._pairs(level))
        values = [part.value for part in parts] if sequence else _mapping(parts)
        levels = 1 + max((part.levels for part in parts), default=0)
        return _Built(values, self.nodes - before + 1, levels)

    def _items(self, level: int) -> Iterator[_Built]:
        while not isinstance(event := self.loader.get_event(), yaml.SequenceEndEvent):
            yield self._node(event, level)

    def _pairs(self, level: int) -> Iterator[_Built]:
        """Yields each item of a mapping; its `value` is (key, value)."""
        seen: dict[str, int] = {}
        while not isinstance(event := self.loader.get_event(), yaml.MappingEndEvent):
            key, line = self._key(event, level), event.start_mark.line + 1
            if key in seen:
                raise _Fault(
                    event.start_mark,
                    f"{key!r} stands here and in line {seen[key]}; keep one of the two",
                )
            seen[key] = line
            part = self._node(self.loader.get_event(), level)
            yield _Built((key, part.value), part.nodes, part.levels)

    def _key(self, event: Any, level: int) -> str:
        plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        if plain and event.value == "<<":
            raise _Fault(
                event.start_mark, "the merge key << is not of YAML 1.2; write the fields themselves"
            )
        key = self._node(event, level).value
        if isinstance(key, str):
            return key
        written_as = f"write {event.value!r} in quotes" if plain else "write a text"
        raise _Fault(event.start_mark, f"a key must be text, not {_kind(key)}; {written_as}")

    def _alias(self, event: Any, level: int) -> _Built:
        if event.anchor in self.open:
            raise _Fault(event.start_mark, f"*{event.anchor} contains itself; write it out")
        if event.anchor not in self.anchors:
            raise _Fault(
                event.start_mark,
                f"there is no &{event.anchor} above *{event.anchor}; "
                f"a text that begins with * stands in quotes",
            )
        built = self.anchors[event.anchor]
        self._count(event, built.nodes)
        if level + built.levels > LEVELS:
            raise _Fault(
                event.start_mark, f"more than {LEVELS} levels of lists and mappings; use fewer"
            )
        return built

    def _count(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > NODES:
            raise _Fault(
                event.start_mark,
                f"more than {NODES:,} values, with those that aliases repeat; shorten it",
            )


def _mapping(parts: Sequence[_Built]) -> dict[str, Any]:
    return dict(part.value for part in parts)


def _scalar(event: Any) -> Any:
    """Reads a scalar: text where it is quoted or tagged as such, else by `plain_scalar`."""
    if event.tag is None and not event.implicit[0]:
        return _joined(event.value)
    if event.tag in ("!", f"{_CORE}str"):
        return _joined(event.value)
    try:
        found = plain_scalar(event.value)
    except ValueError as fault:
        raise _Fault(event.start_mark, f"{fault}; write it in quotes if it is text") from fault
    if event.tag is None:
        return found
    name = event.tag.removeprefix(_CORE)
    if name not in _TYPES:
        raise _Fault(event.start_mark, _of_tag(event.tag))
    if not isinstance(found, _TYPES[name]) or (name != "bool" and isinstance(found, bool)):
        raise _Fault(event.start_mark, f"{event.value!r} is not of the tag !!{name}; drop the tag")
    return float(found) if name == "float" and isinstance(found, int) else found


def _joined(text: str) -> str:
    """Joins the escapes of two UTF-16 surrogates into one character, as JSON does."""
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _of_tag(tag: str) -> str:
    return f"the tag {tag.replace(_CORE, '!!')} is not read here; write the value without it"


def _kind(value: Any) -> str:
    names: tuple[tuple[Callable[[Any], bool], str], ...] = (
        (lambda v: v is None, "nothing"),
        (lambda v: isinstance(v, bool), "true or false"),
        (lambda v: isinstance(v, int | float), "a number"),
        (lambda v: isinstance(v, list), "a list"),
    )
    return next((name for fits, name in names if fits(value)), "a mapping")


def _said(error: yaml.MarkedYAMLError) -> str:
    """Turns PyYAML's complaint into one sentence, with what would work."""
    problem = " ".join(str(error.problem or error.context).split())
    problem = problem.replace("'<stream end>'", "the end")[:LONGEST]
    if "<block end>" in problem:
        return "it does not go on from the lines above; indent alike what belongs together"
    whole = f"{error.context or ''} {problem}"
    advice = next((a for p, a in _ADVICE if re.search(p, whole)), "a field is written NAME: VALUE")
    return f"{problem}; {advice}"
