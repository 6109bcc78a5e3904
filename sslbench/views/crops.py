"""Crops, resizes, flips and cuts holes in images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .batch import act_on, check, check_share, choose, integers, lend, to_float
from .phases import Drawn, Side, TwoPhase, mask
from .resample import Size, placed, resample, resampled, sides


def crop_boxes(
    count: int, side: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Draws boxes [count, 4] (top, left, height, width) as torchvision does, on the host.

    The area is uniform in `scale` and the logarithm of the aspect in `ratio`. Where ten tries do
    not fit, the box is the largest central one of an allowed aspect.
    """
    high, wide = side
    draws = torch.rand(count, 10, 2)
    area = draws[..., 0].mul(scale[1] - scale[0]).add_(scale[0]).mul_(high * wide)  # [B, 10]
    low, top = math.log(ratio[0]), math.log(ratio[1])
    aspect = draws[..., 1].mul(top - low).add_(low).exp_()
    box = torch.stack([(area / aspect).sqrt_(), (area * aspect).sqrt_()], 2).round_()
    fits = ((box >= 1) & (box <= torch.tensor([high, wide]))).all(2)  # [B, 10]
    first = fits.int().argmax(1)  # [B]
    box = box[torch.arange(count), first]  # [B, 2]
    corner = integers(torch.tensor([high, wide]) - box + 1)
    boxes = torch.cat([corner, box], 1)
    central = torch.tensor(_central_box(side, ratio))
    return torch.where(fits.any(1)[:, None], boxes, central)


def _central_box(side: tuple[int, int], ratio: tuple[float, float]) -> list[float]:
    high, wide = side
    if wide / high < ratio[0]:
        height, width = round(wide / ratio[0]), wide
    elif wide / high > ratio[1]:
        height, width = high, round(high * ratio[1])
    else:
        height, width = high, wide
    return [float((high - height) // 2), float((wide - width) // 2), float(height), float(width)]


@dataclass(frozen=True)
class RandomResizedCrop(TwoPhase):
    """Crops a box of random area and aspect, resizes it, and mirrors it with chance `flip`."""

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)  # share of the image's area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height
    flip: float = 0.0  # chance

    def __post_init__(self) -> None:
        sides(self.size)
        check_share(self.flip)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is a rising pair of shares in (0, 1], got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio is a rising pair of positive aspects, got {self.ratio}")

    def draw(self, count: int, side: Side) -> Drawn:
        boxes = crop_boxes(count, side, self.scale, self.ratio)
        return boxes, torch.rand(count) < self.flip

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        boxes, flip = drawn
        return resample(images, boxes, self.size, flip)

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        boxes, flip = drawn
        return placed(boxes, flip, side, sides(self.size))

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        centre, pixel = numbers
        return resampled(images, centre, pixel, sides(self.size))

    def side_after(self, side: Side) -> Side:
        return sides(self.size)


@dataclass(frozen=True)
class Resize:
    """Resizes the short side to `size`, or both sides to (height, width)."""

    size: Size

    def __post_init__(self) -> None:
        sides(self.size)

    def __call__(self, images: Tensor) -> Tensor:
        check(images)
        high, wide = images.shape[2:]
        size = self.size
        if isinstance(size, int):
            short = min(high, wide)
            size = (size * high // short, size * wide // short)
        if size == (high, wide):
            return to_float(images)
        boxes = torch.tensor([[0, 0, high, wide]]).expand(len(images), 4)
        return resample(images, boxes, size)


@dataclass(frozen=True)
class CenterCrop:
    """Crops the middle of the image; where the image is too small it is padded with black."""

    size: Size

    def __post_init__(self) -> None:
        sides(self.size)

    def __call__(self, images: Tensor) -> Tensor:
        check(images)
        height, width = sides(self.size)
        high, wide = images.shape[2:]
        if high < height or wide < width:
            down, right = max(height - high, 0), max(width - wide, 0)
            images = F.pad(images, (right // 2, (right + 1) // 2, down // 2, (down + 1) // 2))
            high, wide = images.shape[2:]
        top, left = round((high - height) / 2), round((wide - width) / 2)
        return to_float(images[:, :, top : top + height, left : left + width].contiguous())


@dataclass(frozen=True)
class PadCrop:
    """Pads the image, and takes a random crop of its original size."""

    padding: int  # pixels on every side
    mode: Literal["constant", "reflect"] = "constant"  # constant: black

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding is zero or more pixels, got {self.padding}")

    def __call__(self, images: Tensor) -> Tensor:
        check(images)
        places = torch.full((2, len(images)), 2 * self.padding + 1)
        return shift_crop(images, integers(places).long(), self.padding, self.mode)


def shift_crop(images: Tensor, corners: Tensor, padding: int, mode: str = "constant") -> Tensor:
    """Pads each image and crops it at `corners` [2, B] (top, left; 0 to 2 x padding)."""
    height, width = images.shape[2:]
    if mode == "constant":
        padded = F.pad(images, (padding,) * 4)
    else:
        padded = F.pad(to_float(images), (padding,) * 4, mode=mode)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, 3, places, places, H, W]
    top, left = lend(corners, images)
    each = torch.arange(len(images), device=images.device)
    crops: Tensor = windows[each, :, top, left]  # [B, 3, H, W]
    return to_float(crops)


@dataclass(frozen=True)
class HorizontalFlip(TwoPhase):
    """Mirrors images from left to right."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.p)

    def draw(self, count: int, side: Side) -> Drawn:
        return (choose(count, self.p),)

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        return act_on(to_float(images), drawn[0], lambda part, _: part.flip(-1))

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        return [mask(drawn[0], count).view(-1, 1, 1, 1)]

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        images = to_float(images)
        return torch.lerp(images, images.flip(-1), numbers[0])


@dataclass(frozen=True)
class Cutout:
    """Fills a square around a random pixel, clipped at the border (arXiv 1708.04552).

    With `least`, sides are drawn uniformly from it to `size`; odd ones lose a pixel, as in SCAN's
    code.
    """

    size: int  # pixels, side
    fill: float | tuple[float, float, float] = 0.0  # of all channels, or of each
    p: float = 1.0
    least: int | None = None  # pixels, side

    def __post_init__(self) -> None:
        sides(self.size)
        check_share(self.p)
        if self.least is not None and not 1 <= self.least <= self.size:
            raise ValueError(f"least is a side of 1 to size ({self.size}), got {self.least}")

    def __call__(self, images: Tensor) -> Tensor:
        images = to_float(images)
        high, wide = images.shape[2:]
        centre = integers(torch.tensor([[high], [wide]]).expand(2, len(images)))
        rows = choose(len(images), self.p)
        size = torch.full((len(images),), float(self.size))
        if self.least is not None:
            drawn = integers(torch.full((len(images),), self.size - self.least + 1))
            size = drawn.add_(self.least).div_(2).floor_().mul_(2)
        away = torch.full((2, len(images)), float("-inf"))
        away[:, rows] = centre[:, rows] - (size[rows] / 2).floor()
        return cut(images, away, size, self.fill)


def cut(
    images: Tensor,
    corners: Tensor,
    size: Tensor | float,
    fill: float | tuple[float, float, float] = 0.0,
) -> Tensor:
    """Fills a square of `size` pixels ([B] or one for all) at `corners` [2, B] (top, left).

    What lies beyond the border is left out.
    """
    top, left = lend(corners.float(), images)[:, :, None]  # [B, 1]
    size = lend(torch.as_tensor(size, dtype=torch.float32).reshape(-1, 1), images)
    row = torch.arange(images.shape[2], device=images.device)
    of_rows = (row >= top) & (row < top + size)  # [B, H]
    column = torch.arange(images.shape[3], device=images.device)
    of_columns = (column >= left) & (column < left + size)  # [B, W]
    hole: Tensor = (
        of_rows[:, None, :, None] & of_columns[:, None, None, :]
    ).float()  # [B, 1, H, W]
    colour = lend(torch.tensor(fill, dtype=torch.float32).reshape(-1, 1, 1), images)
    return images * (1 - hole) + hole * colour
