"""Orders in which tiles can be laid: permutations that differ from one another in many places."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arrays import shuffled

ALL = 9  # elements, of which there are few enough permutations to look at each
POOL = 2**17  # permutations that are looked at where there are more elements
FAR = 2**24  # more than the sum of the equal places with all chosen ones

Rule = Literal["maximin", "mean"]


@cache
def far_apart(length: int, count: int, rule: Rule = "maximin", seed: int = 0) -> Tensor:
    """Chooses permutations of 0 to length - 1, one by one: int64 [count, length].

    The first one is drawn. Each next one is the farthest from those before it, by the smallest
    Hamming distance (maximin; the mean decides between equals) or by the mean one. It is the same
    for ever for the same arguments. Of more than nine elements a large draw is searched.
    ValueError where there are not so many.
    """
    if count > math.factorial(length):
        raise ValueError(
            f"{count:,} permutations of {length} tiles were asked for, of which there are "
            f"{math.factorial(length):,}; set permutations to at most that"
        )
    if length > ALL and count > POOL // 2:
        raise ValueError(f"{count:,} permutations were asked for; set at most {POOL // 2:,}")
    columns = _candidates(length, seed).T.copy()  # [length, N]
    most = np.zeros(columns.shape[1], np.int32)  # equal places with the nearest chosen one
    total = np.zeros_like(most)  # with all of them
    chosen = [0]
    while len(chosen) < count:
        latest = columns[:, chosen[-1]]
        equal = np.zeros(columns.shape[1], np.uint8)
        for column, element in zip(columns, latest, strict=True):
            equal += column == element
        total += equal
        if rule == "maximin":
            np.maximum(most, equal, out=most)
        else:
            most[chosen[-1]] = 1  # not again
        chosen.append(int((most * FAR + total).argmin()))
    return torch.from_numpy(columns[:, chosen].T.astype(np.int64))


def _candidates(length: int, seed: int) -> NDArray[np.uint8]:
    """Permutations to choose from, in an order that the seed alone decides: [N, length]."""
    key = f"permutations of {length}, seed {seed}"
    if length > ALL:
        ranks = shuffled(POOL * length, key).reshape(POOL, length)
        return ranks.argsort(1).astype(np.uint8)
    count = math.factorial(length)
    each = itertools.chain.from_iterable(itertools.permutations(range(length)))
    return np.fromiter(each, np.uint8, count * length).reshape(count, length)[shuffled(count, key)]
