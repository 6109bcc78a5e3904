"""Opens a corrupted test split: a published one, one rendered here, or one in a folder.

Rendered ones are named `NAME-regen-c`, so that none is taken for a published one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import arrays
from ..api import Corrupted
from ..corruptions import ALL, LEAST_SIDE
from ..corruptions.files import LABELS, Claim, CorruptedFolder
from ..errors import MissingData, Unsuited
from .manifest import command, images_of, made, read_manifest, without_subset
from .opening import Data
from .rendered import Making, Rendered, fingerprint, places, prints, set_name
from .writing import Step, write

__all__ = ["Making", "Rendered", "Step", "open_corrupted", "set_name", "write"]

OFFICIAL, REGEN = "official", "regen"


def open_corrupted(data: Data, which: str, device: torch.device) -> Corrupted:
    """Opens the corrupted set that an evaluator asks for.

    which: "official", as published; "regen", rendered here, or read from its folder below a root
        where it was made in the same way from the same images and so has the same bytes; any
        other name is that of a folder in the official layout below a root.

    Raises:
        Unsuited: nobody published one, or the images are too small to render one.
        MissingData: files are missing or damaged.
    """
    if which == OFFICIAL:
        return _official(data)
    if which == REGEN:
        folder = _below_roots(data, set_name(data.name))
        return (folder and _regen(data, folder)) or _rendered(data, device)
    if Path(which).name != which or which in ("", ".", ".."):
        raise MissingData(
            f"set {which!r}: a set is asked for by the name of its folder below --data DIR or "
            "SSLBENCH_DATA, without slashes"
        )
    folder = _below_roots(data, which)
    if folder is None:
        looked = ", ".join(str(root / which) for root in data.place.roots)
        where = f"looked for {looked}" if looked else "no folder was given to look in"
        raise MissingData(
            f"{data.name}: there is no folder {which} with a corrupted test split ({where}); "
            f"{OFFICIAL!r} and {REGEN!r} need none; `sslbench corrupt {without_subset(data.name)} "
            f"--out DIR` writes {set_name(data.name)}, which goes by that name"
        )
    return _folder(data, folder)


def _below_roots(data: Data, name: str) -> Path | None:
    return next((root / name for root in data.place.roots if (root / name).is_dir()), None)


def _official(data: Data) -> Corrupted:
    labels = data.test.labels
    if data.test_rows is not None:  # what is published is in the order of the whole split
        labels = data.dataset.load(data.place).test.labels
    found = data.dataset.corrupted(data.place, labels)
    if found is None:
        raise Unsuited(
            f"{data.name}: nobody published corruptions of its test split; those rendered here "
            f"can be asked for, such as by corruption[set={REGEN}]"
        )
    return found if data.test_rows is None else _Part(found, data.test_rows)


def _rendered(data: Data, device: torch.device) -> Rendered:
    height, width = data.test.images.shape[2:]
    if min(height, width) < LEAST_SIDE:
        raise Unsuited(
            f"{data.name}: images of {height} x {width} pixels are too small to corrupt; each "
            f"side needs at least {LEAST_SIDE}"
        )
    return Rendered(data, device)


class _Part(Corrupted):
    """Some rows of a corrupted set."""

    def __init__(self, whole: Corrupted, rows: Tensor) -> None:
        self._whole, self._rows = whole, rows
        self.name = whole.name
        self.fingerprint = arrays.digest("part", whole.fingerprint, rows.tolist())

    def block(self, corruption: str, severity: int, rows: Tensor | None = None) -> Tensor:
        return self._whole.block(
            corruption, severity, self._rows if rows is None else self._rows[rows]
        )


def _regen(data: Data, folder: Path) -> CorruptedFolder | None:
    """Opens a folder of rendered images; None where rendering anew would give other bytes."""
    manifest = read_manifest(folder)
    if manifest is None or made(manifest) != Making().facts():
        return None
    if not manifest["files"].keys() >= set(ALL):
        return None  # still being written, or only some corruptions were asked for
    return _open(data, folder, manifest) if _suits(data, folder, manifest) else None


def _folder(data: Data, folder: Path) -> CorruptedFolder:
    """Opens a set asked for by name; MissingData where it was made from other images."""
    manifest = read_manifest(folder)
    if manifest is not None and not _suits(data, folder, manifest):
        raise MissingData(
            f"{folder.name}: {folder} was made from other images than the test split of "
            f"{data.name}; it says that they were those of {manifest['dataset']}"
        )
    return _open(data, folder, manifest)


def _suits(data: Data, folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether the set was made from these very images, in these positions."""
    shown, rows = images_of(folder, manifest), places(data).tolist()
    whole = data.test_rows is None and len(shown) != len(rows)
    if whole or max(rows) >= len(shown):
        return False
    return [shown[row] for row in rows] == prints(data.test.images)


def _open(data: Data, folder: Path, manifest: dict[str, Any] | None) -> CorruptedFolder:
    """Opens a folder and checks that it is complete and in order.

    Without a manifest only its labels can be checked.
    """
    sums, mark = {}, ""
    remedy = "the set must hold the 19 common corruptions in the published layout"
    if manifest is not None:
        sums = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        remedy = f"{command(manifest, folder)} makes what is not"
        if folder.name != manifest.get("name"):
            remedy = f"name the folder {manifest.get('name')} again, then {remedy}"
        absent = [name for name in (*ALL, LABELS) if name not in sums]
        if absent:
            raise MissingData(
                f"{folder.name}: {folder} is not complete: {len(ALL)} corruptions are expected, "
                f"its manifest has {len(ALL) - sum(name in ALL for name in absent)} and lacks "
                f"{', '.join(absent)}; {remedy} there"
            )
        mark = fingerprint(made(manifest), prints(data.test.images), places(data))
        remedy += " whole"
    claim = Claim(
        folder.name,
        names=tuple(ALL),
        sides=(data.test.images.shape[2], data.test.images.shape[3]),
        sums=sums,
        remedy=remedy,
        fingerprint=mark,
    )
    return CorruptedFolder(folder, claim, data.test.labels, rows=data.test_rows)
