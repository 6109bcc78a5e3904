"""k-means on frozen features, and a method's own clusters, against the labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.api import Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.blocks import Rows
from sslbench.cluster import Clusters, kmeans, match
from sslbench.errors import UserError
from sslbench.measures import unit
from sslbench.scores import labelled, proportion

ITERATIONS = 300  # at most; a restart ends when no point moves
FACTORS = (1, 2, 5, 10)  # clusters a class
RUNS = 5  # compared for stability


class Clustering(Evaluator):
    """k-means on frozen features of test, matched with the classes.

    Measured: how well clusters found without labels agree with the labels, on test alone.
    Features of the un-augmented images, L2-normalised; k = classes; 10 restarts from k-means++
    seeds, each run until no point moves, and the one of lowest inertia kept, never the most
    accurate. `acc` matches clusters and classes one to one (Hungarian); `nmi` is normalised by the
    arithmetic mean of the entropies, `ami` and `ari` are corrected for chance. A method with
    `predict` has the same four of its own assignment (argmax of its logits) as `own_...`; where its
    clusters are not as many as the classes, those left over count as wrong. Where `over` is asked
    for, the same k-means with 1, 2, 5 and 10 clusters a class: `many_to_one_x...` gives each
    cluster the class that most of its images have (purity), `ami_x...` is `ami`. Where `stability`
    is, the mean `ari` between the 10 pairs of 5 k-means runs, each from one seeding of its own.
    Chosen: nothing; labels are used to score only.
    Source: Van Gansbeke et al., arXiv 2005.12320 (k-means row and metrics); Ji et al., arXiv
    1807.06653 (many to one).
    Traps: scikit-learn's NMI was geometric before 0.22; IIC and RUC score train and test together;
    nmi rises with k for random clusters; faiss samples points unless told not to (not used so).
    Many-to-one looks at the labels it is scored by and rises with k for any clusters, to 1 for one
    an image: compare it at one k only, and never with `acc`. Stability sees no label, and is 1
    where all features are the same.

    restarts: of k-means. over: judge more clusters than classes as well. stability: compare runs.
    """

    metrics = (
        Metric("acc", summary="accuracy after one-to-one matching"),
        Metric("nmi", summary="mutual information over the mean entropy"),
        Metric("ari", summary="pairs that agree, corrected for chance"),
        Metric("ami", summary="mutual information, corrected for chance"),
        Metric("own_acc", summary="acc of the method's own clusters"),
        Metric("own_nmi", summary="nmi of the method's own clusters"),
        Metric("own_ari", summary="ari of the method's own clusters"),
        Metric("own_ami", summary="ami of the method's own clusters"),
        *(Metric(f"many_to_one_x{f}", summary=f"purity of {f} x k clusters") for f in FACTORS),
        *(Metric(f"ami_x{f}", summary=f"ami of {f} x k clusters") for f in FACTORS[1:]),
        Metric("stability", summary="ari between runs of k-means"),
    )
    version = 1
    added: ClassVar[Mapping[str, Any]] = {"over": False, "stability": False}

    def __init__(self, *, restarts: int = 10, over: bool = False, stability: bool = False) -> None:
        if restarts < 1:
            raise UserError(f"clustering was asked for restarts={restarts}; give at least 1")
        self.restarts, self.over, self.stability = restarts, over, stability

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        features, truth, _ = labelled(subject, data, "test")
        k, warnings = min(data.classes, len(truth)), []
        if k < data.classes:
            warnings.append(f"{len(truth)} test images for {data.classes} classes: k={k} was taken")
        device = torch.device("cpu") if subject.device.type == "mps" else subject.device
        directions = Rows(features, device, turn=unit).kept()
        clusters = kmeans(directions, k, restarts=self.restarts, iterations=ITERATIONS, seed=seed)
        metrics = _agreement(truth, clusters.assignment.cpu(), "", data.classes)
        logits = subject.predict("test")
        if logits is not None:
            own = _own(logits, data.labels("test"))
            metrics |= _agreement(truth, own, "own_", data.classes)
        if self.over:
            found, more = self._over(directions, truth.cpu(), clusters, seed)
            metrics |= found
            warnings += more
        if self.stability:
            metrics["stability"] = _stability(directions, k, seed)
        return Judgement(metrics, {}, tuple(warnings))

    def _over(
        self, directions: Rows, truth: Tensor, first: Clusters, seed: int
    ) -> tuple[dict[str, Value], list[str]]:
        """Of more and more clusters; `first` are the k of the main columns."""
        from sklearn import metrics as oracle

        k, n = len(first.centroids), len(truth)
        found, warnings = (
            {"many_to_one_x1": many_to_one(truth, first.assignment.cpu())},
            list[str](),
        )
        for factor in FACTORS[1:]:
            if factor * k > n:
                warnings.append(f"{factor} x {k} clusters of {n} test images were left out")
                continue
            clusters = kmeans(
                directions, factor * k, restarts=self.restarts, iterations=ITERATIONS, seed=seed
            )
            own = clusters.assignment.cpu()
            found[f"many_to_one_x{factor}"] = many_to_one(truth, own)
            ami = oracle.adjusted_mutual_info_score(truth.numpy(), own.numpy())
            found[f"ami_x{factor}"] = Value(float(ami), n)
        return found, warnings


def many_to_one(truth: Tensor, assignment: Tensor) -> Value:
    """Accuracy where each cluster is called what most of its members [N] are."""
    classes = int(truth.max()) + 1
    table = torch.bincount(assignment * classes + truth)
    table = F.pad(table, (0, -len(table) % classes)).view(-1, classes)  # [K, classes]
    return proportion(table.argmax(1)[assignment] == truth)


def _stability(directions: Rows, k: int, seed: int) -> Value:
    from sklearn.metrics import adjusted_rand_score

    runs = [
        kmeans(directions, k, iterations=ITERATIONS, seed=seed + 1 + run).assignment.cpu().numpy()
        for run in range(RUNS)
    ]
    pairs = [adjusted_rand_score(*pair) for pair in itertools.combinations(runs, 2)]
    return Value(sum(pairs) / len(pairs), len(directions))


def _own(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.isnan().any():
        raise ValueError(
            "the method's own prediction was to be judged, its logits hold NaN; "
            "train again with a lower learning rate"
        )
    return logits.argmax(1).cpu()[labels >= 0]


def _agreement(truth: Tensor, assignment: Tensor, prefix: str, classes: int) -> dict[str, Value]:
    from sklearn import metrics as oracle

    truth = truth.cpu()
    found = match(truth, assignment, classes=classes)
    pair = truth.numpy(), assignment.numpy()
    n = len(truth)
    return {
        f"{prefix}acc": proportion(found.mapping[assignment] == truth),
        f"{prefix}nmi": Value(float(oracle.normalized_mutual_info_score(*pair)), n),
        f"{prefix}ari": Value(float(oracle.adjusted_rand_score(*pair)), n),
        f"{prefix}ami": Value(float(oracle.adjusted_mutual_info_score(*pair)), n),
    }
