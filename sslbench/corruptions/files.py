"""Reads corrupted test splits from a folder in the layout of the published ones.

It has labels.npy and, for each corruption, NAME.npy of uint8 [5 N, H, W, 3]: the test split at
severity 1, then at 2, ... 5.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..api import Corrupted
from ..errors import MissingData

SEVERITIES = 5
LABELS = "labels"
BLOCK = 2**24  # bytes read at a time


@dataclass(frozen=True)
class Claim:
    """What a folder should hold, with checksums and what to do where it does not."""

    name: str  # of the set
    names: tuple[str, ...]  # of its corruptions: each must be there
    sides: tuple[int, int]  # H, W
    sums: Mapping[str, str]  # corruption or LABELS -> checksum; a file without one is not checked
    algorithm: str = "sha256"
    remedy: str = "get it anew"  # what would work when a file is missing or damaged
    fingerprint: str = ""  # of the set; "": computed from the checksums


class CorruptedFolder(Corrupted):
    """A folder in that layout, memory-mapped. Each file is hashed once, when first read."""

    def __init__(
        self, folder: Path, claim: Claim, labels: Tensor, *, rows: Tensor | None = None
    ) -> None:
        """Opens a folder and checks its labels.

        Args:
            labels: [N], of the test split whose corruptions the folder must hold
            rows: [N] positions of the test split among the folder's images, when it is a part

        Raises:
            MissingData: a file is missing, or does not belong to these labels.
        """
        self.folder, self.claim, self.name = folder, claim, claim.name
        self._rows = rows
        self._require()
        stored = self._labels()
        self.length = len(stored) // SEVERITIES  # images of a severity
        self._compare(stored, labels)
        self._measure()
        self._checked(LABELS)  # last, since the other checks say better what is wrong
        self.fingerprint = claim.fingerprint or self._fingerprint()

    def block(self, corruption: str, severity: int, rows: Tensor | None = None) -> Tensor:
        """Corrupted uint8 [M, 3, H, W] of these rows of the test split, or of all.

        Severity goes from 1 to 5.

        Raises:
            MissingData: the file does not match its checksum or shape.
        """
        if corruption not in self.claim.names:
            raise ValueError(f"{self.name} has no corruption {corruption!r}")
        if severity not in range(1, SEVERITIES + 1):
            raise ValueError(f"severity {severity} is not one of 1 to {SEVERITIES}")
        array = self._array(self._checked(corruption))
        part = array[(severity - 1) * self.length : severity * self.length]  # [N, H, W, 3]
        index = self._rows if rows is None else rows if self._rows is None else self._rows[rows]
        copied = np.array(part if index is None else part[index.numpy()])
        return torch.from_numpy(copied).permute(0, 3, 1, 2).contiguous()  # [M, 3, H, W]

    # ---- checks ----------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _require(self) -> None:
        """Checks that every file exists, lest an average be over too few corruptions."""
        wanted = (*self.claim.names, LABELS)
        absent = [name for name in wanted if not self._path(name).is_file()]
        if absent:
            rest = f" (nor are {len(absent) - 1} others)" if len(absent) > 1 else ""
            raise MissingData(
                f"{self.name}: {self._path(absent[0])} is not there{rest}; {len(wanted)} files "
                f"are expected, {len(wanted) - len(absent)} were found; {self.claim.remedy}"
            )

    def _checked(self, name: str) -> Path:
        path, wanted = self._path(name), self.claim.sums.get(name)
        if wanted is None:
            return path
        found = self._sum(path)
        if found != wanted:
            raise self._damaged(
                path, f"its {self.claim.algorithm} is {found}, the expected one {wanted}"
            )
        return path

    def _fingerprint(self) -> str:
        """Fingerprint of all files by their checksums; those not given are computed."""
        lines = [self.claim.algorithm]
        for name in sorted((*self.claim.names, LABELS)):
            known = self.claim.sums.get(name)
            lines.append(f"{name} {known or self._sum(self._path(name))}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _sum(self, path: Path) -> str:
        try:
            return checksum(path, self.claim.algorithm)
        except OSError as error:
            raise self._damaged(path, f"it cannot be read: {error.strerror}") from error

    def _array(self, path: Path) -> NDArray[Any]:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise self._damaged(path, f"it is not a whole array: {error}") from error
        if not isinstance(array, np.ndarray):  # of an archive of several
            raise self._damaged(path, "it is not a single array")
        return array

    def _labels(self) -> NDArray[Any]:
        path = self._path(LABELS)
        stored = self._array(path)
        if stored.ndim != 1 or stored.dtype.kind not in "iu" or len(stored) % SEVERITIES:
            raise self._damaged(
                path,
                f"it holds {stored.dtype} {list(stored.shape)}, "
                f"expected are {SEVERITIES} x N whole numbers",
            )
        return np.asarray(stored)

    def _compare(self, stored: NDArray[Any], labels: Tensor) -> None:
        """Checks that the labels of each severity are those of the test split, in order."""
        path, rows = self._path(LABELS), self._rows
        if self.length != len(labels) if rows is None else self.length <= int(rows.max()):
            raise self._damaged(
                path,
                f"it holds {len(stored):,} labels, that is {self.length:,} images at each of "
                f"{SEVERITIES} severities; the test split has "
                f"{len(labels) if rows is None else int(rows.max()) + 1:,}"
                f"{'' if rows is None else ' or more'}",
            )
        each = stored.reshape(SEVERITIES, -1)  # [5, N]
        each = each if rows is None else each[:, rows.numpy()]
        wrong = np.argwhere(each != labels.numpy())
        if len(wrong):
            severity, image = wrong[0]
            raise self._damaged(
                path,
                f"wrong order of labels: {len(wrong):,} differ from the test split's, the first "
                f"of image {image} at severity {severity + 1}: expected "
                f"{int(labels[image])}, found {each[severity, image]}",
            )

    def _measure(self) -> None:
        wanted = (SEVERITIES * self.length, *self.claim.sides, 3)
        for name in self.claim.names:
            array = self._array(self._path(name))
            if array.shape != wanted or array.dtype != np.uint8:
                raise self._damaged(
                    self._path(name),
                    f"it holds {array.dtype} {list(array.shape)}, expected is uint8 {list(wanted)}",
                )

    def _damaged(self, path: Path, why: str) -> MissingData:
        return MissingData(f"{self.name}: {path} cannot be used: {why}; {self.claim.remedy}")


def checksum(path: Path, algorithm: str) -> str:
    """Checksum of a file; cached in this process while its size and time stay the same."""
    status = path.stat()
    return _checksum(os.fspath(path.absolute()), status.st_size, status.st_mtime_ns, algorithm)


@functools.lru_cache(maxsize=1024)
def _checksum(path: str, size: int, time: int, algorithm: str) -> str:
    seen = hashlib.new(algorithm, usedforsecurity=False)
    with Path(path).open("rb") as file:
        while part := file.read(BLOCK):
            seen.update(part)
    return seen.hexdigest()
