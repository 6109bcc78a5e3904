"""Describes plugins and the single things that they provide, and imports those on demand."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import hookspecs
from ..disk import sha256
from ..errors import UserError
from .contained import attempt, limit, patience, said
from .kept import Kept
from .sources import definition, place

KINDS = tuple(name for name, hook in vars(hookspecs).items() if hasattr(hook, "sslbench_spec"))
FAMILIES = ("backbones", "datasets")  # the kinds in which a key may end in "*"
OURS = "sslbench"  # the distribution that owns its bare names


@dataclass(frozen=True)
class Entry:
    """One thing that a plugin provides, such as a method."""

    kind: str
    name: str
    target: Any  # the object, or "module:attribute"
    plugin: str
    dist: str
    version: str  # of the distribution
    file: Path | None = None  # of a plugin that is a file

    @property
    def builtin(self) -> bool:
        return self.dist == OURS

    @property
    def qualified(self) -> str:
        return f"{self.dist}/{self.name}"

    def load(self) -> Any:
        """Imports the object; of a suite, finds the path of its file.

        Raises:
            UserError: it cannot be loaded; the message names the distribution.
        """
        loaded, _ = self.imported()
        return loaded

    def imported(self) -> tuple[Any, list[str]]:
        """As `load`; also returns the global functions and settings that the import changed.

        They have been restored.
        """
        here = self.builtin or not isinstance(self.target, str) or self.kind == "suites"
        kept = Kept()
        with contextlib.nullcontext() if here else kept:
            loaded, fault = attempt(self._made, None if here else patience())
        if fault is not None:
            raise UserError(
                f"{one(self.kind)} {self.name!r} of {self.dist} {self.version} cannot be loaded: "
                f"{said(fault)}"
            ) from fault
        return loaded, kept.changes

    def _made(self, seconds: float | None) -> Any:
        make = _suite if self.kind == "suites" else _imported
        if seconds is None:
            return make(self.target)
        with limit(seconds, "to import"):
            return make(self.target)

    def summary(self) -> str:
        """First line of its documentation, read without importing it; "" where there is none."""
        text, _ = attempt(self._documentation)
        return (text or "").strip().partition("\n")[0].strip()

    def _documentation(self) -> str | None:
        if self.kind == "suites":
            text = _suite(self.target).read_text(encoding="utf-8")
            found = re.search(r"^summary:[ \t]*(.+)$|^# *(.+)$", text, re.MULTILINE)
            return (found[1] or found[2]).strip().strip("'\"") if found else None
        if isinstance(self.target, str):
            return definition(self.target).documentation
        target = _unwrapped(self.target)
        return str((self.kind == "commands" and target.help) or target.__doc__ or "")

    def source_sha256(self) -> str:
        """sha256 of the file that defines it; "" where there is none."""
        path, _ = attempt(self._source)
        return sha256(path.read_bytes()) if path else ""

    def _source(self) -> Path | None:
        if self.kind == "suites":
            return _suite(self.target)
        if isinstance(self.target, str):
            return definition(self.target).path
        return self.file or Path(inspect.getsourcefile(_unwrapped(self.target)) or "")


@dataclass(frozen=True)
class PluginInfo:
    """A plugin, with what it provides or why it could not be loaded."""

    name: str
    dist: str
    version: str
    api: tuple[int, int] | None = None
    provides: Mapping[str, Sequence[str]] = field(default_factory=dict)  # kind -> names
    error: str | None = None
    file: Path | None = None
    notes: tuple[str, ...] = ()


def one(kind: str) -> str:
    """The singular of a kind: method for methods."""
    return kind.removesuffix("s")


def canonical(dist: str) -> str:
    """Normalises the name of a distribution, as packaging tools do to compare them."""
    return re.sub(r"[-_.]+", "-", dist).lower()


def _imported(target: Any) -> Any:
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))


def _suite(target: str | Path) -> Path:
    if isinstance(target, Path):
        paths = [target]
    else:
        package, _, file = target.partition(":")
        paths = [folder / file for folder in place(package).folders]
    for path in paths:
        if path.is_file():
            return path
    raise UserError(f"there is no file {target}")


def _unwrapped(target: Any) -> Any:
    while isinstance(target, functools.partial):
        target = target.func
    return target
