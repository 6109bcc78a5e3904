"""RandAugment (Cubuk et al., arXiv 1909.13719): a few random operations of one strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .affine import Interpolation, affine, rotate, shear_x, shear_y, translate
from .batch import by_group, signs, to_float
from .colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    autocontrast,
    equalize,
    posterize,
    solarize,
)
from .filters import adjust_sharpness

Act = Callable[[Tensor, Tensor], Tensor]  # (images, signs [B]) -> images


@dataclass(frozen=True)
class RandAugment:
    """Applies n operations to each image, of torchvision's fourteen, at strength m of `bins`."""

    n: int = 2
    m: int = 9  # 0 to bins - 1
    bins: int = 31
    interpolation: Interpolation = "nearest"
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.bins < 2 or not 0 <= self.m < self.bins:
            raise ValueError(f"m is a strength of 0 to bins - 1 ({self.bins - 1}), got {self.m}")
        if self.n < 0:
            raise ValueError(f"n is a number of operations, got {self.n}")

    def __call__(self, images: Tensor) -> Tensor:
        images = to_float(images)
        acts = self.operations((images.shape[2], images.shape[3]))
        for _ in range(self.n):
            which = torch.randint(0, len(acts), (len(images),))
            images = by_group(images, which, acts, signs(len(images)))
        return images

    def operations(self, side: tuple[int, int]) -> list[Act]:
        """The fourteen operations at this strength, for images of (height, width)."""
        height, width = side
        share = self.m / (self.bins - 1)
        slope, factor = 0.3 * share, 0.9 * share
        right, down = int(150 / 331 * width * share), int(150 / 331 * height * share)
        bits = 8 - round(4 * share)

        def move(matrices: Callable[[Tensor], Tensor]) -> Act:
            return lambda x, s: affine(
                x, matrices(s), interpolation=self.interpolation, fill=self.fill
            )

        return [
            lambda x, s: x,
            move(lambda s: shear_x(s * slope, height)),
            move(lambda s: shear_y(s * slope, width)),
            move(lambda s: translate(s * right, 0, len(s))),
            move(lambda s: translate(0, s * down, len(s))),
            move(lambda s: rotate(s * 30 * share)),
            lambda x, s: adjust_brightness(x, 1 + s * factor),
            lambda x, s: adjust_saturation(x, 1 + s * factor),
            lambda x, s: adjust_contrast(x, 1 + s * factor),
            lambda x, s: adjust_sharpness(x, 1 + s * factor),
            lambda x, s: posterize(x, bits),
            lambda x, s: solarize(x, 1 - share),
            lambda x, s: autocontrast(x),
            lambda x, s: equalize(x),
        ]
