"""What judges of robustness share: corrupted test images, and scores over the corruptions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslbench.api import Corrupted, Judged, Metric, Value
from sslbench.arrays import balanced, shuffled
from sslbench.corruptions import ALL, BENCHMARK, VERSION
from sslbench.errors import Unsuited, UserError

KEY = "robustness"  # of the draw of images and of their order: the same for all judges and seeds


def severities_of(judge: str, asked: int | str) -> tuple[int, ...]:
    """`5` alone, or a range such as `1-5`: each set of severities has one spelling."""
    match = re.fullmatch(r"([1-5])(?:-([1-5]))?", str(asked), re.ASCII)
    first, last = (match[1], match[2] or match[1]) if match else ("", "")
    if match is None or (match[2] and first >= last):
        raise UserError(
            f"{judge} was given severities={asked}; give one from 1 to 5, such as 5, or a rising "
            "range, such as 1-5"
        )
    return tuple(range(int(first), int(last) + 1))


def rendering(asked: str) -> Mapping[str, int]:
    """The version of what is rendered here; the first is left out, as records of it were made."""
    return {"corruptions": VERSION} if asked == "regen" and VERSION > 1 else {}


def set_of(judge: str, asked: str) -> str:
    """A set's name; UserError for what could be a path."""
    if not re.fullmatch(r"[\w-][\w.-]*", asked, re.ASCII):
        raise UserError(
            f"{judge} was given set={asked!r}; give official, regen, or the name of a folder below "
            "--data DIR, without slashes"
        )
    return asked


class Condition(NamedTuple):
    """One corruption at one severity."""

    at: tuple[int, int]  # where its answers stand
    what: str
    parts: Iterator[tuple[Tensor, Tensor]]  # positions [B] among the n, uint8 [B, 3, H, W]


class TestImages(NamedTuple):
    """The images judged: the same of every corruption and severity."""

    corrupted: Corrupted
    severities: tuple[int, ...]
    rows: Tensor  # int64 [n] positions in test, in an order that has nothing to do with labels
    labels: Tensor  # int64 [n]
    shape: torch.Size  # of one image

    def blank(self) -> Tensor:
        """Bool [19, S, n] for what a judge keeps: which answers were right."""
        return torch.zeros(len(ALL), len(self.severities), len(self.rows), dtype=torch.bool)

    def cells(self, size: int) -> Iterator[Condition]:
        """Every corruption and severity, in batches of `size`.

        Where that leaves a rest some batches are a little larger: there is no small last one.
        """
        for c, corruption in enumerate(ALL):
            for s, severity in enumerate(self.severities):
                what = f"{self.corrupted.name}, {corruption} at severity {severity}"
                yield Condition((c, s), what, self._parts(corruption, severity, size))

    def _parts(self, corruption: str, severity: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        n = len(self.rows)
        for part in torch.tensor_split(torch.arange(n), max(1, n // size)):
            images = self.corrupted.block(corruption, severity, self.rows[part])
            if images.shape != (len(part), *self.shape):
                raise ValueError(
                    f"{self.corrupted.name}: {corruption} at severity {severity} was asked for "
                    f"{[len(part), *self.shape]} and gave {list(images.shape)}; every block holds "
                    "the images of the test split, in their order and size"
                )
            yield part, images

    @property
    def sources(self) -> Mapping[str, str]:
        return {self.corrupted.name: self.corrupted.fingerprint}


def trial(data: Judged, which: str, images: int | None, severities: tuple[int, ...]) -> TestImages:
    """Test images with a label, or `images` of them: class-balanced, and always the same ones."""
    labels = data.labels("test")
    rows = (labels >= 0).nonzero()[:, 0]
    if data.classes < 2 or len(rows) < 2:
        raise Unsuited(
            f"accuracy under corruption was asked for, of {data.classes} classes and {len(rows)} "
            "labelled test images; use a dataset with two or more of each"
        )
    if images is not None and images > len(rows):
        raise Unsuited(
            f"{images} test images were asked for, {len(rows)} have a label; "
            f"give images of at most {len(rows)}"
        )
    if images is not None:
        rows = rows[torch.from_numpy(balanced(labels[rows].numpy(), images, KEY))]
    rows = rows[torch.from_numpy(shuffled(len(rows), f"{KEY} order"))]
    shape = data.images("test").shape[1:]
    return TestImages(data.corrupted(which), severities, rows, labels[rows], shape)


def finite(features: Tensor, what: str) -> Tensor:
    """The same features [B, D], if they are numbers."""
    broken = int((~features.isfinite()).any(1).sum())
    if broken:
        raise ValueError(
            f"features of {what} were to be judged, {broken} of {len(features)} rows hold NaN or "
            "infinity; a lower learning rate, of training or of adapting, would keep them finite"
        )
    return features


def accuracy(right: Tensor) -> Value:
    """The share of `right` bool [..., n], with its standard error over the n images.

    The images are the same throughout, so that what is averaged beside them is no further sample.
    """
    share = int(right.sum()) / right.numel()
    return Value(
        share, right.shape[-1], spread(right.reshape(-1, right.shape[-1]).double().mean(0))
    )


def spread(scores: Tensor) -> float:
    """The standard error of the mean of `scores` float [n]."""
    return float(scores.std(correction=0)) / math.sqrt(len(scores))


def ways(modes: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of a judge that answers in several ways; the first ranks and is shown in full."""
    return (
        *(
            Metric(f"{mode}{count}", summary=f"{mode}: accuracy over {count} corruptions")
            for count in (len(BENCHMARK), len(ALL))
            for mode in modes
        ),
        *(Metric(name, summary=f"{modes[0]}: accuracy under {name}") for name in ALL),
    )


def accuracies(right: Mapping[str, Tensor]) -> dict[str, Value]:
    """Those metrics, of bool [19, S, n] by mode."""
    found = {
        f"{mode}{count}": accuracy(answers[:count])
        for count in (len(BENCHMARK), len(ALL))
        for mode, answers in right.items()
    }
    first = next(iter(right.values()))
    return found | {name: accuracy(first[c]) for c, name in enumerate(ALL)}


def batch_norms(encoder: nn.Module) -> list[_BatchNorm]:
    """Its batch norm layers; Unsuited where there is none."""
    found = [module for module in encoder.modules() if isinstance(module, _BatchNorm)]
    if not found:
        kinds = {type(module).__name__ for module in encoder.modules()}
        others = ", ".join(sorted(kind for kind in kinds if "norm" in kind.lower()))
        raise Unsuited(
            f"batch norm is what would be adapted, this encoder has {others or 'no normalisation'}; "
            "use a backbone with batch norm, such as a ResNet"
        )
    return found
