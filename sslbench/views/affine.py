"""Affine maps: shear, translation, rotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .batch import lend, to_float, uniform

Interpolation = Literal["nearest", "bilinear"]


def affine(
    images: Tensor,
    matrices: Tensor,
    *,
    interpolation: Interpolation = "nearest",
    fill: float = 0.0,
) -> Tensor:
    """Maps each image by its own matrix; pixels from outside become `fill`.

    Args:
        matrices: [B, 2, 3] from (x, y, 1) of the result to (x, y) of the source; pixels, the
            origin is the image's middle
    """
    images = to_float(images)
    height, width = images.shape[2:]
    m = lend(matrices, images)[:, :, :, None, None]  # [B, 2, 3, 1, 1]
    x = torch.arange(width, device=images.device) + (0.5 - width / 2)
    y = (torch.arange(height, device=images.device) + (0.5 - height / 2))[:, None]
    half = torch.tensor([width / 2, height / 2]).view(2, 1, 1)
    grid = (m[:, :, 0] * x + m[:, :, 1] * y + m[:, :, 2]) / lend(half, images)  # [B, 2, H, W]
    moved = F.grid_sample(
        images - fill, grid.permute(0, 2, 3, 1), mode=interpolation, align_corners=False
    )
    return moved.add_(fill).clamp_(0, 1)


def _matrices(count: int) -> Tensor:
    return torch.eye(2, 3).repeat(count, 1, 1)


def shear_x(levels: Tensor, height: int) -> Tensor:
    """Matrices [B, 2, 3] for `affine` that shear rows by `levels`; the upper edge stays."""
    matrices = _matrices(len(levels))
    matrices[:, 0, 1] = levels
    matrices[:, 0, 2] = levels * height / 2
    return matrices


def shear_y(levels: Tensor, width: int) -> Tensor:
    """Matrices [B, 2, 3] for `affine` that shear columns by `levels`; the left edge stays."""
    matrices = _matrices(len(levels))
    matrices[:, 1, 0] = levels
    matrices[:, 1, 2] = levels * width / 2
    return matrices


def translate(right: Tensor | float, down: Tensor | float, count: int) -> Tensor:
    """Matrices [count, 2, 3] for `affine` that move images by so many pixels."""
    matrices = _matrices(count)
    matrices[:, 0, 2] = -torch.as_tensor(right)
    matrices[:, 1, 2] = -torch.as_tensor(down)
    return matrices


def rotate(degrees: Tensor) -> Tensor:
    """Matrices [B, 2, 3] for `affine` that rotate anticlockwise around the middle."""
    radians = degrees.deg2rad()
    matrices = _matrices(len(degrees))
    matrices[:, 0, 0] = matrices[:, 1, 1] = radians.cos()
    matrices[:, 0, 1] = -radians.sin()
    matrices[:, 1, 0] = radians.sin()
    return matrices


@dataclass(frozen=True)
class ShearX:
    """Shears rows by up to `limit` pixels a pixel, either way."""

    limit: float
    interpolation: Interpolation = "nearest"
    fill: float = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        levels = uniform(len(images), -self.limit, self.limit)
        matrices = shear_x(levels, images.shape[2])
        return affine(images, matrices, interpolation=self.interpolation, fill=self.fill)


@dataclass(frozen=True)
class ShearY:
    """Shears columns by up to `limit` pixels a pixel, either way."""

    limit: float
    interpolation: Interpolation = "nearest"
    fill: float = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        levels = uniform(len(images), -self.limit, self.limit)
        matrices = shear_y(levels, images.shape[3])
        return affine(images, matrices, interpolation=self.interpolation, fill=self.fill)


@dataclass(frozen=True)
class Translate:
    """Moves images by whole pixels, up to shares of the width and of the height, either way."""

    right: float = 0.125  # share of the width
    down: float = 0.125  # share of the height
    fill: float = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        right = uniform(len(images), -self.right * width, self.right * width).round_()
        down = uniform(len(images), -self.down * height, self.down * height).round_()
        return affine(images, translate(right, down, len(images)), fill=self.fill)


@dataclass(frozen=True)
class Rotate:
    """Rotates images around the middle by up to `degrees`, either way."""

    degrees: float
    interpolation: Interpolation = "nearest"
    fill: float = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        matrices = rotate(uniform(len(images), -self.degrees, self.degrees))
        return affine(images, matrices, interpolation=self.interpolation, fill=self.fill)
