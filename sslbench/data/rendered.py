"""Corrupts a test split on the fly, under a name other than the published one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import arrays
from ..api import Corrupted
from ..corruptions import VERSION, Frost, corrupt
from ..disk import write_atomic
from ..names import parse
from .opening import Data

CHUNK = 2**22  # pixel values that are on the device at a time
KEPT = 2**30  # bytes of rendered blocks that a store keeps at most


@dataclass(frozen=True)
class Making:
    """The settings of a rendered set: with the images they decide its bytes."""

    seed: int = 0
    frost: Frost | None = None  # photographs; None: procedural textures

    def facts(self) -> dict[str, Any]:
        frost = None if self.frost is None else self.frost.fingerprint
        return {"version": VERSION, "seed": self.seed, "frost": frost}


def set_name(data_name: str, making: Making | None = None) -> str:
    """Names a rendered set, such as `fashion-mnist-regen-c`, also by its seed and frost."""
    asked, facts = parse(data_name), (making or Making()).facts()
    path = "" if asked.argument is None else f"-{Path(asked.argument).resolve().name}"
    seed = f"-seed-{facts['seed']}" if facts["seed"] else ""
    frost = f"-frost-{facts['frost'][:8]}" if facts["frost"] else ""
    return f"{asked.base.replace('/', '-').replace(':', '-')}{path}-regen-c{seed}{frost}"


class Rendered(Corrupted):
    """The test split corrupted by `corruptions`, block by block.

    Blocks are cached in the store's scratch folder for the next cells, up to KEPT bytes.
    """

    def __init__(self, data: Data, device: torch.device, *, making: Making | None = None) -> None:
        self.making, self._device = making or Making(), device
        self._images, self._scratch = data.test.images, data.place.scratch
        self._rows = places(data)
        self.name = set_name(data.name, making)
        self.fingerprint = fingerprint(self.making.facts(), prints(self._images), self._rows)

    def block(self, corruption: str, severity: int, rows: Tensor | None = None) -> Tensor:
        """Corrupted uint8 [M, 3, H, W] of these rows of the test split, or of all.

        Only its position in the whole test split and the seed decide how an image is corrupted,
        not which rows are asked for. Severity goes from 1 to 5.
        """
        index = torch.arange(len(self._images)) if rows is None else rows
        if self._scratch is None:
            return self._made(corruption, severity, index)
        key = arrays.digest(self.fingerprint, corruption, severity, index.tolist())
        return _kept(
            self._scratch / "corrupted", key, lambda: self._made(corruption, severity, index)
        )

    def _made(self, corruption: str, severity: int, index: Tensor) -> Tensor:
        each = max(1, CHUNK // max(1, self._images[:1].numel()))
        parts = [
            self._rendered(corruption, severity, index[start : start + each])
            for start in range(0, len(index), each)
        ]
        return torch.cat(parts) if parts else self._images[:0]  # [M, 3, H, W]

    def _rendered(self, corruption: str, severity: int, rows: Tensor) -> Tensor:
        return corrupt(
            self._images[rows].to(self._device),
            corruption,
            severity,
            index=self._rows[rows].to(self._device),
            seed=self.making.seed,
            frost=self.making.frost,
        ).cpu()


def _kept(folder: Path, key: str, make: Callable[[], Tensor]) -> Tensor:
    """Reads the block cached under a key, or makes and caches it.

    A file's name holds the hash of its content; one that does not match is made anew.
    """
    for path in folder.glob(f"{key[:32]}-*.npy"):
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, EOFError, ValueError):
            continue
        if path.stem == f"{key[:32]}-{hashlib.sha256(found.data).hexdigest()[:32]}":
            return torch.from_numpy(found)
    block = make()
    if sum(path.stat().st_size for path in folder.glob("*.npy")) + block.numel() > KEPT:
        return block
    content = io.BytesIO()
    np.save(content, block.numpy(), allow_pickle=False)
    total = hashlib.sha256(np.ascontiguousarray(block.numpy()).data).hexdigest()
    write_atomic(folder / f"{key[:32]}-{total[:32]}.npy", content.getvalue())
    return block


def places(data: Data) -> Tensor:
    """Positions [N] of the test images in the whole test split."""
    return torch.arange(len(data.test.labels)) if data.test_rows is None else data.test_rows


def prints(images: Tensor) -> list[str]:
    """sha256 of each image."""
    return [
        hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
        for block in arrays.rows_of(images)
        for image in block
    ]


def fingerprint(facts: Mapping[str, Any], shown: Sequence[str], rows: Tensor) -> str:
    """Fingerprint of a set, the same whether it is rendered or read from a folder."""
    return arrays.digest("rendered", dict(facts), list(shown), rows.tolist())
