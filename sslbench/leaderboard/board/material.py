"""What a board is made from: a suite, whole, and records. A plan gives it, or a leaderboard's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...cells.identity import Identity
from ...cells.suite import Suite
from ...records import Record


@dataclass(frozen=True)
class Blank:
    """A cell that is meant, and that no record tells anything of."""

    identity: Identity
    cell_id: str
    dataset: str
    state: str  # in the plan: missing stale failed unsupported
    sentence: str  # why it is in that state


@dataclass(frozen=True)
class Material:
    suite: Suite  # by the names that records have
    records: Sequence[Record]
    attested: Mapping[str, str] = field(default_factory=dict)  # cell -> what others have done of it
    blanks: Sequence[Blank] = ()  # further seeds that the suite declares are blank too
