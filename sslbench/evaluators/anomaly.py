"""One class against the rest: which images are none of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sslbench.api import Count, Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.errors import Unsuited
from sslbench.measures import power, unit
from sslbench.scores import Labelled, labelled

_BLOCK = 1 << 22  # numbers in an intermediate matrix

Score = Callable[[int], Tensor]  # a class -> [M], how little each test image is of it


class Anomaly(Evaluator):
    """Finds images of other classes by their distance from the train images of one class.

    Measured: on test, each class in turn being normal and all others anomalies (the positives);
    AUROC and AUPR, mean over classes, standard error over classes, and the least AUROC of a class.
    Normality is fitted on the train images of the class, with three scores. The first, by which
    methods rank: mean cosine distance to the `k` nearest of them, features of the un-augmented
    images. `mahalanobis_...`: distance from their mean under their covariance, shrunk by Ledoit
    and Wolf. `reconstruction_...`, for methods that reconstruct: how far the image's
    reconstruction error (mean square over pixels) is from the median error of those train images,
    above or below.
    Chosen: nothing.
    Source: Ruff et al., arXiv 2009.11732 (one class against the rest); Bergman et al., arXiv
    2002.10445 (kNN); Lee et al., arXiv 1807.03888 (Mahalanobis); Ledoit & Wolf, J. Multivariate
    Analysis 88 (2004).
    Traps: published one-class models train on the normal class alone; this encoder saw images of
    all classes, without labels, so the "anomalies" are not new to it. For that reason the plain
    reconstruction error says nothing here: one score for all classes has a mean AUROC of 1/2
    on balanced classes, whatever the model, since it wins against a class what it loses to it.
    Chance is 1/2 for AUROC, and the share of anomalies for AUPR: .9 with ten balanced classes.

    k: neighbours.
    """

    metrics = (
        Metric("auroc", summary="kNN distance, area under the ROC curve"),
        Metric("aupr", summary="kNN distance, average precision"),
        Metric("auroc_worst", summary="kNN distance, auroc of the class that has the least"),
        Metric("mahalanobis_auroc", summary="Mahalanobis distance, area under the ROC curve"),
        Metric("mahalanobis_aupr", summary="Mahalanobis distance, average precision"),
        Metric("reconstruction_auroc", summary="unusual error, area under the ROC curve"),
        Metric("reconstruction_aupr", summary="unusual error, average precision"),
    )
    version = 1

    def __init__(self, *, k: Count = 5) -> None:
        self.k = k

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        device = torch.device("cpu") if subject.device.type == "mps" else subject.device
        train = _moved(labelled(subject, data, "train"), device)
        train_errors = _errors(subject, data, "train")
        test = _moved(labelled(subject, data, "test"), device)
        normal, warnings = self._normal(train.labels, test.labels, data)
        members = {name: train.features[train.labels == name] for name in normal}
        areas = _areas(lambda name: _knn(test.features, members[name], self.k), test, normal)
        metrics = _means("", areas)
        metrics["auroc_worst"] = Value(float(areas[:, 0].min()), len(normal))
        areas = _areas(lambda name: _mahalanobis(test.features, members[name]), test, normal)
        metrics |= _means("mahalanobis_", areas)
        test_errors = _errors(subject, data, "test")
        if train_errors is not None and test_errors is not None:
            usual = {n: train_errors[train.labels.cpu() == n].median() for n in normal}
            areas = _areas(lambda name: (test_errors - usual[name]).abs(), test, normal)
            metrics |= _means("reconstruction_", areas)
        return Judgement(metrics, {}, warnings)

    def _normal(
        self, train: Tensor, test: Tensor, data: Judged
    ) -> tuple[list[int], tuple[str, ...]]:
        """The classes that are normal in turn, and what a reader must know of the others."""
        shown = torch.bincount(test, minlength=data.classes).cpu()
        if int((shown > 0).sum()) < 2:
            raise Unsuited(
                f"each class was to be told from the others, the test split of {data.name} shows "
                "one class alone; use a dataset that shows two or more"
            )
        normal = shown.nonzero()[:, 0].tolist()
        counts = torch.bincount(train, minlength=data.classes).tolist()
        fewest = min(normal, key=lambda name: counts[name])
        need = max(self.k, 2)  # one image has no covariance
        if counts[fewest] < need:
            raise Unsuited(
                f"normality was to be fitted on at least {need} train images of each class (k="
                f"{self.k}), class {fewest} of {data.name} has {counts[fewest]}; ask for a smaller "
                "k, or use a dataset with more"
            )
        absent = data.classes - len(normal)
        if not absent:
            return normal, ()
        return normal, (
            f"test shows {len(normal)} of {data.classes} classes: the others were never normal",
        )


def _moved(part: Labelled, device: torch.device) -> Labelled:
    return Labelled(*(tensor.to(device) for tensor in part))


def _areas(score: Score, test: Labelled, normal: list[int]) -> Tensor:
    """[classes, 2], AUROC and AUPR of each class against the rest."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    found = []
    for name in normal:
        strange = (test.labels != name).cpu().numpy()
        # float32: distances that differ by the order of a sum become equal
        scores = score(name).float().cpu().numpy()
        found.append([roc_auc_score(strange, scores), average_precision_score(strange, scores)])
    return torch.tensor(found, dtype=torch.float64)


def _means(prefix: str, areas: Tensor) -> dict[str, Value]:
    n = len(areas)
    stderr = areas.std(0) / math.sqrt(n)
    return {
        f"{prefix}{name}": Value(float(areas[:, i].mean()), n, float(stderr[i]))
        for i, name in enumerate(("auroc", "aupr"))
    }


def _knn(queries: Tensor, members: Tensor, k: int) -> Tensor:
    """[M] mean cosine distance of the queries [M, D] to the nearest k of the members [n, D]."""
    bank = unit(members.double())
    parts = [
        (unit(part.double()) @ bank.T).topk(k, dim=1).values.mean(1)
        for part in _parts(queries, max(bank.shape))
    ]
    return 1 - torch.cat(parts)


def _mahalanobis(queries: Tensor, members: Tensor) -> Tensor:
    """[M] of the queries [M, D] under the mean and covariance of the members [n, D].

    In units of their mean deviation, which moves no rank.
    """
    from sklearn.covariance import ledoit_wolf

    ordinary = power(members, (0, 1))
    members = (members * ordinary).double()
    mean = members.mean(0)
    found: Any = ledoit_wolf((members - mean).cpu().numpy(), assume_centered=True)[0]
    covariance = torch.from_numpy(found).to(members)
    size = covariance.diagonal().mean()
    eye = torch.eye(len(covariance)).to(members)
    # members that are all equal leave no direction: then the distance is the plain one
    shape = covariance / size + 1e-9 * eye if size > 0 else eye
    root = torch.linalg.cholesky(shape)
    parts = [
        torch.linalg.solve_triangular(root, (part.double() * ordinary - mean).T, upper=False).norm(
            dim=0
        )
        for part in _parts(queries, len(mean))
    ]
    return torch.cat(parts)


def _parts(rows: Tensor, width: int) -> Iterator[Tensor]:
    return iter(torch.split(rows, max(1, _BLOCK // width)))


def _errors(subject: Subject, data: Judged, split: Any) -> Tensor | None:
    """float64 [N], mean over pixels of the squared error of each labelled image, or None."""
    rebuilt = subject.reconstruct(split)
    if rebuilt is None:
        return None
    images = data.images(split)
    if rebuilt.shape != images.shape:
        raise ValueError(
            f"the reconstruction of {split} was to be compared with its images, it is "
            f"{list(rebuilt.shape)} where they are {list(images.shape)}; return images of their size"
        )
    rows = max(1, _BLOCK // images[0].numel())
    errors = torch.cat(
        [
            (part.cpu() - torch.as_tensor(images[i * rows : (i + 1) * rows]).float() / 255)
            .square()
            .mean((1, 2, 3), dtype=torch.float64)
            for i, part in enumerate(torch.split(rebuilt, rows))
        ]
    )
    if not errors.isfinite().all():
        raise ValueError(
            f"the reconstruction of {split} was to be judged, {int((~errors.isfinite()).sum())} "
            "images of it hold NaN or infinity; train again with a lower learning rate"
        )
    return errors[data.labels(split) >= 0]
