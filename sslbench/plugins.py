"""Finds plugins, contains their faults, and settles who owns which name.

Faults are contained, malice is not: a plugin runs in this process with the rights of its user.
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, TypeVar

import pluggy

from . import __version__, hookspecs
from .errors import UnknownName, UserError, suggestion
from .hookspecs import API_VERSION
from .names import Name
from .sources import constant, definition, place

KINDS = ("methods", "backbones", "datasets", "evaluators", "suites", "commands")
FAMILIES = ("backbones", "datasets")  # the kinds in which a key may end in "*"
OURS = "sslbench"  # the distribution that owns its bare names

T = TypeVar("T")
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_show = _short.repr  # a plugin may offer anything, of any length


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
            return definition(self.target).documentation
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
            return definition(self.target).path
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
        dist, slash, bare = asked.rpartition("/")
        candidates = self._candidates(kind, bare, dist if slash else None)
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

    def _candidates(self, kind: str, bare: str, dist: str | None) -> list[Entry]:
        table = self._table[kind]
        keys = [bare]
        if kind in FAMILIES:
            families = (k for k in table if k.endswith("*") and bare.startswith(k[:-1]))
            keys += sorted(families, key=len, reverse=True)
        for key in keys:
            held = table.get(key, ())
            found = [e for e in held if dist is None or _canonical(e.dist) == _canonical(dist)]
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
        files: plugins that are one Python file each
        block: names of plugins or distributions that are not to be loaded

    Raises:
        UserError: a file does not exist, or `block` names nothing.
    """
    found = [_builtin(), *(_installed() if installed else ()), *_of_files(files)]
    blocked = _blocked(found, block)
    taken: dict[tuple[str, str, str], Entry] = {}
    plugins = []
    for each in sorted(found, key=lambda f: (f.dist != OURS, f.dist, f.name)):
        if each in blocked:
            plugins.append(replace(each.info, notes=("blocked",)))
            continue
        info, entries = _collect(each)
        provides: dict[str, list[str]] = {}
        errors = [info.error] if info.error else []
        for entry in entries:
            if taken.setdefault((entry.dist, entry.kind, entry.name), entry) is entry:
                provides.setdefault(entry.kind, []).append(entry.name)
            else:
                errors.append(
                    f"{_one(entry.kind)} {entry.name!r} is provided twice by {entry.dist}"
                )
        plugins.append(replace(info, provides=provides, error="; ".join(errors) or None))
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

    @property
    def info(self) -> PluginInfo:
        return PluginInfo(self.name, self.dist, self.version, file=self.file)


def _builtin() -> _Found:
    home = f"{__package__}.builtin"
    return _Found("builtin", OURS, __version__, home, lambda: importlib.import_module(home))


def _installed() -> Iterator[_Found]:
    holders: dict[str, importlib.metadata.Distribution] = {}
    for dist in importlib.metadata.distributions():
        points, _ = _attempt(_entry_points, dist)  # a damaged stranger is not ours to report
        if points:
            name, _ = _attempt(lambda d: d.metadata["Name"], dist)
            holders.setdefault(_canonical(name or "unnamed"), dist)
    for name in sorted(holders.keys() - {OURS}):  # nobody speaks in our name
        # what an import would choose: the first of its name on sys.path, though it has no hooks
        first, _ = _attempt(importlib.metadata.distribution, name)
        dist = first or holders[name]
        version, _ = _attempt(lambda d: d.version, dist)
        points, _ = _attempt(_entry_points, dist)
        for key, point in (points or {}).items():
            module = point.value.partition(":")[0].strip()
            yield _Found(key, name, version or "unknown", module, point.load)


def _entry_points(
    dist: importlib.metadata.Distribution,
) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in dist.entry_points.select(group="sslbench")}


def _of_files(files: Sequence[Path]) -> Iterator[_Found]:
    stems: dict[str, Path] = {}
    for path in dict.fromkeys(Path(file).expanduser().resolve() for file in files):
        if path.suffix != ".py" or not path.is_file():
            raise UserError(f"--plugin asks for {path}, which is no Python file; name one that is")
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_") or "plugin"
        first = stems.setdefault(_canonical(stem), path)
        if first != path:
            raise UserError(f"--plugin is given {first} and {path}, both {stem!r}: rename one")
        yield _of_file(path, stem)


def _of_file(path: Path, stem: str) -> _Found:
    source, fault = _attempt(path.read_bytes)
    if source is None:
        raise UserError(f"--plugin asks for {path}, which cannot be read: {fault}")
    digest = hashlib.sha256(source).hexdigest()
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

    return _Found(stem, f"file:{stem}", digest[:12], name, load, path)


class _Fresh(importlib.machinery.SourceFileLoader):
    """Compiles what the file says now: cached bytecode may be a second behind its hash."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _blocked(found: Sequence[_Found], block: Sequence[str]) -> list[_Found]:
    handles = {
        each: {_canonical(handle) for handle in (each.name, each.dist, f"{each.dist}:{each.name}")}
        for each in found
        if each.dist != OURS
    }
    asked = {_canonical(name): name for name in block}
    for name in sorted(asked.keys() - set().union(*handles.values())):
        raise UnknownName("plugin", asked[name], {each.dist for each in handles})
    return [each for each, handle in handles.items() if handle & asked.keys()]


# ---- what a plugin says ----------------------------------------------------------------------


def _collect(found: _Found) -> tuple[PluginInfo, list[Entry]]:
    plugin, fault = _attempt(found.load)
    api, _ = _attempt(_declared_api, found, plugin)
    # a plugin for a newer sslbench may well fail to import: the version is then the better answer
    error = _api_fault(api) or (fault and f"it cannot be loaded: {_said(fault)}")
    if error:
        return replace(found.info, api=api if _is_api(api) else None, error=error), []
    notes = () if api else ("declares no SSLBENCH_API, read as (1, 0)",)
    entries: list[Entry] = []
    problems: list[str] = []
    for kind, name, target in _offers(plugin, problems):
        entries.append(Entry(kind, name, target, found.name, found.dist, found.version, found.file))
    if not entries and not problems:
        notes = (*notes, "provides nothing: hooks are functions marked @sslbench.hookimpl")
    info = replace(found.info, api=api or (1, 0), notes=notes, error="; ".join(problems) or None)
    return info, entries


def _declared_api(found: _Found, plugin: Any) -> Any:
    """Of the plugin, of its module, or of the source of one that could not be imported."""
    for holder in (plugin, sys.modules.get(found.module)):
        declared = getattr(holder, "SSLBENCH_API", None)
        if declared is not None:
            return declared
    path = found.file or place(found.module).path
    if plugin is not None or path is None:
        return None
    return constant(path, "SSLBENCH_API")


def _api_fault(api: Any) -> str | None:
    if api is None:
        return None
    if not _is_api(api):
        return f"its SSLBENCH_API must be a pair of integers such as (1, 0), and is {_show(api)}"
    major, minor = API_VERSION
    if api[0] == major and api[1] <= minor:
        return None
    mend = "sslbench" if api > API_VERSION else "the plugin"
    return (
        f"it needs API {api[0]}.{api[1]} and this sslbench {__version__} has API {major}.{minor}: "
        f"upgrade {mend}"
    )


def _is_api(api: Any) -> bool:
    return isinstance(api, tuple) and len(api) == 2 and all(type(part) is int for part in api)


def _offers(plugin: Any, problems: list[str]) -> Iterator[tuple[str, str, Any]]:
    """(kind, name, target) of each hook in turn; what is wrong with one leaves the others alone."""
    attributes, _ = _attempt(dir, plugin)
    for attribute in attributes or ():
        hook, fault = _attempt(_hook, plugin, attribute)
        if fault is None and hook is not None:
            kind, function = hook
            offered, fault = _attempt(_offered, kind, function, problems)
            yield from ((kind, name, target) for name, target in offered or ())
        if fault is not None:
            problems.append(f"hook {attribute!r}: {_said(fault)}")


def _hook(plugin: Any, attribute: str) -> tuple[str, Callable[[], Any]] | None:
    """The kind and function of a hook implementation; None where the attribute is none."""
    manager = pluggy.PluginManager("sslbench")
    options = manager.parse_hookimpl_opts(plugin, attribute)
    if options is None:
        return None
    kind = options.get("specname") or attribute
    if kind not in KINDS:
        if options.get("optionalhook"):
            return None
        raise UserError(f"there is no such hook{suggestion(kind, KINDS)}")
    if options.get("wrapper") or options.get("hookwrapper"):
        raise UserError("a hook of sslbench returns names and cannot wrap another")
    manager.add_hookspecs(hookspecs)
    manager.register(SimpleNamespace(**{attribute: getattr(plugin, attribute)}))
    return kind, getattr(manager.hook, kind).get_hookimpls()[0].function


def _offered(kind: str, function: Callable[[], Any], problems: list[str]) -> list[tuple[str, Any]]:
    offered = function()
    if not isinstance(offered, Mapping):
        raise UserError(f"it must return a mapping from names, and returned {_show(offered)}")
    good = []
    for name, target in offered.items():
        fault = _name_fault(kind, name) or _target_fault(kind, target)
        if fault:
            problems.append(f"hook {kind!r}: {_show(name)}: {fault}")
        else:
            good.append((name, target))
    return good


def _name_fault(kind: str, name: Any) -> str | None:
    word = r"[a-z0-9][a-z0-9_-]*"
    if kind in FAMILIES:
        word = rf"{word}(?:\.[a-z0-9_-]+)*(?:\.?\*)?|\*"
    if isinstance(name, str) and len(name) <= 64 and re.fullmatch(word, name):
        return None
    dots = ", dots inside, a * at the end" if kind in FAMILIES else ""
    return f"a name has at most 64 lower-case letters, digits, hyphens and underscores{dots}"


def _target_fault(kind: str, target: Any) -> str | None:
    if kind == "suites":
        if isinstance(target, Path) or _matches(r"[\w.]+:\w[\w.-]*\.ya?ml", target):
            return None
        return f"a suite is a pathlib.Path or 'package:file.yaml', not {_show(target)}"
    if _matches(r"[^\W\d][\w.]*:[^\W\d][\w.]*", target):
        return None
    if callable(target) and not isinstance(target, str):
        return None
    return f"it must be given as the object or as 'module:attribute', not {_show(target)}"


def _matches(pattern: str, target: Any) -> bool:
    return isinstance(target, str) and re.fullmatch(pattern, target) is not None


# ---- small things ----------------------------------------------------------------------------


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


def _attempt(call: Callable[..., T], *args: Any) -> tuple[T | None, BaseException | None]:
    """What a plugin's code returns, or how it fails; whatever it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            return call(*args), None
    except KeyboardInterrupt:
        raise
    # a plugin may raise anything, SystemExit included, and must not end the program
    except BaseException as fault:  # noqa: BLE001
        return None, fault


def _said(fault: BaseException) -> str:
    """One line: what was raised, and where."""
    text, _ = _attempt(str, fault)
    line = " ".join((text or "").split())[:300]
    if isinstance(fault, UserError):
        return line
    if isinstance(fault, SystemExit):
        return f"it calls sys.exit({line}){_where(fault)}"
    return f"{type(fault).__name__}{line and f': {line}'}{_where(fault)}"


def _where(fault: BaseException) -> str:
    """The innermost line outside the machinery of importing."""
    where, trace = "", fault.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        machinery = path.name.startswith("<") or {"importlib", "pluggy"} & set(path.parts)
        if path != Path(__file__) and not machinery:
            where = f" ({path.name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return where


def _canonical(dist: str) -> str:
    return re.sub(r"[-_.]+", "-", dist).lower()


def _one(kind: str) -> str:
    return kind.removesuffix("s")
