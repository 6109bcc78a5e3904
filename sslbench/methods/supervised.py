"""Cross-entropy on the labels: the ceiling beside the self-supervised rows."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import nn

from ..api import Method, Recipe, Share
from ..views import crop_flip


class Supervised(Method):
    """Cross-entropy on all labels of train but the held-out tenth's.

    The common recipe of ResNets: He et al., CVPR 2016, arXiv 1512.03385.
    Departures: resized crops of random area and aspect (the paper: crops of 224 from a short side
    of 256 to 480 pixels), and no change of colours; biases and norms do not decay; 90 epochs (the
    paper: 600,000 steps of 256); cosine schedule with warm-up in place of steps.
    """

    labels = "all"
    version = 2
    recipe = Recipe(
        epochs=90,  # ours, three passes of thirty as is common on ImageNet
        batch=256,  # paper
        optimizer="sgd",  # paper
        lr=0.1,  # paper
        lr_scaling="linear",  # ours, so that one rate serves all batches
        momentum=0.9,  # paper
        weight_decay=1e-4,  # paper
        schedule="cosine",  # ours, it has no milestones to place
        warmup=5,  # ours, large batches need it
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        crop: Share = 0.08,  # smallest area; ours, the usual one of ImageNet
    ):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.dim, data.classes)
        self.size, self.crop = data.size, crop

    def views(self):
        return crop_flip(self.size, scale=(self.crop, 1.0))

    def step(self, batch):
        if batch.labelled:
            logits = self.head(self.backbone(batch.views))  # [B, K]
            yield F.cross_entropy(logits.float(), batch.label, ignore_index=-1)

    def uniform(self):
        return math.log(self.head.out_features)

    def predict(self, x):
        return self.head(self.backbone(x))
