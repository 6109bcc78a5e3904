"""Handwritten digits that come with scikit-learn: always there, never downloaded."""

from __future__ import annotations

import gzip
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..api import Card, Dataset, Images, Place
from ..arrays import Bytes, Integers, Stored, assemble, gather, side, stratified
from ..errors import MissingData

SIDE = 8  # pixels, as scanned
LEVELS = 16  # values are 0 ... 16
TEST = 360
BLOCK = 64  # images enlarged at once: sums take 24 bytes a pixel


class Digits(Dataset):
    """1,797 handwritten digits of 8 x 8 pixels from scikit-learn, enlarged bilinearly."""

    card = Card(
        summary="Handwritten digits by 43 people, 8 x 8 pixels, grey (enlarged to 32 x 32)",
        classes=10,
        train=1437,
        test=TEST,
        licence="CC BY 4.0",
        citation="E. Alpaydin, C. Kaynak: Cascading classifiers. Kybernetika 34(4), 1998",
        source="https://archive.ics.uci.edu/dataset/80 (its test part, embedded in scikit-learn)",
    )

    def __init__(self, *, size: int = 32) -> None:
        self.size = side(size, "digits")

    def load(self, place: Place) -> Images:
        planes, labels = _table()
        held = np.zeros(len(labels), bool)
        held[stratified(labels, TEST, "digits test")] = True

        def split(rows: NDArray[np.bool_]) -> tuple[Stored, Integers]:
            few = np.array_split(planes[rows], 1 + len(labels) // BLOCK)
            blocks = (enlarged(each, self.size)[:, None] for each in few)  # [n, 1, H, W]
            shape = (int(rows.sum()), 3, self.size, self.size)
            return gather(blocks, shape=shape, scratch=place.scratch), labels[rows]

        return assemble(
            {"train": split(~held), "test": split(held)},
            classes=map(str, range(10)),
            made={"version": self.version, "size": self.size, "enlarged": "bilinear", "grey": True},
        )


def enlarged(planes: Integers, size: int) -> Bytes:
    """[N, 8, 8] of 0 ... 16 -> [N, size, size] of 0 ... 255, bilinear with pixel centres aligned.

    Every weight is an integer over 2 * size, so sums are exact and the bytes, hence the
    fingerprint, are the same on every machine.
    """
    unit = 2 * size
    place = np.clip((2 * np.arange(size) + 1) * SIDE - size, 0, (SIDE - 1) * unit)
    low, share = place // unit, place % unit
    weights = np.zeros((size, SIDE))
    weights[np.arange(size), low] += unit - share
    weights[np.arange(size), np.minimum(low + 1, SIDE - 1)] += share
    sums = (weights @ planes.astype(np.float64) @ weights.T).astype(np.int64)
    whole = LEVELS * unit * unit
    rounded: Bytes = ((sums * 510 + whole) // (2 * whole)).astype(np.uint8)
    return rounded


def _table() -> tuple[Integers, Integers]:
    """Planes [N, 8, 8] and labels [N], read beside scikit-learn, which takes 1.5 s to import."""
    spec = find_spec("sklearn")
    homes = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(homes[0] if homes else "sklearn") / "datasets" / "data" / "digits.csv.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode()
        numbers = np.array(text.replace("\n", ",").rstrip(",").split(","), np.float64)
        table = numbers.astype(np.int64).reshape(1797, SIDE * SIDE + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise MissingData(
            f"digits: {path} could not be read ({error}); install scikit-learn anew"
        ) from error
    return table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]
