"""Finds the reasons why a row's rank or mean changed between two boards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...records import differences
from ..board.board import Block, Column, Row, Score
from ..board.printable import printable

if TYPE_CHECKING:
    from ...records import Record

CODE = ("dist_version", "source_sha256")  # fields of a component that tell its code
# fields of an environment
MACHINE = ("device", "threads", "cpu_capability", "torch", "timm", "numpy")
FEW = 5  # other rows that a sentence names
PATHS = ("method.recipe.", "method.hyperparameters.", "method.stages.")  # left off names
HEX = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True)
class Reason:
    """One reason for a change."""

    kind: str  # "new row", "row gone", "identity", "protocol", "seeds", "record", "code", "others"
    text: str
    records: tuple[str, ...] = ()  # ids of those that show it


class Index:
    """The records behind a board's numbers."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._found: dict[tuple[str, str], Record] = {}
        for record in sorted(records, key=lambda r: (r.status == "ok", r.finished, r.record_id)):
            self._found[record.cell_id, printable(record.protocol or "")] = record

    def record(self, cell_id: str, protocol: str = "") -> Record | None:
        """The record of a protocol, or of the training."""
        plain = re.sub(r" \([0-9a-f]{6}\)$", "", protocol)  # the suffix of columns of one name
        return self._found.get((cell_id, plain))


@dataclass(frozen=True)
class Seen:
    """A row under one column of one of the two boards; None: that board lacks it."""

    block: Block
    column: Column | None
    row: Row | None
    index: Index

    @cached_property
    def score(self) -> Score | None:
        if self.row is None or self.column is None:
            return None
        return self.row.scores[self.block.columns.index(self.column)]

    @property
    def values(self) -> Mapping[int, float]:
        return self.score.values if self.score else {}

    def record(self, seed: int) -> Record | None:
        if self.row is None or self.column is None or seed not in self.row.cells:
            return None
        return self.index.record(self.row.cells[seed], self.column.protocol)


def base(column: Column) -> str:
    """The name of a column's evaluator without parameters."""
    return column.evaluator.partition("[")[0]


def reasons(old: Seen, new: Seen, movers: Sequence[str]) -> tuple[Reason, ...]:
    """All known reasons for a row's change; never empty."""
    if old.row is None:
        return (Reason("new row", f"new row, {_seeds(new.values)}", _ids(new, new.values)),)
    if new.row is None:
        return (Reason("row gone", f"row gone, {_seeds(old.values)}", _ids(old, old.values)),)
    found = [*_identity(old, new), *_protocol(old, new), *_seed_changes(old, new)]
    found += [*_records(old, new), *_code(old, new)]
    if movers:
        more = f" and {len(movers) - FEW} more" if len(movers) > FEW else ""
        found.append(Reason("others", f"others moved: {', '.join(movers[:FEW])}{more}"))
    if old.row.baseline != new.row.baseline:
        found.append(Reason("suite", "a baseline" + (" now" if new.row.baseline else " no more")))
    return tuple(found) or (Reason("suite", "the suite ranks its rows in another way"),)


def _identity(old: Seen, new: Seen) -> Iterator[Reason]:
    """Changes of the cells' identity: version, hyperparameters, fingerprint of the data."""
    if not (old.row and new.row and old.row.details and new.row.details):
        return
    for path, before, after in differences(old.row.details.identity, new.row.details.identity):
        for prefix in PATHS:
            path = path.removeprefix(prefix)
        name = path.replace("method.version", "method version").replace("dataset.", "data set ")
        yield Reason("identity", f"{name} {shown(before)} -> {shown(after)}")


def _protocol(old: Seen, new: Seen) -> Iterator[Reason]:
    if old.column and new.column and old.column.protocol != new.column.protocol:
        text = f"protocol {old.column.protocol} -> {new.column.protocol}"
        yield Reason("protocol", text, _ids(new, new.values))
    elif new.column is None:
        yield Reason("protocol", "no longer judged so by anybody")
    elif old.column is None:
        yield Reason("protocol", f"first judged by {new.column.protocol}", _ids(new, new.values))


def _seed_changes(old: Seen, new: Seen) -> Iterator[Reason]:
    if old.column is None or new.column is None:
        return
    if added := sorted(new.values.keys() - old.values.keys()):
        yield Reason("seeds", f"{_seeds(added)} added", _ids(new, added))
    gone = sorted(old.values.keys() - new.values.keys())
    elsewhere = _elsewhere(new, gone)
    if gone and elsewhere:
        yield Reason("protocol", f"{_seeds(gone)} now judged by {elsewhere}")
    elif gone:
        gaps = new.score.gaps if new.score else {}
        why = dict.fromkeys(gaps[seed].state for seed in gone if seed in gaps)
        told = f" ({', '.join(why)})" if why else ""
        yield Reason("seeds", f"{_seeds(gone)} gone{told}", _ids(old, gone))


def _elsewhere(seen: Seen, seeds: Sequence[int]) -> str:
    """The other protocol of the same evaluator under which these seeds now have values."""
    if seen.row is None or seen.column is None:
        return ""
    for column, score in zip(seen.block.columns, seen.row.scores, strict=True):
        other = column.ranks and column != seen.column and base(column) == base(seen.column)
        if other and all(seed in score.values for seed in seeds):
            return column.protocol
    return ""


def _records(old: Seen, new: Seen) -> Iterator[Reason]:
    """Changed numbers of the same cells under the same protocol."""
    for seed in sorted(old.values.keys() & new.values.keys()):
        one, two = old.record(seed), new.record(seed)
        if one is None or two is None or one.cell_id != two.cell_id:
            continue
        if one.protocol == two.protocol and old.values[seed] != new.values[seed]:
            ids = one.record_id, two.record_id
            text = f"record of seed {seed} changed ({ids[0][:12]} -> {ids[1][:12]})"
            yield Reason("record", text, ids)


def _code(old: Seen, new: Seen) -> Iterator[Reason]:
    """Changes of code and machine behind changed numbers."""
    pairs = [(old.record(seed), new.record(seed)) for seed in sorted(old.values)]
    one, two = next(((a, b) for a, b in pairs if a and b and a != b), (None, None))
    if one is None or two is None or old.values == new.values:
        return
    for role in sorted(one.components.keys() & two.components.keys()):
        before, after = one.components[role], two.components[role]
        changed = [key for key in CODE if before.get(key) != after.get(key)]
        for key in changed[:1]:
            name = printable(str(after.get("dist", ""))) if key == "dist_version" else "code"
            text = f"{printable(role)}: {name} {shown(before.get(key))} -> {shown(after.get(key))}"
            yield Reason("code", text)
    for key in MACHINE:
        values = [record.environment.get(key) for record in (one, two)]
        if values[0] != values[1]:
            yield Reason("code", f"{key} {shown(values[0])} -> {shown(values[1])}")


def _ids(seen: Seen, seeds: Iterable[int]) -> tuple[str, ...]:
    found = (seen.record(seed) for seed in sorted(seeds))
    return tuple(record.record_id for record in found if record)


def _seeds(seeds: Iterable[int]) -> str:
    ordered = sorted(seeds)
    if not ordered:
        return "no seeds"
    return f"seed{'s' * (len(ordered) > 1)} {', '.join(map(str, ordered))}"


def shown(value: Any) -> str:
    """A value for a sentence; digests are shortened."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    text = "none" if value is None else printable(str(value))
    return text[:12] if HEX.fullmatch(text) else text
