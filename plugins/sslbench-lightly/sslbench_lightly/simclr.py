"""SimCLR with lightly's NT-Xent and projection head."""

from __future__ import annotations

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from sslbench.api import Count, Method, NonNegative, Positive, Share
from sslbench.methods.simclr import SimCLR as Ours
from sslbench.nn import full_precision
from sslbench.views import Views, contrastive


class SimCLR(Method):
    """Two views of an image attract, all others in the batch repel: lightly's loss and head.

    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
    arXiv 2002.05709; lightly.loss.NTXentLoss, SimCLRProjectionHead.
    Departures: from sslbench's own `simclr` none but the order in which float32 sums are taken.
    """

    least = 2  # batch norm in the head
    version = 2
    recipe = Ours.recipe

    def __init__(
        self,
        backbone,
        data,
        *,
        temperature: Positive = 0.1,
        dim: Count = 128,
        layers: Count = 2,  # of the head
        crop: Share = 0.08,  # smallest area
        jitter: NonNegative = 1.0,  # strength
        blur: Share = 0.5,  # chance
    ):
        super().__init__()
        self.backbone = backbone
        self.head = SimCLRProjectionHead(backbone.dim, backbone.dim, dim, num_layers=layers)
        self.head.layers[-1].bias.requires_grad_(False)  # as ours, its shift stays 0
        self.loss = NTXentLoss(temperature)
        strengths = tuple(jitter * s for s in (0.8, 0.8, 0.8, 0.2))
        self.view = Views(contrastive(data.size, scale=(crop, 1.0), jitter=strengths, blur=blur), 2)

    def views(self):
        return self.view

    def step(self, batch):
        z = self.embed(torch.cat(batch.views)).float()  # [2B, D]
        with full_precision(z):
            loss = self.loss(*z.chunk(2))
        yield loss

    def embed(self, x):
        return self.head(self.backbone(x))
