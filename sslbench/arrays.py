"""Image arrays: keeps them in memory or in a file, hashes them, and draws subsets of them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .api import Images, Split
from .disk import DiskError, replacing
from .errors import UserError

SHARE = 0.25  # of the machine's memory; a larger array is written to a file and memory-mapped
LARGEST_SIDE = 1024  # pixels of a stored image
BLOCK = 2**25  # bytes handled at a time where an array may be too large to hold

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


class Stored(NamedTuple):
    images: Tensor  # uint8 [N, 3, H, W]
    digest: str  # sha256 over the bytes before grey images are repeated to three planes


def memory() -> int:
    """Bytes of memory this process may use: the machine's, or its control group's if less."""
    most: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return most
    return min(most, int(limit)) if limit.isdigit() else most


def too_large(shape: tuple[int, ...]) -> bool:
    return int(np.prod(shape, dtype=np.int64)) > SHARE * memory()


# ---- keeping -------------------------------------------------------------------------------


def side(size: object, what: str) -> int:
    """The side of stored images that `size=` asks for.

    Raises:
        UserError: it is not a whole number from 1 to LARGEST_SIDE.
    """
    if type(size) is int and 1 <= size <= LARGEST_SIDE:
        return size
    raise UserError(
        f"{what}: size is a side in pixels such as 32, {LARGEST_SIDE:,} at most, not {size!r}"
    )


def gather(blocks: Iterable[Bytes], *, shape: tuple[int, ...], scratch: Path | None) -> Stored:
    """Joins uint8 blocks [n, 1 or 3, H, W] into one array, in a file when too large for memory.

    shape: [N, 3, H, W], where N is an upper limit. One plane is repeated to three.
    """
    if scratch is not None and too_large(shape):
        path, digest, rows = lay(blocks, shape=shape, scratch=scratch)
        return Stored(mapped(path, (rows, *shape[1:])), digest)
    images = np.empty(shape, np.uint8)
    seen, rows = hashlib.sha256(), 0
    for block in blocks:
        seen.update(np.ascontiguousarray(block).data)
        images[rows : rows + len(block)] = block
        rows += len(block)
    return Stored(torch.from_numpy(images[:rows]), seen.hexdigest())


def lay(blocks: Iterable[Bytes], *, shape: tuple[int, ...], scratch: Path) -> tuple[Path, str, int]:
    """Writes blocks to an uncompressed file named after its content.

    Returns its path, the digest and the number of rows.
    """
    seen, rows = hashlib.sha256(), 0
    with _explained(scratch), _fresh(scratch) as part:
        with part.open("wb") as file:
            for block in blocks:
                seen.update(np.ascontiguousarray(block).data)
                whole = np.broadcast_to(block, (len(block), *shape[1:]))
                file.write(np.ascontiguousarray(whole).data)
                rows += len(block)
            file.flush()
            os.fsync(file.fileno())
        name = hashlib.sha256(f"{seen.hexdigest()} {(rows, *shape[1:])}".encode()).hexdigest()
        return part.replace(scratch / f"images-{name[:32]}.u8"), seen.hexdigest(), rows


def mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Opens a file that `lay` wrote as a memory-mapped tensor.

    The map is shared, since private maps count as memory in use.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if not size:
        return torch.empty(shape, dtype=torch.uint8)
    return torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8).view(shape)


def rows_of(images: Tensor, index: Tensor | None = None) -> Iterator[Bytes]:
    """Yields the images, or those at `index`, in blocks small enough for memory."""
    each = max(1, BLOCK // max(1, images[:1].numel()))
    if index is None:
        for start in range(0, len(images), each):
            yield images[start : start + each].numpy()
        return
    for start in range(0, len(index), each):
        yield images[index[start : start + each]].numpy()


@contextmanager
def _explained(scratch: Path) -> Iterator[None]:
    """Turns an OSError into a DiskError that says what to do."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DiskError(
            f"images could not be written to {scratch} ({error.strerror}); "
            "give a store on a disk with space and write permission"
        ) from error


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """A new file in a folder, removed afterwards unless it was renamed."""
    handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def write_small(path: Path, text: str) -> None:
    """Writes a small text file, completely or not at all."""
    with _explained(path.parent), replacing(path) as part:
        part.write_text(text)


# ---- identity ------------------------------------------------------------------------------


def digest(*parts: Any) -> str:
    """sha256 of plain data, through its canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def assemble(
    parts: Mapping[str, tuple[Stored, Integers]],
    *,
    classes: Iterable[str],
    made: Mapping[str, Any],
    skipped: Iterable[str] = (),
    notes: Iterable[str] = (),
    clips: Mapping[str, Integers] | None = None,
    domains: Mapping[str, Integers] | None = None,
) -> Images:
    """Makes `Images`, with a fingerprint, from splits by name (train, test, perhaps unlabelled).

    made: how the pixels were made (stored side, crop rule, version); part of the fingerprint.
    clips: of each split whose images are frames, which sequence each is of.
    domains: of each split that has two, which one each image is of: 0 the source, 1 the target.
    """
    sequences, styles = dict(clips or {}), dict(domains or {})
    sums = {
        name: [list(stored.images.shape), stored.digest, _digest_of(labels)]
        + ([_digest_of(sequences[name])] if name in sequences else [])
        + ([["domains", _digest_of(styles[name])]] if name in styles else [])
        for name, (stored, labels) in parts.items()
    }
    splits = {
        name: Split(
            stored.images,
            torch.from_numpy(labels.astype(np.int64)),
            torch.from_numpy(sequences[name].astype(np.int64)) if name in sequences else None,
            torch.from_numpy(styles[name].astype(np.int64)) if name in styles else None,
        )
        for name, (stored, labels) in parts.items()
    }
    return Images(
        train=splits["train"],
        test=splits["test"],
        unlabelled=splits.get("unlabelled"),
        classes=tuple(classes),
        fingerprint=digest("images", dict(made), sums),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _digest_of(labels: Integers) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


# ---- drawing -------------------------------------------------------------------------------


def draws(count: int, key: str) -> NDArray[np.uint64]:
    """Random numbers of 64 bits that depend on nothing but `key`.

    Raw streams of PCG64 are promised to stay as they are (NEP 19); other draws of numpy and
    torch are not.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    return np.asarray(np.random.PCG64(seed).random_raw(count))


def shuffled(count: int, key: str) -> Integers:
    """A permutation that depends on nothing but `key`."""
    return np.argsort(draws(count, key), kind="stable")


def balanced(labels: Integers, count: int, key: str) -> Integers:
    """Draws `count` items, spread over the classes as evenly as possible; ascending positions.

    Draws are nested: a smaller count under the same key is a part of a larger one.
    """
    kinds, sizes = _kinds(labels)
    level = _water_level(sizes, count)
    quotas = np.minimum(sizes, level)
    order = shuffled(len(sizes), f"{key} classes")
    thirsty = order[sizes[order] > level]
    quotas[thirsty[: count - int(quotas.sum())]] += 1
    return _pick(kinds, sizes, quotas, key)


def stratified(labels: Integers, count: int, key: str) -> Integers:
    """Draws `count` items with each class in its proportion; ascending positions.

    It never takes all items of a class, unless no class has two.
    """
    kinds, sizes = _kinds(labels)
    room = sizes - 1 if (sizes > 1).any() else sizes.copy()
    count = min(count, int(room.sum()))
    shares = sizes * count / max(1, len(labels))
    quotas = np.minimum(shares.astype(np.int64), room)
    order = shuffled(len(sizes), f"{key} classes")
    order = order[np.argsort(-(shares - quotas)[order], kind="stable")]
    while (missing := count - int(quotas.sum())) > 0:
        quotas[order[quotas[order] < room[order]][:missing]] += 1
    return _pick(kinds, sizes, quotas, key)


def _kinds(labels: Integers) -> tuple[Integers, Integers]:
    """Renumbers labels as 0 ... K-1 and counts each; unlabelled counts as a class."""
    _, kinds = np.unique(labels, return_inverse=True)
    return kinds.astype(np.int64), np.bincount(kinds).astype(np.int64)


def _water_level(sizes: Integers, count: int) -> int:
    """The largest number of items that every class can give without exceeding `count`."""
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        fits = int(np.minimum(sizes, middle).sum()) <= count
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _pick(kinds: Integers, sizes: Integers, quotas: Integers, key: str) -> Integers:
    """The first `quotas[k]` items of every class k, in a shuffled order."""
    order = shuffled(len(kinds), key)
    order = order[np.argsort(kinds[order], kind="stable")]
    rank = np.arange(len(kinds)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[rank < np.repeat(quotas, sizes)])
