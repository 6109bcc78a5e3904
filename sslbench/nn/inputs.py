"""Networks fed: views by size, tokens by place, the map of a wanted side, colours standardised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..api import Backbone
from ..errors import UserError

# what a network says of images too small for it, or that it cannot cut into patches
REFUSALS = (UserError, ValueError, RuntimeError, AssertionError)


def by_size(network: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Applies a network to views [B, 3, H, W], one pass for each size.

    Returns [views * B, ...] with the largest views first.
    """
    sizes = sorted({v.shape[-1] for v in views}, reverse=True)
    return torch.cat([network(torch.cat([v for v in views if v.shape[-1] == s])) for s in sizes])


def taken(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens [B, n, D] at these places [B, n] of each image's tokens [B, T, D]."""
    return tokens.take_along_dim(places[..., None], 1)


def sincos(grid: tuple[int, int], dim: int) -> Tensor:
    """Fixed positions [rows * columns, dim] of a grid, row by row (arXiv 2104.02057).

    The sines of row and column come first, then the cosines of both.
    ValueError where dim is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            f"sines and cosines of two axes take a width of a multiple of 4, got {dim}"
        )
    waves = 10_000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = [torch.arange(side).outer(waves) for side in grid]  # each [side, dim / 4]
    rows, columns = angles[0][:, None].expand(-1, grid[1], -1), angles[1].expand(grid[0], -1, -1)
    both = torch.cat([rows, columns], 2).flatten(0, 1)  # [rows * columns, dim / 2]
    return torch.cat([both.sin(), both.cos()], 1).float()


def deepest(shapes: Sequence[tuple[int, int, int]], side: float) -> int:
    """Which of a backbone's `shapes` is the deepest with sides of at least `side` positions.

    Where all are smaller, the deepest of the largest.
    """
    sides = [min(high, wide) for _, high, wide in shapes]
    least = min(side, max(sides))
    return max(level for level, found in enumerate(sides) if found >= least)


class Standardise(nn.Module):
    """Gives every image of [..., 3, H, W] the mean and deviation that ImageNet's channels have.

    Backbones, which normalise their input, thus see 0 and 1. Channels are brought to their mean
    one by one, and to their deviation one by one or, unless `each`, together. What is constant
    becomes the mean. Values may leave [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, each: bool = True) -> None:
        super().__init__()
        self.over = (-2, -1) if each else (-3, -2, -1)
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((-2, -1), keepdim=True)
        deviation = centred.square().mean(self.over, keepdim=True).sqrt_()
        # far below that of one pixel of 8 bits, so that no rounding error is enlarged
        scale = torch.where(deviation > 1e-5, self.std / deviation, 0.0)
        return torch.addcmul(self.mean, centred, scale)


@torch.no_grad()
def check_side(backbone: Backbone, side: int, *, what: str, setting: str = "tile") -> None:
    """ValueError where a backbone does not take images of `side` pixels; `what` says what they are.

    `setting` is the hyperparameter that gives them another side.
    """
    training = [m for m in backbone.modules() if m.training]
    try:
        backbone.eval()(next(backbone.parameters()).new_zeros(1, 3, side, side))
    except REFUSALS as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{backbone.name} does not take {what} of {side} pixels ({said}); set {setting} to a "
            f"side that it takes, to which they are resized"
        ) from error
    finally:
        for module in training:
            module.training = True
