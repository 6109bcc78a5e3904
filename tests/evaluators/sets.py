"""Corrupted sets made up for the tests, over the pictures of a Fake."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from sslbench.api import Corrupted
from sslbench.corruptions import ALL

from .helpers import Fake

Change = Callable[[Tensor, int, int, torch.Generator], Tensor]  # float images, which, severity


class Blocks(dict[tuple[str, int], Tensor]):
    """Each made when it is first asked for."""

    def __init__(self, images: Tensor, change: Change) -> None:
        super().__init__()
        self.images, self.change = images.float(), change

    def __missing__(self, key: tuple[str, int]) -> Tensor:
        which, severity = ALL.index(key[0]), key[1]
        generator = torch.Generator().manual_seed(100 * which + severity)
        made = self.change(self.images, which, severity, generator)
        self[key] = made.clamp(0, 255).to(torch.uint8)
        return self[key]


class Made(Corrupted):
    """Each block by `change`; `asked` records what was read."""

    def __init__(self, images: Tensor, change: Change, name: str = "made-up-c") -> None:
        self.name, self.fingerprint = name, f"fingerprint of {name}"
        self.asked: list[tuple[str, int, Tensor]] = []
        self.blocks = Blocks(images, change)

    def block(self, corruption: str, severity: int, rows: Tensor | None = None) -> Tensor:
        assert rows is not None
        self.asked.append((corruption, severity, rows))
        return self.blocks[corruption, severity][rows]


def noisy(images: Tensor, c: int, severity: int, generator: torch.Generator) -> Tensor:
    """Worse with the severity, from one corruption to the next, and by far under the extra four."""
    noise = torch.randn(images.shape, generator=generator)
    return images + (10 + 2 * c + 60 * (c >= 15)) * severity * noise


def untouched(images: Tensor, c: int, severity: int, generator: torch.Generator) -> Tensor:
    return images


def brighter(images: Tensor, c: int, severity: int, generator: torch.Generator) -> Tensor:
    """A shift that statistics of the batch see and undo, but where it leaves the range."""
    return 0.3 * images + 90 + 10 * severity + c


def corrupted(subject: Fake, change: Change, which: str = "official") -> Made:
    """Gives a Fake that set."""
    made = Made(subject.pictures["test"], change, name=f"made-up-{which}")
    subject.corruptions[which] = made
    return made


def uneven(subject: Fake, seed: int = 0) -> Fake:
    """The same test images in an order in which no position tells the label."""
    order = torch.randperm(len(subject.test), generator=torch.Generator().manual_seed(seed))
    subject.test = subject.test[order]
    subject.truth["test"] = subject.truth["test"][order]
    subject.pictures["test"] = subject.pictures["test"][order]
    return subject


def weights(module: torch.nn.Module) -> Mapping[str, np.ndarray]:
    return {name: value.clone().numpy() for name, value in module.state_dict().items()}


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
