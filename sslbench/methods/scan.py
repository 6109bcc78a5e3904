"""SCAN: neighbours of a pretext's features agree on a cluster; then confident images teach the rest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Method, Pretext, Recipe, Stream
from ..cluster import neighbours
from ..nn import full_precision
from ..views import Chain, Cutout, HorizontalFlip, RandAugment, RandomResizedCrop, Views, crop_flip


class Agree(Method):
    """An image and its neighbours get the same cluster, all clusters the same share.

    The second step of SCAN, arXiv 2005.12320. Departures: those of SCAN.
    """

    recipe = Recipe(
        epochs=50, batch=128, optimizer="adam", lr=1e-4, weight_decay=1e-4, schedule="constant"
    )

    def __init__(self, backbone, head, near, entropy, view):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.near, self.entropy, self.view = near, entropy, view

    def views(self):
        return self.view

    def fit(self, run):
        for epoch in run.epochs(self):
            epoch.streams["near"] = Stream(self.near)

    def step(self, batch):
        both = torch.cat([batch.views, batch.also["near"].views])
        anchor, neighbour = self.head(self.backbone(both)).chunk(2)  # each [B, K]
        yield agreement(anchor, neighbour, self.entropy)


def agreement(anchor, neighbour, entropy):
    """SCAN's loss of logits [B, K]: disagreement less the weighted entropy of the mean assignment."""
    with full_precision(anchor):
        log_p, log_q = anchor.float().log_softmax(1), neighbour.float().log_softmax(1)
        same = torch.logsumexp(log_p + log_q, dim=1)  # [B], log of the inner product
        mean = log_p.exp().mean(0)  # [K]
        spread = -(mean * mean.clamp_min(1e-8).log()).sum()
        return -same.mean() - entropy * spread


class SCAN(Method):
    """Neighbours in a pretext's feature space share a cluster; confident images then label themselves.

    Van Gansbeke et al., SCAN: Learning to Classify Images without Labels, ECCV 2020,
    arXiv 2005.12320.
    Departures: neighbours in the space of backbone features (the paper: of the pretext's head on
    small images); one head; self-labelling batches where nobody is confident are skipped; no model
    is selected on the test split.
    """

    stages = {"agree": Agree}
    recipe = Recipe(
        epochs=200,
        batch=1000,
        optimizer="adam",
        lr=1e-4,
        weight_decay=1e-4,
        schedule="constant",
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        pretext: Pretext = Pretext("simclr"),
        neighbours: int = 20,
        entropy: float = 5.0,  # weight of the entropy of the mean assignment
        confidence: float = 0.99,  # from which an image labels itself
        operations: int = 4,  # of RandAugment in strong views
        crop: float = 0.2,  # smallest area
    ):
        super().__init__()
        if neighbours > data.length:
            raise ValueError(
                f"{neighbours} neighbours among the {data.length} images of {data.name}; "
                f"set neighbours to at most that"
            )
        self.backbone = backbone
        self.head = nn.Linear(backbone.dim, data.classes)
        self.pretext, self.neighbours, self.entropy = pretext, neighbours, entropy
        self.confidence, self.length = confidence, data.length
        crop_ = RandomResizedCrop(data.size, scale=(crop, 1.0))
        self.strong = Chain(
            crop_, HorizontalFlip(0.5), RandAugment(operations), Cutout(data.size // 2)
        )
        self.weak = crop_flip(data.size, scale=(crop, 1.0))

    def views(self):
        return Views((self.weak, self.strong))

    def fit(self, run):
        run.pretrain(self.pretext, into=self.backbone)
        near = neighbours(run.features(self.backbone), self.neighbours)  # [N, k]
        run.fit(Agree(self.backbone, self.head, near, self.entropy, self.strong), "agree")
        for _ in run.epochs(self):
            pass

    def step(self, batch):
        weak, strong = batch.views
        with torch.no_grad():
            sure, label = self.predict(weak).float().softmax(1).max(1)  # [B]
        chosen = sure > self.confidence
        if chosen.any():
            label = label[chosen]
            size = torch.bincount(label, minlength=self.head.out_features)
            weight = torch.where(size > 0, len(label) / size.clamp_min(1), 0.0)
            yield F.cross_entropy(self.predict(strong)[chosen].float(), label, weight=weight)

    def predict(self, x):
        return self.head(self.backbone(x))
