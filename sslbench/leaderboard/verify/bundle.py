"""Packs a bundle: one archive of a leaderboard's suite, records and weights, to be verified.

All entries have the same date and are uncompressed and sorted: the same content gives the same bytes.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...cells.identity import Identity
from ...disk import make_folder, replacing, sha256_of
from ...errors import UserError
from ...records import canonical
from ...store.tensors import digest_of
from ..folder.folder import predicted

if TYPE_CHECKING:
    from ...store import Store
    from ..folder.folder import Leaderboard

FORMAT = 1  # of bundles; a newer one is refused
MANIFEST, SUITE, RECORDS, MODELS = "manifest.json", "suite.yaml", "records", "models"
DATE = (1980, 1, 1, 0, 0, 0)
BLOCK = 2**22  # bytes copied at a time


@dataclass(frozen=True)
class Packed:
    """Facts about a bundle that was written."""

    path: Path
    records: int
    models: int
    size: int  # bytes


def pack(folder: Leaderboard, store: Store, out: Path, *, models: bool = True) -> Packed:
    """Writes suite, records and predictions of a folder, and models of its cells, to `out`.

    Raises:
        UserError: the store lacks a model, or `out` is there and is not a bundle.
    """
    _check_out(out)
    sources = {SUITE: folder.root / SUITE}
    sources |= {kept.path: folder.root / kept.path for kept in folder.kept}
    sources |= predicted(folder)
    weights = _weights(folder, store) if models else {}
    sources |= weights
    files = [_listed(name, path) for name, path in sorted(sources.items())]
    manifest = {"sslbench": __version__, **manifest_of(folder, files)}
    size = write(out, canonical(manifest).encode(), sources)
    return Packed(out, len(folder.kept), len(weights), size)


def manifest_of(folder: Leaderboard, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest of a folder and its files; all of it follows from the content."""
    trained = {k.record.cell_id: k.record for k in folder.kept if k.record.kind == "train"}
    cells = [
        {
            "cell": cell,
            "method": record.method,
            "backbone": record.backbone,
            "dataset": record.dataset,
            "seed": record.seed,
        }
        for cell, record in sorted(trained.items())
    ]
    data = {r.dataset: Identity(r.identity) for r in trained.values()}
    return {
        "format": FORMAT,
        "suite": folder.suite.name,
        "seeds": list(folder.suite.seeds),
        "cells": cells,
        "fingerprints": {name: own.fingerprint for name, own in sorted(data.items())},
        "files": list(files),
    }


def model_name(cell_id: str) -> str:
    return f"{MODELS}/{cell_id}.safetensors"


def has_weights(identity: Identity) -> bool:
    """Whether a cell's weights need a file; an untrained cell's follow from its identity."""
    return identity.trained or identity.adopted


def _weights(folder: Leaderboard, store: Store) -> dict[str, Path]:
    """Model files of all finished cells, by their names in the bundle."""
    found, lacking = {}, []
    finished = (k.record for k in folder.kept if k.record.kind == "train")
    for record in (r for r in finished if r.status == "ok" and has_weights(Identity(r.identity))):
        cell = store.cell(record.cell_id)
        path = cell.path / "model.safetensors"
        title = f"{record.method} seed {record.seed} ({record.cell_id[:12]})"
        if not path.is_file():
            lacking.append(title)
            continue
        loaded = cell.load("model")
        if loaded is None:
            raise UserError(cell.lost())
        if record.weights and digest_of(loaded[0]) != record.weights.get("model"):
            raise UserError(
                f"the model of {title} in the store {store.root} is not that of the leaderboard's "
                "record; build the leaderboard again from this store"
            )
        found[model_name(record.cell_id)] = path
    if lacking:
        more = f" and of {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise UserError(
            f"the store {store.root} has no model of {', '.join(lacking[:3])}{more}; name the "
            f"--store that trained them, or leave the weights out with --without-models: nobody "
            f"can verify such a bundle"
        )
    return found


def _listed(name: str, path: Path) -> dict[str, Any]:
    return {"path": name, "sha256": sha256_of(path), "size": path.stat().st_size}


# ---- the archive -----------------------------------------------------------------------------


def write(out: Path, manifest: bytes, sources: Mapping[str, Path]) -> int:
    """Writes the archive, whole or not at all, and returns its size in bytes."""
    make_folder(out.parent)
    try:
        with replacing(out) as temporary, zipfile.ZipFile(temporary, "x") as archive:
            archive.writestr(entry(MANIFEST), manifest)
            for name, path in sorted(sources.items()):
                info = entry(name)
                info.file_size = path.stat().st_size
                with archive.open(info, "w") as into, path.open("rb") as content:
                    shutil.copyfileobj(content, into, BLOCK)
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {error.strerror or error}; free space or rights, or name another "
            f"--out FILE"
        ) from error
    return out.stat().st_size


def entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, DATE)
    info.create_system = 3  # Unix, wherever it is written
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def _check_out(out: Path) -> None:
    """UserError if `out` exists and is not a bundle: other files are never replaced."""
    if not out.exists():
        return
    try:
        with zipfile.ZipFile(out) as archive:
            ours = archive.namelist()[:1] == [MANIFEST]
    except (OSError, zipfile.BadZipFile):
        ours = False
    if not ours:
        raise UserError(f"--out {out} is there and is not a bundle of sslbench; name another file")
