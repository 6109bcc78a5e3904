"""MoCo v3: contrast with the keys of a slowly moving encoder, within the batch."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, NonNegative, Positive, Recipe, Share
from ..nn import copy_frozen, cosine, ema, full_precision, mlp, normalised
from ..views import asymmetric


class MoCoV3(Method):
    """A predicted query matches its key among the batch's keys, made by a slowly moving copy.

    Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021,
    arXiv 2104.02057.
    Departures: the target moves after a step at the momentum of that step (the code: before the
    keys of the next one, at its momentum); LARS is timm's, which divides by |g| + wd |w| (the code:
    by |g + wd w|); the Gaussian of blur is cut to a tenth of the side and mirrors the border (the
    code: PIL's three boxes, not cut, which repeat it), and below 20 pixels nothing is blurred; a
    view's steps stay in floats (there: rounded to 8 bits); warm-up is (s + 1) / (W + 1) at step s
    of W (the code: s / W); ViTs start from timm's initial weights, have timm's number of heads (12
    in the paper's ViT-S), sines and cosines in another order of channels, and images normalised as
    timm states, for ViT-S/16 by 0.5 and 0.5 (the code: by ImageNet's mean and deviation).
    """

    recipe = Recipe(
        epochs=100,  # code
        batch=4096,  # paper
        optimizer="lars",  # paper
        lr=0.6,  # code
        lr_scaling="linear",  # paper
        weight_decay=1e-6,  # code
        warmup=10,  # code
    )
    least = 2  # batch norm in the heads
    targets = ("target",)

    def __init__(
        self,
        backbone,
        data,
        *,
        temperature: Positive = 1.0,  # code
        momentum_target: Share = 0.99,  # at the start, 1 at the end; code
        layers: Count = 2,  # of the projector; code
        hidden: Count = 4096,  # of projector and predictor; paper
        dim: Count = 256,  # paper
        predictor_norm: bool = False,  # whether the predictor ends in batch norm; code
        freeze_patches: bool = False,  # of a ViT: its patch embedding stays as it began; paper
        sincos: bool = False,  # of a ViT: positions are fixed sines and cosines; paper
        crop: Share = 0.2,  # smallest area; code
        jitter: NonNegative = 1.0,  # factor on strengths (0.4, 0.4, 0.2, 0.1); paper
        blur: tuple[Share, Share] = (1.0, 0.1),  # chance in each view; paper
        solarise: tuple[Share, Share] = (0.0, 0.2),  # chance in each view; paper
    ):
        super().__init__()
        still(backbone, patches=freeze_patches, positions=sincos)
        plain = {"last_affine": False, "last_bias": False}
        projector = mlp(backbone.dim, *[hidden] * (layers - 1), dim, last_norm=True, **plain)
        self.backbone = backbone
        self.online = nn.Sequential(backbone, projector)
        self.predictor = mlp(dim, hidden, dim, last_norm=predictor_norm, **plain)
        self.target = copy_frozen(self.online)
        self.temperature, self.momentum = temperature, momentum_target
        self.view = asymmetric(
            data.size, scale=(crop, 1.0), jitter=jitter, blur=blur, solarise=solarise
        )

    def views(self):
        return self.view

    def step(self, batch):
        # each view by itself: batch norm must not mix their statistics
        q1, q2 = (self.predictor(self.online(view)) for view in batch.views)  # [B, D]
        with torch.no_grad():
            k1, k2 = (self.target(view) for view in batch.views)  # [B, D]
        yield contrast(q1, k2, self.temperature) + contrast(q2, k1, self.temperature)

        momentum = cosine(self.momentum, 1.0, batch.progress)
        ema(self.target, self.online, momentum, buffers="keep")

    def embed(self, x):
        return self.online(x)


def contrast(q, k, temperature):
    """Cross-entropy of each query's own key among all keys, times 2 tau; q, k [B, D]."""
    with full_precision(q):
        logits = normalised(q) @ normalised(k).T / temperature  # [B, B]
        own = torch.arange(len(q), device=q.device)
        return 2 * temperature * F.cross_entropy(logits, own)


def still(backbone, *, patches, positions):
    """Freezes a ViT's patch embedding; replaces its positions by fixed ones."""
    embedding = getattr(backbone.net, "patch_embed", None)
    if patches:
        if not hasattr(embedding, "proj"):
            raise ValueError(
                f"freeze_patches is for backbones that embed patches; {backbone.name} has no "
                f"patch_embed, a ViT of timm's has"
            )
        embedding.proj.requires_grad_(False)
    if positions:
        backbone.fix_positions()


MoCoV3ImageNet = partial(
    MoCoV3,
    epochs=1000,  # code
    lr=0.3,  # code
    weight_decay=1.5e-6,  # code
    momentum_target=0.996,  # code
)
"""A predicted query matches its key among the batch's keys (ResNet-50, 1000 epochs)."""

MoCoV3ViT = partial(
    MoCoV3,
    epochs=300,  # paper
    optimizer="adamw",  # paper
    lr=1.5e-4,  # paper
    weight_decay=0.1,  # paper
    decay="all",  # code
    warmup=40,  # paper
    temperature=0.2,  # paper
    layers=3,  # paper
    predictor_norm=True,  # paper
    freeze_patches=True,  # paper
    sincos=True,  # paper
    crop=0.08,  # code
)
"""A predicted query matches its key among the batch's keys (ViT: AdamW, patches frozen)."""
