"""Finds picture files, decodes them to squares of RGB on threads, and caches the result on disk."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, __version__

from ..api import Place
from ..arrays import (
    Bytes,
    Stored,
    digest,
    gather,
    lay,
    mapped,
    rows_of,
    too_large,
    write_small,
)
from ..disk import DiskError
from ..errors import UserError

SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
)  # compared in lower case
RULE = "upright, RGB over white, short side bilinear, centre crop, 1"  # part of the fingerprint
UPRIGHT = 1  # EXIF's value for a picture that needs no turning
ORIENTATION = 0x0112  # EXIF's tag
AHEAD = 512  # pictures decoded at a time
# What Pillow and its codecs raise on damaged files.
BROKEN = (
    OSError,
    EOFError,
    IndexError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)


class Decoded(NamedTuple):
    stored: Stored  # the sound pictures, in order
    broken: dict[int, str]  # position -> what was wrong


def pictures_in(folder: Path) -> list[Path]:
    """Finds picture files at any depth, sorted, without hidden ones."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if is_picture(name)]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def is_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def short_side(path: Path) -> int:
    """Reads the short side in pixels, from the header alone."""
    try:
        with Image.open(path) as picture:
            return min(picture.size)
    except BROKEN as error:
        raise broken_picture(path, str(error)) from error


def broken_picture(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is a broken image ({why}); mend or remove it, or skip such files with --skip-broken"
    )


def square(path: Path, size: int) -> Bytes:
    """Decodes a picture to [3, size, size]: resizes the short side bilinearly, crops the centre."""
    with Image.open(path) as picture:
        # JPEGs decode fast at a half, quarter or eighth; at least twice the side is kept
        picture.draft(None, (2 * size, 2 * size))
        whole: Image.Image = picture
        if picture.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:
            whole = ImageOps.exif_transpose(picture)
        image = to_rgb(whole)
    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = (size * side // short for side in (width, height))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def to_rgb(picture: Image.Image) -> Image.Image:
    """Converts any mode to RGB: transparency over white, 16 bits scaled where Pillow would clip."""
    if picture.mode.startswith("I"):
        deep = np.clip(np.asarray(picture), 0, 65535).astype(np.uint32)
        return Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("pixels are floating point numbers of unknown range")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return picture.convert("RGB")


def decode(paths: Sequence[Path], *, size: int, place: Place) -> Decoded:
    """Decodes all pictures to squares; a broken one raises UserError unless `place.skip_broken`.

    With a scratch folder the result is cached there, and used again while no file changes.
    """
    if place.scratch is None:
        return _held(paths, size, place)
    note = place.scratch / f"pictures-{_key(paths, size)[:32]}.json"
    known = _recalled(note, size)
    if known is None:
        try:
            known = _laid(paths, size, place, note)
        except DiskError:
            if too_large((len(paths), 3, size, size)):
                raise
            known = _held(paths, size, place)
    if known.broken and not place.skip_broken:
        first = min(known.broken)
        raise broken_picture(paths[first], known.broken[first])
    return known


def _blocks(
    paths: Sequence[Path], size: int, broken: dict[int, str], *, skip: bool
) -> Iterator[Bytes]:
    """Yields squares [n, 3, size, size] in order; broken ones go into `broken`, or raise UserError."""

    def attempt(path: Path) -> Bytes | str:
        try:
            return square(path, size)
        except BROKEN as error:
            return str(error) or type(error).__name__

    with ThreadPoolExecutor(_threads()) as pool:
        for start in range(0, len(paths), AHEAD):
            good = []
            for position, result in enumerate(
                pool.map(attempt, paths[start : start + AHEAD]), start
            ):
                if not isinstance(result, str):
                    good.append(result)
                elif skip:
                    broken[position] = result
                else:
                    raise broken_picture(paths[position], result)
            if good:
                yield np.stack(good)


def _threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _key(paths: Sequence[Path], size: int) -> str:
    """A digest of the files' present state: names, lengths and times of change."""
    stats = [(str(path.absolute()), path.stat()) for path in paths]
    return digest(
        RULE, __version__, size, [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    )


def _held(paths: Sequence[Path], size: int, place: Place) -> Decoded:
    broken: dict[int, str] = {}
    blocks = _blocks(paths, size, broken, skip=place.skip_broken)
    return Decoded(gather(blocks, shape=(len(paths), 3, size, size), scratch=None), broken)


def _laid(paths: Sequence[Path], size: int, place: Place, note: Path) -> Decoded:
    broken: dict[int, str] = {}
    blocks = _blocks(paths, size, broken, skip=place.skip_broken)
    shape = (len(paths), 3, size, size)
    path, content, rows = lay(blocks, shape=shape, scratch=note.parent)
    known = {"images": path.name, "digest": content, "rows": rows, "broken": broken}
    write_small(note, json.dumps(known))
    return Decoded(Stored(_opened(path, (rows, *shape[1:])), content), broken)


def _recalled(note: Path, size: int) -> Decoded | None:
    """Reads the cached result; None where it is missing or damaged."""
    try:
        known: dict[str, Any] = json.loads(note.read_text())
        path = note.parent / Path(known["images"]).name
        shape = (int(known["rows"]), 3, size, size)
        if path.stat().st_size != int(np.prod(shape, dtype=np.int64)):
            return None
        images = _opened(path, shape)
        broken = {int(position): str(why) for position, why in known["broken"].items()}
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return None
    seen = hashlib.sha256()
    for block in rows_of(images):
        seen.update(block.data)
    if seen.hexdigest() != known["digest"]:
        return None
    return Decoded(Stored(images, seen.hexdigest()), broken)


def _opened(path: Path, shape: tuple[int, ...]) -> torch.Tensor:
    if too_large(shape):
        return mapped(path, shape)
    return torch.from_numpy(np.fromfile(path, np.uint8).reshape(shape))
