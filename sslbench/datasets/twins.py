"""Finds pictures that show the same, pixel by pixel."""

from __future__ import annotations

import contextlib
import hashlib

from .. import arrays
from ..api import Place
from ..arrays import Stored, rows_of
from ..disk import DiskError, read_file


def hashes(stored: Stored) -> list[str]:
    """A digest of the pixels of each picture."""
    return [
        hashlib.blake2b(row.data, digest_size=16).hexdigest()
        for block in rows_of(stored.images)
        for row in block
    ]


def twins(train: Stored, test: Stored, place: Place) -> list[str]:
    """A sentence on pictures of test that are in train too, if there are any.

    Their number is kept in the scratch folder, for reading every pixel takes a while.
    """
    key = arrays.digest("twins", train.digest, test.digest)[:32]
    note = place.scratch / f"twins-{key}.txt" if place.scratch else None
    try:
        both = int(read_file(note)) if note else -1
    except (FileNotFoundError, ValueError, DiskError):
        both = -1
    if both < 0:
        seen = {*hashes(train)}
        both = sum(row in seen for row in hashes(test))
        if note:
            with contextlib.suppress(DiskError):  # it is counted again
                arrays.write_small(note, str(both))
    return [f"{both:,} of its test pictures are in train too"] if both else []
