"""Subjects made up for the tests, with the judge whose probe others borrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sslbench import testing
from sslbench.evaluators.linear import Linear
from sslbench.testing.made_up import MadeUp, a_tenth

__all__ = ["Fake", "a_tenth", "fake", "pictured"]


@dataclass
class Fake(MadeUp):
    """One that lends the linear probe."""

    def __post_init__(self) -> None:
        self.lenders.setdefault("linear", Linear())


def fake(
    n: int = 300,
    m: int = 200,
    d: int = 12,
    classes: int = 4,
    *,
    spread: float = 1.0,
    seed: int = 0,
) -> Fake:
    """Gaussian classes around random centres, balanced; no images."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, d, generator=generator)
    truth = {"train": torch.arange(n) % classes, "test": torch.arange(m) % classes}
    made = {
        split: centres[labels] + spread * torch.randn(len(labels), d, generator=generator)
        for split, labels in truth.items()
    }
    return Fake(made["train"], made["test"], truth, classes, a_tenth(n))


def pictured(*args: Any, **settings: Any) -> MadeUp:
    made = testing.made_up.pictured(*args, **settings)
    made.lenders["linear"] = Linear()
    return made
