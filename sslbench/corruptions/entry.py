"""What a corruption is made of, and how results become bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .draws import Draws

Level = tuple[float, ...]  # the parameters of one severity
Sides = tuple[int, int]  # height, width


def nothing(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    """No image draws anything."""
    return ()


@dataclass(frozen=True)
class Corruption:
    """What is drawn for an image, and what is then done to it.

    The two are apart, so that given draws can be rendered by somebody else and compared.
    """

    levels: tuple[Level, ...]  # severity 1 first
    render: Callable[..., Tensor]  # (images uint8, level, *drawn) -> uint8
    draw: Callable[[Draws, Sides, Level], tuple[Tensor, ...]] = nothing


def unit(images: Tensor) -> Tensor:
    """Bytes as float64 in [0, 1]."""
    return images.double().div_(255)


def to_bytes(images: Tensor) -> Tensor:
    """Floats, 1 for white, cut to [0, 1] and truncated to bytes, as the script does."""
    return images.clamp(0, 1).mul_(255).to(torch.uint8)


def truncated(levels: Tensor) -> Tensor:
    """Grey levels cut to [0, 255] and truncated.

    Where the sum is a whole number on paper (flat regions), rounding must not put it just below.
    """
    return (levels + 1e-9).clamp_(0, 255).to(torch.uint8)
