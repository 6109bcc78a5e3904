"""Cuts images into tiles of a grid, with gaps and jitter, and hides what tells tiles of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .batch import check_share, integers, lend, to_float
from .phases import Drawn, Side, TwoPhase

LEAST = 4  # pixels, side of the smallest tile
GREY_LEVEL = 1 / 255


def tile_side(size: int, grid: int, share: float) -> int:
    """The side of tiles of an image: so large a share of a cell's side, in whole pixels.

    Cells are the largest that fit grid x grid times into `size` pixels.
    ValueError where there is nothing to arrange, or tiles are smaller than 4 pixels.
    """
    if grid < 2:
        raise ValueError(f"a grid of {grid} x {grid} has one tile, which is next to no other")
    cell = size // grid
    side = round(cell * share)
    if side < LEAST:
        fits = max((g for g in range(2, grid) if round(size // g * share) >= LEAST), default=0)
        advice = f"set a grid of at most {fits}" if fits else "take larger images or larger tiles"
        raise ValueError(
            f"images of {size} pixels in {grid} x {grid} cells of {cell} leave tiles of {side} at "
            f"{share:.3g} of a cell, and {LEAST} pixels is the least; {advice}"
        )
    return side


@dataclass(frozen=True)
class Tiles(TwoPhase):
    """[B, 3, H, W] -> [B, grid * grid, 3, side, side], row by row: one tile from each cell of a grid.

    The grid lies at a random place where it does not fill the image. In its cell a tile is placed
    at random, over so large a share of the free pixels, around the middle; at 0 in the middle.
    """

    grid: int
    side: int  # pixels, of a tile
    jitter: float = 1.0  # share

    def __post_init__(self) -> None:
        if self.grid < 1 or self.side < 1:
            raise ValueError(
                f"a grid has one tile or more of one pixel or more, got {self.grid} x {self.grid} "
                f"of {self.side}"
            )
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is a share of the free pixels, 0 to 1, got {self.jitter}")

    def draw(self, count: int, side: Side) -> Drawn:
        """The corners of all tiles, (top, left): [count, grid * grid, 2]."""
        cell = min(side) // self.grid
        if cell < self.side:
            raise ValueError(
                f"tiles of {self.side} pixels were to be cut from {self.grid} x {self.grid} cells "
                f"of {cell}, which are smaller"
            )
        free = cell - self.side
        places = 1 + round(self.jitter * free)
        left_over = torch.tensor([length - self.grid * cell + 1 for length in side])
        start = integers(left_over.expand(count, 1, 2))
        inside = integers(torch.full((count, self.grid**2, 2), places))
        steps = torch.arange(self.grid) * cell + (free + 1 - places) // 2
        cells = torch.cartesian_prod(steps, steps)  # [T, 2]
        return (start + inside + cells,)

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        return windows(images, drawn[0], self.side)

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        return [drawn[0]]

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        return windows(images, numbers[0], self.side)

    def side_after(self, side: Side) -> Side:
        return self.side, self.side


def windows(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cuts squares of `side` pixels at `corners` [B, T, 2] (top, left): float [B, T, 3, side, side]."""
    top, left = lend(corners, images).long().unbind(2)  # [B, T]
    places = to_float(images).unfold(2, side, 1).unfold(3, side, 1)  # [B, 3, H', W', side, side]
    each = torch.arange(len(images), device=images.device)[:, None]
    cut: Tensor = places[each, :, top, left]
    return cut


@dataclass(frozen=True)
class DropChannels(TwoPhase):
    """Keeps one random channel of each tile; the others become grey with half a level of noise.

    It hides chromatic aberration (arXiv 1505.05192). [B, tiles, 3, H, W]; the noise is one tile's,
    anew in each batch.
    """

    tiles: int

    def draw(self, count: int, side: Side) -> Drawn:
        kept = integers(torch.full((count, self.tiles), 3))
        return kept, torch.rand(3, *side).sub_(0.5).mul_(GREY_LEVEL).add_(0.5)

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        side = (images.shape[-2], images.shape[-1])
        return self.on_device(images, self.numbers(drawn, len(images), side))

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        kept, noise = drawn
        return [(kept[..., None] == torch.arange(3)).float()[..., None, None], noise]

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        kept, noise = numbers
        return torch.lerp(noise, images, kept)


@dataclass(frozen=True)
class ShiftChannels(TwoPhase):
    """Adds to each channel of each tile as many grey levels, drawn from `low` to `high`.

    [B, tiles, 3, H, W].
    """

    tiles: int
    low: int = -2
    high: int = 1

    def draw(self, count: int, side: Side) -> Drawn:
        drawn = integers(torch.full((count, self.tiles, 3, 1, 1), self.high - self.low + 1))
        return (drawn.add_(self.low).mul_(GREY_LEVEL),)

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        return (images + drawn[0]).clamp_(0, 1)

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        return [drawn[0]]

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        return (images + numbers[0]).clamp(0, 1)


@dataclass(frozen=True)
class Coarsen(TwoPhase):
    """Shrinks some tiles to fewer pixels and enlarges them again, which hides how sharp they are.

    [B, tiles, 3, H, W], square. The number of pixels is uniform from that of a tile of `least` of
    the side, 2 pixels at least, up to all but a row's (arXiv 1505.05192).
    """

    tiles: int
    p: float = 1 / 3
    least: float = 10 / 96  # share of the side

    def __post_init__(self) -> None:
        check_share(self.p)

    def draw(self, count: int, side: Side) -> Drawn:
        full, low = side[0], min(max(2, round(side[0] * self.least)), side[0])
        drawn = torch.rand(2, count, self.tiles)
        area = drawn[0] * max((full - 1) ** 2 - low**2, 0) + low**2
        return (torch.where(drawn[1] < self.p, area.sqrt().floor(), float(full)),)

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        flat, fewer = images.flatten(0, 1), drawn[0].flatten()
        rows = (fewer < images.shape[-1]).nonzero()[:, 0]
        if len(rows) == 0:
            return images
        some = coarsened(flat.index_select(0, rows), fewer[rows])
        return flat.index_copy(0, rows, some).view(images.shape)

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        return [drawn[0]]

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        return coarsened(images.flatten(0, 1), numbers[0].flatten()).view(images.shape)


def coarsened(images: Tensor, fewer: Tensor) -> Tensor:
    """Resamples square images [N, C, S, S] to `fewer` [N] pixels a side and back to S, bilinearly.

    Without antialiasing; at S pixels they stay as they are.
    """
    side = images.shape[-1]
    place = torch.arange(side, device=images.device) + 0.5
    fewer = fewer.view(-1, 1)
    down = _between(place * (side / fewer) - 0.5, torch.full_like(fewer, side), side)
    up = _between(place * (fewer / side) - 0.5, fewer, side)
    both = torch.bmm(up, down)[:, None]  # [N, 1, S, S]
    return torch.matmul(torch.matmul(both, images), both.mT)


def _between(where: Tensor, sides: Tensor, width: int) -> Tensor:
    """Weights [N, S, width] of the pixels between which `where` [N, S] lies, of so many [N, 1]."""
    inside = where.clamp(min=0).minimum(sides - 1)[..., None]
    return (1 - (inside - torch.arange(width, device=where.device)).abs()).clamp_(min=0)
