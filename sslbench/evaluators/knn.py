"""Weighted nearest neighbours on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from sslbench.api import Evaluator, Judged, Judgement, Metric, Predictions, Subject
from sslbench.cluster import nearest
from sslbench.errors import Unsuited, UserError
from sslbench.measures import unit
from sslbench.scores import Labelled, accuracies, class_warnings, labelled

GRID = (1, 5, 10, 20, 50, 100, 200)
DEFAULT = 20  # where no held-out image can choose


class KNN(Evaluator):
    """Weighted k-nearest-neighbour vote on frozen features.

    Measured: accuracy on test. Features of the un-augmented images, L2-normalised; the score of
    class c is the sum over the k most similar train images of that class of exp(cosine / T),
    T = 0.07 fixed; all classes of the dataset stand for election, seen in test or not. `top5` knows
    the classes among the k alone, so that below k = 5 it is the best k of them, and at k = 1 `top1`:
    the record then says so.
    Chosen: k among 1, 5, 10, 20, 50, 100, 200, by accuracy on the held-out tenth of train
    against the other nine tenths (ties: the smallest k). The bank is then all labelled images
    of train, and test is read once.
    Source: Wu et al., arXiv 1805.01978 (weighting, T); Caron et al., arXiv 2104.14294 (the k).
    Traps: published kNN numbers differ in k, T, weighting, augmented banks and "best epoch on
    test"; k alone reorders close methods. Their top5 counts classes without a vote in the order of
    their numbers (DINO), or stands for the best k where k is below 5. They
    cannot be compared with this column.

    k: fixed, instead of chosen. temperature: of the weights; towards 0 this is 1-NN.
    """

    metrics = (
        Metric("top1", summary="accuracy"),
        Metric("top5", summary="truth among the five best of the k's classes, above five classes"),
    )
    version = 1

    def __init__(self, *, k: int | None = None, temperature: float = 0.07) -> None:
        if k is not None and k < 1:
            raise UserError(f"knn was asked for k={k}; give k of at least 1, or none to choose it")
        if temperature <= 0:
            raise UserError(f"knn was given temperature={temperature}; give one above 0")
        self.k, self.temperature = k, temperature

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        train = _unit(labelled(subject, data, "train"), subject)
        k, warnings = self._choose(train, data.classes)
        test = _unit(labelled(subject, data, "test"), subject)
        votes = self._votes(test.features, train, (k,), data.classes)
        scores = next(votes)[1]
        metrics = accuracies(scores, test.labels)
        if "top5" in metrics and k < 5:
            warnings += (f"top5 is the best {k}, for so many neighbours were asked (k={k})",)
        warnings = class_warnings(train.labels, data.classes) + warnings
        said = Predictions(scores.argmax(1), test.labels)
        return Judgement(metrics, {"k": k}, warnings, predictions=said)

    def _choose(self, train: Labelled, classes: int) -> tuple[int, tuple[str, ...]]:
        images, held = len(train.labels), int(train.held_out.sum())
        if self.k is not None:
            if self.k > images:
                raise Unsuited(
                    f"knn[k={self.k}] asks for {self.k} neighbours, the bank holds {images} "
                    f"labelled images; give k of at most {images}"
                )
            return self.k, ()
        if held in (0, images):
            k = min(DEFAULT, images)
            return k, (f"no held-out tenth to choose k on: k={k} was taken",)
        bank = Labelled(*(part[~train.held_out] for part in train))
        queries = Labelled(*(part[train.held_out] for part in train))
        grid = [k for k in GRID if k <= len(bank.labels)]
        right = {
            k: int((scores.argmax(1) == queries.labels).sum())
            for k, scores in self._votes(queries.features, bank, grid, classes)
        }
        return max(grid, key=lambda k: (right[k], -k)), ()

    def _votes(
        self, queries: Tensor, bank: Labelled, grid: Sequence[int], classes: int
    ) -> Iterator[tuple[int, Tensor]]:
        """For each k of the rising `grid` the scores [M, C], one tensor that keeps growing.

        -inf for a class without a neighbour.
        """
        similarity, index = nearest(queries, bank.features, grid[-1])  # [M, k]
        # the same factor on every class of a query: it keeps a small temperature from underflow
        weight = ((similarity - similarity[:, :1]).double() / self.temperature).exp()
        weight = weight.clamp(min=1e-300)
        voter = bank.labels[index]  # [M, k]
        scores = weight.new_zeros(len(queries), classes)
        done = 0
        for k in grid:
            scores.scatter_add_(1, voter[:, done:k], weight[:, done:k])
            done = k
            yield k, scores.masked_fill(scores == 0, -float("inf"))


def _unit(part: Labelled, subject: Subject) -> Labelled:
    # faiss has no Metal; the cosine wants float32 either way
    device = "cpu" if subject.device.type == "mps" else subject.device
    features = unit(part.features.to(device))
    return Labelled(features, part.labels.to(device), part.held_out.to(device))
