"""Protocols: evaluators with their parameters, and the identities of the records that they make."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..api import Evaluator
from ..errors import UserError
from ..names import Name
from ..names import parse as parse_name
from .cell import Cell, plain
from .identity import JudgedIdentity
from .parameters import bracketed, signature

if TYPE_CHECKING:
    from ..plugins import Registry


@dataclass(frozen=True)
class Judge:
    """An evaluator with its parameters, which together are a protocol."""

    name: str  # as asked for, canonical
    version: int
    params: Mapping[str, Any]  # resolved
    protocol: str  # "knn-1", "knn-1[k=5]" away from the defaults, "tent-1(linear-1)" with a probe
    held_out: bool = False  # judges on the held-out tenth of train
    uses: tuple[Judge, ...] = ()  # evaluators whose probes it borrows
    extra: Mapping[str, Any] = field(default_factory=dict)  # what else decides its numbers
    others: Mapping[str, str] = field(default_factory=dict)  # further datasets -> fingerprint
    budget: int | str = ""  # of labels; "": all

    @property
    def family(self) -> str:
        """The protocol without parameters; all variants of it draw the same random numbers."""
        base = parse_name(self.name).base
        borrowed = f"({','.join(used.family for used in self.uses)})" if self.uses else ""
        return f"{base}-{self.version}{borrowed}{'@held-out' if self.held_out else ''}"

    def identity(self) -> dict[str, Any]:
        own = {"name": self.name, "version": self.version, "params": plain(self.params)}
        if self.uses:
            own["uses"] = [used.identity() for used in self.uses]
        if self.extra:
            own["extra"] = plain(self.extra)
        if self.others:
            own["data"] = dict(self.others)
        return {**own, "on": "held-out"} if self.held_out else own


def judged_identity(cell: Cell, judge: Judge) -> dict[str, Any]:
    """The identity of the record that an evaluator makes of a cell."""
    return dict(JudgedIdentity.written(cell.id, judge.identity()).plain)


def resolve_judge(
    name: str, registry: Registry, *, held_out: bool = False
) -> tuple[Judge, Evaluator]:
    """Resolves a name such as `knn[k=5]` to its protocol and a ready evaluator."""
    judge, cls, given = find_judge(name, registry, held_out=held_out)
    evaluator = cls(**given)
    extra, budget = evaluator.extra(), evaluator.budget()
    return dataclasses.replace(judge, extra=extra, budget=budget), evaluator


def find_judge(
    name: str, registry: Registry, *, held_out: bool = False
) -> tuple[Judge, type[Evaluator], dict[str, Any]]:
    """Resolves a name to its protocol, the evaluator's class and the constructor's arguments."""
    asked: Name = parse_name(name)
    entry = registry.find("evaluators", asked.base)
    cls = entry.load()
    if not (inspect.isclass(cls) and issubclass(cls, Evaluator)):
        raise UserError(f"evaluator {asked.base!r} of {entry.dist} is {cls!r}, not an Evaluator")
    hints, defaults = signature(cls.__init__, what=f"evaluator {asked.base!r}")
    given = bracketed(asked, hints)
    given = {k: v for k, v in given.items() if v != defaults[k]}
    own = entry.name if entry.builtin else f"{entry.dist}/{entry.name}"
    bracket = str(Name(own, None, given)).removeprefix(own)
    uses = tuple(resolve_judge(used, registry)[0] for used in cls.uses)
    borrowed = f"({','.join(used.protocol for used in uses)})" if uses else ""
    protocol = f"{own}-{cls.version}{borrowed}{bracket}"
    protocol += "@held-out" if held_out else ""
    values = {**defaults, **given}
    params = {k: v for k, v in values.items() if k not in cls.added or v != cls.added[k]}
    judge = Judge(own + bracket, cls.version, params, protocol, held_out, uses)
    return judge, cls, given
