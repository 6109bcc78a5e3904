"""BYOL with lightly's heads, cosine loss and moving average."""

from __future__ import annotations

import copy

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from sslbench.api import Count, Method, NonNegative, Share
from sslbench.methods import byol as ours
from sslbench.nn import cosine, full_precision
from sslbench.views import asymmetric
from torch import nn


class BYOL(Method):
    """Predicts what a slowly moving copy makes of the other view: lightly's loss and heads.

    Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, arXiv 2006.07733;
    lightly.loss.NegativeCosineSimilarity, BYOLProjectionHead, BYOLPredictionHead, update_momentum.
    Departures: from sslbench's own `byol`: the loss is the mean of the two negative cosines, of
    which ours is 4 + 4 times, so that gradients are a quarter; the heads' last layers have a bias.
    """

    least = 2  # batch norm in the heads
    targets = ("target",)
    recipe = ours.BYOL.recipe

    def __init__(
        self,
        backbone,
        data,
        *,
        momentum_target: Share = 0.99,  # at the start, 1 at the end
        hidden: Count = 4096,  # of projector and predictor
        dim: Count = 256,
        crop: Share = 0.08,  # smallest area
        jitter: NonNegative = 1.0,  # factor on strengths (0.4, 0.4, 0.2, 0.1)
        blur: tuple[Share, Share] = (1.0, 0.1),  # chance in each view
        solarise: tuple[Share, Share] = (0.0, 0.2),  # chance in each view
    ):
        super().__init__()
        self.backbone = backbone
        self.online = nn.Sequential(backbone, BYOLProjectionHead(backbone.dim, hidden, dim))
        self.predictor = BYOLPredictionHead(dim, hidden, dim)
        self.target = copy.deepcopy(self.online)
        deactivate_requires_grad(self.target)
        self.loss, self.momentum = NegativeCosineSimilarity(), momentum_target
        look = {"jitter": jitter, "blur": blur, "solarise": solarise}
        self.view = asymmetric(data.size, scale=(crop, 1.0), **look)

    def views(self):
        return self.view

    def step(self, batch):
        q1, q2 = (self.predictor(self.online(view)).float() for view in batch.views)  # [B, D]
        with torch.no_grad():
            z1, z2 = (self.target(view).float() for view in batch.views)  # [B, D]
        with full_precision(q1):
            loss = (self.loss(q1, z2) + self.loss(q2, z1)) / 2
        yield loss

        update_momentum(self.online, self.target, cosine(self.momentum, 1.0, batch.progress))

    def embed(self, x):
        return self.online(x)
