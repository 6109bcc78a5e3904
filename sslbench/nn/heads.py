"""Networks behind a backbone: layers of vectors, decoders to images, maps pooled."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..api import Backbone


def mlp(
    *dims: int,
    norm: bool = True,
    last_norm: bool = False,
    last_affine: bool = True,
    last_shift: bool = True,
    last_bias: bool = True,
) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them.

    `norm` puts batch norm before each ReLU. `last_norm` puts one after the last layer, with scale
    and shift unless `last_affine` is off; with `last_shift` off its shift stays 0. A layer before a
    norm has no bias: the norm shifts.
    """
    if len(dims) < 2:
        raise ValueError(f"an MLP has at least two widths, in and out; found {dims}")
    layers: list[nn.Module] = []
    for i, (wide, out) in enumerate(pairwise(dims), start=2):
        last = i == len(dims)
        normed = last_norm if last else norm
        layers.append(nn.Linear(wide, out, bias=not normed and (last_bias or not last)))
        if normed:
            layers.append(nn.BatchNorm1d(out, affine=last_affine or not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    if last_norm and last_affine and not last_shift:
        layers[-1].bias.requires_grad_(False)
    return nn.Sequential(*layers)


def decoder(dim: int, size: int, *, side: int = 0, width: int = 32) -> nn.Sequential:
    """Vectors [B, dim], or with `side` maps [B, dim, side, side], -> [B, 3, size, size].

    What comes out has no bounds. Each stage doubles the side by repeating pixels and convolves, so
    that all of them are reached equally often: transposed convolutions leave a checkerboard. Stages
    have `width` channels at the last side and twice as many at each one before, up to 8 times; all
    but the last layer have batch norm.
    """
    sides, first = [size], side or 4
    while sides[0] > first and (half := (sides[0] + 1) // 2) >= first:  # as strided convolutions do
        sides.insert(0, half)
    widths = [width * min(8, 2**i) for i in reversed(range(len(sides)))]
    if side:
        layers = [*_enlarged(side, sides[0]), *_convolved(dim, widths[0])]
    else:
        flat = widths[0] * sides[0] ** 2
        shape = (widths[0], sides[0], sides[0])
        layers = [nn.Linear(dim, flat, bias=False), nn.Unflatten(1, shape), *_normed(widths[0])]
    for (low, high), (wide, narrow) in zip(pairwise(sides), pairwise(widths), strict=True):
        layers += [*_enlarged(low, high), *_convolved(wide, narrow)]
    layers.append(nn.Conv2d(width, 3, 3, padding=1))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _enlarged(low: int, high: int) -> list[nn.Module]:
    return [] if low == high else [nn.Upsample((high, high))]


def _convolved(wide: int, narrow: int) -> list[nn.Module]:
    return [nn.Conv2d(wide, narrow, 3, padding=1, bias=False), *_normed(narrow)]


def _normed(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


class PooledMaps(nn.Module):
    """[B, 3, H, W] -> [B, D]: all of a backbone's maps, each max-pooled to at most `grid` a side."""

    backbone: Backbone

    def __init__(self, backbone: Backbone, grid: int) -> None:
        super().__init__()
        self.backbone, self.grid = backbone, grid

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone.maps(x)
        sides = [[min(self.grid, side) for side in each.shape[2:]] for each in maps]
        pooled = [F.adaptive_max_pool2d(m, s).flatten(1) for m, s in zip(maps, sides, strict=True)]
        return torch.cat(pooled, 1)
