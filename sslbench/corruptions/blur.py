"""Blurs: defocus, frosted glass, motion, zoom and Gaussian."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .draws import Draws
from .entry import Corruption, Level, Sides, truncated
from .linear import bell, pad, separable, smooth, zooming


def gaussian(images: Tensor, level: Level) -> Tensor:
    return truncated(smooth(images, level[0]))


# ---- defocus -------------------------------------------------------------------------------


def defocus(images: Tensor, level: Level) -> Tensor:
    """Blurs with a disk of softened edge. Pixels at the same distance are summed before weighting."""
    reach, rings = _disk(*level)
    height, width = images.shape[2:]
    padded = pad(images.short(), reach, "mirror")
    out = torch.zeros(images.shape, dtype=torch.float64, device=images.device)
    for weight, shifts in rings:
        ring = torch.zeros_like(images, dtype=torch.int16)  # large enough for a sum of 25 bytes
        for down, right in shifts:
            ring += padded[:, :, down : down + height, right : right + width]
        out += ring.double().mul_(weight)
    return truncated(out)


@lru_cache(maxsize=8)
def _disk(
    radius: float, softness: float
) -> tuple[int, tuple[tuple[float, tuple[tuple[int, int], ...]], ...]]:
    """The disk's reach in pixels, and (weight, positions) for every distance from the middle.

    Weights are float32 as OpenCV's, where a fifth or a ninth is slightly too large.
    """
    reach = int(radius) + 1
    away = np.arange(-reach, reach + 1)
    far = away[:, None] ** 2 + away**2  # squared
    hard = (far <= radius**2).astype(np.float32)
    taps, padded = bell(softness, 1).astype(np.float32), np.pad(hard / hard.sum(), 1)
    side = len(away)
    rows = sum(taps[i] * padded[:, i : i + side] for i in range(3))
    weights = np.asarray(sum(taps[i] * rows[i : i + side] for i in range(3)), dtype=np.float64)
    weights[reach, reach] += max(1 - weights.sum(), 0)  # so that white stays white
    rings = []
    for distance in np.unique(far):
        places = tuple((int(i), int(j)) for i, j in np.argwhere(far == distance))
        if (weight := float(weights[places[0]])) > 0:
            rings.append((weight, places))
    return reach, tuple(rings)


# ---- glass ---------------------------------------------------------------------------------


def glass_numbers(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    return (draws.bits(int(level[1]), *sides),)


def glass(images: Tensor, level: Level, bits: Tensor) -> Tensor:
    """Copies to every pixel itself or a neighbour above or to the left of it, between two blurs.

    The script means to swap pixels, but swaps views of one array, which copies. It goes from the last
    pixel to the third, so that each round reads only pixels from before the round.
    """
    images = truncated(smooth(images, level[0]))
    for turn in bits.unbind(1):  # [B, H, W], a bit for each direction
        moved = images.clone()
        here = turn[:, None, 2:, 2:]
        up, left = (here & 1).bool(), (here & 2).bool()
        inner = slice(2, None), slice(1, -1)  # the pixel's own position, the one before
        own, beside, above, corner = (
            images[:, :, rows, columns] for rows in inner for columns in inner
        )
        moved[:, :, 2:, 2:] = torch.where(
            up, torch.where(left, corner, above), torch.where(left, beside, own)
        )
        images = moved
    return truncated(smooth(images, level[0]))


# ---- motion --------------------------------------------------------------------------------


def angles(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    return (draws.uniform(1).squeeze(1).mul_(90).sub_(45),)


def motion(images: Tensor, level: Level, degrees: Tensor) -> Tensor:
    return streak(images, int(level[0]), level[1], degrees)


def streak(images: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """ImageMagick's motion blur: half a Gaussian along a line, at each image's own angle."""
    count, channels, height, width = images.shape
    reach = 2 * radius + 1
    half = bell(sigma, reach - 1)[reach - 1 :]
    weights = half / half.sum()
    along = torch.arange(reach, device=images.device)[:, None]
    radians = degrees.deg2rad()
    right = (along * radians.cos() - 0.5).ceil().long()[..., None]  # [taps, B, 1]
    down = (along * radians.sin() - 0.5).ceil().long()[..., None]
    columns = (right + torch.arange(width, device=images.device)).clamp_(0, width - 1)
    rows = (down + torch.arange(height, device=images.device)).clamp_(0, height - 1)
    flat = images.double().flatten(2)
    out = torch.zeros_like(flat)
    for tap, weight in enumerate(weights.tolist()):
        place = rows[tap, :, :, None] * width + columns[tap, :, None]  # [B, H, W]
        place = place.view(count, 1, -1).expand(-1, channels, -1)
        out += flat.gather(2, place) * weight
    return truncated(out).view_as(images)


# ---- zoom ----------------------------------------------------------------------------------


def zoom(images: Tensor, level: Level) -> Tensor:
    """The mean of the image and of its zooms by 1 to the level, in steps of 0.01."""
    views, count = _zooms(level[0], images.shape[2], images.shape[3])
    plain = images.double()
    out = plain.clone()
    for rows, columns in views:
        out += separable(plain, rows, columns)
    return truncated(out.div_(count + 1))


@lru_cache(maxsize=64)
def _zooms(end: float, height: int, width: int) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """The different zooms, with rows multiplied by how often they occur, and the number of all.

    About half of the zooms equal the one before. The script's range should exclude its end, but
    rounding of the steps of 0.01 can include it.
    """
    zooms = np.arange(1, end, 0.01).tolist()
    views: dict[tuple[tuple[int, int], ...], tuple[Tensor, Tensor]] = {}
    for factor in zooms:
        (high, rows), (wide, columns) = zooming(factor, height), zooming(factor, width)
        if (high, wide) in views:
            rows = rows + views[high, wide][0]
        views[high, wide] = rows, columns
    return list(views.values()), len(zooms)


DEFOCUS = Corruption(((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)), defocus)
# sigma, rounds; in a round a pixel moves by one position at most, at every severity
GLASS = Corruption(((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)), glass, glass_numbers)
MOTION = Corruption(((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), motion, angles)
ZOOM = Corruption(((1.06,), (1.11,), (1.16,), (1.21,), (1.26,)), zoom)
GAUSSIAN = Corruption(((0.4,), (0.6,), (0.7,), (0.8,), (1,)), gaussian)
