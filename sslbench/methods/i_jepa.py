"""I-JEPA: foretell what a moving average makes of blocks of an image, in its features."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Recipe, Share
from ..nn import copy_frozen, ema, full_precision, sincos, taken
from ..views import ContextAndTargets, Masked, RandomResizedCrop


class IJEPA(Method):
    """From a context block's tokens a small ViT foretells those of four blocks, made by an average.

    Assran et al., Self-Supervised Learning from Images with a Joint-Embedding Predictive
    Architecture, CVPR 2023, arXiv 2301.08243.
    Departures: tokens that the backbone puts before its patches, such as the class token, stay in
    both encoders, unseen by the predictor (the code: there are none); blocks reach every border, and
    a context may be as large as the grid (the code: none touches the last row or column); where
    fewer than 11 patches are left of a context, all blocks of the image are drawn again, up to 20
    times, and the largest context is taken (the code: the context alone, and in the end one that
    shows a target); a size of blocks holds for the batch, drawn as all else (the code: from a seed
    of its own that counts steps); warm-up is (s + 1) / (W + 1) at step s of W (the code: from a fifth
    of the rate); rates, decay and the average's momentum are those at the start of a step (the code:
    rate and decay a step later); initial weights of the encoder are timm's, with a class token of
    deviation 1e-6 (the code: all of deviation 0.02, as here in the predictor), and images are
    normalised as timm states, for ViTs by 0.5 and 0.5 (the code: by ImageNet's mean and deviation);
    positions list rows first (the code: columns). What is judged is the mean of the average's tokens
    of patches, after the last norm (the paper also joins those of the last four blocks).
    """

    targets = ("target",)
    recipe = Recipe(
        epochs=600,  # of its ViT-B/16; paper
        batch=2048,  # paper
        optimizer="adamw",  # paper
        lr=1e-3,  # paper
        lr_end=1e-3,  # 1e-6 of 1e-3; paper
        weight_decay=0.04,  # paper
        weight_decay_end=0.4,  # paper
        warmup=40,  # code
    )

    @classmethod
    def needs(cls, backbone, data):
        if not backbone.patch:
            lacking = f"it encodes some patches of an image alone, which {backbone.name} cannot; "
            return lacking + "a ViT can, such as vit_tiny_patch16_224"
        if (side := data.size // backbone.patch) < 4:
            return (
                f"its blocks take a grid of 4 x 4 patches or more, and {backbone.name} cuts images "
                f"of {data.size} pixels into {side} x {side}; a smaller patch_size gives more"
            )
        return None

    def __init__(
        self,
        backbone,
        data,
        *,
        blocks: Count = 4,  # targets of an image; paper
        scale: tuple[float, float] = (0.15, 0.2),  # of a target, share of the patches; paper
        aspect: tuple[float, float] = (0.75, 1.5),  # of a target, height over width; paper
        context: tuple[float, float] = (0.85, 1.0),  # share of the patches; paper
        least: Count = 11,  # patches of a context; code
        predictor_depth: Count = 6,  # blocks, 12 for its larger networks; paper
        predictor_dim: Count = 384,  # paper
        predictor_heads: Count = 12,  # as many as its ViT-B/16 has; paper
        momentum_target: Share = 0.996,  # rises to 1 along a line; paper
        crop: Share = 0.3,  # smallest area; code
    ):
        super().__init__()
        if predictor_dim % 4 or predictor_dim % predictor_heads:
            raise ValueError(
                f"predictor_dim={predictor_dim} was to be split into 4 waves of a position, and "
                f"among predictor_heads={predictor_heads}; set it to a multiple of both"
            )
        grid = (data.size // backbone.patch,) * 2
        backbone.fix_positions()
        self.online, self.target = backbone, copy_frozen(backbone)
        self.predictor = Predictor(
            backbone.dim, predictor_dim, predictor_depth, predictor_heads, grid
        )
        self.momentum, self.prefix = momentum_target, backbone.prefix
        mask = ContextAndTargets(grid, blocks, scale, aspect, context, least)
        self.view = Masked(RandomResizedCrop(data.size, (crop, 1.0)), mask)

    def step(self, batch):
        x, context, targets = batch.views  # [B, 3, H, W], [B, C], [B, M, K]
        with torch.no_grad():
            whole = self.target.attend(self.target.tokens(x))[:, self.prefix :]  # [B, T, D]
            wanted = taken(whole, targets.flatten(1)).view(*targets.shape, -1)  # [B, M, K, D]
        first, tokens = self.online.tokens(x).tensor_split([self.prefix], 1)
        seen = self.online.attend(torch.cat([first, taken(tokens, context)], 1))
        guess = self.predictor(seen[:, self.prefix :], context, targets)
        yield missed(guess, wanted)

        ema(self.target, self.online, self.momentum + (1 - self.momentum) * batch.progress)

    def encoder(self):
        return PatchMean(self.target)


def missed(guess, wanted):
    """Smooth L1 (Huber) between guesses and tokens scaled to mean 0 and deviation 1, [..., D]."""
    with full_precision(guess):
        wanted = wanted.float()
        return F.smooth_l1_loss(guess.float(), F.layer_norm(wanted, wanted.shape[-1:]))


class Predictor(nn.Module):
    """Tokens [B, C, D] of a context and its places -> guesses [B, M, K, D] at those of M targets."""

    def __init__(self, dim, width, depth, heads, grid):
        super().__init__()
        self.narrow, self.wide = nn.Linear(dim, width), nn.Linear(width, dim)
        first = {"batch_first": True, "norm_first": True}
        block = partial(nn.TransformerEncoderLayer, width, heads, 4 * width, 0.0, "gelu", 1e-6)
        norm = nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.Sequential(*(block(**first) for _ in range(depth)), norm)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.trunc_normal_(p, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        self.blank = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.register_buffer("positions", sincos(grid, width))  # [T, width]

    def forward(self, seen, context, targets):
        count = targets.shape[1]
        known = self.narrow(seen) + self.positions[context]  # [B, C, width]
        asked = self.blank + self.positions[targets]  # [B, M, K, width]
        both = torch.cat([known[:, None].expand(-1, count, -1, -1), asked], 2)
        out = self.blocks(both.flatten(0, 1))[:, context.shape[1] :]  # [B * M, K, width]
        return self.wide(out).unflatten(0, (-1, count))


class PatchMean(nn.Module):
    """[B, 3, H, W] -> [B, D]: the mean of a ViT's tokens of patches."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone.attend(self.backbone.tokens(x))[:, self.backbone.prefix :].mean(1)


IJEPAImageNet = partial(
    IJEPA,
    epochs=300,  # paper
    predictor_depth=12,  # paper
    predictor_heads=16,  # code
)
"""I-JEPA as its paper trains a ViT-H/14 on ImageNet: 300 epochs, a predictor of twelve blocks."""
