"""Members of a board: the cells of a suite, each with its records."""

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
    """One cell of the suite, with its records."""

    method: str
    backbone: str
    dataset: str
    seed: int
    cell_id: str
    identity: Identity = field(default_factory=lambda: Identity({}))  # {}: that of its records
    baseline: bool = False
    anchor: str | None = None  # its name, if it is the suite's floor: what training must beat
    train: Record | None = None
    evaluations: Mapping[str, Record | None] = field(default_factory=dict)  # by evaluator
    state: str = "missing"  # in the plan: done missing stale failed unsupported evaluate
    sentence: str = ""  # why it is in that state
    trials: int = 0  # tuning trials that chose its settings
    attested: str = ""  # "re-judged" or "retrained", if others vouch for its records

    @property
    def known(self) -> Identity:
        """Its identity, or else that of its records."""
        records = [self.train, *self.evaluations.values()]
        found = (Identity(r.identity) for r in records if r and r.identity)
        return self.identity if self.identity.plain else next(found, self.identity)


def judged_as(record: Record) -> str:
    """What two values in one column must share: the protocol and the other data that it used."""
    other = {k: v for k, v in record.components.items() if k.startswith("data ")}
    return canonical([record.protocol, JudgedIdentity(record.identity).evaluator, other])
