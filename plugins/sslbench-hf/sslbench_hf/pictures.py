"""A column of encoded pictures as squares of RGB, decoded once and laid down beside the store."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import __version__

from sslbench.api import Place
from sslbench.arrays import Stored, digest, gather, lay, mapped, rows_of, too_large, write_small
from sslbench.datasets.pictures import BROKEN, RULE, Source, short_side, square
from sslbench.errors import UserError

LARGEST = 64  # pixels, stored side where none was asked for: as `folder` does
AHEAD = 512  # pictures decoded at a time


class Column:
    """The pictures of one split, in order."""

    def __init__(self, name: str, split: Any, column: str) -> None:
        from datasets import Image as Kind

        self.name = name  # for sentences
        self._split = split.select_columns([column]).cast_column(column, Kind(decode=False))
        self._column = column
        files = [Path(each["filename"]) for each in split.cache_files]
        self._marks = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        self._mark = split._fingerprint  # of the rows and their order; stats alone do not say

    def __len__(self) -> int:
        return len(self._split)

    def side(self, place: Place) -> int:
        """Of the first picture that can be read."""
        for position, source in enumerate(self._sources()):
            try:
                return min(short_side(source), LARGEST)
            except BROKEN as error:
                if not place.skip_broken:
                    raise self.broken(position, str(error)) from error
        raise UserError(f"{self.name}: every image is broken")

    def broken(self, position: int, why: str) -> UserError:
        return UserError(
            f"{self.name}: row {position} is a broken image ({why}); mend or remove it, or leave "
            f"such out with --skip-broken"
        )

    def decoded(self, size: int, place: Place) -> tuple[Stored, dict[int, str]]:
        """[N, 3, size, size] of the good ones, and what is broken.

        Laid down in the scratch folder, and found there again while no file changes.
        """
        broken: dict[int, str] = {}
        shape = (len(self), 3, size, size)
        if place.scratch is None or not self._marks:
            return gather(self._blocks(size, broken, place), shape=shape, scratch=None), broken
        key = digest(RULE, __version__, size, self._marks, self._mark, self._column)
        note = place.scratch / f"hf-{key[:32]}.json"
        known = _recalled(note, size)
        if known is None:
            path, content, rows = lay(
                self._blocks(size, broken, place), shape=shape, scratch=place.scratch
            )
            about = {"images": path.name, "digest": content, "rows": rows, "broken": broken}
            write_small(note, json.dumps(about))
            known = Stored(_array(path, (rows, *shape[1:])), content), broken
        if known[1] and not place.skip_broken:
            raise self.broken(*min(known[1].items()))
        return known

    def _sources(self) -> Iterator[Source]:
        """The pictures' bytes, or the path of a file here (never an address)."""
        for batch in self._split.iter(batch_size=AHEAD):
            for cell in batch[self._column]:
                content, path = (cell or {}).get("bytes"), (cell or {}).get("path")
                yield Path(path) if content is None and path else BytesIO(content or b"")

    def _blocks(self, size: int, broken: dict[int, str], place: Place) -> Iterator[np.ndarray]:
        def attempt(source: Source) -> np.ndarray | str:
            try:
                return square(source, size)
            except BROKEN as error:
                return str(error) or type(error).__name__

        position, good = 0, []
        with ThreadPoolExecutor(_threads()) as pool:
            for batch in _batches(self._sources()):
                for result in pool.map(attempt, batch):
                    if not isinstance(result, str):
                        good.append(result)
                    elif place.skip_broken:
                        broken[position] = result
                    else:
                        raise self.broken(position, result)
                    position += 1
                if good:
                    yield np.stack(good)
                    good = []


def _threads() -> int:
    cores = getattr(os, "sched_getaffinity", None)
    return len(cores(0)) if cores else os.cpu_count() or 1


def _batches(sources: Iterator[Any]) -> Iterator[list[Any]]:
    held = []
    for source in sources:
        held.append(source)
        if len(held) == AHEAD:
            yield held
            held = []
    yield held


def _recalled(note: Path, size: int) -> tuple[Stored, dict[int, str]] | None:
    """What was laid down before, unless it is not whole."""
    try:
        known = json.loads(note.read_text())
        path = note.parent / Path(known["images"]).name
        images = _array(path, (int(known["rows"]), 3, size, size))
        broken = {int(position): str(why) for position, why in known["broken"].items()}
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    seen = hashlib.sha256()
    for block in rows_of(images):
        seen.update(block.data)
    return (
        (Stored(images, known["digest"]), broken) if seen.hexdigest() == known["digest"] else None
    )


def _array(path: Path, shape: tuple[int, ...]) -> Any:
    import torch

    if path.stat().st_size != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{path} is not whole")
    if too_large(shape):
        return mapped(path, shape)
    return torch.from_numpy(np.fromfile(path, np.uint8).reshape(shape))
