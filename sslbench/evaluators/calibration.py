"""Whether a probe's probabilities can be believed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslbench.api import Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.errors import Unsuited
from sslbench.scores import Labelled, calibration_error, class_warnings, labelled, proportion

LEAST = 1e-12  # a probability counts as this at least where its logarithm is taken
HOTTEST = 100.0  # temperatures searched: from 1 / HOTTEST to HOTTEST


class Calibration(Evaluator):
    """Calibration of the probe's probabilities, before and after temperature scaling.

    Measured: on test, of the probe that `linear` chooses, fitted on the nine tenths of train that
    are not held out. `ece` is the expected calibration error of the most probable class in 15
    bins of equal width: the mean over images of |accuracy - mean confidence| of their bin. `brier`
    is the squared distance of probabilities and truth summed over classes (0 to 2), `nll` the
    mean of -log(probability of the truth), a probability below 1e-12 taken as 1e-12. The same with
    `_scaled` for logits divided by one temperature, which moves no prediction.
    Chosen: the temperature, on the held-out tenth, by the lowest cross entropy there; 1 where no
    other is better. l2 was chosen on the same tenth, by accuracy.
    Source: Guo et al., arXiv 1706.04599 (ECE, temperature scaling); Brier, 1950.
    Traps: ECE is 0 for whoever always states the base rates, depends on bins and rises with noise
    in small test splits: read it beside `top1`, and trust `brier` and `nll`, which are proper. The
    probe sees a tenth less than that of `linear`, so its accuracy differs.
    """

    metrics = (
        Metric(
            "ece", higher_is_better=False, summary="calibration error, 15 equal bins, top label"
        ),
        Metric(
            "brier", higher_is_better=False, summary="squared error summed over classes", unit="1"
        ),
        Metric("nll", higher_is_better=False, summary="negative log likelihood", unit="nats"),
        Metric("ece_scaled", higher_is_better=False, summary="ece at the chosen temperature"),
        Metric(
            "brier_scaled",
            higher_is_better=False,
            summary="brier at the chosen temperature",
            unit="1",
        ),
        Metric(
            "nll_scaled",
            higher_is_better=False,
            summary="nll at the chosen temperature",
            unit="nats",
        ),
        Metric("top1", summary="accuracy of this probe"),
    )
    version = 1
    uses = ("linear",)

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        train = labelled(subject, data, "train")
        held = train.held_out
        if not held.any() or held.all():
            raise Unsuited(
                f"calibration fits a probe on nine tenths of train and a temperature on the held-"
                f"out tenth; {int(held.sum())} of {len(held)} labelled images are held out; use a "
                "train split with more labelled images"
            )
        head = subject.probe("linear", nine_tenths=True)
        warnings = class_warnings(train.labels[~held], data.classes)
        temperature, more = _temperature(
            head(train.features[held]).cpu().double(), train.labels[held]
        )
        test = labelled(subject, data, "test")
        logits = head(test.features).cpu().double()  # [N, C]
        metrics = _scores(logits, test, "") | _scores(logits / temperature, test, "_scaled")
        metrics["top1"] = proportion(logits.argmax(1) == test.labels)
        unseen = int((_of_truth(logits, test.labels) == -math.inf).sum())
        if unseen:
            warnings += (
                f"{unseen} test images are of classes that the nine tenths of train do not show: "
                f"each counts in nll as a probability of {LEAST:g}",
            )
        return Judgement(metrics, {"temperature": temperature}, warnings + more)


def _temperature(logits: Tensor, truth: Tensor) -> tuple[float, tuple[str, ...]]:
    """What lowers the cross entropy of logits [N, C] most; of images whose class has a logit."""
    from scipy.optimize import minimize_scalar

    known = _of_truth(logits, truth) > -math.inf
    if not known.any():
        return 1.0, ("no held-out image is of a class that was fitted: temperature 1 was taken",)
    logits, truth = logits[known], truth[known]

    def loss(log_temperature: float) -> float:
        return float(-_of_truth((logits / math.exp(log_temperature)).log_softmax(1), truth).mean())

    edge = math.log(HOTTEST)
    found = minimize_scalar(loss, bounds=(-edge, edge), method="bounded", options={"xatol": 1e-7})
    if not found.fun < loss(0.0):
        return 1.0, ()
    if abs(found.x) > edge - 1e-3:
        return math.exp(found.x), (f"the temperature {math.exp(found.x):.3g} is at its bound",)
    return math.exp(found.x), ()


def _scores(logits: Tensor, test: Labelled, suffix: str) -> dict[str, Value]:
    n, logs = len(logits), logits.log_softmax(1)
    confidence, guess = (probabilities := logs.exp()).max(1)
    truth = torch.nn.functional.one_hot(test.labels, logits.shape[1])
    brier = (probabilities - truth).square().sum(1)
    nll = -_of_truth(logs, test.labels).clamp(min=math.log(LEAST))
    ece = calibration_error(confidence, guess == test.labels)
    return {
        f"ece{suffix}": Value(ece, n),
        f"brier{suffix}": _mean(brier),
        f"nll{suffix}": _mean(nll),
    }


def _of_truth(scores: Tensor, truth: Tensor) -> Tensor:
    return scores.gather(1, truth[:, None])[:, 0]


def _mean(each: Tensor) -> Value:
    n = len(each)
    return Value(float(each.mean()), n, float(each.std()) / math.sqrt(n) if n > 1 else None)
