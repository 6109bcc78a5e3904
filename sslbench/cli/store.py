"""`sslbench store`: lists sizes and records, removes cells, cleans up, exports encoders."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..disk import DiskError, default_store, names_in, read_file
from ..errors import UserError
from . import completion
from .app import Commands, State, quiet_libraries
from .options import json_option, store_option
from .text import ID, count, one_line, say, say_json, say_table, size

if TYPE_CHECKING:
    from ..cells.identity import Identity
    from ..plugins import Registry
    from ..store import CellFolder, Store

LITTER = ("*.damaged-*", ".*.tmp")  # damaged files; files of writers that died
KEPT = ("*.npz", "*.png")  # beside records
SPENT = ("features-*.safetensors", "resume-*.safetensors", "stage-*.safetensors")


@click.group(cls=Commands)
def store() -> None:
    """Inspect and clean up the store of cells and records."""


@store.command()
@store_option
@json_option
def du(store: Path, as_json: bool) -> None:
    """Print the size of each cell, largest first."""
    opened = _open(store)
    found = sorted(map(_weighed, opened.cells()), key=lambda w: (-w.bytes, w.id))
    total = sum(w.bytes for w in found)
    _say_notices(opened)
    if as_json:
        cells = [
            {**vars(w), "identity": None} | {"identity": w.identity and w.identity.plain}
            for w in found
        ]
        say_json({"store": str(store), "bytes": total, "cells": cells})
        return
    say_table(
        ("size", "cell", "method", "backbone", "dataset", "seed"),
        [(size(w.bytes), w.id[:ID], *w.words) for w in found],
    )
    say(f"{size(total)} in {count(len(found), 'cell')}; store {store}")


@dataclass(frozen=True)
class _Weighed:
    id: str
    bytes: int
    identity: Identity | None

    @property
    def words(self) -> tuple[object, ...]:
        if self.identity is None:
            return ("?",) * 4
        return (*self.identity.title, self.identity.seed)


def _weighed(cell: CellFolder) -> _Weighed:
    return _Weighed(cell.id, cell.size(), cell.identity())


@store.command()
@store_option
@json_option
def ls(store: Path, as_json: bool) -> None:
    """List every record, without checking whether it is damaged."""
    opened = _open(store)
    found = list(_records(opened))
    if as_json:
        say_json([dict(zip(HEADS, row, strict=True)) for row in found])
        return
    say_table(HEADS, [(row[0][:ID], *row[1:]) for row in found])
    say(f"{count(len(found), 'record')}; store {store}")


HEADS = ("cell", "method", "backbone", "dataset", "seed", "what", "status", "metric", "finished")


def _records(opened: Store) -> Iterator[tuple[str, ...]]:
    """A row of texts for each record, read without checks."""
    for folder in opened.cells():
        records = f"{folder.path}/records"
        for name in names_in(records):
            if name.endswith(".json"):
                yield folder.id, *_row(f"{records}/{name}")


def _row(path: str) -> tuple[str, ...]:
    try:
        return _told(json.loads(read_file(path)))
    except (DiskError, FileNotFoundError) as error:
        return (*("?",) * 5, "unreadable", str(error), "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return (*("?",) * 5, "damaged", str(error), "")


def _told(record: dict[str, Any]) -> tuple[str, ...]:
    names = (str(record[key]) for key in ("method", "backbone", "dataset", "seed"))
    what = record["protocol"] if record["kind"] == "evaluation" else "train"
    first = record["metrics"][0] if record["metrics"] else None
    value = f"{first['name']} {first['value']:.4g}" if first else ""
    return *names, str(what), str(record["status"]), value, str(record["finished"])


@store.command()
@click.argument(
    "cells", nargs=-1, required=True, metavar="CELL...", shell_complete=completion.cells
)
@store_option
@click.option("-y", "--yes", is_flag=True, help="Remove without asking.")
def rm(cells: tuple[str, ...], store: Path, yes: bool) -> None:
    """Remove cells with their records. CELL is the beginning of an id."""
    opened = _open(store)
    found = {cell.id: cell for cell in map(opened.find, cells)}
    weighed = [_weighed(cell) for cell in found.values()]
    for each in weighed:
        say(f"{each.id[:ID]}  {' · '.join(map(one_line, each.words))}  {size(each.bytes)}")
    if not yes and not _confirmed(f"Remove {count(len(found), 'cell')}?"):
        say("nothing removed")
        return
    for cell in found.values():
        with cell.lock(waiting=lambda: False) as held:
            if not held:
                raise UserError(f"cell {cell.id[:ID]} is being worked on; stop that run first")
            _explained(cell.delete, cell.path)
    say(f"removed {count(len(found), 'cell')}, {size(sum(w.bytes for w in weighed))}")


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question)
    except click.Abort:
        raise UserError("nobody is there to confirm; --yes removes without asking") from None


@store.command()
@store_option
def gc(store: Path) -> None:
    """Remove files that are not needed any more.

    These are damaged and temporary files, cached features, corrupted images that were kept,
    predictions and sheets whose record is gone, and the resume state of finished cells. Cells that
    a run works on are left alone.
    """
    opened = _open(store)
    spare = [*store.glob(".*.tmp"), *store.glob("scratch/corrupted/*.npy")]
    freed, files = _removed(spare)
    busy = 0
    for cell in opened.cells():
        litter = _removable(cell)
        with cell.lock(waiting=lambda: False) as held:
            if not held:
                busy += 1
                continue
            more = _removed([*litter, *_left_over(cell)])
            freed, files = freed + more[0], files + more[1]
    _say_notices(opened)
    say(f"freed {size(freed)} ({freed:,} bytes) in {count(files, 'file')}")
    if busy:
        say(f"left alone: {count(busy, 'cell')} that a run works on")


def _removable(cell: CellFolder) -> list[tuple[Path, int]]:
    """Files to remove, with sizes taken now: taking the lock removes temporary files itself."""
    folders = (cell.path, cell.path / "records")
    paths = [path for folder in folders for form in LITTER for path in folder.glob(form)]
    if any(r.kind == "train" and r.status == "ok" for r in cell.records()):
        paths += [path for form in SPENT for path in cell.path.glob(form)]
    # `records` may just have set one more aside
    paths += [p for folder in folders for p in folder.glob(LITTER[0]) if p not in paths]
    return [(path, path.stat().st_size) for path in paths]


def _left_over(cell: CellFolder) -> list[Path]:
    """Predictions and sheets without a record; only while the cell is locked, for they are written first."""
    found = [each for form in KEPT for each in (cell.path / "records").glob(form)]
    return [path for path in found if not path.with_suffix(".json").exists()]


def _removed(paths: Iterable[Path | tuple[Path, int]]) -> tuple[int, int]:
    """Removes files; returns the bytes freed and the number of files."""
    freed = files = 0
    for each in paths:
        path, bytes_ = each if isinstance(each, tuple) else (each, each.stat().st_size)
        _explained(lambda path=path: path.unlink(missing_ok=True), path)
        freed, files = freed + bytes_, files + 1
    return freed, files


@store.command()
@click.argument("cell", metavar="CELL", shell_complete=completion.cells)
@store_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE.safetensors",
    help="The file to write the encoder's weights to.",
)
@click.pass_context
def export(ctx: click.Context, cell: str, store: Path, out: Path) -> None:
    """Copy the encoder of a trained cell to a file.

    How to load it is printed.
    """
    opened = _open(store)
    folder = opened.find(cell)
    sound = folder.weights("encoder")
    if sound is None:
        with quiet_libraries(verbose=False):
            _save_encoder_again(folder, ctx.ensure_object(State).registry)
        sound = folder.weights("encoder") or {}
    _say_notices(opened)

    def copy() -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.path / "encoder.safetensors", out)

    _explained(copy, out)
    say(f"{out}: {count(len(sound), 'tensor')}, {size(out.stat().st_size)}")
    where = "" if store == default_store() else f", store={str(store)!r}"
    files = ctx.ensure_object(State).files
    where += f", plugins={list(map(str, files))}" if files else ""
    say("weights:  safetensors.torch.load_file(" + repr(str(out)) + ")")
    say(f'encoder:  sslbench.load("{folder.id[:ID]}"{where})')


def _save_encoder_again(folder: CellFolder, registry: Registry) -> None:
    """Makes a lost encoder from the cell's model; UserError where that is lost too."""
    from ..api import Place
    from ..data import default_roots
    from ..one_cell.loading import stored_encoder
    from ..one_cell.training import save_encoder

    module = stored_encoder(folder, registry, Place(default_roots(None)))
    with folder.lock(waiting=lambda: False) as held:
        if not held:
            raise UserError(f"cell {folder.id[:ID]} is being worked on; try again after that run")
        save_encoder(folder, module)


def _open(root: Path) -> Store:
    from ..store import Store

    if not root.is_dir():
        raise UserError(f"there is no store at {root}; name another with --store DIR")
    return Store(root)


def _say_notices(opened: Store) -> None:
    for notice in opened.notices:
        say(f"notice: {one_line(notice)}", err=True)


def _explained(work: Any, path: Path) -> None:
    with _os_errors(path):
        work()


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
