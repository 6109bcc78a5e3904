"""Spatter: drops of water, shaded by the distance to their edges, or drops of mud.

Water needs OpenCV's Canny, distance transform and histogram equalisation, done here for batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws
from .entry import Corruption, Level, Sides, truncated
from .linear import pad, smooth

WATER, MUD = (175.0, 238.0, 238.0), (63.0, 42.0, 20.0)
_STRAIGHT, _DIAGONAL, _LONG = 10000, 14000, 21969  # OpenCV's 1, 1.4 and 2.1969
_FAR = 2**28


def numbers(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    return (draws.normal(*sides),)


def spatter(images: Tensor, level: Level, normal: Tensor) -> Tensor:
    mean, deviation, sigma, least, strength, muddy = level
    layer = smooth(normal * deviation + mean, sigma)
    if muddy:
        share = smooth(layer > least, strength)
        share = share.masked_fill_(share < 0.8, 0)
        return truncated(images.double() * (1 - share[:, None]) + _tint(share, MUD))
    # as in the script, bytes above white wrap around; drops are rarely that bright
    liquid = (layer.masked_fill_(layer < least, 0) * 255).long().remainder_(256).to(torch.uint8)
    drops = liquid.double() * relief(liquid)
    most = drops.amax((1, 2), keepdim=True)
    # without a drop the script divides 0 by 0; there is nothing to add then
    share = drops.div_(most.masked_fill_(most == 0, 1)).mul_(strength)
    return truncated(images.double() + _tint(share, WATER))


def _tint(share: Tensor, colour: tuple[float, ...]) -> Tensor:
    """Colours shares [B, H, W]: [B, 3, H, W]."""
    return torch.stack([share * level for level in colour], 1)


def relief(liquid: Tensor) -> Tensor:
    """Shades drops [B, H, W] by embossing the distance to their edges: uint8."""
    far = distance(edges(liquid)).clamp_(max=20 * _STRAIGHT)
    even = equalised(_box(far).div_(9 * _STRAIGHT, rounding_mode="floor").to(torch.uint8))
    padded = pad(even.int(), 1, "mirror")
    height, width = even.shape[1:]
    emboss = torch.zeros_like(even, dtype=torch.int32)
    for i, row in enumerate(((-2, -1, 0), (-1, 1, 1), (0, 1, 2))):
        for j, weight in enumerate(row):
            if weight:
                emboss += padded[:, i : i + height, j : j + width] * weight
    blurred = _box(emboss.clamp_(0, 255))
    return (2 * blurred + 9).div_(18, rounding_mode="floor").to(torch.uint8)


def _box(values: Tensor) -> Tensor:
    """Sums over 3 x 3 pixels, with a mirrored border."""
    padded = pad(values, 1, "mirror")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


# ---- Canny ---------------------------------------------------------------------------------


def edges(images: Tensor, low: int = 50, high: int = 150) -> Tensor:
    """Canny's edges of bytes [B, H, W], with 3 x 3 Sobel and the sum of both slopes; bool."""
    padded = pad(images.int(), 1, "nearest")
    tall = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    wide = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    right, down = tall[..., 2:] - tall[..., :-2], wide[:, 2:] - wide[:, :-2]
    slope = right.abs() + down.abs()
    crest = _crests(slope, right, down) & (slope > low)
    found = crest & (slope > high)
    while True:  # candidates that touch an edge become edges
        grown = _spread(found) & crest
        if torch.equal(grown, found):
            return found
        found = grown


def _crests(slope: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Marks pixels steeper than both neighbours in the direction of their slope, to 45 degrees."""
    height, width = slope.shape[1:]
    around = torch.nn.functional.pad(slope, (1, 1, 1, 1))

    def at(i: int, j: int) -> Tensor:
        return around[:, 1 + i : 1 + i + height, 1 + j : 1 + j + width]

    across, along = right.abs(), down.abs() << 15
    flat = across * 13573  # tan(22.5 degrees) x 2^15
    sideways = (slope > at(0, -1)) & (slope >= at(0, 1))
    upright = (slope > at(-1, 0)) & (slope >= at(1, 0))
    falling = (slope > at(-1, -1)) & (slope > at(1, 1))
    rising = (slope > at(-1, 1)) & (slope > at(1, -1))
    slanted = torch.where((right ^ down) < 0, rising, falling)
    steep = torch.where(along > flat + (across << 16), upright, slanted)
    return torch.where(along < flat, sideways, steep)


def _spread(mask: Tensor) -> Tensor:
    """Grows a mask by one pixel in all eight directions."""
    padded = torch.nn.functional.pad(mask, (1, 1, 1, 1))
    rows = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
    return rows[..., :-2] | rows[..., 1:-1] | rows[..., 2:]


# ---- distances and histogram ---------------------------------------------------------------


def distance(found: Tensor) -> Tensor:
    """Distance of every pixel to the nearest of `found` [B, H, W], by OpenCV's 5 x 5 mask, x 10^4.

    It goes down all rows and up again. Each row takes the shortest way from the two rows before it,
    then along itself.
    """
    far = torch.full_like(found, _FAR, dtype=torch.int32).masked_fill_(found, 0)
    rows = list(far.unbind(1))  # of [B, W]
    for order in (range(len(rows)), range(len(rows) - 1, -1, -1)):
        before = earlier = torch.full_like(rows[0], _FAR)
        forward = order.step > 0
        for place in order:
            best = torch.minimum(rows[place], _entered(before, earlier))
            best = _swept(best) if forward else _swept(best.flip(1)).flip(1)
            before, earlier, rows[place] = best, before, best
    return torch.stack(rows, 1)


def _entered(before: Tensor, earlier: Tensor) -> Tensor:
    """The shortest way into a row from the last one and the one before that."""
    width = before.shape[1]
    near = torch.nn.functional.pad(before, (2, 2), value=_FAR)
    next_but_one = torch.nn.functional.pad(earlier, (1, 1), value=_FAR)

    def at(row: Tensor, shift: int) -> Tensor:
        return row[:, shift : shift + width]

    diagonal = torch.minimum(at(near, 1), at(near, 3)) + _DIAGONAL
    long = torch.minimum(at(near, 0), at(near, 4))
    long = torch.minimum(long, torch.minimum(at(next_but_one, 0), at(next_but_one, 2))) + _LONG
    return torch.minimum(torch.minimum(before + _STRAIGHT, diagonal), long)


def _swept(row: Tensor) -> Tensor:
    """Shortens distances within a row by moves to the right."""
    way = torch.arange(row.shape[1], device=row.device, dtype=torch.int32) * _STRAIGHT
    return (row - way).cummin(1).values + way


def equalised(images: Tensor) -> Tensor:
    """OpenCV's equalizeHist of bytes [B, H, W]."""
    flat = images.flatten(1).long()
    size = flat.shape[1]
    own = flat + 256 * torch.arange(len(flat), device=flat.device)[:, None]
    histogram = own.flatten().bincount(minlength=256 * len(flat)).view(-1, 256)
    least = flat.amin(1, keepdim=True)
    rest = size - histogram.gather(1, least)  # pixels above the least level
    above = histogram.cumsum(1) - (size - rest)
    scale = torch.div(255.0, rest.clamp(min=1).float())
    table = (above.float() * scale).round_().clamp_(0, 255).long()
    even = table.gather(1, flat)
    return torch.where(rest == 0, flat, even).to(torch.uint8).view_as(images)


SPATTER = Corruption(  # mean, deviation, sigma, threshold, strength, mud
    (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    spatter,
    numbers,
)
