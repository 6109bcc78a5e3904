"""The store and its cells' folders: atomic files, checksums, locks. Nothing damaged is ever used."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..cells.identity import Identity
from ..disk import cannot_write, make_folder, names_in, read_file, sha256, write_atomic
from ..errors import UserError
from ..names import parse as parse_name
from ..records import Document, NewerSchema, Record, canonical, digest, loads, parsed
from .lease import is_leased, leased
from .predictions import Answers, packed, read_predictions
from .sheets import check_sheet
from .tensors import Damaged, digest_of, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # of the folder; a newer one is refused
CELL_ID = re.compile(r"[0-9a-f]{64}")
RECORD = re.compile(r"[^.].*\.json", re.DOTALL)


class Store:
    """The cells of a store, by id. File names never contain names that users or plugins choose."""

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        """`read_only` leaves damaged files where they are. They are not used all the same."""
        self.root, self.read_only = root, read_only
        self.notices: list[str] = []  # what was set aside, for the user to read
        marker = root / "store.json"
        try:
            parsed(Document, read_file(marker), newest=FORMAT)
        except FileNotFoundError:
            return  # a store is made when something is put into it
        except NewerSchema as error:
            raise UserError(f"the store {root} {error} or name another --store") from error
        except ValueError as error:
            raise UserError(
                f"{marker} is not a marker of a store: {error}; if {root} is one, remove that file "
                "(it is written anew, and nothing is lost), or else name another --store"
            ) from error

    def create(self) -> None:
        """Makes the folder; UserError when it cannot be written."""
        marker = self.root / "store.json"
        if not marker.exists():
            write_atomic(marker, json.dumps({"format": FORMAT}).encode())
        elif not os.access(self.root, os.W_OK):
            raise UserError(f"cannot write to the store {self.root}; name another with --store DIR")

    def cell(self, cell_id: str) -> CellFolder:
        if not CELL_ID.fullmatch(cell_id):
            raise ValueError(f"{cell_id!r} is not a cell id")
        return self._folder(self.root / "cells" / cell_id[:2] / cell_id)

    def cells(self) -> Iterator[CellFolder]:
        """Every cell that has a folder. DiskError where one cannot be looked into."""
        root = self.root / "cells"
        for two in names_in(root):
            for name in names_in(root / two):
                if CELL_ID.fullmatch(name) and name.startswith(two):
                    yield self._folder(root / two / name)

    def _folder(self, path: Path) -> CellFolder:
        return CellFolder(path, self.notices, read_only=self.read_only)

    def find(self, prefix: str) -> CellFolder:
        """Finds the one cell whose id begins with `prefix`."""
        found = [cell for cell in self.cells() if cell.id.startswith(prefix)]
        if len(found) == 1 and prefix:
            return found[0]
        if not found or not prefix:
            raise UserError(
                f"no cell {prefix!r} in the store {self.root}; `sslbench plan` lists the ids"
            )
        ids = ", ".join(cell.id[:12] for cell in found[:5])
        raise UserError(f"{prefix!r} begins {len(found)} cells: {ids}; give more of the id")


class CellFolder:
    """The folder of one cell: identity, log, checkpoint, model, encoder, features, records."""

    def __init__(self, path: Path, notices: list[str], *, read_only: bool = False) -> None:
        self.path, self.read_only = path, read_only
        self.id = path.name
        self.notices = notices

    # ---- identity ----

    def identity(self) -> Identity | None:
        """Reads the cell's identity; None when there is none. A damaged one is set aside."""
        path = self.path / "identity.json"
        try:
            identity = json.loads(read_file(path))
            if digest(identity) != self.id:
                raise ValueError("it does not hash to the name of its folder")
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            self.set_aside(path, str(error))
            return None
        return Identity(identity)

    def write_identity(self, identity: Mapping[str, Any]) -> None:
        if self.identity() is None:
            write_atomic(self.path / "identity.json", canonical(identity).encode())

    def write_place(self, dataset: str) -> None:
        """Notes where a dataset with a path lies, for no record says it."""
        asked = parse_name(dataset)
        if asked.argument is not None:
            path = Path(asked.argument).expanduser()
            argument = str(path.absolute()) if path.exists() else asked.argument
            name = str(dataclasses.replace(asked, argument=argument))
            write_atomic(self.path / "place.json", json.dumps({"dataset": name}).encode())

    def place(self) -> str | None:
        """The dataset's name with the path at which it lay; None where that is not known."""
        path = self.path / "place.json"
        try:
            found = json.loads(read_file(path))["dataset"]
            return found if isinstance(found, str) else None
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self.set_aside(path, str(error))
            return None

    # ---- records ----

    def records(self) -> list[Record]:
        """Every sound record, by attempt and then by time, since a clock may be set back.

        DiskError where one cannot be read.
        """
        found = []
        folder = self.path / "records"
        for path in (folder / name for name in names_in(folder) if RECORD.fullmatch(name)):
            try:
                record = loads(read_file(path).decode())
                if record.cell_id != self.id:
                    raise ValueError(f"it belongs to cell {record.cell_id[:12]}")
            except NewerSchema as error:
                self._notice(f"left alone: {path} ({error})")
            except FileNotFoundError:
                continue  # it was removed, or is a link to nothing
            except ValueError as error:
                self.set_aside(path, str(error))
            else:
                found.append(record)
        return sorted(found, key=lambda r: (r.attempt, r.finished, r.record_id))

    def add(self, record: Record, found: Answers | None = None, sheet: bytes = b"") -> Record:
        """Writes a record, and beside it the predictions and the PNG that it has the digests of."""
        if found is not None:
            record = record.model_copy(update={"predictions": found.digest()})
        if sheet:
            record = record.model_copy(update={"sheet": sha256(sheet)})
        sealed = record.sealed()
        path = self.path / "records" / record_name(sealed)
        if found is not None:  # first, so that no record names a file that is not there
            write_atomic(predictions_of(path), packed(found))
        if sheet:
            write_atomic(sheet_of(path), sheet)
        write_atomic(path, sealed.dumps().encode())
        return sealed

    def predictions(self, record: Record) -> Answers | None:
        """What a judge said of each image; None where it was not kept. Damage is set aside."""
        path = predictions_of(self.path / "records" / record_name(record))
        if not record.predictions:
            return None
        try:
            return read_predictions(path, record.predictions)
        except FileNotFoundError:
            return None
        except ValueError as error:
            self.set_aside(path, str(error))
            return None

    def sheet(self, record: Record) -> Path | None:
        """The PNG beside a record; None where none was kept. Damage is set aside."""
        path = sheet_of(self.path / "records" / record_name(record))
        if not record.sheet:
            return None
        try:
            check_sheet(path, record.sheet)
        except FileNotFoundError:
            return None
        except ValueError as error:
            self.set_aside(path, str(error))
            return None
        return path

    def current(self, kind: str, identity: Mapping[str, Any]) -> Record | None:
        """The newest ok record of this identity, or else the newest of any status."""
        return newest(self.records(), kind, identity)

    # ---- tensors ----

    def save(self, name: str, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Path:
        """Saves tensors (no two sharing storage) and plain data under one checksum, as this cell's."""
        from safetensors.torch import save

        ready = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        meta = {"plain": canonical(plain), "cell": self.id}
        meta["sha256"] = digest_of(ready, meta["plain"])
        path = self.path / f"{name}.safetensors"
        write_atomic(path, save(ready, metadata=meta))
        return path

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Loads what `save` wrote; None where there is no file.

        A damaged one is set aside, and so is that of another cell.
        """
        path = self.path / f"{name}.safetensors"
        try:
            return read_tensors(path, cell=self.id)
        except FileNotFoundError:
            return None
        except Damaged as error:
            self.set_aside(path, str(error))
            return None

    def weights(self, name: Literal["model", "encoder"]) -> dict[str, Tensor] | None:
        """The tensors that the cell's training saved; None where they are lost.

        Others are set aside: the record of the training has the digest of its own.
        """
        loaded, record = self.load(name), self.trained()
        if loaded is None:
            return None
        wanted = record.weights.get(name) if record else None  # older records lack it
        if wanted and digest_of(loaded[0]) != wanted:
            path = self.path / f"{name}.safetensors"
            self.set_aside(path, "it holds other weights than its training's record says")
            return None
        return loaded[0]

    def trained(self) -> Record | None:
        """The record of the training that the weights are of; None where none ended well."""
        identity = self.identity()
        found = self.current("train", identity.plain) if identity else None
        return found if found and found.status == "ok" else None

    def lost(self) -> str:
        """The sentence for a cell whose weights are wanted and not there."""
        if self.trained() is None:
            return f"cell {self.id[:12]} is not trained; `sslbench run` trains it"
        why = "".join(f" ({notice})" for notice in self.notices if self.id in notice)
        identity = self.identity()
        if identity and identity.adopted:
            remedy = "`sslbench evaluate --encoder FILE` with the same file takes them in again"
        else:
            remedy = f"`sslbench store rm {self.id[:12]}` and then `sslbench run` make it anew"
        return f"the weights of cell {self.id[:12]} are lost{why}; {remedy}"

    def remove(self, name: str) -> None:
        (self.path / f"{name}.safetensors").unlink(missing_ok=True)

    # ---- the rest ----

    def log(self, line: str) -> None:
        """Adds a line to the cell's log."""
        path = self.path / "log.txt"
        try:
            with path.open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")
        except OSError as error:
            raise cannot_write(path, error) from error

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], bool] = lambda: True) -> Iterator[bool]:
        """Locks the cell for this process; yields False when `waiting` gave up.

        The lock ends with the process.
        """
        make_folder(self.path)
        with leased(self.path / ".lock", waiting) as held:
            if held:
                self._sweep()
            yield held

    def held(self) -> bool | None:
        """Whether a process of this machine works on the cell; None where that cannot be told."""
        return is_leased(self.path / ".lock")

    def _sweep(self) -> None:
        """Removes temporary files of dead writers; the holder of the lock is the only writer."""
        for path in [*self.path.glob(".*.tmp"), *(self.path / "records").glob(".*.tmp")]:
            path.unlink(missing_ok=True)

    def set_aside(self, path: Path, why: str) -> None:
        aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(3)}")
        with contextlib.suppress(OSError):  # a store that cannot be written keeps the file
            if not self.read_only:
                path.replace(aside)
        self._notice(f"damaged, not used: {path} ({why})")

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)

    def size(self) -> int:
        return sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file())

    def delete(self) -> None:
        shutil.rmtree(self.path)


def record_name(record: Record) -> str:
    """The file name of a sealed record, in which no plugin's name can do harm."""
    slug = re.sub(r"[^a-z0-9-]", "_", (record.evaluator or "train").split("[")[0].lower())[:40]
    return f"{slug}-{record.record_id[:24]}.json"


def predictions_of(path: Path) -> Path:
    """The file of predictions beside that of a record."""
    return path.with_suffix(".npz")


def sheet_of(path: Path) -> Path:
    """The file of the sheet beside that of a record."""
    return path.with_suffix(".png")


def newest(records: list[Record], kind: str, identity: Mapping[str, Any]) -> Record | None:
    wanted = digest(identity)
    matching = [r for r in records if r.kind == kind and digest(r.identity) == wanted]
    sound = [r for r in matching if r.status == "ok"]
    found = sound or matching
    return found[-1] if found else None
