"""Split-brain: lightness foretells colour and colour lightness, in two halves that share nothing."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Recipe, Share, Update
from ..errors import UserError
from ..nn import deepest, full_precision
from ..views import crop_flip, gamut, quantised, signed_lightness, to_lab


class SplitBrain(Method):
    """One half sees lightness and foretells colour, the other half does the reverse.

    Zhang et al., Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction, CVPR
    2017, arXiv 1611.09842.
    Departures: two backbones of half the width side by side, cut after their deepest map with a
    position for every `stride` pixels (the paper: AlexNet in two groups); on each map one hidden
    convolution and the classifier (the paper: AlexNet's fully connected layers as convolutions);
    targets are subsampled to that map without averaging; what is judged are the means of both maps
    (the paper: both maps, layer by layer); both inputs are scaled to about [-1, 1]; crops are of
    random area and aspect, resampled (the paper: 180 of 256 pixels, unless we are mistaken). The
    training code is not published: what the paper leaves open follows that of the same authors'
    colorization, the optimiser and its rate among it.
    """

    recipe = Recipe(
        epochs=16,  # 500,000 batches; code, of colorization
        batch=40,  # code, of colorization
        optimizer="adam",  # code, of colorization
        lr=3e-5,  # code, of colorization
        betas=(0.9, 0.99),  # code, of colorization
        weight_decay=1e-3,  # code, of colorization
        decay="all",  # code, of colorization
        schedule="step",  # code, of colorization
        milestones=(0.45, 0.9),  # code, of colorization
        gamma=0.1,  # code, of colorization
    )

    @classmethod
    def needs(cls, backbone, data):
        if data.grey:
            return f"one half learns from colours, and the images of {data.name} are grey"
        try:
            backbone.narrower().upto(-1)
        except UserError as error:
            return str(error)
        return None

    def __init__(
        self,
        backbone,
        data,
        *,
        stride: Count = 16,  # pixels at most between positions of the maps that are read; paper
        hidden: Count = 512,  # channels between a map and its classifier; ours
        levels: Count = 100,  # bins of lightness; paper
        crop: Share = 0.49,  # smallest area; ours, the paper crops 180 of 256 pixels
    ):
        super().__init__()
        self.register_buffer("bins", gamut())  # [Q, 2]
        narrow = backbone.narrower()
        self.of_light = cut(narrow.with_input(signed_lightness, 1), data.size, stride)
        self.of_colour = cut(narrow.with_input(colour, 2), data.size, stride)
        self.to_colour = head(self.of_light.dim, hidden, len(self.bins))
        self.to_light = head(self.of_colour.dim, hidden, levels)
        self.levels = levels
        self.view = crop_flip(data.size, scale=(crop, 1.0))

    def step(self, batch):
        colours, lights = self.logits(batch.views)
        lab = to_lab(subsampled(batch.views, colours.shape[2:]))
        of_colour = classified(colours, quantised(lab[:, 1:], self.bins))
        of_light = classified(lights, binned(lab[:, 0], self.levels))
        log = {"colour": of_colour, "lightness": of_light}
        yield Update(of_colour + of_light, log=log)

    def logits(self, x):
        """Of colours [B, Q, h, w], seen in lightness, and of lightness [B, levels, h, w], in colours."""
        return (
            self.to_colour(self.of_light.maps(x)[-1]),
            self.to_light(self.of_colour.maps(x)[-1]),
        )

    def encoder(self):
        return Both(self.of_light, self.of_colour)

    def uniform(self):
        return math.log(len(self.bins)) + math.log(self.levels)


class Both(nn.Module):
    """[B, 3, H, W] -> [B, 2D]: the features of two backbones side by side."""

    def __init__(self, *halves):
        super().__init__()
        self.halves = nn.ModuleList(halves)

    def forward(self, x):
        return torch.cat([half(x) for half in self.halves], 1)


def colour(x):
    """a and b of images [B, 3, H, W], from about -1 to 1: [B, 2, H, W]."""
    return to_lab(x)[:, 1:] / 110


def cut(backbone, size, stride):
    return backbone.upto(deepest(backbone.shapes(size), size / stride))


def head(dim, hidden, out):
    return nn.Sequential(
        nn.Conv2d(dim, hidden, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(hidden, out, 1)
    )


def subsampled(x, shape):
    """The pixels of images [B, 3, H, W] in the middle of each position of a map of that shape."""
    return F.interpolate(x, shape, mode="nearest-exact")


def binned(light, levels):
    """Which of so many equal bins of [0, 100] lightness [B, H, W] falls into."""
    return (light * (levels / 100)).long().clamp(0, levels - 1)


def classified(logits, label):
    """Cross-entropy of logits [B, K, H, W] with labels [B, H, W]."""
    with full_precision(logits):
        return F.cross_entropy(logits.float(), label)
