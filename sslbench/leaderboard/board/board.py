"""The parts of a board: tables of comparable rows, with everything known of each row.

Every text on a board is printable (printable.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import statistics
from ..together import Paired


@dataclass(frozen=True)
class Gap:
    """Why a seed has no value.

    The state `absent` means that it was never to be measured under this protocol.
    """

    state: str  # failed timeout interrupted skipped missing absent
    kind: str = ""  # class of the error: oom, nan ...
    sentence: str = ""
    evaluator: str = ""  # whose record failed; "": the cell's own training


@dataclass(frozen=True)
class Setting:
    """What the rows of one table share; a field is None where it does not matter to a row."""

    dataset: str
    backbone: str
    fingerprint: str | None = None
    size: int | None = None  # pixels
    precision: str | None = None
    epochs: int | None = None  # None: never trained
    budget: int | None = None  # number of labels given; None: a method without labels

    def admits(self, other: Setting) -> bool:
        """Whether a row of the other setting may stand in this table."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(theirs in (None, mine) for mine, theirs in pairs)


@dataclass(frozen=True)
class Column:
    """One metric of one protocol."""

    evaluator: str
    protocol: str
    metric: str  # "": nothing was measured yet, so the metrics are unknown
    split: str = "test"
    higher_is_better: bool = True
    unit: str = ""  # "": fractions
    ranks: bool = False  # the first metric of its evaluator
    narrow: bool = False  # shown also where there is little room


@dataclass(frozen=True)
class Score:
    """A row's values under one column, at full precision; fractions unless it has a unit."""

    values: Mapping[int, float]  # by seed
    gaps: Mapping[int, Gap]  # seeds without a value
    mean: float | None = None
    sd: float | None = None
    interval: statistics.Interval | None = None
    rank: int | None = None  # best place that its seeds allow; None: baseline, one seed, no ranks
    rank_to: int | None = None  # worst place
    best: bool = False  # best mean of the rows that are not baselines
    behind: Paired | None = None  # minus the best row; None: best itself, or baseline
    against: Mapping[str, Paired] = field(default_factory=dict)  # minus each baseline

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class MeanCosts:
    """Mean costs over seeds, all stages included; None: not known."""

    seconds: float | None = None
    images_seen: float | None = None
    images_per_second: float | None = None
    parameters: float | None = None
    flops: float | None = None
    peak_memory_bytes: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds
    trials: int = 0  # tuning trials; their cost is not included


@dataclass(frozen=True)
class Flag:
    """A warning about a row."""

    code: str
    message: str
    seeds: tuple[int, ...]
    health: bool = False  # whether it is a verdict on the training


@dataclass(frozen=True)
class Trouble:
    """A reason for missing values, with the seeds that it concerns."""

    gap: Gap
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Details:
    """What is known of a row beside its numbers."""

    identity: Mapping[str, Any]  # of its cells, without the seed
    hyperparameters: Mapping[str, Any]  # resolved
    recipe: Mapping[str, Any]  # resolved
    components: Mapping[str, Mapping[str, Any]]  # by role: "method", "evaluator knn-1" ...
    environments: tuple[Mapping[str, Any], ...]  # each different one once
    command: str  # runs its cells again
    curves: Mapping[str, Mapping[int, tuple[tuple[float, float], ...]]]  # name -> seed -> points
    conformance: str = ""  # how its method was checked: "built in", "kit 1"; "": not
    attested: str = ""  # "re-judged" or "retrained" by others; "": only reported


@dataclass(frozen=True)
class Row:
    """One method, or one variant of it, over its seeds."""

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
        """Codes of its health flags, each once."""
        return tuple(dict.fromkeys(flag.code for flag in self.flags if flag.health))

    @property
    def n(self) -> int:
        """Number of seeds with any value."""
        return len({seed for score in self.scores for seed in score.values})


@dataclass(frozen=True)
class Block:
    """One table: rows that may be compared."""

    setting: Setting
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    findings: tuple[str, ...] = ()  # a sentence for each ranking column: what its numbers say


@dataclass(frozen=True)
class Standing:
    """A row's place across data sets."""

    label: str
    rank: float  # mean over data sets
    interval: statistics.Interval | None  # bootstrap over data sets; None: too few of them


@dataclass(frozen=True)
class Overall:
    """Ranks under one protocol across data sets, of the rows with a value on each."""

    backbone: str
    evaluator: str
    protocol: str
    metric: str
    datasets: tuple[str, ...]
    standings: tuple[Standing, ...]  # best first
    lacking: tuple[str, ...] = ()  # rows without a value on some


@dataclass(frozen=True)
class Reference:
    """A number from a paper: never ranked, since no protocol of ours made it."""

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
    """A record that no table shows, and why."""

    record: str  # id
    reason: str


@dataclass(frozen=True)
class Board:
    """The tables of one suite, and what stands beside them."""

    suite_id: str
    level: float  # of the intervals
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    summary: str = ""  # the suite's
    overall: tuple[Overall, ...] = ()
    references: tuple[Reference, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    title: str = ""  # "": the suite's id
    authors: tuple[str, ...] = ()
