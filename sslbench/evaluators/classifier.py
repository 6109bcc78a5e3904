"""What a method of labels answers itself, and how sure it is of that."""

from __future__ import annotations

import math

from torch import Tensor

from sslbench.api import Evaluator, Judged, Judgement, Metric, Predictions, Subject, Value
from sslbench.errors import Unsuited
from sslbench.scores import accuracies, calibration_error

LEAST = 1e-12  # a probability counts as this at least where its logarithm is taken


class Classifier(Evaluator):
    """The method's own answer: which class, and with what probability.

    Measured: on test, of the logits that the method itself gives of the un-augmented images, with
    the weights at the end of its fit or, where its paper judges that, their average. `ece` is the
    expected calibration error of the most probable class in 15 bins of equal width: the mean over
    images of |accuracy - mean confidence| of their bin; `nll` the mean of -log(probability of the
    truth), a probability below 1e-12 taken as 1e-12. Nothing is fitted; test is read once.
    Chosen: nothing. What the method chose is among its hyperparameters.
    Source: Oliver et al., arXiv 1804.09170 (how to judge semi-supervised methods); Guo et al., arXiv
    1706.04599 (ECE).
    Traps: published numbers of semi-supervised methods are often those of the checkpoint that was
    best on test; these are those of the last. A method that saw no label has no classes but
    clusters at most: it is refused, and `clustering` judges it. Of methods with different numbers
    of labels one column says nothing. ECE is 0 for whoever always states the base rates, and rises
    with noise in small test splits: read it beside `top1`, and trust `nll`, which is proper.
    """

    metrics = (
        Metric("top1", summary="accuracy"),
        Metric("top5", summary="truth among the five most probable, above five classes"),
        Metric(
            "ece", higher_is_better=False, summary="calibration error, 15 equal bins, top label"
        ),
        Metric("nll", higher_is_better=False, summary="negative log likelihood", unit="nats"),
    )
    version = 1

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        if subject.told == "none":
            raise Unsuited(
                "the classes that a method answers were to be judged, and this one saw no label: "
                "what it names, if anything, are clusters; `clustering` judges these, and `linear` "
                "fits a classifier to its features"
            )
        if data.classes == 1:
            raise Unsuited(f"{data.name} has one class only: every answer is right")
        logits = subject.predict("test")
        if logits is None:
            raise Unsuited(
                "the classes that a method answers were to be judged, and this one answers none; "
                "`linear` fits a classifier to its features"
            )
        answers, labels = _sound(logits, data)
        logs = answers.log_softmax(1)  # [N, K]
        sure, said = logs.exp().max(1)
        nll = -logs.gather(1, labels[:, None])[:, 0].clamp(min=math.log(LEAST))
        n = len(labels)
        error = float(nll.std()) / math.sqrt(n) if n > 1 else None
        metrics = {
            **accuracies(answers, labels),
            "ece": Value(calibration_error(sure, said == labels), n),
            "nll": Value(float(nll.mean()), n, error),
        }
        return Judgement(metrics, predictions=Predictions(answers.argmax(1), labels))


def _sound(logits: Tensor, data: Judged) -> tuple[Tensor, Tensor]:
    """The logits [N, K] in float64, and the labels, of images of test that have one."""
    labels = data.labels("test")
    if logits.shape != (len(labels), data.classes):
        raise ValueError(
            f"the method answered {list(logits.shape)} to {len(labels)} images of {data.classes} "
            f"classes; `predict` must return logits of all classes, [B, {data.classes}]"
        )
    known = labels >= 0
    if not known.any():
        raise Unsuited(
            f"the test split of {data.name} was to be judged by its labels, none of its "
            f"{len(labels)} images has one; use a dataset that labels it"
        )
    answers = logits[known].cpu().double()
    if bad := int((~answers.isfinite().all(1)).sum()):
        raise ValueError(
            f"the answers to {bad} of {len(answers)} images hold NaN or infinity; train again with "
            "a lower learning rate"
        )
    return answers, labels[known]
