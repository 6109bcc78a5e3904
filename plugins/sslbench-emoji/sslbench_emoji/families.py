"""Which emoji are one thing in several forms, so that no form of one in test is in train."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BLOCKS = 8  # a picture is compared by its means over so many blocks a side
ALIKE = (
    9.0  # mean squared difference of such means, of 255 levels squared, up to which two are twins
)
TEST = 5  # one in so many emoji of a category is in test

# Code points after the first that tell forms of one emoji apart: joiners, skin, gender, direction.
FORMS = {"FE0F", "200D", "1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF", "2640", "2642", "27A1"}
# men and women -> adults, boys and girls -> children
GENDERLESS = {"1F468": "1F9D1", "1F469": "1F9D1", "1F466": "1F9D2", "1F467": "1F9D2"}


class Pictures(NamedTuple):
    """The emoji that there are in one style."""

    rows: NDArray[np.int64]  # [M], positions among all emoji
    pixels: NDArray[np.uint8]  # [M, H, W, 3]


def family(unified: str) -> str:
    """The code points of an emoji without what makes it one of several forms."""
    first, *rest = unified.split("-")
    kept = [first, *(code for code in rest if code not in FORMS)]
    return "-".join(GENDERLESS.get(code, code) for code in kept)


def families(unified: Sequence[str], styles: Sequence[Pictures]) -> NDArray[np.int64]:
    """A number for each emoji, the same for all forms of one: [N].

    They are forms of one by their code points, or since in some style their pictures are twins.
    """
    first: dict[str, int] = {}
    for row, code in enumerate(unified):
        first.setdefault(family(code), row)
    pairs = [(np.arange(len(unified)), np.array([first[family(code)] for code in unified]))]
    for rows, pixels in styles:
        left, right = np.nonzero(distances(pixels) <= ALIKE)
        pairs.append((rows[left], rows[right]))
    left, right = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    joined = coo_array((np.ones(len(left)), (left, right)), shape=(len(unified),) * 2)
    return connected_components(joined, directed=False)[1].astype(np.int64)


def distances(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean squared differences of all pairs, mirrored where that is nearer: [M, M].

    All sums are of whole numbers below 2^53, so that they are the same on every machine.
    """
    count, side = len(pixels), pixels.shape[1]
    block = side // BLOCKS
    shape = (count, BLOCKS, block, BLOCKS, block, 3)
    sums = pixels.astype(np.int64).reshape(shape).sum((2, 4)).astype(np.float64)
    plain, mirrored = sums.reshape(count, -1), sums[:, :, ::-1].reshape(count, -1)
    squares = (plain**2).sum(1)
    nearest = np.maximum(plain @ plain.T, plain @ mirrored.T)
    return (squares[:, None] + squares - 2 * nearest) / (plain.shape[1] * block**4)


def in_test(
    unified: Sequence[str], categories: Sequence[str], families: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which emoji are in test: whole families, a fifth of each category, by a hash of their codes."""
    groups: dict[int, list[int]] = {}
    for row, number in enumerate(families.tolist()):
        groups.setdefault(number, []).append(row)

    def drawn(group: list[int]) -> str:
        key = min(unified[row] for row in group)
        return hashlib.sha256(f"emoji test {key}".encode()).hexdigest()

    test = np.zeros(len(unified), bool)
    for category in sorted(set(categories)):
        room = round(categories.count(category) / TEST)
        for group in sorted(groups.values(), key=drawn):
            if categories[group[0]] == category and len(group) <= room:
                test[group] = True
                room -= len(group)
    return test
