"""Collects what is known of a row beside its numbers: settings, code, machines, curves."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...records import canonical
from .board import Details
from .printable import printable

if TYPE_CHECKING:
    from ...records import Record
    from .member import Member

OURS = "sslbench"  # the distribution whose methods our own tests check
FIXED = ("version", "source")  # no option sets these
Points = tuple[tuple[float, float], ...]


def details_of(
    members: Sequence[Member], settings: Mapping[str, Any], command: str
) -> Details | None:
    """Details of a row from its cells; None if no training was recorded.

    `settings` are those in which the row differs from the other rows of its method.
    """
    trained = [m.train for m in members if m.train is not None]
    if not trained:
        return None
    first = trained[0]
    identity = {k: v for k, v in members[0].known.plain.items() if k != "seed"}
    components = _components(members)
    return Details(
        _printable(identity),
        _printable(first.hyperparameters),
        _printable(first.recipe),
        components,
        _each_once(record.environment for record in _records(members)),
        _command(members, settings, command),
        _curves(trained),
        _conformance(components.get("method", {})),
        _least_attested(members),
    )


def _records(members: Sequence[Member]) -> Iterable[Record]:
    for member in members:
        yield from (r for r in (member.train, *member.evaluations.values()) if r is not None)


def _components(members: Sequence[Member]) -> dict[str, Mapping[str, Any]]:
    """Components by role (an evaluator's with its protocol), as the first seed has them.

    The first is enough: other versions of an evaluator make other columns.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for record in _records(members):
        for role, parts in record.components.items():
            name = printable(f"{role} {record.protocol}" if role == "evaluator" else role)
            if name not in found:
                found[name] = _printable(parts)
    return found


def _each_once(environments: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    found: list[Mapping[str, Any]] = []
    for each in environments:
        if each and each not in found:
            found.append(each)
    return tuple(map(_printable, found))


def _command(members: Sequence[Member], settings: Mapping[str, Any], command: str) -> str:
    """The command that runs these cells alone."""
    if not command:
        return ""
    method = printable(members[0].method)
    parts = [command, "--methods", shlex.quote(method)]
    parts += ["--seeds", ",".join(str(m.seed) for m in members)]
    for key, value in settings.items():
        if key.rpartition(".")[2] not in FIXED:
            text = value if isinstance(value, str) else canonical(value)
            parts += ["--set", shlex.quote(printable(f"{method}.{key}={text}"))]
    return " ".join(parts)


def _curves(records: Sequence[Record]) -> dict[str, dict[int, Points]]:
    found: dict[str, dict[int, Points]] = {}
    for record in records:
        for name, points in record.curves.items():
            found.setdefault(printable(name), {})[record.seed] = tuple((x, y) for x, y in points)
    return found


def _conformance(method: Mapping[str, Any]) -> str:
    if method.get("dist") == OURS:
        return "built in"
    return f"kit {method['conformance']}" if method.get("conformance") else ""


def _least_attested(members: Sequence[Member]) -> str:
    """The lowest level of attestation among the cells."""
    levels = ("", "re-judged", "retrained")
    return levels[min(levels.index(m.attested) for m in members)]


def _printable(value: Any) -> Any:
    """The same plain data with every text made printable."""
    if isinstance(value, Mapping):
        return {printable(str(k)): _printable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(v) for v in value]
    return printable(value) if isinstance(value, str) else value
