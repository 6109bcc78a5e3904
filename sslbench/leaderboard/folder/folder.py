"""Reads and writes the folder of a leaderboard.

suite.yaml                  what was to be measured
records/ab/<cell>/*.json    what was measured, as the store writes it
records/ab/<cell>/*.npz     what was predicted for each image, where it was kept
attestations/*.json         what others have reproduced of it
README.md, index.html ...   made from these files alone
leaderboard.lock.json       the sha256 of each of these files
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from pydantic import Field

from ...cells.suite import Suite, read_suite
from ...disk import read_file, sha256, sha256_of, write_atomic
from ...errors import UserError
from ...records import Document, NewerSchema, Record, loads, parsed
from ...store import Answers, Store, packed, predictions_of, read_predictions, record_name
from ..board import making
from ..board.board import Board
from ..board.material import Material
from ..board.members import members_of
from ..board.reference import references
from .attestation import attested
from .soundness import misshapen

SUITE, RECORDS, LOCK = "suite.yaml", "records", "leaderboard.lock.json"
ATTESTATIONS = "attestations"
NONE: Mapping[str, bytes] = MappingProxyType({})
FORMAT = 1  # of the lock; a newer one is refused
UNITED = ("methods", "set", "notes", "summary", "title", "authors")  # may differ in suites to unite
RECORD = re.compile(r"[a-z0-9_-]+-[0-9a-f]{24}\.json")


@dataclass(frozen=True)
class RecordFile:
    """A record and the file it was read from."""

    path: str  # below the folder, with slashes
    sha256: str  # of the file
    record: Record


@dataclass(frozen=True)
class Leaderboard:
    """The content of a folder: its suite, records and attestations."""

    root: Path
    suite: Suite
    kept: tuple[RecordFile, ...]  # by path
    attestations: tuple[Mapping[str, Any], ...] = ()

    @property
    def records(self) -> list[Record]:
        return [kept.record for kept in self.kept]

    def columns(self) -> dict[str, list[Any]]:
        """Every value as lists of equal length: an entry for each row, metric and seed.

        `value` is a fraction where `unit` is empty. A seed without a value has no entry.
        """
        entries = [
            {
                "dataset": block.setting.dataset,
                "backbone": block.setting.backbone,
                "epochs": block.setting.epochs,
                "budget": block.setting.budget,
                "row": row.label,
                "method": row.method,
                "baseline": row.baseline,
                "protocol": column.protocol,
                "metric": column.metric,
                "split": column.split,
                "unit": column.unit,
                "higher_is_better": column.higher_is_better,
                "ranks": column.ranks,
                "seed": seed,
                "cell": row.cells[seed],
                "value": value,
            }
            for block in board_of(self).blocks
            for row in block.rows
            for column, score in zip(block.columns, row.scores, strict=True)
            for seed, value in score.values.items()
        ]
        return {name: [entry[name] for entry in entries] for name in entries[0]} if entries else {}

    def frame(self) -> Any:
        """The same as a pandas.DataFrame; UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise UserError(
                "frame() needs pandas: pip install pandas; columns() gives the same as lists"
            ) from error
        return pandas.DataFrame(self.columns())


class Lock(Document):
    """What the folder was when it was last built."""

    suite: str  # sha256 of its file
    records: dict[str, dict[str, str]]  # path -> id, sha256
    generated: dict[str, str]  # name -> sha256
    predictions: dict[str, str] = Field(default_factory=dict)  # path -> sha256
    attestations: dict[str, str] = Field(default_factory=dict)  # path -> sha256
    left_out: tuple[dict[str, str], ...] = ()
    reference: bool = False  # whether published numbers stand beside

    @property
    def names(self) -> list[str]:
        """Names of all files in the lock but predictions, which a leaderboard can do without."""
        return [SUITE, *self.records, *self.attestations, *self.generated]


def is_leaderboard(root: Path) -> bool:
    return (root / SUITE).is_file() and (root / RECORDS).is_dir()


def read(root: Path | str) -> Leaderboard:
    """Reads the leaderboard in a folder.

    Raises:
        UserError: it is not a leaderboard, or a file in it cannot be used.
    """
    root = Path(root)
    if not is_leaderboard(root):
        raise UserError(
            f"{root} is not a leaderboard: it has no {SUITE} beside {RECORDS}/; "
            f"`sslbench leaderboard build SUITE --out {root}` makes one of a store"
        )
    kept = tuple(_kept(root))
    return Leaderboard(root, read_suite(root / SUITE), kept, tuple(_attestations(root)))


def _kept(root: Path) -> Iterator[RecordFile]:
    ids: dict[str, str] = {}
    for name in _names(root):
        text, record = _read_with(root / name, loads)
        if misshapen(record):
            raise UserError(f"{root / name}: its identity is not one that sslbench writes")
        if record.cell_id != name.split("/")[2]:
            raise UserError(
                f"{root / name} belongs to cell {record.cell_id[:12]}; `leaderboard validate` tells more"
            )
        first = ids.setdefault(record.record_id, name)
        if first != name:
            raise UserError(f"{root / first} and {root / name} are one record; remove one of them")
        yield RecordFile(name, sha256(text), record)


def _names(root: Path) -> list[str]:
    """Paths of the records, sorted; files that lie elsewhere are ignored."""
    found = []
    for shard in _folders(root / RECORDS):
        for cell in _folders(shard):
            names = [file.name for file in os.scandir(cell) if file.name.endswith(".json")]
            if odd := [name for name in names if not RECORD.fullmatch(name)]:
                raise UserError(f"{cell.path}/{odd[0]} is not named as the store names records")
            found += [f"{RECORDS}/{shard.name}/{cell.name}/{name}" for name in names]
    return sorted(found)


def _folders(path: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    return [entry for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]


def _attestations(root: Path) -> Iterator[Mapping[str, Any]]:
    for path in sorted((root / ATTESTATIONS).glob("*.json")):
        yield _read_with(path, json.loads)[1]


def _read_with(path: Path, parse: Callable[[str], Any]) -> tuple[bytes, Any]:
    try:
        text = read_file(path)
        return text, parse(text.decode())
    except FileNotFoundError as error:
        raise UserError(f"{path} is a link to nothing; remove it") from error
    except ValueError as error:  # a newer schema too
        raise UserError(f"{path}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: it is nested too deep") from error


def predictions(folder: Leaderboard, kept: RecordFile) -> Answers | None:
    """What a judge said of each image; None where it was not kept, or was left out here.

    Raises:
        UserError: the file is damaged, or of another record.
    """
    path = _beside(folder, kept)
    if path is None:
        return None
    try:
        return read_predictions(path, kept.record.predictions)
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path}: {error}; remove it, for a leaderboard can do without, or copy it again"
        ) from error


def predicted(folder: Leaderboard) -> dict[str, Path]:
    """The files of predictions that are there, by their paths below the folder."""
    found = (_beside(folder, kept) for kept in folder.kept)
    return {path.relative_to(folder.root).as_posix(): path for path in found if path}


def _beside(folder: Leaderboard, kept: RecordFile) -> Path | None:
    path = predictions_of(folder.root / kept.path)
    there = kept.record.predictions and path.is_file() and not path.is_symlink()
    return path if there else None


def made_of(folder: Leaderboard) -> Material:
    """The material of its board."""
    levels = attested(folder.attestations, folder.records)
    return Material(folder.suite, folder.records, levels)


def board_of(folder: Leaderboard, *, reference: bool = False) -> Board:
    """The board of a folder, from its records alone; `reference` adds published numbers."""
    published = references(folder.suite.datasets) if reference else ()
    return making.board_of(
        made_of(folder), command=f"sslbench run --suite {SUITE}", references=published
    )


# ---- the lock --------------------------------------------------------------------------------


def read_lock(root: Path) -> Lock | None:
    """The lock of a folder, or None where there is none."""
    path = root / LOCK
    try:
        lock = parsed(Lock, read_file(path), newest=FORMAT)
        if outside := [name for name in lock.names if not is_inside(name)]:
            raise ValueError(f"it names {outside[0]!r}, which is not a file in its folder")
    except FileNotFoundError:
        return None
    except NewerSchema as error:
        raise UserError(f"{path} {error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not a lock: {error}") from error
    return lock


def is_inside(path: str) -> bool:
    """Whether a path from an untrusted file stays inside the folder that it is put into."""
    pure = PurePosixPath(path)
    plain = bool(pure.parts) and str(pure) == path and not pure.is_absolute()
    odd = "\\" in path or "\0" in path
    return plain and not odd and not {"..", ".", ".git"} & {part.lower() for part in pure.parts}


def differences(folder: Leaderboard, lock: Lock) -> list[str]:
    """Sentences on how the folder differs from its lock."""
    found = []
    if sha256((folder.root / SUITE).read_bytes()) != lock.suite:
        found.append(f"{SUITE} is not the one that the leaderboard was built from")
    here = {kept.path: {"id": kept.record.record_id, "sha256": kept.sha256} for kept in folder.kept}
    for path in sorted(here.keys() | lock.records.keys()):
        if path not in here:
            found.append(f"{path} is in the lock and not there")
        elif path not in lock.records:
            found.append(f"{path} is not in the lock")
        elif lock.records[path] != here[path]:
            found.append(f"{path} is not the one that the leaderboard was built from")
    found += _other_predictions(folder, lock)
    attested = {f"{ATTESTATIONS}/{p.name}" for p in (folder.root / ATTESTATIONS).glob("*.json")}
    found += [f"{name} is not in the lock" for name in sorted(attested - lock.attestations.keys())]
    for name, digest in sorted({**lock.attestations, **lock.generated}.items()):
        file = folder.root / name
        if not file.is_file() or sha256(file.read_bytes()) != digest:
            found.append(f"{name} is not what was built")
    return found


def _other_predictions(folder: Leaderboard, lock: Lock) -> Iterator[str]:
    """Sentences on predictions that the lock does not know; those that are left out are no fault."""
    for name, path in predicted(folder).items():
        if name not in lock.predictions:
            yield f"{name} is not in the lock"
        elif lock.predictions[name] != sha256_of(path):
            yield f"{name} is not the one that the leaderboard was built from"


# ---- writing ---------------------------------------------------------------------------------


def write(folder: Leaderboard, board: Board, contents: Mapping[str, str]) -> list[Path]:
    """Writes the generated files and the lock, but over nothing that sslbench did not write.

    Raises:
        UserError: a file is there that no lock lists, or that was edited since.
    """
    ready = {name: content.encode() for name, content in contents.items()}
    check_ours(folder.root, ready, ready)
    lock = {
        "format": FORMAT,
        "suite": sha256((folder.root / SUITE).read_bytes()),
        "records": {
            kept.path: {"id": kept.record.record_id, "sha256": kept.sha256} for kept in folder.kept
        },
        "predictions": {name: sha256_of(path) for name, path in predicted(folder).items()},
        "attestations": {
            path.relative_to(folder.root).as_posix(): sha256(path.read_bytes())
            for path in sorted((folder.root / ATTESTATIONS).glob("*.json"))
        },
        "left_out": [{"record": each.record, "reason": each.reason} for each in board.left_out],
        "reference": bool(board.references),
        "generated": {name: sha256(content) for name, content in sorted(ready.items())},
    }
    ready[LOCK] = (json.dumps(lock, indent=1) + "\n").encode()
    for name, content in ready.items():
        write_atomic(folder.root / name, content)
    return [folder.root / name for name in ready]


def check_ours(root: Path, names: Iterable[str], ready: Mapping[str, bytes] = NONE) -> None:
    """UserError if one of these files was not made by a build, or was edited since.

    `ready` is their new content: files that a broken-off build wrote already are accepted.
    """
    lock = read_lock(root)
    made = lock.generated if lock else {}
    for name in names:
        file = root / name
        if not os.path.lexists(file):
            continue
        if file.is_symlink() or not file.is_file():
            raise UserError(
                f"{file} is not a file that sslbench wrote; move it away, or name another --out DIR"
            )
        known = {made.get(name), sha256(ready[name]) if name in ready else None}
        if sha256(file.read_bytes()) not in known:
            what = "was edited since it was built" if name in made else "was not built by sslbench"
            raise UserError(f"{file} {what}; move it away, or name another --out DIR")


def add(
    root: Path, suite: Suite, records: Sequence[Record], *, store: Store | None = None
) -> Leaderboard:
    """Adds records to the leaderboard in a folder, and makes it if there is none.

    Predictions come along from the store. Nothing is removed.

    Raises:
        UserError: the folder is not a leaderboard or has another suite, or a record contradicts one
            that is there.
    """
    if is_leaderboard(root):
        before = read(root)
        suite = united(before.suite, suite)
    else:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UserError(f"{root} is there and is not a leaderboard; name another --out DIR")
        before = Leaderboard(root, suite, ())
    known = {record.record_id for record in before.records}
    fresh = [record for record in records if record.record_id not in known]
    members_of(Material(suite, [*before.records, *fresh]))  # refuses what contradicts
    if suite != before.suite or not is_leaderboard(root):
        write_atomic(root / SUITE, suite.as_yaml().encode())
    (root / RECORDS).mkdir(exist_ok=True)
    if store is not None:
        _add_predictions(root, records, store)
    for record in fresh:
        write_atomic(root / place_of(record), record.dumps().encode())
    return read(root)


def _add_predictions(root: Path, records: Iterable[Record], store: Store) -> None:
    """Adds those that the store has; before the records, so that none is there without its own."""
    for record in records:
        place = predictions_of(root / place_of(record))
        found = None if place.exists() else store.cell(record.cell_id).predictions(record)
        if found is not None:
            write_atomic(place, packed(found))


def entitled(folder: Leaderboard, **words: Any) -> Leaderboard:
    """The same leaderboard with another title, summary or authors, which its suite keeps."""
    suite = dataclasses.replace(folder.suite, **words)
    if suite != folder.suite:
        write_atomic(folder.root / SUITE, suite.as_yaml().encode())
    return read(folder.root)


def united(one: Suite, other: Suite) -> Suite:
    """Unites two suites of one protocol: their methods, settings, notes and authors, in either order.

    Raises:
        UserError: their protocols differ; the sentence names each difference.
    """
    fields = [item.name for item in dataclasses.fields(Suite) if item.name not in UNITED]
    differing = {name: (getattr(one, name), getattr(other, name)) for name in fields}
    for key in one.set.keys() & other.set.keys():
        differing[f"set {key}"] = one.set[key], other.set[key]
    told = [f"{key} {a} and {b}" for key, (a, b) in sorted(differing.items()) if a != b]
    if told:
        raise UserError(
            f"these are leaderboards of two suites, which cannot be united: {'; '.join(told)}"
        )
    return dataclasses.replace(
        one,
        methods=_added(one.methods, other.methods),
        notes=_added(one.notes, other.notes),
        title=one.title or other.title,
        authors=_added(one.authors, other.authors),
        set=dict(sorted({**one.set, **other.set}.items())),
    )


def _added(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The union, in an order that is the same whichever comes first."""
    return one if one == other else tuple(sorted({*one, *other}))


def place_of(record: Record) -> str:
    """Path of a record inside a leaderboard's folder, of hashes and fixed words only."""
    return f"{RECORDS}/{record.cell_id[:2]}/{record.cell_id}/{record_name(record)}"
