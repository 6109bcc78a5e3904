"""Decodes picture files to squares of RGB on threads, and caches the result on disk."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError, __version__

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
from ..disk import CannotRead, DiskError, opened
from ..errors import UserError

# Formats that are read, whatever a file's name ends in: none whose reader runs a program of the
# file, as those of PostScript and of Windows' metafiles do.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI"),
    *("TGA", "TIFF", "WEBP"),
)
UNMARKED = ("DIB", "PCX", "TGA")  # few first bytes tell these, so that only a suffix does
NO_PICTURES = (".pfm",)  # maps of depth, which lie beside pictures
DECODER = 2  # raised when the pixels of a file change
LARGEST = 2**28  # pixels of a picture, which take a gigabyte and more
LARGE = 2**26  # pixels from which one is decoded at a time
SIDE = 64  # pixels, the stored side where none was asked for and the pictures are larger
SMALLEST = 8  # pixels: a picture below it does not decide the side
LONG = 64  # times its short side; a longer picture is cropped before it is resized
RULE = "upright, RGB over white, short side bilinear, centre crop, 1"  # part of the fingerprint
UPRIGHT = 1  # EXIF's value for a picture that needs no turning
ORIENTATION = 0x0112  # EXIF's tag
BITS_PER_SAMPLE = 258  # TIFF's tag
AHEAD = 512  # pictures decoded at a time
# What Pillow and its codecs raise on damaged files.
BROKEN = (
    OSError,
    EOFError,
    IndexError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
_LARGE = threading.Lock()

Source: TypeAlias = Path | BinaryIO  # of a picture


class Decoded(NamedTuple):
    stored: Stored  # the sound pictures, in order
    broken: dict[int, str]  # position -> what was wrong


@functools.cache
def formats() -> tuple[str, ...]:
    """The FORMATS that the Pillow here reads."""
    Image.init()
    return tuple(form for form in FORMATS if form in Image.OPEN)


@functools.cache
def suffixes() -> frozenset[str]:
    """What the names of pictures in these formats end in, in lower case."""
    Image.init()
    known = {suffix for suffix, form in Image.EXTENSION.items() if form in FORMATS}
    return frozenset(known.difference(NO_PICTURES))


def is_picture(path: Path) -> bool:
    """Whether a file is a picture: by its suffix, or else by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in suffixes() or suffix in NO_PICTURES:
        return suffix not in NO_PICTURES
    try:
        marked = tuple(form for form in formats() if form not in UNMARKED)
        with _any_size(), _opened_picture(path, marked):
            return True
    except (CannotRead, *BROKEN):  # one that may not be read and is not called a picture
        return False


def short_side(source: Source) -> int:
    """Reads the short side in pixels, from the header alone. One of BROKEN where that fails."""
    with _any_size(), _opened_picture(source) as picture:
        return min(picture.size)


def common_side(paths: Sequence[Path], place: Place, dataset: str) -> int:
    """The side at which to store pictures: the first one's short side, if it is not tiny.

    UserError where one that is looked at is broken and `place.skip_broken` is off, or all are.
    """
    found = [side for side in _sides(paths[:100], place) if side >= SMALLEST]
    first = found[0] if found else next(_sides(paths, place), None)
    if first is None:
        raise UserError(f"{dataset}: every image beside {paths[0]} is broken")
    return min(first, SIDE)


def _sides(paths: Sequence[Path], place: Place) -> Iterator[int]:
    for path in paths:
        try:
            yield short_side(path)
        except BROKEN as error:
            if not place.skip_broken:
                raise broken_picture(path, str(error)) from error


@contextlib.contextmanager
def _opened_picture(source: Source, forms: tuple[str, ...] = ()) -> Iterator[Image.Image]:
    """Opens a picture in one of the formats. ValueError where it has more than LARGEST pixels."""
    with opened(source) if isinstance(source, Path) else contextlib.nullcontext(source) as file:
        try:
            picture = Image.open(file, formats=forms or formats())
        except UnidentifiedImageError as error:
            raise ValueError("it is in no format that is read") from error
        with picture:
            width, height = picture.size
            if width * height > LARGEST:
                raise ValueError(f"its {width:,} x {height:,} pixels are too many; make it smaller")
            yield picture


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Lets Pillow decode pictures of any size, for it refuses good ones; LARGEST is our bound."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def broken_picture(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is a broken image ({why}); mend or remove it, or skip such files with --skip-broken"
    )


def square(source: Source, size: int) -> Bytes:
    """Decodes a picture to [3, size, size]: resizes the short side bilinearly, crops the centre."""
    with _opened_picture(source) as picture, _alone(picture):
        # JPEGs decode fast at a half, quarter or eighth; at least twice the side is kept
        picture.draft(None, (2 * size, 2 * size))
        whole: Image.Image = picture
        if picture.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:
            whole = ImageOps.exif_transpose(picture)
        image = to_rgb(whole)
    width, height = image.size
    short = min(width, height)
    if max(width, height) > LONG * short:  # resized, it would need much memory
        image = _centre(image, min(width, LONG * short), min(height, LONG * short))
        width, height = image.size
    if short != size:
        width, height = (size * side // short for side in (width, height))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(_centre(image, size, size)).transpose(2, 0, 1))


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


@contextlib.contextmanager
def _alone(picture: Image.Image) -> Iterator[None]:
    """Decodes large pictures one at a time, since each takes gigabytes."""
    with _LARGE if picture.width * picture.height > LARGE else contextlib.nullcontext():
        yield


def to_rgb(picture: Image.Image) -> Image.Image:
    """Converts any mode to RGB: transparency over white, 16 bits scaled where Pillow would clip."""
    if picture.mode.startswith("I"):
        most = 2 ** _bits(picture) - 1
        deep = np.clip(np.asarray(picture), 0, most).astype(np.uint32)
        return Image.fromarray(((deep * 255 + most // 2) // most).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("pixels are floating point numbers of unknown range")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return picture.convert("RGB")


def _bits(picture: Image.Image) -> int:
    """Bits of a sample that has more than eight: 16, unless a TIFF says that it is fewer."""
    told = getattr(picture, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
    bits = told[0] if isinstance(told, tuple) else told
    return bits if isinstance(bits, int) and 8 < bits < 16 else 16


def decode(paths: Sequence[Path], *, size: int, place: Place) -> Decoded:
    """Decodes all pictures to squares; a broken one raises UserError unless `place.skip_broken`.

    With a scratch folder the result is cached there, and used again while no file changes.
    """
    with _any_size():
        return _decoded(paths, size, place)


def _decoded(paths: Sequence[Path], size: int, place: Place) -> Decoded:
    if place.scratch is None:
        return _held(paths, size, place)
    note = place.scratch / f"pictures-{_key(paths, size)[:32]}.json"
    known = _recalled(note, size)
    if known is None:
        try:
            known = _laid(paths, size, place, note)
        except CannotRead:
            raise
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
        RULE,
        DECODER,
        __version__,
        size,
        [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
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
