"""Finds plugins: the built-in one, those of installed distributions, and files."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from .. import __version__
from ..disk import sha256
from ..errors import UnknownName, UserError
from .contained import attempt
from .entries import OURS, PluginInfo, canonical


@dataclass(frozen=True, eq=False)
class Origin:
    """A plugin before it is loaded."""

    name: str
    dist: str
    version: str
    module: str  # that defines SSLBENCH_API
    load: Callable[[], Any]
    file: Path | None = None

    @property
    def info(self) -> PluginInfo:
        return PluginInfo(self.name, self.dist, self.version, file=self.file)


def found(*, installed: bool, files: Sequence[Path]) -> list[Origin]:
    """Finds every plugin.

    Raises:
        UserError: a file is not a Python file, or cannot be read.
    """
    return [_builtin(), *(_installed() if installed else ()), *_of_files(files)]


def blocked(found: Sequence[Origin], block: Sequence[str]) -> list[Origin]:
    """The plugins that `block` names.

    Raises:
        UnknownName: there is no plugin of that name.
    """
    handles = {
        each: {canonical(handle) for handle in (each.name, each.dist, f"{each.dist}:{each.name}")}
        for each in found
        if each.dist != OURS
    }
    asked = {canonical(name): name for name in block}
    for name in sorted(asked.keys() - set().union(*handles.values())):
        raise UnknownName("plugin", asked[name], {each.dist for each in handles})
    return [each for each, handle in handles.items() if handle & asked.keys()]


def _builtin() -> Origin:
    home = f"{__package__.rpartition('.')[0]}.builtin"
    return Origin("builtin", OURS, __version__, home, lambda: importlib.import_module(home))


def _installed() -> Iterator[Origin]:
    holders: dict[str, importlib.metadata.Distribution] = {}
    for dist in importlib.metadata.distributions():
        points, _ = attempt(_entry_points, dist)  # a damaged distribution is left to pip to report
        if points:
            name, _ = attempt(lambda d: d.metadata["Name"], dist)
            holders.setdefault(canonical(name or "unnamed"), dist)
    for name in sorted(holders.keys() - {OURS}):  # the built-in plugin is not found this way
        # as an import would, take the first of its name on sys.path, even if it has no hooks
        first, _ = attempt(importlib.metadata.distribution, name)
        dist = first or holders[name]
        version, _ = attempt(lambda d: d.version, dist)
        points, _ = attempt(_entry_points, dist)
        for key, point in (points or {}).items():
            module = point.value.partition(":")[0].strip()
            yield Origin(key, name, version or "unknown", module, point.load)


def _entry_points(
    dist: importlib.metadata.Distribution,
) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in dist.entry_points.select(group="sslbench")}


def _of_files(files: Sequence[Path]) -> Iterator[Origin]:
    stems: dict[str, Path] = {}
    for path in dict.fromkeys(Path(file).expanduser().resolve() for file in files):
        if path.suffix != ".py" or not path.is_file():
            raise UserError(
                f"--plugin asks for {path}, which is not a Python file; name one that is"
            )
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_") or "plugin"
        first = stems.setdefault(canonical(stem), path)
        if first != path:
            raise UserError(f"--plugin is given {first} and {path}, both {stem!r}: rename one")
        yield _of_file(path, stem)


def _of_file(path: Path, stem: str) -> Origin:
    source, fault = attempt(path.read_bytes)
    if source is None:
        raise UserError(f"--plugin asks for {path}, which cannot be read: {fault}")
    digest = sha256(source)
    name = f"sslbench_file_{re.sub('-', '_', stem)}"

    def load() -> ModuleType:
        loader = _Fresh(name, str(path))
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        assert spec is not None, "a loader was given"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and type hints look their module up
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    return Origin(stem, f"file:{stem}", digest[:12], name, load, path)


class _Fresh(importlib.machinery.SourceFileLoader):
    """Always compiles the file anew: cached bytecode may be older than the hashed source."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)
