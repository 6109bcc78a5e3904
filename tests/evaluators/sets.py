"""Corrupted sets made up for the tests, and what compares weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sslbench.testing.made_up import Made, corrupted, noisy, uneven

__all__ = ["Made", "brighter", "corrupted", "noisy", "same", "uneven", "untouched", "weights"]


def untouched(images: Tensor, c: int, severity: int, generator: torch.Generator) -> Tensor:
    return images


def brighter(images: Tensor, c: int, severity: int, generator: torch.Generator) -> Tensor:
    """A shift that statistics of the batch see and undo, but where it leaves the range."""
    return 0.3 * images + 90 + 10 * severity + c


def weights(module: torch.nn.Module) -> Mapping[str, np.ndarray]:
    return {name: value.clone().numpy() for name, value in module.state_dict().items()}


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
