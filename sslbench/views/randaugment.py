"""RandAugment (Cubuk et al., arXiv 1909.13719): a few random operations of one strength."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .affine import Interpolation, affine, rotate, shear_x, shear_y, translate
from .batch import by_group, check_share, signs, to_float, uniform
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

Act = Callable[[Tensor, Tensor], Tensor]  # (images, numbers in [-1, 1] [B]) -> images
OPERATIONS = 14
LEVELLED = ("offset", "levels")  # scales that draw a level


@dataclass(frozen=True)
class Strength:
    """How far each operation goes at the number 1; at -1 it goes as far the other way.

    A pair is (the value at 0, what is added at 1).
    """

    shear: float  # pixels a pixel
    right: float  # pixels
    down: float  # pixels
    degrees: float
    factor: tuple[float, float]  # of brightness, saturation, contrast, sharpness
    bits: tuple[float, float]  # that are kept
    threshold: tuple[float, float]  # from which values are inverted


@dataclass(frozen=True)
class RandAugment:
    """Applies n operations to each image, of torchvision's fourteen, on one of four scales.

    "torchvision": strength m of `bins`, in both directions. "offset", of RUC's code: a level from 1
    to m - 1 of ten, of which the lowest is the strongest; factors only lower. "levels", of FixMatch's
    code: a level from 1 to m - 1 of ten; factors from 0.1 to 1.9, four bits at most. "drawn", of
    SCAN's code: uniform in fixed ranges; m is not used.
    """

    n: int = 2
    m: int = 9  # 0 to bins - 1; 2 to 10 where scale is "offset" or "levels"
    bins: int = 31
    interpolation: Interpolation = "nearest"
    fill: float = 0.0
    scale: Literal["torchvision", "offset", "levels", "drawn"] = "torchvision"
    p: float = 1.0  # chance that an operation that was drawn is done
    distinct: bool = False  # no operation twice on one image

    def __post_init__(self) -> None:
        check_share(self.p)
        if self.scale == "torchvision" and (self.bins < 2 or not 0 <= self.m < self.bins):
            raise ValueError(f"m is a strength of 0 to bins - 1 ({self.bins - 1}), got {self.m}")
        if self.scale in LEVELLED and not 2 <= self.m <= 10:
            raise ValueError(f"m is 2 to 10 where levels are 1 to m - 1 of ten, got {self.m}")
        if self.n < 0 or (self.distinct and self.n > OPERATIONS):
            raise ValueError(
                f"n is a number of operations, of {OPERATIONS} where they are distinct; got {self.n}"
            )

    def __call__(self, images: Tensor) -> Tensor:
        images = to_float(images)
        count, side = len(images), (images.shape[2], images.shape[3])
        each = [self.operations(side, level) for level in self._levels()]
        acts = [act for level in each for act in level]
        order = torch.rand(count, OPERATIONS).argsort(1) if self.distinct else None
        for i in range(self.n):
            which = torch.randint(0, OPERATIONS, (count,)) if order is None else order[:, i]
            if len(each) > 1:
                which = which + OPERATIONS * torch.randint(0, len(each), (count,))
            if self.p < 1:
                which = torch.where(torch.rand(count) < self.p, which, 0)  # 0 does nothing
            numbers = uniform(count, -1, 1) if self.scale == "drawn" else signs(count)
            images = by_group(images, which, acts, numbers)
        return images

    def _levels(self) -> Sequence[int]:
        return range(1, self.m) if self.scale in LEVELLED else (self.m,)

    def strength(self, side: tuple[int, int], level: int) -> Strength:
        """How far operations go on images of (height, width) at a level, which is m or below it."""
        height, width = side
        if self.scale == "drawn":
            return Strength(
                0.1, 0.1 * width, 0.1 * height, 30, (0.5, 0.45), (6, 2), (128 / 255, 128 / 255)
            )
        if self.scale == "offset":
            share = level / 10
            away, bits = 0.3 - 0.3 * share, 8.0 + int(share)
            least = (256 - int(256 * share)) / 255
            return Strength(
                away,
                int(away * width),
                int(away * height),
                45 - int(45 * share),
                (0.01 + 0.99 * share, 0),
                (bits, 0),
                (least, 0),
            )
        if self.scale == "levels":
            share = level / 10
            return Strength(
                0.3 * share,
                int(10 / 32 * width * share),
                int(10 / 32 * height * share),
                int(30 * share),
                (0.1 + 1.8 * share, 0),
                (4 - int(4 * share), 0),
                ((256 - int(256 * share)) / 255, 0),
            )
        share = self.m / (self.bins - 1)
        return Strength(
            0.3 * share,
            int(150 / 331 * width * share),
            int(150 / 331 * height * share),
            30 * share,
            (1, 0.9 * share),
            (8 - round(4 * share), 0),
            (1 - share, 0),
        )

    def operations(self, side: tuple[int, int], level: int | None = None) -> list[Act]:
        """The fourteen operations at m, or at a level below it, for images of (height, width)."""
        height, width = side
        how = self.strength(side, self.m if level is None else level)

        def move(matrices: Callable[[Tensor], Tensor]) -> Act:
            return lambda x, s: affine(
                x, matrices(s), interpolation=self.interpolation, fill=self.fill
            )

        def at(pair: tuple[float, float], s: Tensor) -> Tensor:
            return pair[0] + s * pair[1]

        return [
            lambda x, s: x,
            move(lambda s: shear_x(s * how.shear, height)),
            move(lambda s: shear_y(s * how.shear, width)),
            move(lambda s: translate(s * how.right, 0, len(s))),
            move(lambda s: translate(0, s * how.down, len(s))),
            move(lambda s: rotate(s * how.degrees)),
            lambda x, s: adjust_brightness(x, at(how.factor, s)),
            lambda x, s: adjust_saturation(x, at(how.factor, s)),
            lambda x, s: adjust_contrast(x, at(how.factor, s)),
            lambda x, s: adjust_sharpness(x, at(how.factor, s)),
            lambda x, s: posterize(x, at(how.bits, s).floor()),
            lambda x, s: solarize(x, at(how.threshold, s)),
            lambda x, s: autocontrast(x),
            lambda x, s: equalize(x),
        ]
