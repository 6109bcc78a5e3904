"""Test-time adaptation by the pseudo-labels that a head's own training loss implies."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.api import Count, Evaluator, Judged, Judgement, NonNegative, Subject
from sslbench.errors import UserError
from sslbench.evaluators.adapting import Adapting
from sslbench.evaluators.robustness import (
    accuracies,
    finite,
    rendering,
    set_of,
    severities_of,
    trial,
    ways,
)
from sslbench.logistic import Probe
from sslbench.measures import ULP, power
from sslbench.scores import labelled, turns, unchosen

MODES = ("conjugate", "entropy", "norm", "source")
GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
DEFAULT = 1e-3  # where no held-out image can choose
STEPS = 300  # of L-BFGS, for each l2
Kind = Literal["poly", "squared"]


class Conjugate(Evaluator):
    """Conjugate pseudo-labels: batch norm follows the loss that a head was trained by, without labels.

    Measured: accuracy on corrupted test images in four ways, over the 15 corruptions of the
    benchmark and over all 19. A copy of the encoder under a frozen linear head, which is fitted here on
    clean train by PolyLoss, cross entropy + eps (1 - probability of the truth), or by the squared
    distance from one-hot labels; no label of test is seen. `source` adapts nothing. `norm` takes each
    batch's own mean and variance. `conjugate` also takes a step of Adam (betas .9 and .999, no weight
    decay) on the scales and shifts of batch norm alone, down the conjugate of the head's loss: the loss
    with the labels at which its slope in the logits is zero. For PolyLoss these are p / (1 + eps p),
    made to sum to one, of probabilities p; for squares the loss is -|logits|^2 / 2. `entropy` does the
    same with Tent's loss. Both answer by a forward that follows the step, so that a batch is answered
    by what it taught; every corruption and severity starts from the source again. Test images come in
    one fixed shuffled order, the same for every encoder and seed; batches hold `batch` images or, so
    that no small one is left over, more, up to twice as many. Dropout is off.
    Chosen: the head's l2, 10 down to 1e-5 by tens, by accuracy on the held-out tenth of clean train
    (ties: the lower loss there); refitted on all labelled images of train.
    Source: Goyal et al., arXiv 2207.09640 (losses, predictions after the step; PolyLoss with eps 6);
    Leng et al., arXiv 2204.12511 (PolyLoss).
    Departures: the head alone is trained by the loss, on frozen features (the paper: the whole
    network), with l2, features standardised, the squared one by its normal equations and the other by
    at most 300 steps of L-BFGS. Adam at 1e-3, as Tent's here (their code: SGD at 1e-3; the paper tunes
    rate and temperature on other corruptions; the temperature is 1 here). All severities unless told
    otherwise (the paper: 5). Their code solves a system for the labels of PolyLoss, which has the
    closed form above.
    Traps: at eps=0 the conjugate is the entropy: `conjugate` and `entropy` are then the same. `tent`
    answers before its step, and by another head: read `entropy` here beside `conjugate`, not `tent`'s
    columns. Batch statistics alone win most: read `norm`. PolyLoss is not convex: a fit may end beside
    the minimum.

    loss: by which the head is fitted and adapted. eps: of PolyLoss; 0 is cross entropy. set:
    "official" as published, "regen" rendered here, or the name of a folder in the official layout.
    images: a fixed class-balanced subset of that many test images. severities: one, or a range. lr: of
    Adam; at 0 conjugate and entropy are norm. batch: images a step. steps: on each batch.
    """

    metrics = ways(MODES)
    version = 1

    def __init__(
        self,
        *,
        loss: Kind = "poly",
        eps: NonNegative = 6.0,
        set: str = "official",
        images: Count | None = None,
        severities: int | str = "1-5",
        lr: NonNegative = 1e-3,
        batch: Count = 200,
        steps: Count = 1,
    ) -> None:
        if batch < 2:
            raise UserError(f"conjugate was given batch={batch}; statistics take at least 2 images")
        if loss == "squared" and eps != 6:
            raise UserError(
                f"conjugate was given eps={eps}, which is PolyLoss's; with squares give none"
            )
        self.loss: Kind = loss
        self.eps = eps
        self.set, self.images = set_of("conjugate", set), images
        self.severities = severities_of("conjugate", severities)
        self.lr, self.batch, self.steps = lr, batch, steps

    def extra(self) -> Mapping[str, Any]:
        return rendering(self.set)

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        head, warnings = fit(subject, data, self.loss, self.eps)
        follow = functools.partial(conjugate, loss=self.loss, eps=self.eps)
        moving = {"conjugate": follow, "entropy": None, "norm": None}
        copies = {
            mode: Adapting(subject.copy(), head, self.lr, loss=loss, judge="conjugate")
            for mode, loss in moving.items()
        }
        over = trial(data, self.set, self.images, self.severities)
        right = {mode: over.blank() for mode in MODES}
        for cell in over.cells(self.batch):
            for each in copies.values():
                each.reset()
            for part, images in cell.parts:
                x = images.to(subject.device).float() / 255
                source = finite(torch.cat(list(subject.stream(images))), cell.what)
                answers = {"source": head(source)}
                for mode, each in copies.items():
                    for _ in range(self.steps if mode != "norm" else 0):
                        each.step(x, cell.what)
                    answers[mode] = each.logits(x, cell.what)
                for mode, logits in answers.items():
                    right[mode][cell.at][part] = logits.argmax(1).cpu() == over.labels[part]
        return Judgement(accuracies(right), {"l2": head.l2}, warnings, over.sources)


def conjugate(logits: Tensor, *, loss: Kind, eps: float) -> Tensor:
    """The mean conjugate loss of [B, C]; a class that scores -inf has no part in it."""
    shown = logits[:, (logits > -torch.inf).all(0)]
    if loss == "squared":
        return -shown.square().sum(1).mean() / 2
    logs = shown.log_softmax(1)
    chances = logs.exp()
    return (implied(chances, eps) * (eps * (1 - chances) - logs)).sum(1).mean()


def implied(chances: Tensor, eps: float) -> Tensor:
    """The labels [B, C] at which PolyLoss has no slope in the logits of these probabilities.

    They solve (1 + eps (diag(p) - p p')) y = p, by the formula of Sherman and Morrison.
    """
    labels = chances / (1 + eps * chances)
    return labels / labels.sum(1, keepdim=True)


# ---- the head ------------------------------------------------------------------------------


class _Points(NamedTuple):
    """Standardised features with a column of ones, and one-hot labels of the classes shown."""

    x: Tensor  # float64 [N, D + 1]
    y: Tensor  # float64 [N, K]

    def some(self, mask: Tensor) -> _Points:
        rows = mask.nonzero()[:, 0].to(self.x.device)
        return _Points(self.x[rows], self.y[rows])


def fit(subject: Subject, data: Judged, loss: Kind, eps: float) -> tuple[Probe, tuple[str, ...]]:
    """The head of this protocol, and what a reader must be warned of."""
    train = labelled(subject, data, "train")
    # Metal has no float64
    device = torch.device("cpu") if subject.device.type == "mps" else subject.device
    features = train.features.to(device)
    ordinary = power(features, 0)[0]  # [D]
    features = features * ordinary
    mean, scale = features.mean(0), features.std(0, correction=0)
    flat = scale <= ULP * features.abs().amax(0)
    scale = torch.where(flat, torch.ones_like(scale), scale)
    mean = torch.where(flat, features[0], mean)
    x = F.pad(((features - mean) / scale).double(), (0, 1), value=1.0)
    shown = torch.tensor(sorted(set(train.labels.tolist())))
    whole = _Points(x, (train.labels[:, None] == shown).double().to(device))
    weights, l2, warnings = _weights(whole, turns(train.labels, train.held_out, ""), loss, eps)
    weight = torch.zeros(data.classes, features.shape[1], device=device)
    bias = torch.full((data.classes,), -torch.inf, device=device)
    weight[shown.to(device)], bias[shown.to(device)] = (
        weights[:, :-1].float(),
        weights[:, -1].float(),
    )
    value = float(_objective(whole, weights, l2, loss, eps))
    return Probe(weight, bias, mean, scale, ordinary, l2, value, converged=True), warnings


def _weights(
    whole: _Points, held: Sequence[Tensor], loss: Kind, eps: float
) -> tuple[Tensor, float, tuple[str, ...]]:
    """Weights [K, D + 1] of the whole at the l2 that the held-out tenth prefers."""
    start = whole.x.new_zeros(whole.y.shape[1], whole.x.shape[1])
    if not held:
        said = unchosen("l2", f"l2={DEFAULT}", "")
        return _least(whole, start, DEFAULT, loss, eps), DEFAULT, (said,)
    rest, judged = whole.some(~held[0]), whole.some(held[0])
    best: tuple[tuple[int, float], float, Tensor] | None = None
    at = start
    for l2 in GRID:
        at = _least(rest, at, l2, loss, eps)
        logits = judged.x @ at.T
        right = int((logits.argmax(1) == judged.y.argmax(1)).sum())
        merit = right, -float(_losses(logits, judged.y, loss, eps))
        if best is None or merit > best[0]:
            best = merit, l2, at
    assert best is not None
    _, l2, at = best
    return _least(whole, at, l2, loss, eps), l2, ()


def _least(points: _Points, start: Tensor, l2: float, loss: Kind, eps: float) -> Tensor:
    """Weights at the least objective, of squares, or where L-BFGS ends."""
    if loss == "squared":
        gram = points.x.T @ points.x / len(points.x)
        gram.diagonal()[:-1] += l2
        found: Tensor = torch.linalg.solve(gram, points.x.T @ points.y / len(points.x))
        return found.T
    weights = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def asked() -> float:
        value = _objective(points, weights, l2, loss, eps)
        (weights.grad,) = torch.autograd.grad(value, [weights])
        return float(value.detach())

    with torch.enable_grad():
        optimizer.step(asked)  # type: ignore[no-untyped-call]  # torch gives it no types
    return weights.detach()


def _objective(points: _Points, weights: Tensor, l2: float, loss: Kind, eps: float) -> Tensor:
    penalty = l2 / 2 * weights[:, :-1].square().sum()
    return _losses(points.x @ weights.T, points.y, loss, eps) + penalty


def _losses(logits: Tensor, labels: Tensor, loss: Kind, eps: float) -> Tensor:
    """The mean loss of logits and one-hot labels [N, K]."""
    if loss == "squared":
        return (logits - labels).square().sum(1).mean() / 2
    logs = (logits.log_softmax(1) * labels).sum(1)  # of the truth
    return (eps * (1 - logs.exp()) - logs).mean()
