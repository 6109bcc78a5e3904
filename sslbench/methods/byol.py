"""BYOL: predict what a slowly moving copy makes of another view."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ..api import Count, Method, NonNegative, Recipe, Share
from ..nn import copy_frozen, cosine, ema, full_precision, mlp, normalised
from ..views import asymmetric


class BYOL(Method):
    """Predicts the projection of one view by a slowly moving copy from the other; no negatives.

    Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, arXiv 2006.07733.
    Departures: the target starts as a copy of the online network (the code: from weights of its
    own); initial weights are timm's and, in the heads, torch's (there: Haiku's); brightness is
    multiplied (there: 0.3 is added where here 1.3 multiplies), contrast moves pixels from the mean
    luma (there: from each channel's mean) and saturation mixes with grey (there: in HSV); crops are
    resampled bilinearly with antialiasing (there: bicubically without), and one that does not fit
    is drawn again (there: cut to the image); blur mirrors the border (there: zeros); batches end
    with an epoch (there: they run on into the next); LARS is timm's, which divides by |g| + wd |w|
    (the code: by |g + wd w|); warm-up is (s + 1) / (W + 1) at step s of W (the code: s / W).
    """

    recipe = Recipe(
        epochs=100,  # there are recipes for 40, 100, 300 and 1000; code
        batch=4096,  # paper
        optimizer="lars",  # paper
        lr=0.45,  # code
        lr_scaling="linear",  # paper
        weight_decay=1e-6,  # code
        warmup=10,  # paper
    )
    least = 2  # batch norm in the heads
    targets = ("target",)

    def __init__(
        self,
        backbone,
        data,
        *,
        momentum_target: Share = 0.99,  # at the start, 1 at the end; code
        hidden: Count = 4096,  # of projector and predictor; paper
        dim: Count = 256,  # paper
        crop: Share = 0.08,  # smallest area; paper
        jitter: NonNegative = 1.0,  # factor on strengths (0.4, 0.4, 0.2, 0.1); paper
        blur: tuple[Share, Share] = (1.0, 0.1),  # chance in each view; paper
        solarise: tuple[Share, Share] = (0.0, 0.2),  # chance in each view; paper
    ):
        super().__init__()
        self.backbone = backbone
        self.online = nn.Sequential(backbone, mlp(backbone.dim, hidden, dim, last_bias=False))
        self.predictor = mlp(dim, hidden, dim, last_bias=False)
        self.target = copy_frozen(self.online)
        self.momentum = momentum_target
        self.view = asymmetric(
            data.size, scale=(crop, 1.0), jitter=jitter, blur=blur, solarise=solarise
        )

    def views(self):
        return self.view

    def step(self, batch):
        # each view by itself: batch norm must not mix their statistics
        q1, q2 = (self.predictor(self.online(view)) for view in batch.views)  # [B, D]
        with torch.no_grad():
            z1, z2 = (self.target(view) for view in batch.views)  # [B, D]
        yield regression(q1, z2) + regression(q2, z1)

        momentum = cosine(self.momentum, 1.0, batch.progress)
        ema(self.target, self.online, momentum, buffers="keep")

    def embed(self, x):
        return self.online(x)


def regression(q, z):
    """Squared distance of unit vectors, 2 - 2 cos, in [0, 4]; q, z [B, D]."""
    with full_precision(q):
        return 2 - 2 * (normalised(q) * normalised(z)).sum(1).mean()


BYOLImageNet = partial(
    BYOL,
    epochs=1000,  # paper
    lr=0.2,  # paper
    weight_decay=1.5e-6,  # paper
    momentum_target=0.996,  # paper
)
"""Predicts the projection of one view by a slowly moving copy from the other (1000 epochs)."""
