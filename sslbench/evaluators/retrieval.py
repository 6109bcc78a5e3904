"""Test images as queries, train images as the gallery."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslbench.api import Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.errors import Unsuited
from sslbench.measures import unit
from sslbench.scores import Labelled, labelled

RECALLS = (1, 5, 10)
_BLOCK = 1 << 22  # similarities at a time


class Retrieval(Evaluator):
    """Ranks train images by their similarity to each test image.

    Measured: how early images of the query's class come, on test. Queries are test, the gallery is
    all labelled images of train, in the order of the cosine of the features of the un-augmented
    images. `map` is the mean over queries of the average precision of the whole ranking; with R
    gallery images of the query's class, `map@R` looks at the first R alone (a later one counts as
    missed) and `r_precision` is the share of the class among them; `recall@k` is the share of
    queries with at least one image of the class among the first k. Of equal similarities: each
    stands at the last rank of its tie in precisions (scikit-learn's average precision), a tie that
    R cuts counts in proportion, and recall is its expectation over all orders of the tie; constant
    features thus score chance.
    Chosen: nothing.
    Source: Musgrave et al., arXiv 2003.08505 (MAP@R); Jégou et al., IEEE TPAMI 33(1) 2011
    (recall@k).
    Traps: recall@1 is 1-NN accuracy and `map` is far below it: it asks for one compact cluster a
    class, which no probe needs. Chance is the share of the class in the gallery for `map`, its
    square for `map@R`, and 1 - (1 - share)^k for `recall@k`. Hashing papers cut mAP at 1,000 or
    5,000 ranks and divide by those found; metric-learning papers search test for classes that
    train lacks. They cannot be compared with these columns.
    """

    metrics = (
        Metric("map", summary="mean average precision of the whole ranking"),
        Metric("map@R", summary="mean average precision of the first R, as many as are right"),
        Metric("r_precision", summary="share of the class among the first R"),
        *(Metric(f"recall@{k}", summary=f"one of the class among the first {k}") for k in RECALLS),
    )
    version = 1

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        gallery = _by_class(labelled(subject, data, "train"))
        queries = _by_class(labelled(subject, data, "test"))
        device = torch.device("cpu") if subject.device.type == "mps" else subject.device
        right = torch.bincount(gallery.labels, minlength=data.classes)  # R of each class
        found = list(_searched(queries, gallery, device))
        if not found:
            raise Unsuited(
                f"images of the test classes were to be found in train, {data.name} has no class "
                "in both; use a dataset whose splits share classes"
            )
        merits = torch.cat(found)  # [M, metrics]
        metrics = {
            metric.name: _mean(column)
            for metric, column in zip(self.metrics, merits.unbind(1), strict=True)
        }
        lone = int((right[queries.labels] == 0).sum())
        if not lone:
            return Judgement(metrics)
        return Judgement(
            metrics,
            warnings=(
                f"{lone} of {len(queries.labels)} test images have no image of their class in "
                "train: they were left out",
            ),
        )


class Ranks(NamedTuple):
    """Of each right image of each query, nearest first: [m, R]. Equal ones share theirs."""

    above: Tensor  # images more similar
    upto: Tensor  # images as similar or more
    right_above: Tensor  # of those the right ones
    right_upto: Tensor


def _by_class(part: Labelled) -> Labelled:
    order = part.labels.argsort(stable=True)
    return Labelled(part.features[order], part.labels[order], part.held_out[order])


def _mean(column: Tensor) -> Value:
    n = len(column)
    return Value(float(column.mean()), n, float(column.std(unbiased=False)) / math.sqrt(n))


def _searched(queries: Labelled, gallery: Labelled, device: torch.device) -> Iterator[Tensor]:
    """[m, metrics] of some queries of one class after the other; both sorted by class."""
    bank = _unit(gallery.features, device)
    rows = max(1, _BLOCK // len(bank))
    for name in torch.bincount(queries.labels).nonzero()[:, 0].tolist():
        start, stop = torch.searchsorted(gallery.labels, torch.tensor([name, name + 1])).tolist()
        if start == stop:
            continue
        for some in torch.split(queries.features[queries.labels == name], rows):
            # exact; rounded once, since half as wide sorts twice as fast
            similarity = (_unit(some, device) @ bank.T).float()  # [m, N]
            yield _merits(_ranks(similarity, start, stop))


def _unit(features: Tensor, device: torch.device) -> Tensor:
    """float64 [N, D] of unit length, in steps of 2^-26.

    Products of two are whole multiples of 2^-52 and sums of them stay exact, in any order:
    duplicates tie, and no device, block or place in the gallery moves a rank.
    """
    steps = (unit(features.double()) * 2**26).round()
    return (steps / 2**26).to(device)


def _ranks(similarity: Tensor, start: int, stop: int) -> Ranks:
    """Of `similarity` [m, N], in which columns from `start` to `stop` are right."""
    # in rising order of distance; the values alone: where they stood is of no interest
    right = _sorted(-similarity[:, start:stop])  # [m, R]
    whole = _sorted(-similarity)
    return Ranks(
        *(
            torch.searchsorted(row, right, right=last)
            for row in (whole, right)
            for last in (False, True)
        )
    )


def _sorted(values: Tensor) -> Tensor:
    if values.device.type == "cpu":  # NumPy's sort is vectorised: 25 times torch's
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values


def _merits(ranks: Ranks) -> Tensor:
    """float64 [m, metrics] of each query."""
    r = ranks.above.shape[1]
    precision = ranks.right_upto.double() / ranks.upto
    tie = ranks.upto - ranks.above
    right_tie = ranks.right_upto - ranks.right_above
    share = ((r - ranks.above) / tie.double()).clamp(0, 1)  # of the tie within the first R
    cut = (ranks.right_above + share * right_tie) / ranks.upto.clamp(max=r)
    columns = [precision.mean(1), (share * cut).mean(1), share.mean(1)]
    above, tie, right_tie = ranks.above[:, 0], tie[:, 0], right_tie[:, 0]  # of the nearest right
    missed = torch.ones_like(columns[0])
    for place in range(max(RECALLS)):
        # the tie's images in a random order: none of those up to this place is a right one
        drawn = place - above
        left = (tie - drawn).clamp(min=1)
        wrong = (tie - right_tie - drawn).clamp(min=0)
        missed = torch.where(drawn >= 0, missed * wrong / left, missed)
        if place + 1 in RECALLS:
            columns.append(1 - missed)
    return torch.stack(columns, 1)
