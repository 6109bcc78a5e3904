"""Noise, drawn for every channel of every pixel by itself."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .draws import Draws
from .entry import Corruption, Level, Sides, to_bytes, unit


def normals(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    return (draws.normal(3, *sides),)


def numbers(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    return (draws.bits(3, *sides),)


def gaussian(images: Tensor, level: Level, normal: Tensor) -> Tensor:
    """Adds Gaussian noise of a fixed standard deviation."""
    return to_bytes(unit(images).add_(normal * level[0]))


def speckle(images: Tensor, level: Level, normal: Tensor) -> Tensor:
    """Adds Gaussian noise whose standard deviation is a share of the grey level."""
    plain = unit(images)
    return to_bytes(plain + plain * (normal * level[0]))


def impulse(images: Tensor, level: Level, bits: Tensor) -> Tensor:
    """Salt and pepper: turns a share of the values white or black, half each."""
    hit = round(level[0] * 2**32)
    return images.masked_fill(bits < hit, 0).masked_fill_(bits < hit // 2, 255)


def shot(images: Tensor, level: Level, bits: Tensor) -> Tensor:
    """Shot noise: replaces grey levels by Poisson counts of a proportional mean.

    The count is found by binary search in the level's cumulative distribution, which takes a sixth of
    the time of `torch.searchsorted`.
    """
    photons = int(level[0])
    bounds, grey = (table.to(images.device) for table in _poisson(photons))
    width = bounds.shape[1]
    place = images.long().mul_(width)  # of the level's first entry
    start = place.clone()
    flat, step = bounds.flatten(), width // 2
    while step:
        reached = flat.take(place + (step - 1)) <= bits
        place += reached * step
        step //= 2
    return grey.take(place - start)


@lru_cache(maxsize=8)
def _poisson(photons: int) -> tuple[Tensor, Tensor]:
    """P(count <= k) x 2^32 for each of the 256 levels, and the byte of every count.

    Counts from `photons` on are white, so that rows end there, padded to a power of two.
    """
    width = 2 ** math.ceil(math.log2(photons + 1))
    mean = np.arange(256) / 255 * photons
    chance = np.exp(-mean)
    bounds = np.full((256, width), 2**32, dtype=np.int64)
    reached = np.zeros(256)
    for count in range(photons):
        reached += chance
        bounds[:, count] = np.minimum(np.rint(reached * 2**32), 2**32)
        chance = chance * mean / (count + 1)
    grey = np.minimum(np.arange(width) / photons, 1) * 255
    return torch.from_numpy(bounds), torch.from_numpy(grey.astype(np.uint8))


GAUSSIAN = Corruption(((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)), gaussian, normals)
SHOT = Corruption(((500,), (250,), (100,), (75,), (50,)), shot, numbers)
IMPULSE = Corruption(((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)), impulse, numbers)
SPECKLE = Corruption(((0.06,), (0.1,), (0.12,), (0.16,), (0.2,)), speckle, normals)
