"""Multinomial logistic regression on frozen features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.api import Evaluator, Head, Judged, Judgement, Metric, Predictions, Subject, Value
from sslbench.blocks import Rows, broken, sent
from sslbench.errors import UserError
from sslbench.logistic import Probe, fit_probes
from sslbench.scores import (
    Labelled,
    accuracies,
    budget_of,
    class_warnings,
    labelled,
    proportion,
    turns,
    unchosen,
)

GRID = tuple(10 ** (exponent / 2) for exponent in range(4, -15, -1))  # 100 to 1e-7, half decades
ROUGH = 1e-4  # distance from the minimum, as a share of the objective, of fits that are to choose
WORSE = 1.1  # times the lowest held-out cross entropy: where the walk down the grid ends
DEFAULT = 1e-3  # where no held-out image can choose


class Linear(Evaluator):
    """Multinomial logistic regression on frozen features.

    Measured: accuracy on test. Features of the un-augmented images, each standardised with the
    mean and deviation of the images fitted on; objective: mean cross entropy + l2/2 * |weights|^2,
    bias free (scikit-learn's LogisticRegression with C = 1 / (l2 * N), and with C = 2 / (l2 * N) for
    two classes, to which it gives one vector of weights where here are two, opposite). Newton's
    method minimises it, in float64, until strong convexity proves that the distance from the minimum
    is at most 1e-6 of it (a fit that stops before is a warning), so the answer depends on no
    learning rate, batch, order or seed. With `layers` also the accuracy of the same probe on each
    stage's maps averaged over positions; layer1 is the shallowest.
    Chosen: l2 among 19 values, tried from 100 down to 1e-7 on nine tenths of train (these fits to
    1e-4), until the cross entropy on the held-out tenth is a tenth above its lowest; the one with
    the highest accuracy there stays (ties: the lower cross entropy). Refitted on all labelled
    images of train; test is read once. With `layers` every stage chooses its own l2, and
    best_layer is the one that the held-out tenth prefers by the same rule. With `labels` it is chosen
    within the budget, where the held-out tenth has no part: the budget's images are parted into five, or
    as many as its smallest class has labels, each class evenly; each part is judged by fits on the
    others, and what is right of all parts, and their mean cross entropy, count in the same rule. Where
    a class has one label l2 is .001.
    Source: Kornblith et al., arXiv 1805.08974 (L-BFGS, regularisation chosen on held-out train).
    Traps: published linear numbers come from SGD with augmented crops and learning rates from .001
    to 30 chosen for one method, from probes trained along with the encoder, or from the best epoch
    on test. They cannot be compared with this column. Published scores by layer pool each to some 9,000
    numbers (arXiv 1905.01235), which serves shallow stages; here a stage has its channels alone.

    l2: fixed, instead of chosen. layers: whether each stage of the backbone is judged as well.
    labels: fitted on these alone, the images that a method with the same budget is shown in a cell of
    the same seed: 40, 4/class, 10% or all; as it comes, all of train.
    """

    metrics = (
        Metric("top1", summary="accuracy"),
        Metric("top5", summary="truth among the five best classes, above five classes"),
    )
    version = 2
    added: ClassVar[Mapping[str, Any]] = {"layers": False, "labels": ""}

    def __init__(
        self, *, l2: float | None = None, layers: bool = False, labels: int | str = ""
    ) -> None:
        if l2 is not None and l2 <= 0:
            raise UserError(f"linear was given l2={l2}; give one above 0, or none to choose it")
        self.l2, self.layers, self.labels = l2, layers, budget_of("linear", labels)

    def budget(self) -> int | str:
        return self.labels

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        probe, warnings = choose_probe(subject, data, self.l2, labels=self.labels)
        stages = self._stages(subject, data) if self.layers else []
        test = labelled(subject, data, "test")
        scores = probe(test.features).cpu()
        own = accuracies(scores, test.labels.cpu())
        said = Predictions(scores.argmax(1), test.labels)
        if not self.layers:
            return Judgement(own, {"l2": probe.l2}, warnings, predictions=said)
        by_layer = _scores(stages, subject, data)
        metrics = dict(own)
        chosen: dict[str, Any] = {"l2": probe.l2}
        chosen |= {f"l2_{stage.name}": stage.probe.l2 for stage in stages}
        for stage in stages:
            warnings += tuple(f"{stage.name}: {sentence}" for sentence in stage.warnings)
        if all(stage.merit for stage in stages):
            best = max(stages, key=lambda stage: stage.merit or (0, 0.0))  # ties: the shallower
            metrics["best_layer"] = by_layer[best.name]
            chosen["best_layer"] = best.name
        return Judgement({**metrics, **by_layer}, chosen, warnings, predictions=said)

    def _stages(self, subject: Subject, data: Judged) -> list[_Stage]:
        grid = GRID if self.l2 is None else (self.l2,)
        found = []
        levels = _levels(subject, data, "train", self.labels)
        for place, train in enumerate(levels, start=1):
            l2, merit, warnings = _choose(train, data.classes, grid)
            probe, more = _fit(train, data.classes, l2)
            found.append(_Stage(f"layer{place}", probe, merit, warnings + more))
        return found

    def probe(self, subject: Subject, data: Judged, *, nine_tenths: bool = False) -> Head:
        return choose_probe(subject, data, self.l2, nine_tenths=nine_tenths, labels=self.labels)[0]


def choose_probe(
    subject: Subject,
    data: Judged,
    l2: float | None = None,
    *,
    nine_tenths: bool = False,
    labels: int | str = "",
) -> tuple[Probe, tuple[str, ...]]:
    """The head of this protocol, and what a reader must be warned of.

    Fitted on all of train, on the nine tenths that are not held out, or on a budget of `labels`,
    which lies within these.
    """
    train = _at(subject, labelled(subject, data, "train", labels), labels)
    warnings = class_warnings(train.labels, data.classes)
    if l2 is None:
        l2, _, more = _choose(train, data.classes, GRID)
        warnings += more
    if nine_tenths:
        train = _some(train, ~train.held_out)
    probe, more = _fit(train, data.classes, l2)
    return probe, warnings + more


Merit = tuple[int, float]  # on what is held out: how many are right, minus the cross entropy


class _Shown(NamedTuple):
    """Labelled images: features for the subject's device, labels on the host."""

    rows: Rows
    labels: Tensor  # int64 [N]
    held_out: Tensor  # bool [N]
    budget: int | str  # "": none


class _Stage(NamedTuple):
    name: str
    probe: Probe
    merit: Merit | None  # None: there is nothing to choose on
    warnings: tuple[str, ...]


def _levels(
    subject: Subject, data: Judged, split: Literal["train", "test"], budget: int | str = ""
) -> list[_Shown]:
    """Of each stage, shallow to deep, what `labelled` gives of the features."""
    labels = data.labels(split)
    held = data.held_out if split == "train" else torch.zeros(len(labels), dtype=torch.bool)
    known = (labels >= 0).nonzero()[:, 0] if budget == "" else data.shown(budget)
    found = []
    for place, level in enumerate(subject.maps(split), start=1):
        if bad := broken(level):
            raise ValueError(
                f"the maps of stage {place} were to be judged, {bad} of {len(level)} rows of "
                f"{split} hold NaN or infinity; train again with a lower learning rate"
            )
        part = Labelled(level[known].float(), labels[known], held[known])
        found.append(_at(subject, part, budget))
    return found


def _scores(stages: Sequence[_Stage], subject: Subject, data: Judged) -> dict[str, Value]:
    return {
        stage.name: proportion(stage.probe(test.rows).argmax(1).cpu() == test.labels)
        for stage, test in zip(stages, _levels(subject, data, "test"), strict=True)
    }


def _at(subject: Subject, part: Labelled, budget: int | str = "") -> _Shown:
    # Metal has no eigh
    device = torch.device("cpu") if subject.device.type == "mps" else subject.device
    rows = Rows(part.features, device)
    return _Shown(rows, part.labels, part.held_out, budget)


def _some(part: _Shown, mask: Tensor) -> _Shown:
    return _Shown(part.rows.some(mask), part.labels[mask], part.held_out[mask], part.budget)


def _fit(train: _Shown, classes: int, l2: float) -> tuple[Probe, tuple[str, ...]]:
    probe = next(fit_probes(train.rows, train.labels, (l2,), classes))
    if not probe.converged:
        return probe, (f"the fit at l2={l2:.3g} stopped before its minimum",)
    return probe, ()


def _path(train: _Shown, classes: int, grid: Sequence[float]) -> Iterator[Probe]:
    return fit_probes(train.rows, train.labels, grid, classes, tolerance=ROUGH)


def _choose(
    train: _Shown, classes: int, grid: Sequence[float]
) -> tuple[float, Merit | None, tuple[str, ...]]:
    """The l2 of the grid that is best on the held-out tenth, or on the folds of a budget."""
    held = turns(train.labels, train.held_out, train.budget)
    if not held:
        l2 = grid[0] if len(grid) == 1 else DEFAULT
        return l2, None, (unchosen("l2", f"l2={l2}", train.budget),)
    judged = [_some(train, mask) for mask in held]
    paths = [_path(_some(train, ~mask), classes, grid) for mask in held]
    merits: dict[float, Merit] = {}
    lowest = math.inf
    count = sum(len(part.labels) for part in judged)
    for probes in zip(*paths, strict=True):
        right, loss = 0, 0.0
        for probe, part in zip(probes, judged, strict=True):
            truth = sent(part.labels, part.rows.device)
            logits = probe(part.rows)
            right += int((logits.argmax(1) == truth).sum())
            loss += float(F.cross_entropy(logits, truth)) * (len(truth) / count)
        merits[probes[0].l2] = right, -loss
        lowest = min(lowest, loss)
        if loss > WORSE * lowest:
            break
    best = max(merits, key=lambda l2: merits[l2])
    if len(grid) > 1 and best in (grid[0], grid[-1]) and classes > 1:
        return best, merits[best], (f"the chosen l2={best:.3g} is at the edge of the grid",)
    return best, merits[best], ()
