"""Colorization: the lightness of an image foretells the colour of each place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Positive, Recipe, Share
from ..errors import UserError
from ..nn import deepest, full_precision
from ..views import crop_flip, distances, from_lab, gamut, lightness, signed_lightness, to_lab

STRIDE = 4  # pixels from one place that gets a colour to the next; paper
GREY = 5  # |a| and |b| up to which a place has no colour; code


class Colorization(Method):
    """Lightness alone foretells the colour of each place; rare colours weigh more.

    Zhang et al., Colorful Image Colorization, ECCV 2016, arXiv 1603.08511.
    Departures: any backbone, cut after its deepest map with a position for every `stride` pixels
    and judged by the mean of that map (the paper: a dilated VGG whose maps stay at 1/8 of the side,
    as those of resnet50[output_stride=8] do); on that map stand a convolution, an enlargement by
    repetition and another convolution, then the classifier (the code: blocks conv6 and conv7 at
    1/8, a transposed convolution and two more); lightness - 50 is divided by 50 (the code: it is
    not), and norms are the backbone's own (the code: one without scale and shift behind each
    block); the prior of colours is the mean soft code of the pretraining images themselves, mixed
    with the uniform one over all bins (the code: a file made of ImageNet's, and the bins that occur
    in it); weights of rare colours are in the loss that is shown (the code: in its gradient alone);
    the loss is a mean over the places of images that have colour (how the code's layer divides it
    is not published); crops are of random area and aspect, resampled (the code: 176 of 256 pixels);
    initial weights are timm's and torch's (the paper: scaled by activations on data); batches end
    with an epoch (there: they run on into the next); the rate falls in the code's steps (the paper:
    1e-5 after 200,000 of 450,000 batches, 3e-6 after 375,000); who judges it sees no colour either.
    """

    recipe = Recipe(
        epochs=16,  # 500,000 batches; code
        batch=40,  # code
        optimizer="adam",  # paper
        lr=3e-5,  # paper
        betas=(0.9, 0.99),  # paper
        weight_decay=1e-3,  # paper
        decay="all",  # code
        schedule="step",  # paper
        milestones=(0.45, 0.9),  # 225,000 and 450,000 batches; code
        gamma=0.1,  # code
    )

    @classmethod
    def needs(cls, backbone, data):
        if data.grey:
            return f"it learns from colours, and the images of {data.name} are grey"
        try:
            backbone.upto(-1)
        except UserError as error:
            return str(error)
        return None

    def __init__(
        self,
        backbone,
        data,
        *,
        stride: Count = 8,  # pixels at most between positions of the map that is read; paper
        hidden: Count = 256,  # channels between that map and the classifier; code
        neighbours: Count = 10,  # bins that share the colour of a place; code (the paper: 5)
        sigma: Positive = 5.0,  # of their Gaussian weights; paper
        even: Share = 0.5,  # share of the uniform prior among that which weighs colours; paper
        temperature: Positive = 0.38,  # of the mean colour in a reconstruction; paper
        crop: Share = 0.47,  # smallest area; ours, the code crops 176 of 256 pixels
    ):
        super().__init__()
        self.register_buffer("bins", gamut())  # [Q, 2]
        self.register_buffer("weight", torch.ones(len(self.bins)))  # [Q], of a place of that colour
        if neighbours > len(self.bins):
            raise ValueError(
                f"{neighbours} bins were to share a colour, and there are {len(self.bins)}; "
                f"set neighbours to at most that"
            )
        backbone = backbone.with_input(signed_lightness, 1)
        self.backbone = backbone.upto(deepest(backbone.shapes(data.size), data.size / stride))
        self.head = nn.Sequential(
            nn.Conv2d(self.backbone.dim, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Upsample(-(-data.size // STRIDE)),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, len(self.bins), 1),
        )
        self.neighbours, self.sigma, self.even = neighbours, sigma, even
        self.temperature = temperature
        self.view = crop_flip(data.size, scale=(crop, 1.0))

    def fit(self, run):
        for epoch in run.epochs(self):
            if epoch.number == 0:
                prior = run.features(self.census).mean(0)
                self.weight.copy_(rarity(prior, self.even))

    def census(self, x):
        """What share of each image [B, 3, H, W] each bin has: [B, Q]."""
        near, share = soft(colours(x), self.bins, self.neighbours, self.sigma)
        share = share / share[0, ..., 0].numel()
        counts = share.new_zeros(len(x), len(self.bins))
        return counts.scatter_add_(1, near.flatten(1), share.flatten(1))

    def step(self, batch):
        logits, ab = self.logits(batch.views), colours(batch.views)
        yield rebalanced(logits, ab, self.bins, self.weight, self.neighbours, self.sigma)

    def logits(self, x):
        return self.head(self.backbone.maps(x)[-1])  # [B, Q, h, w]

    def uniform(self):
        return math.log(len(self.bins))

    def reconstruct(self, x):
        ab = annealed(self.logits(x), self.bins, self.temperature)
        ab = F.interpolate(ab, x.shape[2:], mode="bilinear")
        return from_lab(torch.cat([lightness(x), ab], 1))


def colours(x):
    """a and b of every fourth pixel: [B, 2, h, w]."""
    return to_lab(x[:, :, ::STRIDE, ::STRIDE])[:, 1:]


def soft(ab, bins, neighbours, sigma):
    """The bins nearest to each colour of ab [B, 2, H, W], and their shares of it: [B, H, W, k]."""
    far, near = distances(ab, bins).topk(neighbours, largest=False)
    return near, (far / (-2 * sigma**2)).softmax(-1)


def rarity(prior, even):
    """Weights [Q] of bins by their prior [Q], smoothed: 1 in the mean over the prior."""
    weight = 1 / ((1 - even) * prior + even / len(prior)).clamp_min(1e-8)
    return weight / (prior * weight).sum()


def rebalanced(logits, ab, bins, weight, neighbours, sigma):
    """Cross-entropy of logits [B, Q, H, W] with soft codes of ab [B, 2, H, W].

    Each place weighs as its nearest bin does, and nothing in images without colour.
    """
    with full_precision(logits):
        near, share = soft(ab, bins, neighbours, sigma)
        log_p = logits.float().log_softmax(1).permute(0, 2, 3, 1)  # [B, H, W, Q]
        loss = -(share * log_p.gather(3, near)).sum(3) * weight[near[..., 0]]  # [B, H, W]
        coloured = (ab.float().abs() > GREY).flatten(1).any(1).float()  # [B]
        return (loss.mean((1, 2)) * coloured).sum() / coloured.sum().clamp_min(1)


def annealed(logits, bins, temperature):
    """Mean colours [B, 2, H, W] under logits [B, Q, H, W] of bins, as a temperature sharpens them."""
    p = (logits.float() / temperature).softmax(1)
    return torch.stack([(p * part[:, None, None]).sum(1) for part in bins.unbind(1)], 1)
