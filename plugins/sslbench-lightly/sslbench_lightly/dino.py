"""DINO with lightly's loss, head and moving average."""

from __future__ import annotations

import copy
import math
import warnings

import torch
from lightly.loss import DINOLoss
from lightly.models.modules.heads import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from sslbench.api import Count, Method, Natural, NonNegative, Positive, Share
from sslbench.methods import dino as ours
from sslbench.nn import by_size, cosine, full_precision
from sslbench.views import MultiCrop, asymmetric, contrastive, small_side
from torch import nn


class DINO(Method):
    """A student matches the centred, sharpened output of its moving average: lightly's loss and head.

    Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021,
    arXiv 2104.14294; lightly.loss.DINOLoss, DINOProjectionHead, update_momentum.
    Departures: from sslbench's own `dino`: the centre moves while the loss is computed, before the
    optimiser's step and not after (it is used as it was, so that no number changes); with `norm`
    the head's layers have no bias before it. From lightly's example: the last layer rests by taking
    no gradient, where theirs is dropped; the teacher's head begins as the student's, not with
    weights of its own.
    """

    targets = ("target",)
    recipe = ours.DINO.recipe

    def __init__(
        self,
        backbone,
        data,
        *,
        prototypes: Count = 65536,  # outputs of the head
        hidden: Count = 2048,  # of the head
        bottleneck: Count = 256,  # of the head
        norm: bool = False,  # batch norm in the head
        unit: bool = True,  # the last layer's rows have length 1 and keep it
        temperature: Positive = 0.1,  # the student's
        temperature_target: Positive = 0.04,  # the teacher's
        temperature_start: Positive = 0.04,  # the teacher's at first
        temperature_warmup: Natural = 0,  # epochs from there to its own
        momentum_target: Share = 0.996,  # rises to 1 along a cosine
        momentum_centre: Share = 0.9,
        freeze: Natural = 1,  # epochs in which the last layer rests
        crops: tuple[int, int] = (2, 8),  # large, small
        crop: Share = 0.4,  # area that parts large crops from small ones
        smallest: Share = 0.05,  # area
        small_size: Natural = 0,  # pixels, 0: 3/7 of the image in whole patches
        jitter: NonNegative = 1.0,  # factor on BYOL's strengths
        blur: Share = 1.0,  # factor on the chances .1 to 1 of the three kinds of crops
    ):
        super().__init__()
        widths = hidden, bottleneck, prototypes
        student, teacher = (head(backbone.dim, widths, norm=norm, unit=unit) for _ in range(2))
        teacher.load_state_dict(student.state_dict())  # it has tensors that cannot be deep-copied
        self.online = nn.Sequential(backbone, student)
        self.target = nn.Sequential(copy.deepcopy(backbone), teacher)
        deactivate_requires_grad(self.target)
        for module in self.target.modules():
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0  # of timm's DropPath: the teacher is whole
        start, end = temperature_start, temperature_target
        self.loss = DINOLoss(
            prototypes, start, end, temperature_warmup, temperature, momentum_centre
        )
        self.freeze, self.large, self.momentum = freeze, crops[0], momentum_target
        patch = getattr(getattr(backbone.net, "patch_embed", None), "patch_size", (1,))[0]
        small_size = small_side(data.size, small_size, patch=patch)
        look = {"jitter": jitter, "blur": (blur, 0.1 * blur), "solarise": (0.0, 0.2)}
        first, second = asymmetric(data.size, scale=(crop, 1.0), **look).view
        strengths = tuple(jitter * s for s in (0.4, 0.4, 0.2, 0.1))
        small = contrastive(small_size, scale=(smallest, crop), jitter=strengths, blur=0.5 * blur)
        self.view = MultiCrop(((first, 1), (second, crops[0] - 1), (small, crops[1])))

    def views(self):
        return self.view

    def step(self, batch):
        body, last = self.online
        last.last_layer.weight_v.requires_grad_(batch.epoch >= self.freeze)
        size = len(batch.index)
        with torch.no_grad():
            teacher = self.target(torch.cat(batch.views[: self.large])).float()  # [large * B, K]
        student = last(by_size(body, batch.views)).float()  # [crops * B, K]
        with full_precision(student):
            loss = self.loss(teacher.split(size), student.split(size), epoch=batch.epoch)
        yield loss

        update_momentum(self.online, self.target, cosine(self.momentum, 1.0, batch.progress))

    def encoder(self):
        return self.target[0]

    def embed(self, x):
        return self.target[1].layers(self.target[0](x))  # [B, bottleneck]

    def clusters(self, x):
        return self.target(x) - self.loss.center[0]

    def uniform(self):
        return math.log(self.loss.center.numel())


def head(dim, widths, *, norm, unit):
    """lightly's, of widths hidden, bottleneck and out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it uses torch's former weight_norm
        return DINOProjectionHead(dim, *widths, norm, norm_last_layer=unit)
