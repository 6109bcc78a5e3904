"""Asks a plugin for its API version and for what each of its hooks provides."""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy

from .. import __version__, hookspecs
from ..errors import UserError, suggestion
from ..hookspecs import API_VERSION
from .contained import attempt, limit, patience, said
from .entries import FAMILIES, KINDS, OURS, Entry, PluginInfo
from .kept import Kept
from .origins import Origin
from .sources import constant, place

SHOWN = 5  # of what an import changed
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_show = _short.repr  # a plugin may offer anything, of any length


def collect(found: Origin) -> tuple[PluginInfo, list[Entry]]:
    """Loads a plugin and calls its hooks; the PluginInfo says whatever went wrong."""
    if found.dist == OURS:
        return _collected(found)
    with Kept() as kept:
        info, entries = _collected(found)
    if kept.changes:
        more = f" and {len(kept.changes) - SHOWN} more" if len(kept.changes) > SHOWN else ""
        changed = f"{', '.join(kept.changes[:SHOWN])}{more}"
        info = replace(info, notes=(*info.notes, f"importing it changed {changed}: put back"))
    return info, entries


def _collected(found: Origin) -> tuple[PluginInfo, list[Entry]]:
    plugin, fault = attempt(_in_time, found.load, "to import")
    api, _ = attempt(_declared_api, found, plugin)
    # a plugin for a newer sslbench may well fail to import: the version is then the better answer
    error = _api_fault(api) or (fault and f"it cannot be loaded: {said(fault)}")
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


def _in_time(call: Callable[..., Any], doing: str, *args: Any) -> Any:
    with limit(patience(), doing):
        return call(*args)


def _declared_api(found: Origin, plugin: Any) -> Any:
    """The SSLBENCH_API of a plugin, of its module, or of a source that could not be imported."""
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
    """Yields (kind, name, target) of each hook; a fault in one does not affect the others."""
    attributes, _ = attempt(dir, plugin)
    for attribute in attributes or ():
        hook, fault = attempt(_hook, plugin, attribute)
        if fault is None and hook is not None:
            kind, function = hook
            offered, fault = attempt(_in_time, _offered, "", kind, function, problems)
            yield from ((kind, name, target) for name, target in offered or ())
        if fault is not None:
            problems.append(f"hook {attribute!r}: {said(fault)}")


def _hook(plugin: Any, attribute: str) -> tuple[str, Callable[[], Any]] | None:
    """The kind and function of a hook implementation; None where the attribute is not one."""
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
