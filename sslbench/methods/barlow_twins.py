"""Barlow Twins: the cross-correlation of two views is to be the identity."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F

from ..api import Count, Method, NonNegative, Positive, Recipe, Share
from ..nn import full_precision, mlp
from ..views import asymmetric


class BarlowTwins(Method):
    """Each feature of one view correlates with itself in the other view, and with no other feature.

    Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021,
    arXiv 2103.03230.
    Departures: LARS is timm's, which divides by |g| + wd |w| (the code: by |g + wd w|); warm-up is
    (s + 1) / (W + 1) at step s of W (the code: s / W); the last, incomplete batch of an epoch is
    left out (the code: trained on); crops are resampled bilinearly (the code: bicubically); the
    Gaussian of blur is cut to a tenth of the side and mirrors the border (the code: PIL's three
    boxes, not cut, which repeat it), and below 20 pixels nothing is blurred; a view's steps stay in
    floats (there: rounded to 8 bits). Where paper and released code differ (weight decay 1.5e-6 and
    1e-6, off-diagonal weight 0.005 and 0.0051), it is as the code.
    """

    recipe = Recipe(
        epochs=300,  # of the paper's ablations; paper
        batch=2048,  # paper
        optimizer="lars",  # paper
        lr=0.2,  # of weights; paper
        lr_scaling="linear",  # paper
        lr_end=0.001,  # code
        weight_decay=1e-6,  # code
        warmup=10,  # paper
        per={"vectors": {"lr": 0.0048 / 0.2}},  # biases and norms have a rate of 0.0048; paper
    )
    least = 2  # standard deviations over the batch

    def __init__(
        self,
        backbone,
        data,
        *,
        redundancy: Positive = 0.0051,  # weight of what is off the diagonal; code
        layers: Count = 3,  # of the projector; paper
        hidden: Count = 8192,  # paper
        dim: Count = 8192,  # paper
        crop: Share = 0.08,  # smallest area; paper
        jitter: NonNegative = 1.0,  # factor on strengths (0.4, 0.4, 0.2, 0.1); paper
        blur: tuple[Share, Share] = (1.0, 0.1),  # chance in each view; paper
        solarise: tuple[Share, Share] = (0.0, 0.2),  # chance in each view; paper
    ):
        super().__init__()
        self.backbone = backbone
        self.head = mlp(backbone.dim, *[hidden] * (layers - 1), dim, last_bias=False)
        self.redundancy = redundancy
        self.view = asymmetric(
            data.size, scale=(crop, 1.0), jitter=jitter, blur=blur, solarise=solarise
        )

    def views(self):
        return self.view

    def step(self, batch):
        # each view by itself: batch norm must not mix their statistics
        z1, z2 = (self.head(self.backbone(view)) for view in batch.views)  # [B, D]
        yield decorrelation(z1, z2, self.redundancy)

    def embed(self, x):
        return self.head(self.backbone(x))


def decorrelation(z1, z2, redundancy):
    """Squared distance of the cross-correlation from the identity; z1, z2 [B, D].

    What is off the diagonal weighs `redundancy`.
    """
    with full_precision(z1):
        c = correlation(z1.float(), z2.float())  # [D, D]
        own = (c.diagonal() - 1).square().sum()
        return own + redundancy * c.fill_diagonal_(0).square().sum()


def correlation(z1, z2):
    """[D, D] of the columns of z1 and z2 [B, D]; deviations are the population's, of 1 / B."""
    z1, z2 = (F.batch_norm(z, None, None, training=True) for z in (z1, z2))
    return z1.T @ z2 / len(z1)


BarlowTwinsImageNet = partial(
    BarlowTwins,
    epochs=1000,  # paper
)
"""Each feature of one view correlates with itself in the other view alone (1000 epochs)."""
