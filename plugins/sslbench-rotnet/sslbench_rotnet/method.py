"""RotNet: predict by how much an image was turned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sslbench.api import Method, Recipe
from sslbench.views import Chain, HorizontalFlip, PadCrop


class RotNet(Method):
    """Tells which of four rotations was applied, for which it must know what is upright.

    Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018,
    arXiv 1803.07728.
    Departures: any backbone, judged on its last features (the paper: a Network in Network, judged
    on the second of four blocks).
    """

    recipe = Recipe(
        epochs=200,
        batch=128,  # images; four times as many in the forward pass
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="step",
        milestones=(0.3, 0.6, 0.8),  # .1, .02, .004, .0008 from epochs 0, 60, 120, 160 on
        gamma=0.2,
    )

    def __init__(self, backbone, data, *, padding: int = 4):  # pixels
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.dim, 4)
        self.view = Chain(HorizontalFlip(), PadCrop(padding))

    def views(self):
        return self.view

    def step(self, batch):
        x = rotations(batch.views)  # [4B, 3, H, W]
        turned = torch.arange(4, device=x.device).repeat_interleave(len(x) // 4)  # [4B]
        yield F.cross_entropy(self.head(self.backbone(x)).float(), turned)


def rotations(x):
    """[B, C, H, H] to [4B, C, H, H]: all as they are, all turned by 90 degrees, 180, 270.

    Without interpolation and without corners to fill: either would give the answer away.
    """
    return torch.cat([torch.rot90(x, quarter, (2, 3)) for quarter in range(4)])
