"""A probe with one hidden layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.api import Count, Evaluator, Judged, Judgement, Metric, Predictions, Subject
from sslbench.measures import ULP, power
from sslbench.scores import Labelled, accuracies, class_warnings, labelled

EPOCHS = 20
LEAST = 300  # steps of a fit
BATCH = 512
RATES = (3e-3, 1e-2, 3e-2)  # learning rates
DECAYS = (1e-2, 1.0)  # weight decay, as AdamW counts it
GRID = tuple(itertools.product(RATES, DECAYS))
DEFAULT = (1e-2, 1.0)  # where no held-out image can choose
_SCORED = 1024  # images at a time


class MLP(Evaluator):
    """A classifier with one hidden layer on frozen features.

    Measured: accuracy on test. Features of the un-augmented images, standardised with the mean and
    deviation of the images fitted on; one hidden layer of `width` rectified units; cross entropy;
    AdamW, 20 epochs in batches of 512 or of all there are, never fewer than 300 steps, cosine to
    zero, no dropout; torch's usual first weights. The last weights count.
    Chosen: the learning rate (.003, .01 or .03) and the weight decay (.01 or 1), by accuracy on
    the held-out tenth of train (ties: the lower cross entropy there); the six are trained side by
    side on the other nine tenths, each as it would be alone. The best is trained anew on all
    labelled images of train; test is read once.
    Source: Hewitt and Liang, arXiv 1909.03368 (what a probe that learns can tell of features).
    Traps: the gain over the linear probe is largest for features that did least of the work, and
    grows with the labels; wide probes close the gaps between methods.

    width: units of the hidden layer.
    """

    metrics = (
        Metric("top1", summary="accuracy"),
        Metric("top5", summary="truth among the five best classes, above five classes"),
    )
    version = 1

    def __init__(self, *, width: Count = 256) -> None:
        self.width = width

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        train = Labelled(*(part.to(subject.device) for part in labelled(subject, data, "train")))
        warnings = class_warnings(train.labels, data.classes)
        held, (rate, decay) = train.held_out, DEFAULT
        if held.any() and not held.all():
            heads = fit_heads(_rows(train, ~held), GRID, self.width, data.classes, seed=seed)
            rate, decay = GRID[_best(heads, _rows(train, held))]
        else:
            warnings += (f"no held-out tenth to choose on: {rate=} and {decay=} were taken",)
        head = fit_heads(train, [(rate, decay)], self.width, data.classes, seed=seed)
        test = labelled(subject, data, "test")
        scores = head(test.features)[0]
        metrics = accuracies(scores, test.labels)
        said = Predictions(scores.argmax(1), test.labels)
        chosen = {"lr": rate, "weight_decay": decay}
        return Judgement(metrics, chosen, warnings, predictions=said)


@dataclass(frozen=True)
class Heads:
    """R fitted heads: features [N, D] -> logits [R, N, C], on the host."""

    mean: Tensor  # [D]
    scale: Tensor  # [D]
    power: Tensor  # [D] by which features are multiplied first
    weights: list[list[Tensor]]  # of each head: [D, H], [1, H], [H, C], [1, C]

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        parts = torch.split(features.to(self.mean.device), _SCORED)
        return torch.cat([self.logits(self.standard(part)).cpu() for part in parts], dim=1)

    def standard(self, features: Tensor) -> Tensor:
        return (features * self.power - self.mean) / self.scale

    def logits(self, points: Tensor) -> Tensor:
        """[R, B, C] of standardised features [B, D]; a gradient passes to the weights."""
        into, shift, out, level = zip(*self.weights, strict=True)
        hidden = torch.addmm(torch.cat(shift, 1), points, torch.cat(into, 1)).relu()  # [B, R * H]
        hidden = hidden.view(len(points), len(into), -1).transpose(0, 1)  # [R, B, H]
        return torch.baddbmm(torch.stack(level), hidden, torch.stack(out))


def fit_heads(
    train: Labelled, grid: Sequence[tuple[float, float]], width: int, classes: int, *, seed: int
) -> Heads:
    """A head for each learning rate and weight decay, all from one start and of the same batches."""
    generator = torch.Generator().manual_seed(seed)
    heads = _begin(train.features, (width, classes), len(grid), generator)
    points, n = heads.standard(train.features), len(train.labels)
    settings = zip(heads.weights, grid, strict=True)
    optimizer = torch.optim.AdamW(
        [{"params": w, "lr": rate, "weight_decay": decay} for w, (rate, decay) in settings]
    )
    batch = min(BATCH, n)
    steps = max(LEAST, EPOCHS * (n // batch))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:  # what is left over would be a smaller batch
            order = torch.randperm(n, generator=generator)
        rows, order = order[:batch].to(points.device), order[batch:]
        logits = heads.logits(points[rows])  # [R, B, C]
        truth = train.labels[rows].repeat(len(grid))
        # summed over the heads: none feels how many others there are
        loss = F.cross_entropy(logits.flatten(0, 1), truth, reduction="sum") / batch
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    for tensor in itertools.chain.from_iterable(heads.weights):
        tensor.requires_grad_(False)
    return heads


def _begin(
    features: Tensor, sizes: tuple[int, int], many: int, generator: torch.Generator
) -> Heads:
    """Heads before training, all alike: uniform within one over the root of the inputs."""
    ordinary = power(features, 0)[0]
    features = features * ordinary
    mean, scale = features.mean(0), features.std(0, unbiased=False)
    flat = scale <= ULP * features.abs().amax(0)  # constant: rounding is not to be amplified
    scale = torch.where(flat, torch.inf, scale)
    first = []
    for inputs, outputs in zip((len(mean), sizes[0]), sizes, strict=True):
        for shape in ((inputs, outputs), (1, outputs)):
            drawn = torch.rand(shape, generator=generator) * 2 - 1
            first.append(drawn.div(math.sqrt(inputs)).to(features.device))
    return Heads(
        mean, scale, ordinary, [[w.clone().requires_grad_() for w in first] for _ in range(many)]
    )


def _rows(part: Labelled, rows: Tensor) -> Labelled:
    return Labelled(*(tensor[rows] for tensor in part))


def _best(heads: Heads, held: Labelled) -> int:
    """The head that the held-out tenth prefers."""
    truth = held.labels.cpu()

    def merit(logits: Tensor) -> tuple[int, float]:
        return int((logits.argmax(1) == truth).sum()), -float(F.cross_entropy(logits, truth))

    merits = [merit(logits) for logits in heads(held.features)]
    return max(range(len(merits)), key=lambda r: merits[r])
