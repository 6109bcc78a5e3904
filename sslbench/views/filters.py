"""Filters over neighbouring pixels: blur, sharpness, Sobel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .batch import act_on, check_share, choose, column, lend, on_chosen, pieces, to_float, uniform
from .colour import blend
from .jitter import grey
from .phases import Drawn, Side, TwoPhase


def blur(images: Tensor, kernel: int, sigma: Tensor | float) -> Tensor:
    """Blurs by a Gaussian of `kernel` taps, each image with its own sigma ([B] or one for all).

    The border is mirrored as torchvision's. On sides no longer than half the kernel, where
    torchvision raises, it is repeated.
    """
    images = to_float(images)
    count, _, height, width = images.shape
    sigma = torch.as_tensor(sigma, dtype=torch.float32).expand(count)
    weights = lend(_gaussian(sigma, kernel), images)[..., None, None, None]  # [B, k, 1, 1, 1]
    out = torch.empty_like(images)
    for run in pieces(images, 3 * height * width):
        part = _padded(images[run], kernel // 2)
        part = _weighted(part, weights[run], 2, height)
        out[run] = _weighted(part, weights[run], 3, width)
    return out.clamp_(0, 1)


def _gaussian(sigma: Tensor, kernel: int) -> Tensor:
    """The taps [B, k] of Gaussians of widths `sigma` [B]."""
    taps = torch.arange(kernel, dtype=torch.float32) - kernel // 2
    return taps.div(sigma[:, None]).square_().mul_(-0.5).softmax(1)


def _padded(images: Tensor, reach: int) -> Tensor:
    mode = "reflect" if min(images.shape[2:]) > reach else "replicate"
    return F.pad(images, (reach,) * 4, mode=mode)


def _weighted(padded: Tensor, weights: Tensor, dim: int, side: int) -> Tensor:
    """Applies symmetric taps along one direction, as shifted sums.

    On a CPU a grouped convolution is not faster. It is far slower where the batch's size varies, as
    that of chosen images does, since it is prepared anew for each size.
    """
    kernel = weights.shape[1]
    taps = weights.unbind(1)  # each [b, 1, 1, 1]
    out = padded.narrow(dim, kernel // 2, side) * taps[kernel // 2]
    for i in range(kernel // 2):
        pair = padded.narrow(dim, i, side) + padded.narrow(dim, kernel - 1 - i, side)
        out.addcmul_(pair, taps[i])
    return out


@dataclass(frozen=True)
class GaussianBlur(TwoPhase):
    """Blurs by a Gaussian of random width."""

    kernel: int  # taps, odd
    sigma: tuple[float, float] = (0.1, 2.0)  # pixels
    p: float = 1.0

    def __post_init__(self) -> None:
        check_share(self.p)
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"a blur's kernel has an odd number of taps, got {self.kernel}")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma is a rising pair of positive widths, got {self.sigma}")

    def draw(self, count: int, side: Side) -> Drawn:
        return uniform(count, *self.sigma), choose(count, self.p)

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        sigma, rows = drawn
        return act_on(
            to_float(images), rows, lambda part, rows: blur(part, self.kernel, sigma[rows])
        )

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        sigma, rows = drawn
        weights = torch.zeros(count, self.kernel)
        weights[:, self.kernel // 2] = 1  # leaves an image as it is
        weights[rows] = _gaussian(sigma[rows], self.kernel)
        return [weights.repeat_interleave(3, 0)]  # [3B, k]

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        images = to_float(images)
        weights = numbers[0][:, None, None]  # [3B, 1, 1, k]
        each = _padded(images, self.kernel // 2).flatten(0, 1)[None]  # [1, 3B, ...]
        each = F.conv2d(each, weights.mT, groups=len(weights))
        return F.conv2d(each, weights, groups=len(weights)).view(images.shape)


def adjust_sharpness(images: Tensor, factor: Tensor | float) -> Tensor:
    """Moves pixels towards a smoothed image (factor 0) or away from it (above 1).

    The border stays unchanged.
    """
    images = to_float(images)
    if min(images.shape[2:]) <= 2:
        return images.clone()
    inner = images[:, :, 1:-1, 1:-1]
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = (box + 4 * inner) / 13  # PIL's: the middle counts five times
    out = images.clone()
    out[:, :, 1:-1, 1:-1] = blend(inner, smooth, column(factor, images))
    return out


@dataclass(frozen=True)
class Sharpness:
    """Changes sharpness by a fixed factor; 1 leaves the image as it is."""

    factor: float
    p: float = 1.0

    def __post_init__(self) -> None:
        check_share(self.p)

    def __call__(self, images: Tensor) -> Tensor:
        return on_chosen(
            to_float(images), self.p, lambda part, _: adjust_sharpness(part, self.factor)
        )


@dataclass(frozen=True)
class Sobel:
    """Computes signed gradients of grey images: [B, 3, H, W] -> [B, 2, H, W].

    Grey is the channels' mean, as in DeepCluster (arXiv 1807.05520), or with `luma` their luma, as in
    IIC (arXiv 1807.06653). It is a front for `Backbone.with_input`. The first channel is positive
    where values fall along x, the second along y. The border is padded with zeros.
    """

    luma: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        images = to_float(images)
        mean = grey(images)[:, 0] if self.luma else images.mean(1)
        mean = F.pad(mean, (1, 1, 1, 1))  # [B, H + 2, W + 2]
        tall = mean[:, :-2] + 2 * mean[:, 1:-1] + mean[:, 2:]
        wide = mean[:, :, :-2] + 2 * mean[:, :, 1:-1] + mean[:, :, 2:]
        return torch.stack([tall[:, :, :-2] - tall[:, :, 2:], wide[:, :-2] - wide[:, 2:]], 1)
