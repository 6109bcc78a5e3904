"""What a board is made from: a whole suite and records, of a plan or a leaderboard's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...cells.identity import Identity
from ...cells.suite import Suite
from ...records import Record


@dataclass(frozen=True)
class Blank:
    """A planned cell without any record."""

    identity: Identity
    cell_id: str
    dataset: str
    state: str  # in the plan: missing stale failed unsupported
    sentence: str  # why it is in that state


@dataclass(frozen=True)
class Material:
    """A suite and its records."""

    suite: Suite  # with names as records have them
    records: Sequence[Record]
    attested: Mapping[str, str] = field(default_factory=dict)  # cell -> "re-judged" or "retrained"
    blanks: Sequence[Blank] = ()  # other declared seeds without records are added later
