"""Labelled features, and accuracies with standard errors, for evaluators that score by labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .api import Judged, Subject, Value
from .blocks import broken
from .errors import Unsuited, UserError
from .names import check_budget

FOLDS = 5  # at most, of a budget of labels

BINS = 15  # of confidence


class Labelled(NamedTuple):
    features: Tensor  # float32 [N, D]
    labels: Tensor  # int64 [N], each in [0, classes)
    held_out: Tensor  # bool [N], the tenth of train on which anything is chosen


def budget_of(judge: str, labels: int | str) -> int | str:
    """The budget that a judge was given, as it is kept; "" for none."""
    try:
        return labels if labels == "" else check_budget(labels)
    except UserError as error:
        raise UserError(f"{judge} was given labels={labels}: {error}") from error


def labelled(
    subject: Subject, data: Judged, split: Literal["train", "test"], budget: int | str = ""
) -> Labelled:
    """Features and labels of those images of a split that have a label.

    budget: of train only those that a method of this budget was shown in the same cell; none of them
        is held out, `turns` says on what to choose.
    Unsuited when there is nothing to tell apart: no image has a label, or there is one class.
    ValueError when a feature is not finite, or a label is not a class.
    """
    if data.classes == 1:
        raise Unsuited(
            f"{data.name} has one class only: every answer is right, and a score by labels would "
            "say nothing; use a dataset with more"
        )
    features, labels = subject.features(split).float(), data.labels(split)
    if len(features) != len(labels):
        raise ValueError(
            f"the {split} split has {len(labels)} labels and {len(features)} features; "
            "extract the features again"
        )
    if bad := broken(features):
        raise ValueError(
            f"the features of {split} cannot be judged: {bad} of {len(features)} rows hold NaN "
            "or infinity; train again with a lower learning rate"
        )
    known = labels >= 0
    if not known.any():
        raise Unsuited(
            f"the {split} split of {data.name} was to be judged by its labels, none of its "
            f"{len(labels)} images has one; use a dataset that labels it"
        )
    if int(labels.max()) >= data.classes:
        raise ValueError(
            f"the {split} split has label {int(labels.max())} where there are {data.classes} "
            f"classes; labels run from 0 to {data.classes - 1}"
        )
    if budget != "":
        rows = data.shown(budget)
        return Labelled(features[rows], labels[rows], torch.zeros(len(rows), dtype=torch.bool))
    held_out = data.held_out if split == "train" else torch.zeros(len(labels), dtype=torch.bool)
    if known.all():
        return Labelled(features, labels, held_out)
    return Labelled(features[known], labels[known], held_out[known])


def folds(labels: Tensor) -> tuple[Tensor, ...]:
    """Parts a budget of labels [N] into up to five, each class spread evenly over them: bool [N] each.

    Every part and the rest of it show each class; (): a class has one label alone.
    """
    place = torch.zeros_like(labels)
    count = FOLDS
    for label in sorted(set(labels.tolist())):
        own = (labels == label).nonzero()[:, 0]
        place[own] = torch.arange(len(own))
        count = min(count, len(own))
    return tuple(place % count == part for part in range(count)) if count > 1 else ()


def turns(labels: Tensor, held_out: Tensor, budget: int | str) -> tuple[Tensor, ...]:
    """Masks bool [N] of the images on which a choice is made, each among fits on all others.

    The folds of a budget, or without one the held-out tenth; () where there are none.
    """
    if budget != "":
        return folds(labels)
    return (held_out,) if held_out.any() and not held_out.all() else ()


def unchosen(what: str, taken: str, budget: int | str) -> str:
    """The warning where `turns` is empty."""
    lacking = f"one label of a class in a budget of {budget}" if budget else "no held-out tenth"
    return f"{lacking} to choose {what} on: {taken} was taken"


def accuracies(scores: Tensor, labels: Tensor) -> Mapping[str, Value]:
    """Computes `top1`, and `top5` above five classes, with binomial standard errors.

    `scores` [N, C]. A class that scores -inf is not among the five.
    """
    if broken := int(scores.isnan().any(1).sum()):
        raise ValueError(
            f"the answers to {broken} of {len(scores)} images are NaN, which would count as the "
            "first class; what was fitted on the features has diverged"
        )
    found = {"top1": proportion(scores.argmax(1) == labels)}
    if scores.shape[1] > 5:
        top = scores.topk(5, dim=1)
        hit = (top.indices == labels[:, None]) & (top.values > -math.inf)
        found["top5"] = proportion(hit.any(1))
    return found


def proportion(right: Tensor) -> Value:
    """The share of `right` [N], bool, with its binomial standard error."""
    n = len(right)
    share = int(right.sum()) / n
    return Value(share, n, math.sqrt(share * (1 - share) / n))


def calibration_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Mean of |accuracy - confidence| over bins of equal width, open below, by their images."""
    inner = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:-1]
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, torch.bucketize(confidence, inner), right.double() - confidence.double())
    return float(gap.abs().sum()) / len(confidence)


def class_warnings(labels: Tensor, classes: int) -> tuple[str, ...]:
    """Warns where the training labels do not cover every class."""
    shown = int((torch.bincount(labels) > 0).sum())
    if shown < classes:
        return (f"train shows {shown} of {classes} classes: the others cannot be predicted",)
    return ()
