"""What a board is made from: the cells of a suite, with their records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...cells.identity import Identity, JudgedIdentity
from ...records import canonical

if TYPE_CHECKING:
    from ...records import Record


@dataclass(frozen=True, kw_only=True)
class Member:
    """One cell of the suite, with what the store has of it."""

    method: str
    backbone: str
    dataset: str
    seed: int
    cell_id: str
    identity: Identity = field(default_factory=lambda: Identity({}))  # {}: as its records have it
    baseline: bool = False
    anchor: str | None = None  # its name, where the suite makes it the floor under training
    train: Record | None = None
    evaluations: Mapping[str, Record | None] = field(default_factory=dict)  # by evaluator
    state: str = "missing"  # in the plan: done missing stale failed unsupported evaluate
    sentence: str = ""  # why it is in that state
    trials: int = 0  # by which its settings were chosen
    attested: str = ""  # "re-judged" or "retrained", where somebody else vouches for its records

    @property
    def known(self) -> Identity:
        """Its identity, or what its records have of one."""
        records = [self.train, *self.evaluations.values()]
        found = (Identity(r.identity) for r in records if r and r.identity)
        return self.identity if self.identity.plain else next(found, self.identity)


def judged_as(record: Record) -> str:
    """What must agree for two values to stand in one column: protocol, and the data it looked at."""
    other = {k: v for k, v in record.components.items() if k.startswith("data ")}
    return canonical([record.protocol, JudgedIdentity(record.identity).evaluator, other])
