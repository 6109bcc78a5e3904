"""CIELAB: converts from and to sRGB (D65, the observer of 2 degrees), and puts colours into bins."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from .batch import to_float

# linear RGB -> X, Y, Z of sRGB, each over that of white, and back
_WHITE = (0.95047, 1.0, 1.08883)
_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_EDGE, _SLOPE, _FOOT = 0.008856, 7.787, 16 / 116  # below the edge the cube root is a line
_TO_WHITE = tuple(
    tuple(share / white for share in row) for row, white in zip(_XYZ, _WHITE, strict=True)
)

# The 313 bins of arXiv 1603.08511, of side 10: for each a the least and the largest b. These are
# the corners of all cells of the grid that hold a colour of sRGB, 309, and four beside them.
_BINS = {
    -90: (50, 90),
    -80: (20, 90),
    -70: (0, 90),
    -60: (-20, 90),
    -50: (-30, 100),
    -40: (-40, 100),
    -30: (-50, 100),
    -20: (-50, 100),
    -10: (-60, 100),
    0: (-70, 100),
    10: (-80, 90),
    20: (-80, 90),
    30: (-90, 90),
    40: (-100, 90),
    50: (-100, 80),
    60: (-110, 80),
    70: (-110, 80),
    80: (-110, 70),
    90: (-110, 70),
    100: (-90, 0),
}


def to_lab(images: Tensor) -> Tensor:
    """L in [0, 100], a and b of images [B, 3, H, W], in float32; gradients flow through it."""
    x, y, z = (_root(share) for share in _shares(images, _TO_WHITE))
    return torch.cat([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lightness(images: Tensor) -> Tensor:
    """L alone, [B, 1, H, W]."""
    (y,) = _shares(images, _TO_WHITE[1:2])
    return 116 * _root(y) - 16


def signed_lightness(images: Tensor) -> Tensor:
    """L from -1 to 1, for networks that see no colour: [B, 1, H, W]."""
    return lightness(images) / 50 - 1


def from_lab(lab: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] of Lab [B, 3, H, W]; colours outside sRGB are clamped."""
    light, a, b = torch.split(lab.float(), 1, 1)
    y = (light + 16) / 116
    roots = (y + a / 500, y, (y - b / 200).clamp_min(0))
    shares = [
        torch.where(root > _EDGE ** (1 / 3), root**3, (root - _FOOT) / _SLOPE) for root in roots
    ]
    linear = torch.cat(_mixed(shares, _from_white()), 1)
    curve = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curve, 12.92 * linear).clamp(0, 1)


def _shares(images: Tensor, rows: Sequence[Sequence[float]]) -> list[Tensor]:
    """X, Y or Z over those of white, of images in sRGB."""
    rgb = to_float(images)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    return _mixed(torch.split(linear, 1, 1), rows)


def _mixed(channels: Sequence[Tensor], rows: Sequence[Sequence[float]]) -> list[Tensor]:
    """Sums of the channels by each row of weights; no product of matrices, which may round."""
    one, two, three = channels
    return [
        torch.mul(one, first).add_(two, alpha=second).add_(three, alpha=third)
        for first, second, third in rows
    ]


def _root(share: Tensor) -> Tensor:
    # clamped, for the gradient of what is not taken would be infinite
    return torch.where(share > _EDGE, share.clamp_min(_EDGE) ** (1 / 3), _SLOPE * share + _FOOT)


@cache
def _from_white() -> list[list[float]]:
    found: list[list[float]] = torch.tensor(_TO_WHITE, dtype=torch.float64).inverse().tolist()
    return found


# ---- bins ----------------------------------------------------------------------------------


def gamut() -> Tensor:
    """The 313 (a, b) at the middle of bins of side 10 that colours of sRGB fall into: [313, 2]."""
    points = [(a, b) for a, (low, high) in _BINS.items() for b in range(low, high + 1, 10)]
    return torch.tensor(points, dtype=torch.float32)


def distances(colours: Tensor, palette: Tensor) -> Tensor:
    """Squared distances of colours [B, C, H, W] from those of a palette [K, C]: [B, H, W, K]."""
    parts = zip(colours.float().unbind(1), palette.unbind(1), strict=True)
    first, *others = ((own[..., None] - other) ** 2 for own, other in parts)
    return sum(others, first)


def quantised(colours: Tensor, palette: Tensor) -> Tensor:
    """Which colour of a palette [K, C] is nearest: int64 [B, H, W] of colours [B, C, H, W]."""
    return distances(colours, palette).argmin(-1)
