"""Draws which patches of an image a method hides, on the host, so that counts are known there.

Patches are numbered row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..api import View
from .batch import check_share, integers
from .phases import lent

Grid = tuple[int, int]  # rows and columns of patches; T is their product
Mask = Callable[[int], tuple[Tensor, ...]]  # B -> for each image what is hidden, on the host


@dataclass(frozen=True)
class Masked:
    """Makes the images of a view, and what a mask draws for each: (images, *masks)."""

    view: View
    mask: Mask

    def __call__(self, images: Tensor) -> tuple[Any, ...]:
        shown = self.view(images)
        masks = self.mask(len(images))
        if images.device.type == "cpu":
            return shown, *masks
        packed = lent([[each.float() for each in masks]], images.device)
        parts = torch.split(packed, [each.numel() for each in masks])
        pairs = zip(parts, masks, strict=True)
        return shown, *(part.view(each.shape).to(each.dtype) for part, each in pairs)


@dataclass(frozen=True)
class RandomOrder:
    """Draws the patches of each image in an order of its own: int64 [B, T].

    A method shows the first of them, as many of each image, and hides the others.
    """

    patches: int  # T

    def __call__(self, count: int) -> tuple[Tensor]:
        return (torch.rand(count, self.patches).argsort(1),)


@dataclass(frozen=True)
class ContextAndTargets:
    """Draws I-JEPA's blocks (arXiv 2301.08243): context int64 [B, C], targets int64 [B, M, K].

    Of each image M target blocks, and a context block without what is in them. All blocks of a kind
    have one size in a batch; contexts are cut to the smallest of the batch, at the end. Where fewer
    than `least` patches are left of a context, all blocks of the image are drawn again, and the
    largest context of `tries` is taken.
    """

    grid: Grid
    targets: int = 4  # M
    scale: tuple[float, float] = (0.15, 0.2)  # of a target, share of the patches
    aspect: tuple[float, float] = (0.75, 1.5)  # of a target, height over width
    context: tuple[float, float] = (0.85, 1.0)  # of the context's square, share of the patches
    least: int = 11  # patches
    tries: int = 20

    def __post_init__(self) -> None:
        for low, high in (self.scale, self.context):
            check_share(low)
            check_share(high)

    def __call__(self, count: int) -> tuple[Tensor, Tensor]:
        target, context = self._size(self.scale, self.aspect), self._size(self.context, (1, 1))
        spots, seen = self._draw(count, target, context)
        for _ in range(self.tries - 1):
            poor = (seen.sum(1) < self.least).nonzero().squeeze(1)
            if len(poor) == 0:
                break
            new_spots, new_seen = self._draw(len(poor), target, context)
            better = new_seen.sum(1) > seen[poor].sum(1)
            spots[poor[better]], seen[poor[better]] = new_spots[better], new_seen[better]
        fewest = int(seen.sum(1).min())
        if fewest == 0:
            raise ValueError(
                f"{self.targets} target blocks of {target[0]} x {target[1]} patches leave nothing "
                f"of the context in a grid of {self.grid[0]} x {self.grid[1]}; "
                f"smaller patches, or fewer or smaller targets, do"
            )
        places = seen.byte().argsort(dim=1, descending=True, stable=True)[:, :fewest]
        rows, columns = torch.arange(target[0]), torch.arange(target[1])
        inside = rows[:, None] * self.grid[1] + columns  # [h, w]
        first = spots[..., 0] * self.grid[1] + spots[..., 1]  # [B, M]
        return places, first[..., None] + inside.flatten()

    def _size(self, scale: tuple[float, float], aspect: tuple[float, float]) -> Grid:
        """One size of blocks: a single draw goes into both its share and its aspect."""
        share = float(torch.rand(()))
        area = int(math.prod(self.grid) * (scale[0] + share * (scale[1] - scale[0])))
        ratio = aspect[0] + share * (aspect[1] - aspect[0])
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        return min(max(height, 1), self.grid[0]), min(max(width, 1), self.grid[1])

    def _draw(self, count: int, target: Grid, context: Grid) -> tuple[Tensor, Tensor]:
        """Corners [B, M, 2] of the targets, and the context beside them, bool [B, T]."""
        sizes = torch.tensor([target] * self.targets + [context])  # [M + 1, 2]
        spots = integers((torch.tensor(self.grid) - sizes + 1).expand(count, -1, -1)).long()
        blocks = boxes(self.grid, spots, sizes)  # [B, M + 1, T]
        return spots[:, :-1].contiguous(), blocks[:, -1] & ~blocks[:, :-1].any(1)


@dataclass(frozen=True)
class Blockwise:
    """Draws masks of several blocks for several views (BEiT, arXiv 2106.08254): bool [B, V, T].

    With chance `p` a uniform share of the patches is hidden, at most, and else none. Blocks of
    random area and aspect are added while they fit into what is left of that share; ten in a row
    that do not fit, or add nothing, are the end.
    """

    grid: Grid
    views: int = 1  # V
    share: tuple[float, float] = (0.1, 0.5)
    p: float = 0.5
    aspect: tuple[float, float] = (0.3, 1 / 0.3)  # height over width

    def __post_init__(self) -> None:
        for share in (*self.share, self.p):
            check_share(share)

    def __call__(self, count: int) -> tuple[Tensor]:
        chance, share = torch.rand(2, count * self.views)
        most = share.mul_(self.share[1] - self.share[0]).add_(self.share[0])
        most = most.mul_(math.prod(self.grid)) * (chance < self.p)  # [B * V], patches
        hidden = self._filled(most)
        return (hidden.view(count, self.views, -1),)

    def _filled(self, most: Tensor) -> Tensor:
        """Masks bool [n, T] of at most so many patches."""
        hidden = torch.zeros(len(most), math.prod(self.grid), dtype=torch.bool)
        vain = torch.zeros(len(most))  # blocks in a row that were not added
        least = (min(self.grid) // 3) ** 2
        grid, logs = torch.tensor(self.grid), [math.log(a) for a in self.aspect]
        while True:
            room = most - hidden.sum(1)
            open_ = ((room > 0) & (vain < 10)).nonzero().squeeze(1)
            if len(open_) == 0:
                return hidden
            room = room[open_]
            area, aspect, *spot = torch.rand(4, len(open_))
            area = torch.lerp(torch.full_like(room, least), room, area)
            aspect = aspect.mul_(logs[1] - logs[0]).add_(logs[0]).exp_()
            size = torch.stack([area * aspect, area / aspect], 1).sqrt_().round_()  # [n, 2]
            corner = torch.stack(spot, 1).mul_(grid - size + 1).floor_()
            block = boxes(self.grid, corner, size)  # [n, T]
            added = (block & ~hidden[open_]).sum(1)
            fits = (size < grid).all(1) & (added > 0) & (added <= room)
            hidden[open_] |= block & fits[:, None]
            vain[open_] = torch.where(fits, 0, vain[open_] + 1)


def boxes(grid: Grid, corners: Tensor, sizes: Tensor) -> Tensor:
    """Which patches lie in a box: bool [..., T] of corners and sizes [..., 2] (rows, columns)."""
    within = []
    for axis, side in enumerate(grid):
        place = torch.arange(side)
        first, length = corners[..., axis, None], sizes[..., axis, None]
        within.append((place >= first) & (place < first + length))
    rows, columns = within
    return (rows[..., :, None] & columns[..., None, :]).flatten(-2)
