"""k-means on frozen features, and a method's own clusters, against the labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sslbench.api import Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.cluster import kmeans, match
from sslbench.errors import UserError
from sslbench.scores import labelled, proportion

ITERATIONS = 300  # at most; a restart ends when no point moves


class Clustering(Evaluator):
    """k-means on frozen features of test, matched with the classes.

    Measured: how well clusters found without labels agree with the labels, on test alone.
    Features of the un-augmented images, L2-normalised; k = classes; 10 restarts from k-means++
    seeds, each run until no point moves, and the one of lowest inertia kept, never the most
    accurate. `acc` matches clusters and classes one to one (Hungarian); `nmi` is normalised by the
    arithmetic mean of the entropies, `ami` and `ari` are corrected for chance. A method with
    `predict` has the same four of its own assignment (argmax of its logits) as `own_...`; where its
    clusters are not as many as the classes, those left over count as wrong.
    Chosen: nothing; labels are used to score only.
    Source: Van Gansbeke et al., arXiv 2005.12320 (k-means row and metrics).
    Traps: scikit-learn's NMI was geometric before 0.22; IIC and RUC score train and test together;
    nmi rises with k for random clusters; faiss samples points unless told not to (not used so).

    restarts: of k-means.
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
    )
    version = 1

    def __init__(self, *, restarts: int = 10) -> None:
        if restarts < 1:
            raise UserError(f"clustering was asked for restarts={restarts}; give at least 1")
        self.restarts = restarts

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        features, truth, _ = labelled(subject, data, "test")
        k, warnings = min(data.classes, len(truth)), []
        if k < data.classes:
            warnings.append(f"{len(truth)} test images for {data.classes} classes: k={k} was taken")
        device = "cpu" if subject.device.type == "mps" else subject.device
        unit = F.normalize(features.to(device), dim=1)
        clusters = kmeans(unit, k, restarts=self.restarts, iterations=ITERATIONS, seed=seed)
        metrics = _agreement(truth, clusters.assignment.cpu(), "", data.classes)
        logits = subject.predict("test")
        if logits is not None:
            own = _own(logits, data.labels("test"))
            metrics |= _agreement(truth, own, "own_", data.classes)
        return Judgement(metrics, {}, tuple(warnings))


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
