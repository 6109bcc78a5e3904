"""What a board is: tables of rows that may be compared, with everything known of each.

Every text on a board is fit to print.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import statistics


@dataclass(frozen=True)
class Gap:
    """Why a seed has no value. `absent`: not measured under this protocol, and not meant to be."""

    state: str  # failed timeout interrupted skipped missing absent
    kind: str = ""  # class of the error: oom, nan ...
    sentence: str = ""
    evaluator: str = ""  # "": the cell itself


@dataclass(frozen=True)
class Setting:
    """What rows of one table have in common; None where a row does not care."""

    dataset: str
    backbone: str
    fingerprint: str | None = None
    size: int | None = None  # pixels
    precision: str | None = None
    epochs: int | None = None  # None: never trained
    budget: int | None = None  # labels; None: not a method that is given some

    def admits(self, other: Setting) -> bool:
        """Whether a row of that setting may stand in this table."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(theirs in (None, mine) for mine, theirs in pairs)


@dataclass(frozen=True)
class Column:
    evaluator: str
    protocol: str
    metric: str  # "": nothing was measured, so its metrics are not known
    split: str = "test"
    higher_is_better: bool = True
    unit: str = ""  # "": fractions
    ranks: bool = False  # the first metric of its evaluator
    narrow: bool = False  # shown where there is little room


@dataclass(frozen=True)
class Score:
    """One row under one column. Values are fractions at full precision."""

    values: Mapping[int, float]  # by seed
    gaps: Mapping[int, Gap]  # the other seeds
    mean: float | None = None
    sd: float | None = None
    interval: statistics.Interval | None = None
    rank: int | None = None  # None: a baseline, no value, or not a column that ranks
    tied: bool = False
    best: bool = False  # best mean of the rows that are not baselines
    behind: statistics.Paired | None = None  # minus the best row; None for itself and baselines
    against: Mapping[str, statistics.Paired] = field(default_factory=dict)  # minus each baseline

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class MeanCosts:
    """Means over seeds, every stage counted; None: not known."""

    seconds: float | None = None
    images_seen: float | None = None
    images_per_second: float | None = None
    parameters: float | None = None
    flops: float | None = None
    peak_memory_bytes: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds
    trials: int = 0  # of tuning; what they cost is not counted


@dataclass(frozen=True)
class Flag:
    code: str
    message: str
    seeds: tuple[int, ...]
    health: bool = False  # a verdict on the fit


@dataclass(frozen=True)
class Trouble:
    gap: Gap
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Details:
    """What is known of a row beside its numbers."""

    identity: Mapping[str, Any]  # of its cells, without the seed
    hyperparameters: Mapping[str, Any]  # resolved
    recipe: Mapping[str, Any]  # resolved
    components: Mapping[str, Mapping[str, Any]]  # by role: "method", "evaluator knn-1" ...
    environments: tuple[Mapping[str, Any], ...]  # each once
    command: str  # that makes its cells again
    curves: Mapping[str, Mapping[int, tuple[tuple[float, float], ...]]]  # name -> seed -> points
    conformance: str = ""  # "built in", "kit 1": what says that its method keeps its promises
    attested: str = ""  # "re-judged" or "retrained" by somebody else; "": reported


@dataclass(frozen=True)
class Row:
    label: str  # method, with the hyperparameters in which it differs from its other rows
    method: str
    baseline: bool
    anchor: str | None
    trained: bool
    cells: Mapping[int, str]  # seed -> cell id
    scores: tuple[Score, ...]  # one a column
    costs: MeanCosts
    troubles: tuple[Trouble, ...] = ()
    flags: tuple[Flag, ...] = ()
    health: Mapping[str, float] = field(default_factory=dict)  # means over seeds, by name
    details: Details | None = None  # None: nothing was recorded

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Codes of what is wrong with its fits."""
        return tuple(dict.fromkeys(flag.code for flag in self.flags if flag.health))

    @property
    def n(self) -> int:
        """Seeds with any value."""
        return len({seed for score in self.scores for seed in score.values})


@dataclass(frozen=True)
class Block:
    """One table: rows that may be compared."""

    setting: Setting
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Standing:
    """A row's place across data sets."""

    label: str
    rank: float  # mean over data sets
    interval: statistics.Interval | None  # bootstrap over data sets; None: too few of them


@dataclass(frozen=True)
class Overall:
    """One protocol across data sets: the rows that have a value on each."""

    backbone: str
    evaluator: str
    protocol: str
    metric: str
    datasets: tuple[str, ...]
    standings: tuple[Standing, ...]  # best first
    lacking: tuple[str, ...] = ()  # rows without a value on some


@dataclass(frozen=True)
class Reference:
    """A published number, which no protocol of ours made: never ranked."""

    dataset: str
    method: str
    backbone: str
    metric: str
    value: float  # a fraction
    protocol: str  # in words
    source: str
    url: str
    date: str  # on which it was read
    note: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A record that is on no table, and why."""

    record: str  # id
    reason: str


@dataclass(frozen=True)
class Board:
    suite_id: str
    level: float  # of the intervals
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    summary: str = ""  # the suite's
    overall: tuple[Overall, ...] = ()
    references: tuple[Reference, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


# ---- text ------------------------------------------------------------------------------------
