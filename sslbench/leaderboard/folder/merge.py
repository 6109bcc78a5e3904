"""Merges two stores, or two leaderboards; order and repetition make no difference.

Two different numbers for the same cell and evaluator are a conflict, and neither is taken.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cells.suite import Suite
from ...disk import cannot_write, make_folder, names_in, read_file
from ...errors import UserError
from ...records import NewerSchema, Record, digest, loads
from ...store import Store, predictions_of, read_predictions, record_name
from ..board.members import agree, fullest, measured
from . import folder as folders

Sources = dict[str, list[Path]]  # record id -> files with that record
Whole = tuple[str, str, str]  # cell id, kind, digest of the identity: one measurement


@dataclass(frozen=True)
class Conflict:
    """Successful records of one cell and evaluator that contradict each other."""

    cell_id: str
    what: str  # "knn-1", or "train"
    method: str
    dataset: str
    backbone: str
    seed: int
    records: tuple[str, ...]  # ids
    differing: Mapping[str, tuple[Any, ...]]  # what was measured -> what each record has


@dataclass(frozen=True)
class Union:
    """The records of both sides, and their conflicts."""

    records: tuple[Record, ...]  # those without conflict
    conflicts: tuple[Conflict, ...]
    torn: frozenset[str]  # cells trained twice with different results: nothing of them is taken


@dataclass(frozen=True)
class Merged:
    """The result of a merge."""

    kind: str  # "store" or "leaderboard"
    union: Union
    written: bool


def merge(one: Path, other: Path, out: Path, *, skip_conflicts: bool = False) -> Merged:
    """Merges two folders into `out`; with conflicts, writes only if they are to be skipped.

    Raises:
        UserError: the folders are of different kinds or suites, a record or its predictions are
            damaged, or `out` is not empty.
    """
    kinds = [_kind(root) for root in (one, other)]
    if kinds[0] != kinds[1]:
        raise UserError(f"{one} is a {kinds[0]} and {other} a {kinds[1]}; merge two of a kind")
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(f"{out} is there with something in it; name a new folder with --out DIR")
    fill: Callable[[Sources, Union, Path], None]
    if kinds[0] == "store":
        found = [pair for root in (one, other) for pair in _stored(root)]
        fill = functools.partial(_fill_store, (one, other))
    else:
        pair = folders.read(one), folders.read(other)
        found = [(kept.record, each.root / kept.path) for each in pair for kept in each.kept]
        fill = functools.partial(
            _fill_leaderboard, pair, folders.united(pair[0].suite, pair[1].suite)
        )
    union = unite(record for record, _ in found)
    sources: Sources = {}
    for record, path in found:
        sources.setdefault(record.record_id, []).append(path)
    written = skip_conflicts or not union.conflicts
    if written:
        _in_one_go(out, functools.partial(fill, sources, union))
    return Merged(kinds[0], union, written)


def unite(records: Iterable[Record]) -> Union:
    """Unites records: each attempt once, and of successful ones that agree only the fullest."""
    attempts: dict[Whole, dict[str, Record]] = {}
    for record in records:
        whole = record.cell_id, record.kind, digest(record.identity)
        attempts.setdefault(whole, {})[record.record_id] = record
    kept: list[Record] = []
    conflicts: list[Conflict] = []
    torn = set()  # cells trained with two results: their evaluators saw two networks
    for (cell_id, kind, _), found in sorted(attempts.items()):
        sound = sorted((r for r in found.values() if r.status == "ok"), key=fullest)
        if any(not agree(sound[0], other) for other in sound[1:]):
            conflicts.append(_conflict(sound))
            if kind == "train":
                torn.add(cell_id)
            continue
        kept += [r for r in found.values() if r.status != "ok"] + sound[:1]
    left = [record for record in kept if record.cell_id not in torn]
    ordered = tuple(sorted(left, key=lambda r: (r.cell_id, r.record_id)))
    return Union(ordered, tuple(conflicts), frozenset(torn))


def _conflict(sound: Sequence[Record]) -> Conflict:
    first = sound[0]
    sides = [measured(record) for record in sound]
    names = dict.fromkeys(name for side in sides for name in side)
    values = {name: tuple(side.get(name) for side in sides) for name in names}
    return Conflict(
        first.cell_id,
        first.protocol or first.kind,
        first.method,
        first.dataset,
        first.backbone,
        first.seed,
        tuple(record.record_id for record in sound),
        {name: found for name, found in values.items() if any(v != found[0] for v in found)},
    )


# ---- folders ---------------------------------------------------------------------------------


def _kind(root: Path) -> str:
    if folders.is_leaderboard(root):
        return "leaderboard"
    if (root / "store.json").is_file() or (root / "cells").is_dir():
        return "store"
    raise UserError(f"{root} is neither a store nor a leaderboard; name two folders of one kind")


def _stored(root: Path) -> Iterator[tuple[Record, Path]]:
    """Every record of a store with its path; UserError if one is damaged."""
    for cell in Store(root).cells():
        folder = cell.path / "records"
        for path in (folder / name for name in names_in(folder) if name.endswith(".json")):
            try:
                record = loads(read_file(path).decode())
            except (NewerSchema, ValueError) as error:
                raise UserError(f"{path}: {error}") from error
            if record.cell_id != cell.id:
                raise UserError(f"{path} belongs to cell {record.cell_id[:12]}; remove it")
            yield record, path


def _in_one_go(out: Path, fill: Callable[[Path], None]) -> None:
    scratch = out.absolute().with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        make_folder(scratch)
        fill(scratch)
        os.sync()  # once, where a file at a time would take minutes
        scratch.replace(out)  # an empty folder gives way
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put(path: Path, content: bytes) -> None:
    """Writes a file of the new folder; no atomic write is needed, for nobody sees it yet."""
    make_folder(path.parent)
    path.write_bytes(content)


def _fill_store(roots: Sequence[Path], sources: Sources, union: Union, out: Path) -> None:
    store = Store(out)
    store.create()
    by_cell: dict[str, list[Record]] = {}
    for record in union.records:
        by_cell.setdefault(record.cell_id, []).append(record)
    sides: dict[str, list[Path]] = {}
    for root in roots:
        for cell in Store(root).cells():
            sides.setdefault(cell.id, []).append(cell.path)
    for cell_id, paths in sides.items():
        if cell_id not in union.torn:
            target = store.cell(cell_id)
            for record in by_cell.get(cell_id, ()):
                _copy(record, sources, target.path / "records" / record_name(record))
            _copy_rest(_trained_in(paths, by_cell.get(cell_id, ())), target.path)


def _copy(record: Record, sources: Sources, place: Path) -> None:
    """Copies a record's file, and that of its predictions where a side has it.

    The bytes stay as they were written: an older sslbench may have dumped the record otherwise.
    """
    paths = sources[record.record_id]
    found = [path for path in map(predictions_of, paths) if record.predictions and path.is_file()]
    for path in found:
        try:
            read_predictions(path, record.predictions)
        except ValueError as error:
            raise UserError(f"{path}: {error}; remove it, for its record can do without") from error
    _put(place, min(path.read_bytes() for path in paths))
    if found:
        _put(predictions_of(place), min(path.read_bytes() for path in found))


def _trained_in(paths: Sequence[Path], records: Sequence[Record]) -> list[Path]:
    """The folders with the weights that the records are about; all if no record says."""
    trained = [r for r in records if r.kind == "train" and r.status == "ok"]
    found = [p for p in paths for r in trained if (p / "records" / record_name(r)).exists()]
    return found or list(paths)


def _copy_rest(paths: Sequence[Path], target: Path) -> None:
    """Copies the other files of a cell's folder; of two with one name, the larger."""
    best: dict[str, Path] = {}
    for path in paths:
        for file in path.iterdir():
            ours = file.is_file() and not file.is_symlink() and not file.name.startswith(".")
            if ours and ".damaged-" not in file.name and _beats(file, best.get(file.name)):
                best[file.name] = file
    for name, file in best.items():
        make_folder(target)
        shutil.copyfile(file, target / name)


def _beats(file: Path, other: Path | None) -> bool:
    """Whether a file is preferred: the larger one, or else by content, whichever came first."""
    if other is None or file.stat().st_size != other.stat().st_size:
        return other is None or file.stat().st_size > other.stat().st_size
    with file.open("rb") as one, other.open("rb") as two:
        while (part := one.read(1 << 20)) == (rival := two.read(1 << 20)) and part:
            pass
    return part > rival


def _fill_leaderboard(
    pair: Sequence[folders.Leaderboard], suite: Suite, sources: Sources, union: Union, out: Path
) -> None:
    notes = dict.fromkeys((*suite.notes, *map(sentence, union.conflicts)))
    (out / folders.RECORDS).mkdir()
    for record in union.records:
        _copy(record, sources, out / folders.place_of(record))
    for folder in pair:
        for path in sorted((folder.root / folders.ATTESTATIONS).glob("*.json")):
            copy = out / folders.ATTESTATIONS / path.name
            if copy.exists() and copy.read_bytes() != path.read_bytes():
                raise UserError(f"{path.name} is two attestations of one name; rename one of them")
            _put(copy, path.read_bytes())
    whole = dataclasses.replace(suite, notes=tuple(notes))
    _put(out / folders.SUITE, whole.as_yaml().encode())


def sentence(conflict: Conflict) -> str:
    """A note on a conflict, for a leaderboard that leaves both records out."""
    records = " and ".join(record[:12] for record in conflict.records)
    return (
        f"left out in a merge: {conflict.what} of {conflict.method} on {conflict.dataset} and "
        f"{conflict.backbone}, seed {conflict.seed}, has records that differ ({records})"
    )
