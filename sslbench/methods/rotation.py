"""Rotation: tells by how many quarter turns an image was turned."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Method, Natural, Recipe, Share, Update
from ..views import Chain, HorizontalFlip, PadCrop, crop_flip

TURNS = 4


class Rotation(Method):
    """Tells which of four rotations was applied, for which it must know what is upright.

    Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018,
    arXiv 1803.07728.
    Departures: one layer on the backbone's pooled features, which are judged (the paper on CIFAR-10:
    a Network in Network of four blocks, judged on the second; on ImageNet: AlexNet, with two more
    layers of 4096); a view's steps stay in floats, and crops are antialiased (the code: rounded to
    8 bits, without); images are normalised as the backbone does (there: by the data's mean and
    deviation); a last batch that is not whole is left out (there: trained on); a network's initial
    weights are timm's (there: torch's).
    """

    recipe = Recipe(
        epochs=200,  # code
        batch=128,  # images, four times as many pass; code
        optimizer="sgd",  # code
        lr=0.1,  # code
        momentum=0.9,  # code
        nesterov=True,  # code
        weight_decay=5e-4,  # code
        decay="all",  # code
        schedule="step",  # code
        milestones=(0.3, 0.6, 0.8),  # epochs 60, 120 and 160; code
        gamma=0.2,  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        padding: Natural = 4,  # pixels by which an image is shifted at most; code
        crop: Share = 1.0,  # smallest area of a resized crop, 1: shifted in place of that; code
    ):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.dim, TURNS)
        if crop < 1:
            self.view = crop_flip(data.size, scale=(crop, 1.0))
        else:
            self.view = Chain(HorizontalFlip(), PadCrop(padding))

    def views(self):
        return self.view

    def step(self, batch):
        x = turned(batch.views)  # [4B, 3, H, W]
        turns = torch.arange(TURNS, device=x.device).repeat_interleave(len(x) // TURNS)  # [4B]
        logits = self.head(self.backbone(x)).float()  # [4B, 4]
        right = (logits.argmax(1) == turns).float().mean()
        yield Update(F.cross_entropy(logits, turns), log={"accuracy": right})

    def uniform(self):
        return math.log(TURNS)


def turned(x):
    """[B, C, H, H] -> [4B, C, H, H]: all as they are, then all turned by 90 degrees, 180, 270.

    Anticlockwise, and without interpolation or corners to fill: either would tell the answer.
    """
    return torch.cat([torch.rot90(x, turns, (2, 3)) for turns in range(TURNS)])


RotationImageNet = partial(
    Rotation,
    epochs=50,  # code
    batch=192,  # code
    lr=0.01,  # code
    milestones=(0.3, 0.6, 0.9),  # epochs 15, 30 and 45; code
    gamma=0.1,  # code
    crop=0.08,  # code
)
"""Rotation as in its code on ImageNet: resized crops, 50 epochs of batches of 192."""
