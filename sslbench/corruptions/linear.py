"""Linear filters as matrices, one for each direction.

Sums are in float64. Devices that sum in another order differ by 1e-13 of a grey level, and
`truncated` keeps that from changing flat regions.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Border = Literal["nearest", "reflect", "mirror"]  # as scipy.ndimage calls them
Weights = NDArray[np.float64]


def beyond(places: NDArray[np.int64], side: int, border: Border) -> NDArray[np.int64]:
    """Maps positions to pixels of the image, those outside by the rule of the border."""
    if border == "nearest":
        return places.clip(0, side - 1)
    period = 2 * side if border == "reflect" else max(2 * side - 2, 1)
    places = places % period
    mirrored = period - places - (border == "reflect")
    return np.asarray(np.where(places < side, places, mirrored))


def pad(images: Tensor, reach: int, border: Border) -> Tensor:
    """Adds `reach` pixels on every side of images [..., H, W] of any type."""
    for dim in (-2, -1):
        side = images.shape[dim]
        places = beyond(np.arange(-reach, side + reach), side, border)
        images = images.index_select(dim, torch.from_numpy(places).to(images.device))
    return images


def bell(sigma: float, reach: int) -> Weights:
    """Weights [2 reach + 1] of a Gaussian, with sum 1."""
    if sigma == 0:
        return np.asarray(np.eye(2 * reach + 1)[reach])
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


@lru_cache(maxsize=256)
def smoothing(sigma: float, side: int, border: Border = "nearest", truncate: float = 4) -> Tensor:
    """The matrix [side, side] of scipy.ndimage's Gaussian filter along one direction."""
    reach = int(truncate * sigma + 0.5)
    matrix = np.zeros((side, side))
    for shift, weight in zip(range(-reach, reach + 1), bell(sigma, reach), strict=True):
        matrix[np.arange(side), beyond(np.arange(side) + shift, side, border)] += weight
    return torch.from_numpy(matrix)


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Computes rows @ image @ columns.T for floats [..., H, W], on the images' device."""
    across = images @ columns.to(images.device).T
    return torch.matmul(rows.to(images.device), across)


def smooth(fields: Tensor, sigma: float, border: Border = "nearest", truncate: float = 4) -> Tensor:
    """Blurs [..., H, W] by a Gaussian, in float64."""
    height, width = fields.shape[-2:]
    rows = smoothing(sigma, height, border, truncate)
    return separable(fields.double(), rows, smoothing(sigma, width, border, truncate))


@lru_cache(maxsize=256)
def zooming(zoom: float, side: int) -> tuple[tuple[int, int], Tensor]:
    """The script's clipped zoom along one direction: two sizes that decide it, and its matrix.

    The middle ceil(side / zoom) pixels are stretched linearly to that number times the zoom,
    rounded, and the middle of these is kept.
    """
    crop = math.ceil(side / zoom)
    size = round(crop * zoom)
    first, kept = (side - crop) // 2, (size - side) // 2
    matrix = np.zeros((side, side))
    for row in range(side):
        place = min((row + kept) * ((crop - 1) / (size - 1)), crop - 1)
        left = min(int(place), crop - 2)
        matrix[row, first + left] = 1 - (place - left)
        matrix[row, first + left + 1] = place - left
    return (crop, size), torch.from_numpy(matrix)
