"""Subjects made up for the tests: what a judge asks of encoder and data, in one object."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sslbench.api import Corrupted, Evaluator, Judgement
from sslbench.errors import Unsuited
from sslbench.evaluators.linear import Linear


@dataclass
class Fake:
    """Subject and data in one."""

    train: Tensor  # [N, D] features
    test: Tensor
    truth: dict[str, Tensor]  # labels by split
    classes: int
    held_out: Tensor
    logits: Tensor | None = None  # of `predict`, any split
    pictures: dict[str, Tensor] = field(default_factory=dict)  # uint8 [N, 3, H, W] by split
    encoder: nn.Module | None = None
    levels: dict[str, list[Tensor]] = field(default_factory=dict)  # pooled maps by split
    rebuilt: dict[str, Tensor] = field(default_factory=dict)  # reconstructions by split
    others: dict[str, Fake] = field(default_factory=dict)  # other datasets by name
    corruptions: dict[str, Corrupted] = field(default_factory=dict)  # sets by what was asked for
    name: str = "made-up"
    fingerprint: str = "made up"
    reads: list[str] = field(default_factory=list)  # splits, as features were asked for
    lenders: dict[str, Evaluator] = field(default_factory=lambda: {"linear": Linear()})
    device = torch.device("cpu")

    @property
    def dim(self) -> int:
        return self.train.shape[1]

    def features(self, split: str) -> Tensor:
        self.reads.append(split)
        return self.train if split == "train" else self.test

    def labels(self, split: str) -> Tensor:
        return self.truth[split]

    def images(self, split: str) -> Tensor:
        return self.pictures[split]

    def stream(self, images: Tensor) -> Any:
        assert self.encoder is not None
        for part in torch.split(images, 64):
            with torch.no_grad():
                yield self.encoder(part.float() / 255)

    def maps(self, split: str) -> list[Tensor]:
        return self.levels[split]

    def predict(self, split: str) -> Tensor | None:
        return self.logits

    def reconstruct(self, split: str) -> Tensor | None:
        return self.rebuilt.get(split)

    def copy(self) -> nn.Module:
        assert self.encoder is not None
        return copy.deepcopy(self.encoder).requires_grad_(True).eval()

    def probe(self, name: str, *, nine_tenths: bool = False) -> Any:
        return self.lenders[name].probe(self, self, nine_tenths=nine_tenths)

    def elsewhere(self, dataset: str) -> tuple[Fake, Fake]:
        return self.others[dataset], self.others[dataset]

    def corrupted(self, which: str) -> Corrupted:
        if which not in self.corruptions:
            raise Unsuited(f"there is no set {which}")
        return self.corruptions[which]

    def judged_by(self, evaluator: Evaluator, seed: int = 0) -> Judgement:
        return evaluator(self, self, seed)


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


def a_tenth(n: int) -> Tensor:
    """bool [n]: a tenth of each class where labels go round."""
    return torch.arange(n) % 10 == torch.arange(n) // 10 % 10


def pictured(
    n: int = 200,
    m: int = 100,
    *,
    classes: int = 4,
    size: int = 16,
    noise: float = 40,
    seed: int = 0,
) -> Fake:
    """Images whose class is the place of a bright bar, and a small convolutional encoder of them.

    The encoder has batch norm whose statistics are those of train, and untrained weights.
    """
    generator = torch.Generator().manual_seed(seed)
    truth = {"train": torch.arange(n) % classes, "test": torch.arange(m) % classes}
    pictures = {
        split: _bars(labels, classes, size, noise, generator) for split, labels in truth.items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(128, 24),
        )
    with torch.no_grad():
        encoder[1].momentum = None  # running statistics become those of train
        encoder.train()(pictures["train"].float() / 255)
        encoder[1].momentum = 0.1
        encoder.eval()
        made = {split: encoder(images.float() / 255) for split, images in pictures.items()}
    held_out = a_tenth(n)
    return Fake(
        made["train"], made["test"], truth, classes, held_out, pictures=pictures, encoder=encoder
    )


def _bars(
    labels: Tensor, classes: int, size: int, noise: float, generator: torch.Generator
) -> Tensor:
    images = 60 + noise * torch.randn(len(labels), 3, size, size, generator=generator)
    width = size // classes
    for row, label in enumerate(labels.tolist()):
        images[row, :, label * width : (label + 1) * width] += 90
    return images.clamp(0, 255).to(torch.uint8)
