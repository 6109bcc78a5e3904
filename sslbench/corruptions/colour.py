"""Brightness and saturation, in HSV, in scikit-image's order of operations so that bytes agree."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .entry import Corruption, Level, to_bytes, unit


def brightness(images: Tensor, level: Level) -> Tensor:
    hue, saturation, value = hsv(unit(images))
    return to_bytes(rgb(hue, saturation, value.add_(level[0]).clamp_(0, 1)))


def saturate(images: Tensor, level: Level) -> Tensor:
    hue, saturation, value = hsv(unit(images))
    return to_bytes(rgb(hue, saturation.mul_(level[0]).add_(level[1]).clamp_(0, 1), value))


def hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Converts RGB [B, 3, H, W] in [0, 1] to hue, saturation and value, each [B, H, W] in [0, 1].

    Greys have hue and saturation 0.
    """
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    spread = value - images.amin(1)
    grey = spread == 0
    spread = spread.masked_fill_(grey, 1)
    # the last channel that has the maximum decides
    hue = torch.where(green == value, (blue - red).div_(spread).add_(2), (green - blue) / spread)
    hue = torch.where(blue == value, (red - green).div_(spread).add_(4), hue).div_(6)
    hue = hue.add_(hue < 0).masked_fill_(grey, 0)
    saturation = spread.div_(value).masked_fill_(grey, 0)
    return hue, saturation, value


def rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Converts hue, saturation and value, each [B, H, W], to RGB [B, 3, H, W]."""
    sector = (hue * 6).floor()
    part = hue.mul_(6).sub_(sector)
    low = value * (1 - saturation)
    falling = value * (1 - part * saturation)
    rising = value * (1 - (1 - part) * saturation)
    choices = torch.stack([value, rising, low, falling], 1).flatten(2)  # [B, 4, HW]
    sector = sector.long().remainder_(6).flatten(1)  # [B, HW]
    which = torch.stack([row.take(sector) for row in _order(value.device)], 1)
    return choices.gather(1, which).view(len(value), 3, *value.shape[1:])


@lru_cache(maxsize=8)
def _order(device: torch.device) -> tuple[Tensor, ...]:
    """For each channel and each of six sectors of hue: 0 value, 1 rising, 2 low or 3 falling."""
    order = torch.tensor([[0, 3, 2, 2, 1, 0], [1, 0, 0, 3, 2, 2], [2, 2, 1, 0, 0, 3]])
    return order.to(device).unbind()


BRIGHTNESS = Corruption(((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)), brightness)
SATURATE = Corruption(((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)), saturate)
