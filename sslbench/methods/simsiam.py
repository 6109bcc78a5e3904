"""SimSiam: predict the other view's projection, of which no gradient is taken."""

from __future__ import annotations

from functools import partial

import torch

from ..api import Count, Method, Recipe, Share, Strengths, Update
from ..nn import full_precision, mlp, normalised
from ..views import Views, contrastive


class SimSiam(Method):
    """Predicts one view's projection from the other's; only the predictor's side has a gradient.

    Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv 2011.10566.
    Departures: the learning rate follows its cosine by step, not by epoch; the hidden layers of the
    projector are 2048 wide with every backbone (the code: as wide as its features); the Gaussian of
    blur is cut to a tenth of the side and mirrors the border (the code: PIL's three boxes, not cut,
    which repeat it), and below 20 pixels nothing is blurred; a view's steps stay in floats (there:
    rounded to 8 bits).
    """

    version = 2
    recipe = Recipe(
        epochs=100,  # paper
        batch=512,  # paper
        lr=0.05,  # paper
        lr_scaling="linear",  # paper
        weight_decay=1e-4,  # paper
        decay="all",  # code
        per={"predictor.*": {"schedule": "constant"}},  # it has to keep up with z; paper
    )
    least = 2  # batch norm in the heads

    def __init__(
        self,
        backbone,
        data,
        *,
        layers: Count = 3,  # of the projector, 2 for CIFAR; paper
        hidden: Count = 2048,  # of the projector; paper
        dim: Count = 2048,  # paper
        bottleneck: Count = 512,  # of the predictor; paper
        crop: Share = 0.2,  # smallest area; paper
        jitter: Strengths = (0.4, 0.4, 0.4, 0.1),  # strengths; paper
        jitter_p: Share = 0.8,  # chance; paper
        blur: Share = 0.5,  # chance; paper
    ):
        super().__init__()
        widths = [hidden] * (layers - 1)
        self.backbone = backbone
        self.projector = mlp(backbone.dim, *widths, dim, last_norm=True, last_affine=False)
        self.predictor = mlp(dim, bottleneck, dim)  # a norm at its end would unsettle training
        self.view = Views(
            contrastive(data.size, scale=(crop, 1.0), jitter=jitter, jitter_p=jitter_p, blur=blur),
            2,
        )

    def views(self):
        return self.view

    def step(self, batch):
        # each view by itself: batch norm must not mix their statistics
        z1, z2 = (self.projector(self.backbone(view)) for view in batch.views)  # [B, D]
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = (distance(p1, z2) + distance(p2, z1)) / 2
        yield Update(loss, log={"spread": spread(z1)})

    def embed(self, x):
        return self.projector(self.backbone(x))


def distance(p, z):
    """Negative cosine, in [-1, 1], with no gradient to z; p, z [B, D]."""
    with full_precision(p):
        return -(normalised(p) * normalised(z.detach())).sum(1).mean()


@torch.no_grad()
def spread(z):
    """Standard deviation of unit rows of z [B, D] times sqrt(D): near 1 is healthy, 0 collapsed."""
    return normalised(z).std(0).mean() * z.shape[1] ** 0.5


SimSiamImageNet = partial(
    SimSiam,
    epochs=800,  # paper
    batch=256,  # paper
)
"""Predicts one view's projection from the other's (800 epochs)."""
