"""Writes a corrupted test split to a folder in the layout of the published ones."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import torch

from ..corruptions import ALL, SEVERITIES
from ..corruptions.files import LABELS, checksum
from ..disk import DiskError, replacing, sha256
from ..errors import UserError
from ..store.lease import leased
from .manifest import FORMAT, IMAGES, MANIFEST, made, read_manifest, without_subset
from .opening import Data
from .rendered import CHUNK, Making, Rendered, prints, set_name

LOCK = ".lock"


class Step(NamedTuple):
    """How far one file of a set has been written."""

    name: str  # of a corruption
    state: Literal["there", "damaged", "begun", "part", "made"]
    images: int  # so far
    of: int  # images of this file, all severities
    bytes: int  # of this file


def write(
    data: Data,
    out: Path,
    *,
    device: torch.device,
    corruptions: Sequence[str] = ALL,
    making: Making | None = None,
) -> Generator[Step, None, None]:
    """Writes a set below `out`, in the published layout with a manifest; yields its progress.

    Files that the manifest lists and that are still sound are kept. Wherever it is stopped, every
    file under its final name is complete.

    Raises:
        UserError: a part of a dataset is asked for, the folder holds another set, another
            process writes there, or the disk has no room.
    """
    if data.name != without_subset(data.name):
        raise UserError(
            f"{data.name}: a set is always made of the whole test split, and serves its subsets "
            f"too; ask for {without_subset(data.name)}"
        )
    making = making or Making()
    if making.frost is not None:
        making.frost.check((data.test.images.shape[2], data.test.images.shape[3]))
    folder = out / set_name(data.name, making)
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            yield from _written(data, folder, corruptions, Rendered(data, device, making=making))


def _written(
    data: Data, folder: Path, corruptions: Sequence[str], rendered: Rendered
) -> Iterator[Step]:
    manifest = _begun(data, folder, rendered)
    files = manifest["files"]
    steps = {name: _there(data, folder, name, files.get(name)) for name in corruptions}
    missing = [name for name in corruptions if steps[name].state != "there"]
    _require_space(folder, sum(steps[name].bytes for name in missing))
    for name in corruptions:
        yield steps[name]
        if name in missing:
            files[name] = yield from _stack(data, folder, name, rendered)
            manifest["complete"] = all(known in files for known in ALL)
            _write_manifest(folder, manifest)
            yield steps[name]._replace(state="made", images=steps[name].of)


def _begun(data: Data, folder: Path, rendered: Rendered) -> dict[str, Any]:
    """Reads or begins the manifest of the set, and writes its labels."""
    shown = "\n".join(prints(data.test.images)).encode()
    manifest = _manifest(data, folder, rendered.making.facts(), shown)
    for litter in folder.glob(".*.tmp"):  # only now is the folder known to be ours
        litter.unlink()
    with _whole_file(folder / IMAGES) as file:
        file.write(shown)
    manifest["files"][LABELS] = _lay_labels(data, folder)
    _write_manifest(folder, manifest)
    return manifest


def _manifest(data: Data, folder: Path, facts: dict[str, Any], shown: bytes) -> dict[str, Any]:
    """Reads the manifest, or writes a new one; UserError where the folder holds something else.

    It is written first, so that a folder without one is known to be somebody else's.
    """
    images, there = sha256(shown), read_manifest(folder)
    if there is None and any(path.name != LOCK for path in folder.iterdir()):
        raise UserError(f"{folder} holds something else and no {MANIFEST}; give another --out")
    if there is not None and (made(there) != facts or there["images"] != images):
        raise UserError(
            f"{folder} holds a set of version {there['version']} made from {there['dataset']}, "
            f"not version {facts['version']} made from these images of {data.name}; remove it or "
            "give another --out"
        )
    manifest = there or {
        "format": FORMAT,
        "name": folder.name,
        **facts,
        "dataset": without_subset(data.name),
        "dataset_fingerprint": data.fingerprint,
        "images": images,
        "complete": False,
        "files": {},
    }
    _write_manifest(folder, manifest)
    return manifest


def _lay_labels(data: Data, folder: Path) -> dict[str, Any]:
    """Writes the labels: as bytes, like the published ones, where there are few enough classes."""
    kind = np.uint8 if data.classes <= 256 else np.int64
    labels = np.tile(data.test.labels.numpy().astype(kind), len(SEVERITIES))
    with _array_file(folder / f"{LABELS}.npy", labels.shape, labels.dtype) as file:
        file.write(labels.data)
    return file.entry()


def _there(data: Data, folder: Path, name: str, entry: dict[str, Any] | None) -> Step:
    path, of = folder / f"{name}.npy", len(SEVERITIES) * len(data.test.labels)
    step = Step(name, "begun", 0, of, of * data.test.images[:1].numel())
    if entry is None or not path.is_file():
        return step
    if checksum(path, "sha256") != entry["sha256"]:
        return step._replace(state="damaged")
    return step._replace(state="there", images=of)


def _stack(
    data: Data, folder: Path, name: str, rendered: Rendered
) -> Generator[Step, None, dict[str, Any]]:
    """Writes one file, severity after severity, in parts that fit in memory."""
    count, (planes, height, width) = len(data.test.labels), data.test.images.shape[1:]
    of = len(SEVERITIES) * count
    each = max(1, CHUNK // (planes * height * width))
    kind = np.dtype(np.uint8)
    with _array_file(folder / f"{name}.npy", (of, height, width, planes), kind) as file:
        done = 0
        for severity in SEVERITIES:
            for start in range(0, count, each):
                rows = torch.arange(start, min(count, start + each))
                block = rendered.block(name, severity, rows)  # [M, 3, H, W]
                file.write(np.ascontiguousarray(block.permute(0, 2, 3, 1).numpy()).data)
                done += len(rows)
                yield Step(name, "part", done, of, of * planes * height * width)
    return file.entry()


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with _whole_file(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1).encode())


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskError(
            f"{folder} needs {needed / 1e9:.2f} GB for what is not there yet and its disk has "
            f"{free / 1e9:.2f} GB free; give --out on another disk or fewer --corruptions"
        )


class _Hashing:
    """Hashes and counts the bytes that are written to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._seen, self._size = file, hashlib.sha256(), 0

    def write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._seen.update(content)
        self._size += memoryview(content).nbytes

    def entry(self) -> dict[str, Any]:
        return {"sha256": self._seen.hexdigest(), "bytes": self._size}


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[_Hashing]:
    """A file that gets its name only once it is complete and on disk."""
    with replacing(path) as part, part.open("wb") as file:
        yield _Hashing(file)


@contextlib.contextmanager
def _array_file(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[_Hashing]:
    """A .npy file whose rows are streamed: with a memory map a full disk would kill the process."""
    head = io.BytesIO()
    made = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, made)
    with _whole_file(path) as file:
        file.write(head.getvalue())
        yield file


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other writers out of a folder; the lock ends with the process."""
    with leased(folder / LOCK, waiting=lambda: False) as held:
        if not held:
            raise UserError(f"{folder} is being written by another process; wait for it")
        yield


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{folder} could not be written ({error.strerror or error}); give --out on a disk with "
            "space and write permission"
        ) from error
