"""Weighted nearest neighbours on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sslbench.api import Evaluator, Judged, Judgement, Metric, Predictions, Subject
from sslbench.blocks import Rows, sent
from sslbench.cluster import nearest
from sslbench.errors import Unsuited, UserError
from sslbench.measures import unit
from sslbench.scores import (
    Labelled,
    accuracies,
    budget_of,
    class_warnings,
    labelled,
    turns,
    unchosen,
)

GRID = (1, 5, 10, 20, 50, 100, 200)
DEFAULT = 20  # where no held-out image can choose
_VOTES = 4096  # queries that a CPU counts together


class KNN(Evaluator):
    """Weighted k-nearest-neighbour vote on frozen features.

    Measured: accuracy on test. Features of the un-augmented images, L2-normalised; the score of
    class c is the sum over the k most similar train images of that class of exp(cosine / T),
    T = 0.07 fixed; all classes of the dataset stand for election, seen in test or not. `top5` knows
    the classes among the k alone, so that below k = 5 it is the best k of them, and at k = 1 `top1`:
    the record then says so.
    Chosen: k among 1, 5, 10, 20, 50, 100, 200, by accuracy on the held-out tenth of train
    against the other nine tenths (ties: the smallest k). The bank is then all labelled images
    of train, and test is read once. With `labels` k is chosen within the budget, where the held-out
    tenth has no part: the budget's images are parted into five, or as many as its smallest class has
    labels, each class evenly, each part is judged against the others, and what is right of all parts
    counts. Where a class has one label k is 20, or all that there are.
    Source: Wu et al., arXiv 1805.01978 (weighting, T); Caron et al., arXiv 2104.14294 (the k).
    Traps: published kNN numbers differ in k, T, weighting, augmented banks and "best epoch on
    test"; k alone reorders close methods. Their top5 counts classes without a vote in the order of
    their numbers (DINO), or stands for the best k where k is below 5. They
    cannot be compared with this column.

    k: fixed, instead of chosen. temperature: of the weights; towards 0 this is 1-NN. labels: the bank
    is these alone, the images that a method with the same budget is shown in a cell of the same seed:
    40, 4/class, 10% or all; as it comes, all of train.
    """

    metrics = (
        Metric("top1", summary="accuracy"),
        Metric("top5", summary="truth among the five best of the k's classes, above five classes"),
    )
    version = 1
    added: ClassVar[Mapping[str, Any]] = {"labels": ""}

    def __init__(
        self, *, k: int | None = None, temperature: float = 0.07, labels: int | str = ""
    ) -> None:
        if k is not None and k < 1:
            raise UserError(f"knn was asked for k={k}; give k of at least 1, or none to choose it")
        if temperature <= 0:
            raise UserError(f"knn was given temperature={temperature}; give one above 0")
        self.k, self.temperature, self.labels = k, temperature, budget_of("knn", labels)

    def budget(self) -> int | str:
        return self.labels

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        train = labelled(subject, data, "train", self.labels)
        k, warnings = self._choose(train, subject, data.classes)
        test = labelled(subject, data, "test")
        queries, bank = _directions(test.features, subject), _directions(train.features, subject)
        votes = self._votes(queries, bank, train.labels, (k,), data.classes)
        scores = torch.cat([part.cpu() for _, _, part in votes])
        metrics = accuracies(scores, test.labels)
        if "top5" in metrics and k < 5:
            warnings += (f"top5 is the best {k}, for so many neighbours were asked (k={k})",)
        warnings = class_warnings(train.labels, data.classes) + warnings
        said = Predictions(scores.argmax(1), test.labels)
        return Judgement(metrics, {"k": k}, warnings, predictions=said)

    def _choose(
        self, train: Labelled, subject: Subject, classes: int
    ) -> tuple[int, tuple[str, ...]]:
        images, held = len(train.labels), turns(train.labels, train.held_out, self.labels)
        if self.k is not None:
            if self.k > images:
                raise Unsuited(
                    f"knn[k={self.k}] asks for {self.k} neighbours, the bank holds {images} "
                    f"labelled images; give k of at most {images}"
                )
            return self.k, ()
        if not held:
            k = min(DEFAULT, images)
            return k, (unchosen("k", f"k={k}", self.labels),)
        rows = _directions(train.features, subject)
        grid = [k for k in GRID if k <= min(int((~mask).sum()) for mask in held)]
        right = {k: torch.zeros((), dtype=torch.long, device=rows.device) for k in grid}
        for mask in held:
            bank, queries = rows.some(~mask), rows.some(mask)
            truth = sent(train.labels[mask], rows.device)
            votes = self._votes(queries, bank, train.labels[~mask], grid, classes)
            for at, k, scores in votes:
                right[k] += (scores.argmax(1) == truth[at]).sum()
        many = torch.stack(list(right.values())).tolist()
        return max(zip(many, grid, strict=True), key=lambda found: (found[0], -found[1]))[1], ()

    def _votes(
        self, queries: Rows, bank: Rows, labels: Tensor, grid: Sequence[int], classes: int
    ) -> Iterator[tuple[slice, int, Tensor]]:
        """For blocks of queries and each k of the rising `grid` the scores [m, C].

        -inf for a class without a neighbour.
        """
        similarity, index = nearest(queries, bank, grid[-1])  # [M, k]
        labels = sent(labels, bank.device)
        size = bank.block(24 * classes + 32 * grid[-1], cpu=_VOTES)
        for start in range(0, len(index), size):
            at = slice(start, start + size)
            near, voter = similarity[at], labels[index[at]]
            # the same factor on every class of a query: it keeps a small temperature from underflow
            weight = ((near - near[:, :1]).double() / self.temperature).exp()
            weight = weight.clamp(min=1e-300)
            scores = weight.new_zeros(len(near), classes)
            done = 0
            for k in grid:
                scores.scatter_add_(1, voter[:, done:k], weight[:, done:k])
                done = k
                yield at, k, scores.masked_fill(scores == 0, -float("inf"))


def _directions(features: Tensor, subject: Subject) -> Rows:
    # faiss has no Metal; the cosine wants float32 either way
    device = torch.device("cpu") if subject.device.type == "mps" else subject.device
    return Rows(features, device, turn=unit)
