"""The nearest train images of some test images, as a picture to look at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.api import Count, Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.measures import unit

BLOCK = 1 << 22  # features compared at a time
TILE = 64  # pixels, the side to which larger images are reduced
GAP = 2  # pixels between images
PAPER = 255


class Nearest(Evaluator):
    """Shows some test images, each beside the train images that are nearest to it.

    Measured: nothing that ranks methods. What it leaves is a sheet, a PNG beside the record, whose
    path `sslbench show CELL` prints: a row has a test image, how the method rebuilds it where it
    does, and its neighbours among all images of train by the cosine of features, the nearest first.
    The numbers are those of the sheet: `same_class`, the share of the shown neighbours that are of
    the image's class, where labels say so, and `distinct`, the share of them that are shown once
    (where few images are the neighbours of all, features have collapsed).
    Chosen: nothing. The test images are the same for every method: spread evenly over test, sorted
    by class.
    Source: none.
    Traps: a sheet has few images, so that its `same_class` is a rough `retrieval`. It shows images of
    the dataset, whose licence may not let it be passed on.

    images: rows of the sheet, at most those of test. neighbours: shown of each.
    """

    metrics = (
        Metric("same_class", summary="share of the shown neighbours of the image's class"),
        Metric("distinct", summary="share of the shown neighbours that are shown once"),
    )
    version = 1

    def __init__(self, *, images: Count = 20, neighbours: Count = 5) -> None:
        self.images, self.neighbours = images, neighbours

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        train, test = data.labels("train"), data.labels("test")
        rows = _spread(test, self.images)
        near = _nearest(subject.features("train"), subject.features("test")[rows], self.neighbours)
        shown = data.images("test")[rows]
        columns = [shown, *data.images("train")[near].unbind(1)]
        rebuilt = subject.reconstruct("test")
        if rebuilt is not None:
            columns.insert(1, (rebuilt[rows].clamp(0, 1) * 255).round().to(torch.uint8))
        metrics = {"distinct": Value(_once(near), near.numel())}
        known = (test[rows, None] >= 0) & (train[near] >= 0)  # [n, k]
        if known.any():
            right = (train[near] == test[rows, None])[known].double()
            metrics = {"same_class": Value(float(right.mean()), len(right)), **metrics}
        return Judgement(metrics, sheet=_drawn(columns))


def _spread(labels: Tensor, count: int) -> Tensor:
    """Positions of `count` images, at even steps of all of them sorted by class."""
    order = labels.argsort(stable=True)
    steps = torch.arange(min(count, len(order)), dtype=torch.float64) + 0.5
    return order[(steps * len(order) / len(steps)).long()]


def _nearest(bank: Tensor, queries: Tensor, count: int) -> Tensor:
    """Positions [n, k] in the bank [N, D] of what is most similar, the first of equals first."""
    wanted = unit(queries.cpu().double()).T  # [D, n]
    blocks = torch.split(bank, max(1, BLOCK // bank.shape[1]))
    similarity = torch.cat([unit(block.cpu().double()) @ wanted for block in blocks])  # [N, n]
    # rounded, so that what is equal but for the order of a sum is equal
    order = similarity.T.float().argsort(dim=1, descending=True, stable=True)
    return order[:, :count]


def _once(near: Tensor) -> float:
    counts = torch.unique(near, return_counts=True)[1]
    return float((counts == 1).sum()) / near.numel()


def _drawn(columns: list[Tensor]) -> Tensor:
    """Pictures uint8 [n, 3, H, W] side by side, a row each: [3, H', W']. The first stands apart."""
    columns = [_reduced(column) for column in columns]
    padded = [F.pad(column, (GAP, GAP, GAP, GAP), value=PAPER) for column in columns]
    padded[0] = F.pad(padded[0], (0, 3 * GAP, 0, 0), value=PAPER)
    whole = torch.cat(padded, dim=3)  # [n, 3, h, W']
    return torch.cat(list(whole), dim=1)


def _reduced(images: Tensor) -> Tensor:
    if images.shape[-1] <= TILE:
        return images
    return F.interpolate(images.float(), (TILE, TILE), mode="area").round().to(torch.uint8)
