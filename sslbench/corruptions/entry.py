"""Defines a corruption, and converts between bytes and floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .draws import Draws

Level = tuple[float, ...]  # the parameters of one severity
Sides = tuple[int, int]  # height, width


def nothing(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    """Draws nothing, for corruptions without random numbers."""
    return ()


@dataclass(frozen=True)
class Corruption:
    """A corruption: the parameters of its severities, how it draws numbers, and how it renders.

    Drawing and rendering are separate, so that another implementation can render the same draws.
    """

    levels: tuple[Level, ...]  # severity 1 first
    render: Callable[..., Tensor]  # (images uint8, level, *drawn) -> uint8
    draw: Callable[[Draws, Sides, Level], tuple[Tensor, ...]] = nothing


def unit(images: Tensor) -> Tensor:
    """Converts bytes to float64 in [0, 1]."""
    return images.double().div_(255)


def to_bytes(images: Tensor) -> Tensor:
    """Clamps floats to [0, 1] and truncates them to bytes, as the script does."""
    return images.clamp(0, 1).mul_(255).to(torch.uint8)


def truncated(levels: Tensor) -> Tensor:
    """Clamps grey levels to [0, 255] and truncates them to bytes.

    The small addition keeps sums that should be whole, as in flat regions, from falling just below.
    """
    return (levels + 1e-9).clamp_(0, 255).to(torch.uint8)
