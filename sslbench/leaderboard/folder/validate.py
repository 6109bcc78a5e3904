"""Validates a leaderboard's folder from its files alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...cells.identity import is_adopted
from ...cells.suite import Suite, read_suite
from ...disk import sha256
from ...errors import UserError
from ...names import parse as parse_name
from ...records import canonical, digest
from ...store import predictions_of, read_predictions
from ..board.material import Material
from ..board.member import Member
from ..board.members import measured, members_of
from .folder import (
    LOCK,
    RECORDS,
    SUITE,
    Leaderboard,
    RecordFile,
    differences,
    is_leaderboard,
    place_of,
    read_lock,
)
from .soundness import contradictions, impossible, miscounted, parsed

LARGEST = 2**24  # bytes of a record
STEM = rf"{RECORDS}/[0-9a-f]{{2}}/[0-9a-f]{{64}}/[a-z0-9_-]{{1,40}}-[0-9a-f]{{24}}"
GRAMMAR = re.compile(rf"{STEM}\.json")
PREDICTIONS = re.compile(rf"{STEM}\.npz")
SHARED = ("method", "backbone", "dataset", "seed", "hyperparameters", "recipe")


@dataclass(frozen=True)
class Finding:
    """Something wrong with a file."""

    level: Literal["error", "warning"]
    file: str  # below the folder
    sentence: str


def validate(root: Path, *, locked: bool = True) -> list[Finding]:
    """Validates a folder and returns findings, errors first; `locked` checks its lock too.

    Raises:
        UserError: the folder is not a leaderboard, or its suite cannot be read.
    """
    if not is_leaderboard(root):
        raise UserError(
            f"{root} is not a leaderboard: it has no {SUITE} beside {RECORDS}/; "
            f"`sslbench leaderboard build SUITE --out {root}` makes one of a store"
        )
    suite = read_suite(root / SUITE)
    found: list[Finding] = []
    kept = list(_kept(root, found))
    found += _predicted(root, kept)
    found += _each(kept)
    found += _together(kept)
    found += _of_suite(suite, kept)
    found += _components(kept)
    if locked:
        spoilt = {finding.file for finding in found}  # said already, and not read
        found += [f for f in _locked(Leaderboard(root, suite, tuple(kept))) if not _of(spoilt, f)]
    return sorted(dict.fromkeys(found), key=lambda f: (f.level, f.file, f.sentence))


def _of(files: set[str], finding: Finding) -> bool:
    return any(f" {file} is in the lock" in finding.sentence for file in files)


def _error(file: str, sentence: str) -> Finding:
    return Finding("error", file, sentence)


def _warning(file: str, sentence: str) -> Finding:
    return Finding("warning", file, sentence)


# ---- files -----------------------------------------------------------------------------------


def _kept(root: Path, found: list[Finding]) -> Iterator[RecordFile]:
    """Every record that can be read, by path; faults are added to `found`."""
    for path in sorted((root / RECORDS).rglob("*")):
        name = path.relative_to(root).as_posix()
        if (path.is_dir() and not path.is_symlink()) or PREDICTIONS.fullmatch(name):
            continue
        try:
            content = _content(path, name)
            record = parsed(content.decode())
        except (ValueError, OSError) as error:
            found.append(_error(name, str(error)))
            continue
        if place_of(record) != name:
            found.append(_error(name, f"its record belongs at {place_of(record)}"))
        yield RecordFile(name, sha256(content), record)


def _content(path: Path, name: str) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is not a regular file")
    if not GRAMMAR.fullmatch(name):
        raise ValueError("no record has such a name")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, more than any record")
    return path.read_bytes()


def _predicted(root: Path, kept: Iterable[RecordFile]) -> Iterator[Finding]:
    """Errors of files of predictions; there need be none."""
    own = {predictions_of(Path(each.path)).as_posix(): each.record for each in kept}
    for path in sorted((root / RECORDS).rglob("*.npz")):
        name = path.relative_to(root).as_posix()
        if not PREDICTIONS.fullmatch(name):
            continue  # no record either
        try:
            if path.is_symlink() or not path.is_file():
                raise ValueError("it is not a regular file")
            if name not in own:
                raise ValueError("there is no sound record beside it")
            if not own[name].predictions:
                raise ValueError("the record beside it has no predictions")
            found = read_predictions(path, own[name].predictions)
        except (ValueError, OSError) as error:
            yield _error(name, str(error))
        else:
            yield from (_error(name, sentence) for sentence in miscounted(own[name], found))


def _locked(folder: Leaderboard) -> Iterator[Finding]:
    try:
        lock = read_lock(folder.root)
    except UserError as error:
        yield _error(LOCK, str(error))
        return
    if lock is None:
        again = f"`sslbench leaderboard build {folder.root}` writes it"
        yield _warning(
            LOCK,
            f"there is no lock to tell whether files changed since the build; {again}",
        )
        return
    for difference in differences(folder, lock):
        yield _error(LOCK, f"does not match: {difference}")


# ---- records ---------------------------------------------------------------------------------


def _each(kept: Iterable[RecordFile]) -> Iterator[Finding]:
    for each in kept:
        for sentence in (*contradictions(each.record), *impossible(each.record)):
            yield _error(each.path, sentence)
        if each.record.kind == "train" and each.record.attempt > 1:
            earlier = each.record.attempt - 1
            yield _warning(each.path, f"is attempt {earlier + 1}: how {earlier} ended is not shown")


def _together(kept: Sequence[RecordFile]) -> Iterator[Finding]:
    """Records that are there twice, contradict each other, or lack their training."""
    ids: dict[str, str] = {}
    judged: dict[str, RecordFile] = {}
    cells: dict[str, list[RecordFile]] = defaultdict(list)
    for each in kept:
        record = each.record
        first = ids.setdefault(record.record_id, each.path)
        if first != each.path:
            yield _error(each.path, f"is the same record as {first}")
            continue
        cells[record.cell_id].append(each)
        if record.kind != "evaluation" or record.status != "ok":
            continue
        other = judged.setdefault(digest(record.identity), each)
        if measured(other.record) != measured(record):
            yield _error(
                each.path, f"has other numbers than {other.path} for the same cell and evaluator"
            )
        elif other is not each:
            yield _warning(each.path, f"says the same as {other.path}")
    for own in cells.values():
        yield from _of_cell(own)


def _of_cell(own: Sequence[RecordFile]) -> Iterator[Finding]:
    trains = [k.record for k in own if k.record.kind == "train"]
    sound = [r for r in trains if r.status == "ok"]
    for each in own:
        if each.record.kind == "train":
            continue
        if not trains:
            yield _error(each.path, "there is no record of how its cell was trained")
        elif not sound and each.record.status == "ok":
            yield _error(
                each.path, f"judges a cell whose training {trains[-1].status}: it is hidden"
            )
        for name in SHARED if trains else ():
            said, meant = (canonical(getattr(r, name)) for r in (each.record, trains[0]))
            if said != meant:
                yield _error(each.path, f"its {name} is {said}, that of its training {meant}")


def _components(kept: Iterable[RecordFile]) -> Iterator[Finding]:
    """Warnings about code that changed while its version stayed the same."""
    seen: dict[str, dict[str, str]] = defaultdict(dict)
    for each in kept:
        record = each.record
        asked = {
            "method": record.method,
            "backbone": parse_name(record.backbone).base,
            "dataset": parse_name(record.dataset).base,
            "evaluator": parse_name(record.evaluator or "none").base,
        }
        for role, parts in record.components.items():
            source = parts.get("source_sha256")
            if role in asked and source:
                version = f"{parts.get('dist')} {parts.get('dist_version')}"
                key = f"{role} {asked[role]} version {parts.get('version')} of {version}"
                seen[key].setdefault(str(source), each.path)
    for key, sources in seen.items():
        if len(sources) > 1:
            paths = sorted(sources.values())
            said = f"{key} had {len(sources)} sources: its code changed and its version did not"
            yield _warning(paths[-1], f"{said} (another in {paths[0]})")


# ---- the suite -------------------------------------------------------------------------------


def _of_suite(suite: Suite, kept: Sequence[RecordFile]) -> Iterator[Finding]:
    paths = {k.record.record_id: k.path for k in kept}
    sound = [k.record for k in kept if not any(contradictions(k.record))]
    try:
        members, left = members_of(Material(suite, sound))
    except UserError as error:
        yield _error(SUITE, str(error))
        return
    for each in left:
        yield _warning(paths[each.record], f"is left out: {each.reason}")
    for member in members:
        yield from _made(suite, member, paths)
    yield from _seeds(suite, members)


def _made(suite: Suite, member: Member, paths: Mapping[str, str]) -> Iterator[Finding]:
    """Errors of a cell that has other settings than the suite, or lacks an evaluator of it."""
    if member.train is None:
        return
    file = paths[member.train.record_id]
    own = {**member.train.hyperparameters, **member.train.recipe}
    for key, value in () if suite.tuning else _settings_of(suite, member.method):
        stage, _, leaf = key.rpartition(".")
        said = own.get(stage, {}) if stage else own
        if leaf in said and said[leaf] != value:
            yield _error(file, f"{key} is {said[leaf]!r}, the suite sets {value!r}")
    if member.train.status != "ok":
        return
    for name, record in member.evaluations.items():
        if record is None:
            yield _error(file, f"its cell was not judged by {name}")


def _settings_of(suite: Suite, method: str) -> Iterator[tuple[str, Any]]:
    """The suite's settings of a method, with or without its distribution in front."""
    for name in dict.fromkeys((method, method.rpartition("/")[2])):
        for key, value in suite.set.items():
            if key.startswith(f"{name}."):
                yield key.removeprefix(f"{name}."), value


def _seeds(suite: Suite, members: Sequence[Member]) -> Iterator[Finding]:
    """Rows with fewer seeds than the suite declares."""
    rows: dict[tuple[str, str, str], dict[int, bool]] = defaultdict(dict)
    for member in members:
        key = (member.method, member.dataset, member.backbone)
        if not is_adopted(member.method):
            rows[key][member.seed] = rows[key].get(member.seed, False) or member.train is not None
    for (method, dataset, backbone), seeds in rows.items():
        lacking = [seed for seed in suite.seeds if not seeds.get(seed)]
        what = f"{method} on {dataset}, {backbone}"
        if len(lacking) == len(suite.seeds):
            yield _warning(SUITE, f"{what} is in the suite, and there is no record of it")
        elif lacking:
            said = f"seed{'s' * (len(lacking) > 1)} {', '.join(map(str, lacking))}"
            yield _error(SUITE, f"{what} lacks {said} of the {len(suite.seeds)} declared")


def refused(findings: Iterable[Finding]) -> bool:
    return any(each.level == "error" for each in findings)
