"""Multinomial logistic regression on frozen features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.api import Evaluator, Head, Judged, Judgement, Metric, Predictions, Subject, Value
from sslbench.blocks import Rows, broken, sent
from sslbench.errors import UserError
from sslbench.logistic import Probe, fit_probes
from sslbench.scores import Labelled, accuracies, class_warnings, labelled, proportion

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
    best_layer is the one that the held-out tenth prefers by the same rule.
    Source: Kornblith et al., arXiv 1805.08974 (L-BFGS, regularisation chosen on held-out train).
    Traps: published linear numbers come from SGD with augmented crops and learning rates from .001
    to 30 chosen for one method, from probes trained along with the encoder, or from the best epoch
    on test. They cannot be compared with this column. Published scores by layer pool each to some 9,000
    numbers (arXiv 1905.01235), which serves shallow stages; here a stage has its channels alone.

    l2: fixed, instead of chosen. layers: whether each stage of the backbone is judged as well.
    """

    metrics = (
        Metric("top1", summary="accuracy"),
        Metric("top5", summary="truth among the five best classes, above five classes"),
    )
    version = 2
    added: ClassVar[Mapping[str, Any]] = {"layers": False}

    def __init__(self, *, l2: float | None = None, layers: bool = False) -> None:
        if l2 is not None and l2 <= 0:
            raise UserError(f"linear was given l2={l2}; give one above 0, or none to choose it")
        self.l2, self.layers = l2, layers

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        probe, warnings = choose_probe(subject, data, self.l2)
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
        for place, train in enumerate(_levels(subject, data, "train"), start=1):
            l2, merit, warnings = _choose(train, data.classes, grid)
            probe, more = _fit(train, data.classes, l2)
            found.append(_Stage(f"layer{place}", probe, merit, warnings + more))
        return found

    def probe(self, subject: Subject, data: Judged, *, nine_tenths: bool = False) -> Head:
        return choose_probe(subject, data, self.l2, nine_tenths=nine_tenths)[0]


def choose_probe(
    subject: Subject, data: Judged, l2: float | None = None, *, nine_tenths: bool = False
) -> tuple[Probe, tuple[str, ...]]:
    """The head of this protocol, and what a reader must be warned of.

    Fitted on all of train, or on the nine tenths that are not held out.
    """
    train = _at(subject, labelled(subject, data, "train"))
    warnings = class_warnings(train.labels, data.classes)
    if l2 is None:
        l2, _, more = _choose(train, data.classes, GRID)
        warnings += more
    if nine_tenths:
        train = _some(train, ~train.held_out)
    probe, more = _fit(train, data.classes, l2)
    return probe, warnings + more


Merit = tuple[int, float]  # on the held-out tenth: how many are right, minus the cross entropy


class _Shown(NamedTuple):
    """Labelled images: features for the subject's device, labels on the host."""

    rows: Rows
    labels: Tensor  # int64 [N]
    held_out: Tensor  # bool [N]


class _Stage(NamedTuple):
    name: str
    probe: Probe
    merit: Merit | None  # None: there is no held-out tenth
    warnings: tuple[str, ...]


def _levels(subject: Subject, data: Judged, split: Literal["train", "test"]) -> list[_Shown]:
    """Of each stage, shallow to deep, what `labelled` gives of the features."""
    labels = data.labels(split)
    held = data.held_out if split == "train" else torch.zeros(len(labels), dtype=torch.bool)
    known = labels >= 0
    found = []
    for place, level in enumerate(subject.maps(split), start=1):
        if bad := broken(level):
            raise ValueError(
                f"the maps of stage {place} were to be judged, {bad} of {len(level)} rows of "
                f"{split} hold NaN or infinity; train again with a lower learning rate"
            )
        part = Labelled(level[known].float(), labels[known], held[known])
        found.append(_at(subject, part))
    return found


def _scores(stages: Sequence[_Stage], subject: Subject, data: Judged) -> dict[str, Value]:
    return {
        stage.name: proportion(stage.probe(test.rows).argmax(1).cpu() == test.labels)
        for stage, test in zip(stages, _levels(subject, data, "test"), strict=True)
    }


def _at(subject: Subject, part: Labelled) -> _Shown:
    # Metal has no eigh
    device = torch.device("cpu") if subject.device.type == "mps" else subject.device
    return _Shown(Rows(part.features, device), part.labels, part.held_out)


def _some(part: _Shown, mask: Tensor) -> _Shown:
    return _Shown(part.rows.some(mask), part.labels[mask], part.held_out[mask])


def _fit(train: _Shown, classes: int, l2: float) -> tuple[Probe, tuple[str, ...]]:
    probe = next(fit_probes(train.rows, train.labels, (l2,), classes))
    if not probe.converged:
        return probe, (f"the fit at l2={l2:.3g} stopped before its minimum",)
    return probe, ()


def _choose(
    train: _Shown, classes: int, grid: Sequence[float]
) -> tuple[float, Merit | None, tuple[str, ...]]:
    """The l2 of the grid that is best on the held-out tenth."""
    held = train.held_out
    if not held.any() or held.all():
        l2 = grid[0] if len(grid) == 1 else DEFAULT
        return l2, None, (f"no held-out tenth to choose l2 on: l2={l2} was taken",)
    rest, judged = _some(train, ~held), _some(train, held)
    truth = sent(judged.labels, judged.rows.device)
    merits: dict[float, Merit] = {}
    lowest = math.inf
    for probe in fit_probes(rest.rows, rest.labels, grid, classes, tolerance=ROUGH):
        logits = probe(judged.rows)
        loss = float(F.cross_entropy(logits, truth))
        merits[probe.l2] = int((logits.argmax(1) == truth).sum()), -loss
        lowest = min(lowest, loss)
        if loss > WORSE * lowest:
            break
    best = max(merits, key=lambda l2: merits[l2])
    if len(grid) > 1 and best in (grid[0], grid[-1]) and classes > 1:
        return best, merits[best], (f"the chosen l2={best:.3g} is at the edge of the grid",)
    return best, merits[best], ()
