"""Finds plugins, contains their faults, and settles who owns which name.

Faults are contained, malice is not: a plugin runs in this process with the rights of its user.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import re
import reprlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pluggy

from . import __version__, hookspecs
from .errors import UnknownName, UserError, suggestion
from .hookspecs import API_VERSION
from .names import Name

KINDS = ("methods", "backbones", "datasets", "evaluators", "suites", "commands")
FAMILIES = ("backbones", "datasets")  # the kinds in which a key may end in "*"
OURS = "sslbench"  # the distribution that owns its bare names

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One thing that a plugin provides."""

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
        """The object itself; of a suite, the path of its file.

        Raises:
            UserError: it cannot be had; the sentence names the distribution.
        """
        make = _suite if self.kind == "suites" else _imported
        loaded, fault = _attempt(lambda: make(self.target))
        if fault is not None:
            raise UserError(
                f"{_one(self.kind)} {self.name!r} of {self.dist} {self.version} cannot be loaded: "
                f"{_said(fault)}"
            ) from fault
        return loaded

    def summary(self) -> str:
        """First line of its documentation, read without importing it; empty where there is none."""
        text, _ = _attempt(self._documentation)
        return (text or "").strip().partition("\n")[0].strip()

    def _documentation(self) -> str | None:
        if self.kind == "suites":
            text = _suite(self.target).read_text(encoding="utf-8")
            found = re.search(r"^summary:[ \t]*(.+)$|^# *(.+)$", text, re.MULTILINE)
            return (found[1] or found[2]).strip().strip("'\"") if found else None
        if isinstance(self.target, str):
            return _definition(*self.target.split(":")).documentation
        target = _unwrapped(self.target)
        return str((self.kind == "commands" and target.help) or target.__doc__ or "")

    def source_sha256(self) -> str:
        """Of the file that defines it; empty where there is none."""
        path, _ = _attempt(self._source)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""

    def _source(self) -> Path | None:
        if self.kind == "suites":
            return _suite(self.target)
        if isinstance(self.target, str):
            return _definition(*self.target.split(":")).path
        return self.file or Path(inspect.getsourcefile(_unwrapped(self.target)) or "")


@dataclass(frozen=True)
class PluginInfo:
    """What became of one plugin."""

    name: str
    dist: str
    version: str
    api: tuple[int, int] | None = None
    provides: Mapping[str, Sequence[str]] = field(default_factory=dict)  # kind -> names
    error: str | None = None
    file: Path | None = None
    notes: tuple[str, ...] = ()


class Registry:
    """Who provides what, and under which name it is found."""

    def __init__(self, plugins: Iterable[PluginInfo], entries: Iterable[Entry]) -> None:
        self._table: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        for entry in sorted(entries, key=lambda e: (e.kind, e.name, not e.builtin, e.dist)):
            self._table[entry.kind].setdefault(entry.name, []).append(entry)
        self.plugins = [replace(p, notes=(*p.notes, *self._clashes(p))) for p in plugins]

    def names(self, kind: str) -> list[str]:
        """The shortest name by which each is found; families as their pattern."""
        return list(self.entries(kind))

    def entries(self, kind: str) -> dict[str, Entry]:
        """By the shortest name that finds it: bare for its owner, else `dist/name`."""
        return {
            entry.name if self._owner(owners) is entry else entry.qualified: entry
            for _, owners in sorted(self._table[kind].items())
            for entry in owners
        }

    def find(self, kind: str, name: Name | str) -> Entry:
        """The entry that `name` or `dist/name` means.

        In kinds with families an exact key wins, then the longest pattern.

        Raises:
            UnknownName: nobody provides it.
            UserError: two distributions do, and neither is sslbench.
        """
        asked = name.base if isinstance(name, Name) else name
        dist, _, bare = asked.rpartition("/")
        candidates = self._candidates(kind, bare, dist)
        if not candidates:
            known = [known for known in self.names(kind) if not known.endswith("*")]
            raise UnknownName(_one(kind), asked, known, self._hint())
        owner = self._owner(candidates)
        if owner is None:
            first, *others = candidates
            raise UserError(
                f"{_one(kind)} {bare!r} is provided by "
                f"{' and '.join(f'{e.dist} {e.version}' for e in candidates)}; say "
                f"{first.dist}/{bare} or {' or '.join(f'{e.dist}/{bare}' for e in others)}"
            )
        return owner

    def _candidates(self, kind: str, bare: str, dist: str) -> list[Entry]:
        table = self._table[kind]
        keys = [bare]
        if kind in FAMILIES:
            families = (k for k in table if k.endswith("*") and bare.startswith(k[:-1]))
            keys += sorted(families, key=len, reverse=True)
        for key in keys:
            held = table.get(key, ())
            found = [e for e in held if not dist or _canonical(e.dist) == _canonical(dist)]
            if found:
                return found
        return []

    @staticmethod
    def _owner(entries: Sequence[Entry]) -> Entry | None:
        # built-ins sort first and own their bare names
        return entries[0] if len(entries) == 1 or entries[0].builtin else None

    def _hint(self) -> str:
        broken = [f"{p.dist} ({p.error})" for p in self.plugins if p.error]
        return f"not everything could be loaded: {'; '.join(broken)}" if broken else ""

    def _clashes(self, plugin: PluginInfo) -> Iterator[str]:
        for kind, names in plugin.provides.items():
            for name in names:
                others = [e.dist for e in self._table[kind][name] if e.dist != plugin.dist]
                if others and plugin.dist != OURS:
                    yield (
                        f"{_one(kind)} {name!r} is also provided by {' and '.join(others)}: "
                        f"say {plugin.dist}/{name}"
                    )


def registry(
    *, installed: bool = True, files: Sequence[Path] = (), block: Sequence[str] = ()
) -> Registry:
    """Everything there is: built in, of installed distributions, of files.

    Args:
        installed: look at the entry points of group `sslbench`
        files: plugins that are one Python file
        block: names of plugins or distributions that are not to be loaded

    Raises:
        UserError: a file does not exist, or `block` names nothing.
    """
    found = [_builtin(), *(_installed() if installed else ()), *_of_files(files)]
    blocked = _blocked(found, block)
    collected = [
        (PluginInfo(p.name, p.dist, p.version, file=p.file, notes=("blocked",)), [])
        if p in blocked
        else _collect(p)
        for p in sorted(found, key=lambda p: (p.dist != OURS, p.dist, p.name))
    ]
    taken: dict[tuple[str, str, str], Entry] = {}
    plugins = []
    for info, entries in collected:
        fresh, doubles = [], []
        for entry in entries:
            first = taken.setdefault((entry.dist, entry.kind, entry.name), entry)
            (fresh if first is entry else doubles).append(entry)
        provides = defaultdict(list)
        for entry in fresh:
            provides[entry.kind].append(entry.name)
        errors = [info.error] if info.error else []
        errors += [f"{_one(e.kind)} {e.name!r} is provided twice by {e.dist}" for e in doubles]
        plugins.append(replace(info, provides=dict(provides), error="; ".join(errors) or None))
    return Registry(plugins, taken.values())


# ---- where plugins come from -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Found:
    """A plugin before it is loaded."""

    name: str
    dist: str
    version: str
    module: str  # in which SSLBENCH_API stands
    load: Callable[[], Any]
    file: Path | None = None


def _builtin() -> _Found:
    home = f"{__package__}.builtin"
    return _Found("builtin", OURS, __version__, home, lambda: importlib.import_module(home))


def _installed() -> Iterator[_Found]:
    names = set()
    for dist in importlib.metadata.distributions():
        mine, _ = _attempt(lambda dist=dist: dist.entry_points.select(group="sslbench"))  # type: ignore[misc]
        if mine:
            name, _ = _attempt(lambda dist=dist: dist.metadata["Name"])  # type: ignore[misc]
            names.add(name or "")
    for name in sorted(names):
        # the first of its name on sys.path, as an import would choose
        dist = importlib.metadata.distribution(name)
        for point in dist.entry_points.select(group="sslbench"):
            yield _Found(point.name, _canonical(name), dist.version, point.module, point.load)


def _of_files(files: Sequence[Path]) -> Iterator[_Found]:
    seen: dict[str, Path] = {}
    for file in files:
        path = Path(file).expanduser().resolve()
        if path.suffix != ".py" or not path.is_file():
            raise UserError(f"a plugin file is asked for at {file}, where there is no Python file")
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_") or "plugin"
        if seen.get(_canonical(stem)) == path:
            continue
        if _canonical(stem) in seen:
            raise UserError(f"{seen[_canonical(stem)]} and {path} are both plugin {stem!r}: rename one")
        seen[_canonical(stem)] = path
        yield _file(path, stem)


def _file(path: Path, stem: str) -> _Found:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    module = f"sslbench_file_{re.sub(r'[^A-Za-z0-9_]', '_', stem)}"

    def load() -> Any:
        spec = importlib.util.spec_from_loader(module, _Fresh(module, str(path)))
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[module] = loaded  # dataclasses and type hints look their module up
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[module]
            raise
        return loaded

    return _Found(stem, f"file:{stem}", digest[:12], module, load, path)


class _Fresh(importlib.machinery.SourceFileLoader):
    """Compiles what the file says now: a cached bytecode is up to a second behind."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _blocked(found: Sequence[_Found], block: Sequence[str]) -> list[_Found]:
    handles = {
        p: {_canonical(handle) for handle in (p.name, p.dist, f"{p.dist}:{p.name}")}
        for p in found
        if p.dist != OURS
    }
    for name in block:
        if not any(_canonical(name) in handle for handle in handles.values()):
            raise UnknownName("plugin", name, {p.dist for p in handles})
    asked = {_canonical(name) for name in block}
    return [p for p, handle in handles.items() if handle & asked]


# ---- what a plugin says ----------------------------------------------------------------------


def _collect(found: _Found) -> tuple[PluginInfo, list[Entry]]:
    info = PluginInfo(found.name, found.dist, found.version, file=found.file)
    plugin, fault = _attempt(found.load)
    declared, _ = _attempt(lambda: _declared(found, plugin))
    wrong = None if declared is None else _api_fault(declared)
    if fault is not None or wrong:
        # a plugin for a newer sslbench often fails to import: the version is the better answer
        return replace(info, error=wrong or f"cannot be loaded: {_said(fault)}"), []
    notes = () if declared else ("declares no SSLBENCH_API, read as (1, 0)",)
    problems: list[str] = []
    entries = [
        Entry(kind, name, target, found.name, found.dist, found.version, found.file)
        for kind, offered in _hooks(plugin, problems)
        for name, target in offered
    ]
    if not entries and not problems:
        notes = (*notes, "provides nothing: its hooks are functions marked @sslbench.hookimpl")
    api = declared or (1, 0)
    return replace(info, api=api, notes=notes, error="; ".join(problems) or None), entries


def _declared(found: _Found, plugin: Any) -> Any:
    home = found.file or _place(found.module).path
    ...
