"""A made-up encoder with made-up data, in one object, for checks of evaluators."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..api import Corrupted, Evaluator, Judgement, Labels
from ..arrays import balanced
from ..cells.budget import labels_in
from ..corruptions import ALL
from ..errors import Unsuited, UserError

FRAMES = 8  # of a made-up clip, in which nothing but the class moves
Change = Callable[[Tensor, int, int, torch.Generator], Tensor]  # float images, which, severity


@dataclass
class MadeUp:
    """`api.Subject` and `api.Judged` in one object. It has only the parts that it is given."""

    train: Tensor  # [N, D] features
    test: Tensor
    truth: dict[str, Tensor]  # labels by split
    classes: int
    held_out: Tensor
    logits: Tensor | None = None  # of `predict`, any split
    told: Labels = "all"
    pictures: dict[str, Tensor] = field(default_factory=dict)  # uint8 [N, 3, H, W] by split
    encoder: nn.Module | None = None
    levels: dict[str, list[Tensor]] = field(default_factory=dict)  # pooled maps by split
    mapped: Callable[[Tensor], Tensor] | None = None  # images in [0, 1] -> maps [n, C, H, W]
    sequences: dict[str, Tensor] = field(default_factory=dict)  # clips by split
    rebuilt: dict[str, Tensor] = field(default_factory=dict)  # reconstructions by split
    others: dict[str, MadeUp] = field(default_factory=dict)  # other datasets by name
    corruptions: dict[str, Corrupted] = field(default_factory=dict)  # sets by what was asked for
    name: str = "made-up"
    fingerprint: str = "made up"
    seed: int = 0  # of the cell, by which labels are shown
    reads: list[str] = field(default_factory=list)  # splits whose features were read, in order
    lenders: dict[str, Evaluator] = field(default_factory=dict)  # evaluators that lend probes
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def on(self, device: torch.device) -> MadeUp:
        """The same on a device, where its encoder and that of other datasets then are."""
        for each in (self, *self.others.values()):
            each.device = device
            if each.encoder is not None:
                each.encoder.to(device)
        return self

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

    def shown(self, labels: int | str, seed: int | None = None) -> Tensor:
        free = torch.nonzero(~self.held_out & (self.truth["train"] >= 0))[:, 0]
        sizes = torch.bincount(self.truth["train"][free], minlength=self.classes).tolist()
        try:
            count = labels_in(labels, sizes, self.name)
        except UserError as error:
            raise Unsuited(str(error)) from error
        key = f"budget {self.seed if seed is None else seed}"
        rows = balanced(self.truth["train"][free].numpy(), count, key)
        return free[torch.from_numpy(rows)]

    def clips(self, split: str) -> Tensor | None:
        return self.sequences.get(split)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        assert self.encoder is not None
        for part in torch.split(images, 64):
            with torch.no_grad():
                yield self.encoder(part.to(self.device).float() / 255).cpu()

    def maps(self, split: str) -> list[Tensor]:
        return self.levels[split]

    def dense(self, images: Tensor, side: float) -> Iterator[Tensor]:
        if self.mapped is None:
            raise Unsuited("this encoder has no maps")
        for part in torch.split(images, 64):
            with torch.no_grad():
                yield self.mapped(part.to(self.device).float() / 255)

    def predict(self, split: str) -> Tensor | None:
        return self.logits

    def reconstruct(self, split: str) -> Tensor | None:
        return self.rebuilt.get(split)

    def copy(self) -> nn.Module:
        assert self.encoder is not None
        return copy.deepcopy(self.encoder).requires_grad_(True).eval()

    def probe(self, name: str, *, nine_tenths: bool = False) -> Any:
        made: Any = self  # splits are any text here
        return self.lenders[name].probe(made, made, nine_tenths=nine_tenths)

    def elsewhere(self, dataset: str) -> tuple[MadeUp, MadeUp]:
        return self.others[dataset], self.others[dataset]

    def corrupted(self, which: str) -> Corrupted:
        if which not in self.corruptions:
            raise Unsuited(f"there is no set {which}")
        return self.corruptions[which]

    def judged_by(self, evaluator: Evaluator, seed: int = 0) -> Judgement:
        made: Any = self
        return evaluator(made, made, seed)


def a_tenth(n: int) -> Tensor:
    """Marks a tenth of each class, where labels repeat in turn: bool [n]."""
    return torch.arange(n) % 10 == torch.arange(n) // 10 % 10


def pictured(
    n: int = 200,
    m: int = 100,
    *,
    classes: int = 4,
    size: int = 16,
    noise: float = 40,
    seed: int = 0,
    dim: int = 24,
) -> MadeUp:
    """Makes images whose class is the place of a bright bar, with a small convolutional encoder.

    The encoder has untrained weights, and batch norm with the statistics of train.
    """
    generator = torch.Generator().manual_seed(seed)
    truth = {"train": torch.arange(n) % classes, "test": torch.arange(m) % classes}
    pictures = {
        split: _bars(labels, classes, size, noise, generator) for split, labels in truth.items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        norm = nn.BatchNorm2d(8)
        encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            norm,
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(128, dim),
        )
    with torch.no_grad():
        norm.momentum = None  # running statistics become those of train
        encoder.train()(pictures["train"].float() / 255)
        norm.momentum = 0.1
        encoder.eval()
        made = {split: encoder(images.float() / 255) for split, images in pictures.items()}
    return MadeUp(
        made["train"],
        made["test"],
        truth,
        classes,
        a_tenth(n),
        pictures=pictures,
        encoder=encoder,
        mapped=encoder[:3],
        sequences={split: torch.arange(len(labels)) // FRAMES for split, labels in truth.items()},
    )


def _bars(
    labels: Tensor, classes: int, size: int, noise: float, generator: torch.Generator
) -> Tensor:
    images = 60 + noise * torch.randn(len(labels), 3, size, size, generator=generator)
    width = size // classes
    for row, label in enumerate(labels.tolist()):
        images[row, :, label * width : (label + 1) * width] += 90
    return images.clamp(0, 255).to(torch.uint8)


def uneven(subject: MadeUp, seed: int = 0) -> MadeUp:
    """Shuffles the test images, so that no position gives the label away."""
    order = torch.randperm(len(subject.test), generator=torch.Generator().manual_seed(seed))
    subject.test = subject.test[order]
    subject.truth["test"] = subject.truth["test"][order]
    subject.pictures["test"] = subject.pictures["test"][order]
    return subject


def answering(subject: MadeUp) -> MadeUp:
    """Gives it a classifier of its own: by the distance from the mean of each class of train."""
    train, labels = subject.train, subject.truth["train"]
    means = torch.stack([train[labels == c].mean(0) for c in range(subject.classes)])
    subject.logits = -torch.cdist(subject.test, means)
    return subject


# ---- corrupted sets --------------------------------------------------------------------------


class Blocks(dict[tuple[str, int], Tensor]):
    """Corrupted images, each block made when it is first asked for."""

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
    """A corrupted set made by `change`; `asked` records what was read."""

    def __init__(self, images: Tensor, change: Change, name: str = "made-up-c") -> None:
        self.name, self.fingerprint = name, f"fingerprint of {name}"
        self.asked: list[tuple[str, int, Tensor]] = []
        self.blocks = Blocks(images, change)

    def block(self, corruption: str, severity: int, rows: Tensor | None = None) -> Tensor:
        rows = torch.arange(len(self.blocks.images)) if rows is None else rows
        self.asked.append((corruption, severity, rows))
        return self.blocks[corruption, severity][rows]


def noisy(images: Tensor, c: int, severity: int, generator: torch.Generator) -> Tensor:
    """Adds noise that grows with severity and from corruption to corruption, most in the last four."""
    noise = torch.randn(images.shape, generator=generator)
    return images + (10 + 2 * c + 60 * (c >= 15)) * severity * noise


def corrupted(subject: MadeUp, change: Change, which: str = "official") -> Made:
    """Adds a corrupted set to a made-up subject."""
    made = Made(subject.pictures["test"], change, name=f"made-up-{which}")
    subject.corruptions[which] = made
    return made
