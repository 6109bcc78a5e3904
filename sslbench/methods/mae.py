"""MAE: rebuild the three quarters of an image's patches that the encoder did not see."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from ..api import Count, Method, Recipe, Share
from ..nn import full_precision, sincos, taken
from ..views import Masked, RandomOrder, crop_flip


class MAE(Method):
    """A ViT encodes a quarter of the patches; a small decoder rebuilds the pixels of the others.

    He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, arXiv 2111.06377.
    Departures: pixels to rebuild are those of [0, 1] (the code: after the input's normalisation,
    which weighs channels by their deviation and makes 1e-6 a twentieth beside pixels' variance), and
    images are normalised as timm states, for ViTs by 0.5 and 0.5 (the code: by ImageNet's mean and
    deviation); crops are resampled bilinearly (the code: bicubically); warm-up is (s + 1) / (W + 1)
    at step s of W (the code: s / W); positions list rows first (the code: columns); the encoder's
    initial weights are timm's, N(0, 0.02) and a class token of 1e-6 (the code: Xavier's, as here in
    the decoder, and 0.02). What is judged is what the backbone makes of all patches, a ViT's class
    token unless its name asks for another pooling. `reconstruct` hides the same patches of every
    image, fills in what was predicted of them, by the true mean and deviation of each as in the
    paper's figures, and cuts to [0, 1].
    """

    recipe = Recipe(
        epochs=800,  # paper
        batch=4096,  # paper
        optimizer="adamw",  # paper
        lr=1.5e-4,  # paper
        lr_scaling="linear",  # paper
        betas=(0.9, 0.95),  # paper
        weight_decay=0.05,  # paper
        warmup=40,  # paper
    )

    @classmethod
    def needs(cls, backbone, data):
        lacking = f"it encodes some patches of an image alone, which {backbone.name} cannot; "
        return None if backbone.patch else lacking + "a ViT can, such as vit_tiny_patch16_224"

    def __init__(
        self,
        backbone,
        data,
        *,
        masked: Share = 0.75,  # of the patches; paper
        normalise: bool = True,  # the pixels of each patch by their mean and deviation; paper
        decoder_depth: Count = 8,  # blocks; paper
        decoder_dim: Count = 512,  # paper
        decoder_heads: Count = 16,  # paper
        crop: Share = 0.2,  # smallest area; paper
    ):
        super().__init__()
        side = data.size // backbone.patch
        self.total = side * side  # T
        self.seen = math.floor(self.total * (1 - masked) + 1e-6)  # V
        if not 0 < self.seen < self.total:
            raise ValueError(
                f"masked={masked} shows {self.seen} of {self.total} patches, where some must be "
                f"seen and some not; set it between {1 / self.total:.2g} and "
                f"{1 - 1 / self.total:.2g}, or the backbone's patch_size smaller"
            )
        if decoder_dim % 4 or decoder_dim % decoder_heads:
            raise ValueError(
                f"decoder_dim={decoder_dim} was to be split into 4 waves of a position, and among "
                f"decoder_heads={decoder_heads}; set it to a multiple of both"
            )
        backbone.fix_positions()
        self.backbone, self.normalise = backbone, normalise
        self.patch, self.prefix = backbone.patch, backbone.prefix
        self.narrow = nn.Linear(backbone.dim, decoder_dim)
        self.decoder = decoder(decoder_depth, decoder_dim, decoder_heads, 3 * self.patch**2)
        for name, p in (*self.narrow.named_parameters(), *self.decoder.named_parameters()):
            if p.dim() == 2:
                nn.init.xavier_uniform_(p)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        self.blank = nn.Parameter(0.02 * torch.randn(1, 1, decoder_dim))  # the mask token
        self.register_buffer("positions", sincos((side, side), decoder_dim))  # [T, decoder_dim]
        shown = torch.randperm(self.total, generator=torch.Generator().manual_seed(0))
        self.register_buffer("shown", shown)  # [T], the order of `reconstruct`
        self.view = Masked(crop_flip(data.size, (crop, 1.0)), RandomOrder(self.total))

    def step(self, batch):
        x, order = batch.views
        hidden = taken(patches(x, self.patch), order[:, self.seen :])  # [B, T - V, 3pp]
        yield error(self.guessed(x, order), hidden, normalise=self.normalise)

    def guessed(self, x, order):
        """What the decoder says of the hidden patches, in their order: [B, T - V, 3pp]."""
        first, whole = self.backbone.tokens(x).tensor_split([self.prefix], 1)
        seen = taken(whole, order[:, : self.seen])
        latent = self.narrow(self.backbone.attend(torch.cat([first, seen], 1)))
        first, seen = latent.tensor_split([self.prefix], 1)
        blanks = self.blank.expand(len(x), self.total - self.seen, -1)
        # blocks do not mind the order of tokens: what is seen stays in front
        placed = torch.cat([seen, blanks], 1) + self.positions[order]  # [B, T, decoder_dim]
        out = self.decoder(torch.cat([first, placed], 1))
        return out[:, self.prefix + self.seen :]

    def reconstruct(self, x):
        order = self.shown.expand(len(x), -1)
        whole, places = patches(x, self.patch), order[:, self.seen :]
        guess = self.guessed(x, order).float()
        if self.normalise:
            mean, deviation = statistics(taken(whole, places))
            guess = guess * deviation + mean
        filled = whole.scatter(1, places[..., None].expand_as(guess), guess.clamp(0, 1))
        return image(filled, self.patch)


def error(guess, hidden, *, normalise=True):
    """Mean square error of guesses of hidden patches, both [B, n, 3pp], by patches scaled to 0 and 1."""
    with full_precision(guess):
        target = hidden.float()
        if normalise:
            mean, deviation = statistics(target)
            target = (target - mean) / deviation
        return (guess.float() - target).square().mean()


def statistics(pixels):
    """Mean and (unbiased) deviation of each patch, of pixels [..., 3pp], each [..., 1]."""
    variance, mean = torch.var_mean(pixels, -1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


def patches(x, side):
    """[B, 3, H, W] -> [B, T, 3pp], row by row."""
    cut = x.unfold(2, side, side).unfold(3, side, side)  # [B, 3, H / p, W / p, p, p]
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def image(cut, side):
    """[B, T, 3pp] -> [B, 3, H, H]."""
    rows = math.isqrt(cut.shape[1])
    grid = cut.view(len(cut), rows, rows, 3, side, side).permute(0, 3, 1, 4, 2, 5)
    return grid.flatten(4).flatten(2, 3)


def decoder(depth, dim, heads, out):
    """Transformer blocks with the norm in front, a last norm, and a linear layer: [B, n, out]."""
    first = {"batch_first": True, "norm_first": True}
    block = partial(nn.TransformerEncoderLayer, dim, heads, 4 * dim, 0.0, "gelu", 1e-6, **first)
    last = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, out)
    return nn.Sequential(*(block() for _ in range(depth)), *last)


MAEImageNet = partial(
    MAE,
    epochs=1600,  # paper
)
"""MAE as in its paper's comparison on ImageNet: 1600 epochs of batches of 4096."""
