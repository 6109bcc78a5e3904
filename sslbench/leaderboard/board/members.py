"""Finds the members of a board: which cells belong to the suite, and which records count.

A cell that the suite asks for and no record has is a gap. A record that does not belong is left out,
with a reason. Two records that contradict each other are an error.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ...cells.identity import Identity, JudgedIdentity, is_adopted
from ...cells.suite import Suite
from ...errors import UserError
from ...names import parse as parse_name
from ...names import unplaced
from ...records import Record, canonical, digest
from .board import LeftOut
from .material import Blank, Material
from .member import Member


@dataclasses.dataclass
class _Attempts:
    """One cell with the records that judge it."""

    id: str
    train: Record
    judged: list[Record]


def members_of(material: Material) -> tuple[list[Member], list[LeftOut]]:
    """The suite's cells, missing ones included, and the records that were left out.

    Raises:
        UserError: one evaluator has two answers for one cell.
    """
    suite = material.suite
    left: list[LeftOut] = []
    cells = list(_cells(material.records, left))
    found = []
    for cell in cells:
        reason = _foreign(cell.train, suite)
        if reason:
            left += [LeftOut(r.record_id, reason) for r in (cell.train, *cell.judged)]
        else:
            found.append(_member(cell, suite, left, material.attested.get(cell.id, "")))
    found = _told_apart([*found, *(_blank(each, suite) for each in material.blanks)])
    places = [_canonical(name) for name in suite.datasets], _backbones(suite)
    order = {name: at for at, name in enumerate((*suite.methods, *suite.baselines))}

    def place(member: Member) -> tuple[Any, ...]:
        pairs = zip((member.dataset, member.backbone), places, strict=True)
        where = (names.index(name) if name in names else len(names) for name, names in pairs)
        return *where, order.get(member.method, len(order)), member.method, member.seed

    found.sort(key=lambda member: (*place(member), member.cell_id))
    return [*found, *_missing(suite, found)], left


def _cells(records: Iterable[Record], left: list[LeftOut]) -> Iterator[_Attempts]:
    trains: dict[str, list[Record]] = {}
    judged: dict[str, list[Record]] = {}
    for record in records:
        kind = trains if record.kind == "train" else judged
        kind.setdefault(record.cell_id, []).append(record)
    for cell_id in sorted(trains.keys() | judged.keys()):
        own = trains.get(cell_id, [])
        if not own:
            reason = "nothing says how its cell was trained"
            left += [LeftOut(r.record_id, reason) for r in judged[cell_id]]
            continue
        yield _Attempts(cell_id, _agreed(own), judged.get(cell_id, []))


def _newest(attempts: Sequence[Record]) -> Record:
    """The newest attempt that is ok, or else the newest."""
    return max(attempts, key=lambda r: (r.status == "ok", r.attempt, r.finished, r.record_id))


def _foreign(train: Record, suite: Suite) -> str:
    """Why a cell does not belong to the suite; empty if it does. Any method may take part."""
    identity = Identity(train.identity)
    recipe = identity.recipe
    datasets = {unplaced(name): name for name in suite.datasets}
    epochs = [suite.epochs, suite.set.get(f"{identity.method}.epochs", suite.epochs)]
    checks = [
        ("data set", identity.dataset, datasets),
        ("backbone", identity.backbone, _backbones(suite)),
        ("seed", identity.seed, suite.seeds),
        ("precision", identity.precision, (suite.precision,)),
    ]
    if suite.epochs is not None and recipe and train.status == "ok":
        checks.append(("budget of epochs", recipe.get("epochs"), dict.fromkeys(epochs)))
    for what, value, allowed in checks:
        if value not in allowed:
            return f"{what} {value} is not the suite's ({', '.join(map(str, allowed))})"
    return ""


def _member(cell: _Attempts, suite: Suite, left: list[LeftOut], attested: str) -> Member:
    train = cell.train
    first = suite.seeds[0]
    asked = [*suite.evaluators, *(suite.once if train.seed == first else ())]
    names = dict.fromkeys(map(_canonical, asked))
    evaluations: dict[str, Record | None] = dict.fromkeys(names)
    by_name: dict[str, list[Record]] = {}
    for record in cell.judged:
        if record.evaluator in evaluations:
            by_name.setdefault(record.evaluator, []).append(record)
        else:
            left.append(LeftOut(record.record_id, f"the suite has no judge {record.evaluator}"))
    for name, found in by_name.items():
        evaluations[name] = _current(found, left)
    identity = Identity(train.identity)
    name = identity.method or ""
    return Member(
        method=name,
        backbone=train.backbone,
        dataset=_spelt(train.dataset, suite),
        seed=train.seed,
        cell_id=cell.id,
        identity=identity,
        baseline=name in suite.baselines,
        anchor=name if name == suite.floor else None,
        train=train,
        evaluations=evaluations,
        state="done",
        trials=suite.tuning.trials if suite.tuning and identity.trained else 0,
        attested=attested,
    )


def _told_apart(members: Sequence[Member]) -> list[Member]:
    """Members whose data sets have one name and other pictures are called by their fingerprints."""
    prints: dict[str, set[Any]] = {}
    for each in members:
        prints.setdefault(each.dataset, set()).add(each.known.fingerprint)
    return [
        dataclasses.replace(each, dataset=f"{each.dataset} {str(each.known.fingerprint)[:8]}")
        if parse_name(each.dataset).argument is not None and len(prints[each.dataset]) > 1
        else each
        for each in members
    ]


def _spelt(dataset: str, suite: Suite) -> str:
    """The data set's name as the suite spells it, whatever folder it was read from."""
    own = unplaced(dataset)
    alike = [_canonical(name) for name in suite.datasets if unplaced(name) == own]
    return alike[0] if len(alike) == 1 else dataset


def _current(found: Sequence[Record], left: list[LeftOut]) -> Record:
    """The record of one evaluator that counts: a success first, then the highest version, the newest.

    The others are added to `left`.
    """
    if len(found) == 1:
        return found[0]
    by_identity: dict[str, list[Record]] = {}
    for record in found:
        by_identity.setdefault(digest(record.identity), []).append(record)
    chosen = [_agreed(attempts) for attempts in by_identity.values()]
    best = max(chosen, key=lambda r: (r.status == "ok", _version(r), r.finished, r.record_id))
    for other in chosen:
        if other is not best:
            reason = f"the same cell was judged by {best.protocol} too"
            left.append(LeftOut(other.record_id, reason))
    return best


def _version(record: Record) -> int:
    return JudgedIdentity(record.identity).version or 0


def _agreed(attempts: Sequence[Record]) -> Record:
    """The record on which the attempts at one thing agree: the fullest, and of those the earliest."""
    if len(attempts) == 1:
        return attempts[0]
    sound = sorted((r for r in attempts if r.status == "ok"), key=fullest)
    if not sound:
        return _newest(attempts)
    best = sound[0]
    other = next((r for r in sound if not agree(best, r)), None)
    if other is not None:
        what = best.protocol or "training"
        raise UserError(
            f"{what} has two answers for cell {best.cell_id[:12]} ({best.method}, seed "
            f"{best.seed}): records {best.record_id[:12]} and {other.record_id[:12]}; neither is "
            f"taken: remove the one that is wrong"
        )
    return best


def measured(record: Record) -> dict[str, Any]:
    """Everything in a record that the same cell must reproduce; not time and cost."""
    return {
        **{f"{m.name} ({m.split})": m.value for m in record.metrics},
        **{f"curve {name}": points for name, points in record.curves.items()},
        **{f"health {name}": value for name, value in record.health.items()},
    }


def fullest(record: Record) -> tuple[int, str, str]:
    """Sort key: records that measured most come first, and of those the earliest."""
    return -len(measured(record)), record.finished, record.record_id


def agree(full: Record, other: Record) -> bool:
    """Whether the fuller record confirms all that the other says; older ones measured less."""
    known = measured(full)
    return all(name in known and known[name] == it for name, it in measured(other).items())


# ---- what is missing -------------------------------------------------------------------------


def _missing(suite: Suite, found: Sequence[Member]) -> Iterator[Member]:
    """A member for each seed that the suite declares and no record has."""
    rows: dict[str, dict[int, Member]] = {}
    for member in found:
        rows.setdefault(_row_of(member), {})[member.seed] = member
    for row in rows.values():
        like = next(iter(row.values()))
        if is_adopted(like.method):
            continue  # weights from outside are what they are, whatever the seed
        for seed in suite.seeds:
            if seed not in row:
                identity = Identity({**like.identity.plain, "seed": seed})
                yield _gap(suite, like, seed, identity.id, identity)
    here = {(m.method, m.dataset, m.backbone) for m in found}
    names = dict.fromkeys((*suite.methods, *suite.baselines))
    for where in itertools.product(names, map(_canonical, suite.datasets), _backbones(suite)):
        if where not in here:
            method, dataset, backbone = where
            for seed in suite.seeds:
                cell_id = digest([*where, seed])
                blank = Member(
                    method=method, backbone=backbone, dataset=dataset, seed=seed, cell_id=cell_id
                )
                yield _gap(suite, blank, seed, cell_id, Identity({}))


def _blank(blank: Blank, suite: Suite) -> Member:
    """The member of a planned cell without records."""
    identity = blank.identity
    like = Member(
        method=identity.method or "",
        backbone=identity.backbone or "",
        dataset=_spelt(blank.dataset, suite),
        seed=identity.seed,
        cell_id=blank.cell_id,
    )
    gap = _gap(suite, like, like.seed, blank.cell_id, identity)
    return dataclasses.replace(gap, state=blank.state, sentence=blank.sentence)


def _backbones(suite: Suite) -> list[str]:
    return [_canonical(name) for name in suite.backbones]


def _canonical(name: str) -> str:
    return str(parse_name(name))


def _gap(suite: Suite, like: Member, seed: int, cell_id: str, identity: Identity) -> Member:
    asked = [*suite.evaluators, *(suite.once if seed == suite.seeds[0] else ())]
    return dataclasses.replace(
        like,
        seed=seed,
        cell_id=cell_id,
        identity=identity,
        baseline=like.method in suite.baselines,
        anchor=like.method if like.method == suite.floor else None,
        train=None,
        evaluations=dict.fromkeys(map(_canonical, asked)),
        state="missing",
        sentence="the suite declares this seed, and there is no record of it",
        attested="",
    )


def _row_of(member: Member) -> str:
    """What the seeds of one row share: their identity without the seed and the pretexts' cells."""
    return canonical(member.identity.without_seed())
