"""Groups cells into rows: a method, or one variant of it, over its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...records import canonical
from .member import Member
from .printable import printable


class Group(NamedTuple):
    """The cells of one row."""

    members: Sequence[Member]
    settings: Mapping[str, Any]  # those that differ from other rows of the method


def groups_of(members: Sequence[Member]) -> dict[str, Group]:
    """Groups the cells of a table into rows, by label."""
    variants: dict[str, dict[str, list[Member]]] = {}
    for member in members:
        own = canonical(member.known.settings())
        variants.setdefault(member.method, {}).setdefault(own, []).append(member)
    groups: dict[str, Group] = {}
    for method, found in variants.items():
        unknown = found.pop("{}", [])  # cells without known settings: not run yet
        if len(found) == 1:
            next(iter(found.values())).extend(unknown)
        elif unknown:
            found["{}"] = unknown
        for group in _parted(list(found.values())):
            inner = ",".join(f"{key}={value}" for key, value in group.settings.items())
            label = printable(f"{method}[{inner}]" if inner else method)
            for alike in _once_a_seed(group.members):
                groups[_free(label, groups)] = Group(alike, group.settings)
    return groups


def _parted(groups: Sequence[list[Member]]) -> Iterable[Group]:
    variants = [group[0].known.settings() for group in groups]
    keys = sorted({key for variant in variants for key in variant})
    differing = [k for k in keys if len({canonical(v.get(k)) for v in variants}) > 1]
    for variant, group in zip(variants, groups, strict=True):
        yield Group(group, {k: variant[k] for k in differing if k in variant})


def _once_a_seed(group: Sequence[Member]) -> Iterable[list[Member]]:
    """Splits cells that share label and seed into rows of one cell each.

    They differ in something that no label shows.
    """
    seeds = [member.seed for member in group]
    if len(set(seeds)) < len(seeds):  # nothing says which seeds belong together
        return [[member] for member in group]
    return [sorted(group, key=lambda member: member.seed)]


def _free(label: str, taken: Mapping[str, Any]) -> str:
    number = 1
    while (name := label if number == 1 else f"{label} ({number})") in taken:
        number += 1
    return name
