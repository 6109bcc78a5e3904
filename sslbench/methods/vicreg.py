"""VICReg: views agree, features vary and do not covary."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from ..api import Count, Method, NonNegative, Positive, Recipe, Share
from ..nn import full_precision, mlp
from ..views import asymmetric


class VICReg(Method):
    """Two views agree while every feature keeps a deviation of 1 and no two of them covary.

    Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022,
    arXiv 2105.04906.
    Departures: the variance terms of the two views are averaged, as in the released code that gave
    the published numbers (the paper's formula adds them); covariances are added in both; LARS is
    timm's, which divides by |g| + wd |w| (the code: by |g + wd w|); warm-up is (s + 1) / (W + 1) at
    step s of W (the code: s / W); the last, incomplete batch of an epoch is left out (the code:
    trained on); crops are resampled bilinearly (the code: bicubically); the Gaussian of blur is cut
    to a tenth of the side and mirrors the border (the code: PIL's three boxes, not cut, which
    repeat it), and below 20 pixels nothing is blurred; a view's steps stay in floats (there:
    rounded to 8 bits).
    """

    recipe = Recipe(
        epochs=100,  # code
        batch=512,  # code
        optimizer="lars",  # paper
        lr=0.3,  # code
        lr_scaling="linear",  # paper
        lr_end=0.001,  # code
        weight_decay=1e-6,  # paper
        warmup=10,  # paper
    )
    least = 2  # variances over the batch

    def __init__(
        self,
        backbone,
        data,
        *,
        invariance: Positive = 25.0,  # weight; paper
        variance: Positive = 25.0,  # weight; paper
        covariance: Positive = 1.0,  # weight; paper
        layers: Count = 3,  # of the expander; paper
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
        self.weights = invariance, variance, covariance
        self.view = asymmetric(
            data.size, scale=(crop, 1.0), jitter=jitter, blur=blur, solarise=solarise
        )

    def views(self):
        return self.view

    def step(self, batch):
        # each view by itself: batch norm must not mix their statistics
        z1, z2 = (self.head(self.backbone(view)) for view in batch.views)  # [B, D]
        yield vicreg(z1, z2, self.weights)

    def embed(self, x):
        return self.head(self.backbone(x))


def vicreg(z1, z2, weights=(25.0, 25.0, 1.0)):
    """Weighted sum of disagreement, lack of variance, and covariance; z1, z2 [B, D]."""
    invariance, variance, covariance = weights
    with full_precision(z1):
        z1, z2 = z1.float(), z2.float()
        apart = F.mse_loss(z1, z2)
        still = (stillness(z1) + stillness(z2)) / 2
        tied = redundancy(z1) + redundancy(z2)
        return invariance * apart + variance * still + covariance * tied


def stillness(z):
    """Mean over the columns of z [B, D] of what their standard deviation lacks of 1."""
    # the root of a variance of 0 would have an endless gradient
    return F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()


def redundancy(z):
    """Squared covariances of every two columns of z [B, D], summed and divided by D."""
    z = z - z.mean(0)
    covariance = z.T @ z / (len(z) - 1)  # [D, D]
    return covariance.fill_diagonal_(0).square().sum() / z.shape[1]


VICRegImageNet = partial(
    VICReg,
    epochs=1000,  # paper
    batch=2048,  # paper
    lr=0.2,  # paper
)
"""Two views agree while features vary and do not covary (1000 epochs)."""
