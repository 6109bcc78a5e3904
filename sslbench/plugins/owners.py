"""Finds entries by name. The result does not depend on the order in which plugins load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import UnknownName, UserError
from ..names import Name
from . import origins
from .entries import FAMILIES, KINDS, OURS, Entry, PluginInfo, canonical, one
from .hooks import collect


class Registry:
    """All plugins and their entries, which it finds by name."""

    def __init__(self, plugins: Iterable[PluginInfo], entries: Iterable[Entry]) -> None:
        self._table: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        for entry in sorted(entries, key=lambda e: (e.kind, e.name, not e.builtin, e.dist)):
            self._table[entry.kind].setdefault(entry.name, []).append(entry)
        self.plugins = [replace(p, notes=(*p.notes, *self._clashes(p))) for p in plugins]

    def names(self, kind: str) -> list[str]:
        """The shortest name of each entry of a kind; a family is given by its pattern."""
        return list(self.entries(kind))

    def entries(self, kind: str) -> dict[str, Entry]:
        """Entries by their shortest names: the bare one where they own it, else `dist/name`."""
        return {
            entry.name if self._owner(owners) is entry else entry.qualified: entry
            for _, owners in sorted(self._table[kind].items())
            for entry in owners
        }

    def of(self, plugin: PluginInfo) -> dict[str, Entry]:
        """Everything that a plugin provides, as `methods/NAME`."""
        return {
            f"{kind}/{name}": next(e for e in self._table[kind][name] if e.dist == plugin.dist)
            for kind, names in plugin.provides.items()
            for name in names
        }

    def find(self, kind: str, name: Name | str) -> Entry:
        """Finds the entry that `name` or `dist/name` means.

        In kinds with families an exact key wins, then the longest pattern.

        Raises:
            UnknownName: no plugin provides it.
            UserError: two distributions provide it, and neither is sslbench.
        """
        asked = name.base if isinstance(name, Name) else name
        dist, slash, bare = asked.rpartition("/")
        candidates = self._candidates(kind, bare, dist if slash else None)
        if not candidates:
            known = [known for known in self.names(kind) if not known.endswith("*")]
            raise UnknownName(one(kind), asked, known, self._hint())
        owner = self._owner(candidates)
        if owner is None:
            first, *others = candidates
            raise UserError(
                f"{one(kind)} {bare!r} is provided by "
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
            found = [e for e in held if dist is None or canonical(e.dist) == canonical(dist)]
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
                        f"{one(kind)} {name!r} is also provided by {' and '.join(others)}: "
                        f"say {plugin.dist}/{name}"
                    )


def registry(
    *, installed: bool = True, files: Sequence[Path] = (), block: Sequence[str] = ()
) -> Registry:
    """Loads all plugins: the built-in one, those of installed distributions, and files.

    Args:
        installed: whether to look at the entry points of group `sslbench`
        files: plugins that are one Python file each
        block: names of plugins or distributions that are not to be loaded

    Raises:
        UserError: a file does not exist, or `block` names nothing.
    """
    found = origins.found(installed=installed, files=files)
    blocked = origins.blocked(found, block)
    taken: dict[tuple[str, str, str], Entry] = {}
    plugins = []
    for each in sorted(found, key=lambda f: (f.dist != OURS, f.dist, f.name)):
        if each in blocked:
            plugins.append(replace(each.info, notes=("blocked",)))
            continue
        info, entries = collect(each)
        provides: dict[str, list[str]] = {}
        errors = [info.error] if info.error else []
        for entry in entries:
            if taken.setdefault((entry.dist, entry.kind, entry.name), entry) is entry:
                provides.setdefault(entry.kind, []).append(entry.name)
            else:
                errors.append(f"{one(entry.kind)} {entry.name!r} is provided twice by {entry.dist}")
        plugins.append(replace(info, provides=provides, error="; ".join(errors) or None))
    return Registry(plugins, taken.values())
