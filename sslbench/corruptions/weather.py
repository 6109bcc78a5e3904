"""Snow and fog."""

from __future__ import annotations

import torch
from torch import Tensor

from .blur import streak
from .draws import Draws
from .entry import Corruption, Level, Sides, to_bytes, truncated, unit
from .linear import separable, zooming


def snow_numbers(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    return draws.normal(*sides), draws.uniform(1).squeeze(1).mul_(90).sub_(135)


def snow(images: Tensor, level: Level, normal: Tensor, degrees: Tensor) -> Tensor:
    """Adds flakes, which are the brightest parts of streaked noise, and whitens the image."""
    mean, deviation, zoom, least, radius, sigma, kept = level
    height, width = images.shape[2:]
    rows, columns = zooming(zoom, height)[1], zooming(zoom, width)[1]
    layer = separable(normal * deviation + mean, rows, columns)
    flakes = to_bytes(layer.masked_fill_(layer < least, 0))[:, None]
    fallen = streak(flakes, int(radius), sigma, degrees).double()
    plain = images.double()
    red, green, blue = torch.split(plain, 1, 1)
    white = (red * 0.299 + green * 0.587 + blue * 0.114) * 1.5 + 127.5
    picture = plain * kept + torch.maximum(plain, white) * (1 - kept)
    return truncated(picture + fallen + fallen.flip(2, 3))


def fog_numbers(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    side = torus(sides)
    return (draws.uniform(side * side),)


def fog(images: Tensor, level: Level, uniform: Tensor) -> Tensor:
    """Adds a cloud, and scales the result by the brightest pixel."""
    thickness, decay = level
    height, width = images.shape[2:]
    cloud = plasma(uniform, torus((height, width)), decay)[:, None, :height, :width]
    plain = unit(images)
    brightest = plain.amax((1, 2, 3), keepdim=True)
    return to_bytes((plain + cloud * thickness).mul_(brightest).div_(brightest + thickness))


def torus(sides: Sides) -> int:
    """The side of the cloud: the smallest power of two that covers the image."""
    return 1 << (max(sides) - 1).bit_length()


def plasma(uniform: Tensor, side: int, decay: float) -> Tensor:
    """Makes clouds in [0, 1] by the diamond-square algorithm on a torus.

    Numbers [B, side x side] become [B, side, side]. A point is the mean of its four neighbours plus
    a random number that shrinks from step to step.
    """
    heights = torch.zeros(len(uniform), side, side, dtype=torch.float64, device=uniform.device)
    step, swing, read = side, 100.0, 0

    def mean(neighbours: Tensor) -> Tensor:
        nonlocal read
        size = neighbours[0].numel()
        own = uniform[:, read : read + size].view_as(neighbours)
        read += size
        return neighbours / 4 + (own * (2 * swing) - swing) * swing

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        heights[:, half::step, half::step] = mean(pairs + pairs.roll(-1, 2))
        middles = heights[:, half::step, half::step]
        heights[:, ::step, half::step] = mean(
            middles + middles.roll(1, 1) + corners + corners.roll(-1, 2)
        )
        heights[:, half::step, ::step] = mean(
            middles + middles.roll(1, 2) + corners + corners.roll(-1, 1)
        )
        step, swing = half, swing / decay
    heights -= heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)


SNOW = Corruption(  # mean, deviation, zoom, threshold; radius, sigma of the streak; share kept
    (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    snow,
    snow_numbers,
)
FOG = Corruption(((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)), fog, fog_numbers)
