"""Sections of gpu.py that judge features: whether TF32 moves a score, and the cost at full size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from gpu_rows import Bench, TimeIsUp, first_line, limit, peak, seconds
from torch import Tensor

from sslbench.api import Evaluator, Judgement
from sslbench.evaluators.clustering import Clustering
from sslbench.evaluators.knn import KNN
from sslbench.evaluators.linear import Linear
from sslbench.train.device import give_back

EXACT = 1e-3  # of top1: what the order of sums may change on a GPU


@dataclass(frozen=True)
class Given:
    """Subject and data in one, of features that are given."""

    device: torch.device
    train: Tensor  # float32 [N, D]
    test: Tensor  # float32 [M, D]
    of_train: Tensor  # [N], classes
    of_test: Tensor  # [M], classes
    classes: int
    name: str = "made-up"
    fingerprint: str = "made-up"

    @property
    def dim(self) -> int:
        return self.train.shape[1]

    @property
    def held_out(self) -> Tensor:
        return torch.arange(len(self.train)) % 10 == 0

    def features(self, split: str) -> Tensor:
        return self.train if split == "train" else self.test

    def labels(self, split: str) -> Tensor:
        return self.of_train if split == "train" else self.of_test

    def predict(self, split: str) -> None:
        return None


def made_up(device: torch.device, train: int, test: int, dim: int, classes: int) -> Given:
    """Rectified mixtures that overlap, as encoders give; made on the device, kept on the host."""
    generator = torch.Generator(device.type if device.type == "cuda" else "cpu").manual_seed(0)
    at: Any = {"generator": generator, "device": device}
    scale = (1 + torch.arange(dim, device=device)) ** -0.25
    centres = torch.randn(classes, dim, **at) * (12 / dim) ** 0.5
    labels = torch.randint(classes, (train + test,), **at)
    points = torch.cat(
        [
            torch.relu((centres[part] + torch.randn(len(part), dim, **at)) * scale).cpu()
            for part in labels.split(8192)
        ]
    )
    labels = labels.cpu()
    return Given(device, points[:train], points[train:], labels[:train], labels[train:], classes)


def judged(evaluator: Evaluator, given: Given) -> Judgement:
    subject: Any = given
    return evaluator(subject, subject, 0)


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Rounds products to TF32, as no judge asks for."""
    flags = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    kept = [getattr(where, name) for where, name in flags]
    try:
        for where, name in flags:
            setattr(where, name, True)
        yield
    finally:
        for (where, name), value in zip(flags, kept, strict=True):
            setattr(where, name, value)


def exactness(bench: Bench) -> None:
    """Judges score on a GPU what they score on a CPU; TF32 would score something else."""
    bench.need_gpu()
    sizes = bench.sized((20_000, 5_000, 512, 100), (600, 200, 32, 10))
    given = made_up(torch.device("cpu"), *sizes)
    there = replace(given, device=bench.device)
    for name, evaluator in (("knn", KNN(k=20)), ("linear", Linear(l2=1e-3))):
        with tf32():
            rounded = _top1(evaluator, there)
        exact, on_cpu = _top1(evaluator, there), _top1(evaluator, given)
        bench.tell(
            f"{name}: top1 on the same features",
            f"{exact:.4f}, on the CPU {on_cpu:.4f} ({exact - on_cpu:+.4f}), with TF32 {rounded:.4f} "
            f"({rounded - exact:+.4f})",
            abs(exact - on_cpu) <= EXACT,
            exact=exact,
            on_cpu=on_cpu,
            tf32=rounded,
        )


def _top1(evaluator: Evaluator, given: Given) -> float:
    return judged(evaluator, given).metrics["top1"].value


def judges(bench: Bench) -> None:
    """Seconds and peak memory of judges on 100,000 features of 2,048 numbers, of 1,000 classes."""
    count, dim, classes = bench.sized((100_000, 2_048, 1_000), (1_000, 64, 10))
    given = made_up(bench.device, count, count // 10, dim, classes)
    crowd = replace(given, test=given.train, of_test=given.of_train)  # clustering reads test alone
    for name, evaluator, of, most in (
        ("knn", KNN(), given, 20.0),
        ("clustering", Clustering(), crowd, 30.0),
        ("linear", Linear(), given, 60.0),
    ):
        _cost(bench, f"{name}: {count:,} x {dim:,}, {classes:,} classes", evaluator, of, most)


def _cost(bench: Bench, what: str, evaluator: Evaluator, of: Given, most: float) -> None:
    found: list[Judgement] = []
    try:
        with limit(most * bench.patience), peak(bench.device) as memory:
            took = seconds(bench.device, lambda: found.append(judged(evaluator, of)))
    except (RuntimeError, TimeIsUp) as error:
        bench.tell(what, first_line(error), False)
        return
    finally:
        give_back(bench.device)
    first, value = next(iter(found[0].metrics.items()))
    bench.tell(
        what,
        f"{took:.2f} s, {memory():.2f} GiB at most; {first} {value.value:.4f}",
        value.value > 1 / of.classes,
        seconds=took,
        gib=memory(),
        **{first: value.value},
    )
