"""MixMatch: several views guess one sharpened label, then all images are mixed with each other."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Guesses, Method, NonNegative, Positive, Recipe, Share, Update
from ..nn import copy_frozen, follow, risen, unrecorded
from ..nn.labels import interleaved, labelled, mixup, one_class, semi_supervised, sharpen
from ..views import Views, shift_flip


class MixMatch(Method):
    """Labels guessed by several views and sharpened; labelled and unlabelled images are mixed.

    Berthelot et al., MixMatch: A Holistic Approach to Semi-Supervised Learning, NeurIPS 2019,
    arXiv 1905.02249.
    Departures: the average of weights that is judged is warmed up by min(m, (1 + t) / (10 + t)) at
    step t (the code: 0.999 throughout), and has the online network's running statistics, as there;
    weights decay before the step of Adam (the code: after it), whose epsilon is added to the
    corrected root (there: to the root before); slices of a part that is not divisible are larger
    at its start (there: at its end); a view's steps stay in floats (there: rounded to 8 bits); the
    last weights are judged (the paper: the median accuracy of the last 20 checkpoints); an epoch is
    a pass over the unlabelled images, of which a last batch that is not whole is left out (the
    code: 2^16 labelled images); labelled images are shuffled whole before any comes again (there:
    in a buffer); running statistics of norms follow as the backbone states (there: by 0.001 of a
    batch); images are normalised as the backbone does (there: to -1 to 1); initial weights are
    torch's and timm's. As in USB: each image is mixed in a share of its own (USB: one for a batch).
    """

    labels = "budget"
    targets = ("average",)
    recipe = Recipe(
        epochs=1343,  # 2^20 steps on 50,000 images; paper
        batch=64,  # unlabelled images, and as many labelled ones; paper
        optimizer="adamw",  # Adam, weights shrink beside it; code
        lr=0.002,  # paper
        schedule="constant",  # paper
        weight_decay=0.02,  # times the rate; code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        guesses: Count = 2,  # views of an unlabelled image; paper
        temperature: Positive = 0.5,  # of sharpening; paper
        mixup: Positive = 0.75,  # both parameters of the beta distribution; paper
        unlabelled: NonNegative = 75.0,  # weight of the loss of unlabelled images; paper, of CIFAR-10
        rise: Positive = 1 / 64,  # share of the fit in which it rises from 0, 16,384 steps; code
        momentum_average: Share = 0.999,  # of the weights that are judged; paper
        shift: Share = 0.125,  # of the side, by which a view is moved at most; code
    ):
        super().__init__()
        self.online = nn.Sequential(backbone, nn.Linear(backbone.dim, data.classes))
        self.average = copy_frozen(self.online)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.temperature, self.mixup = temperature, mixup
        self.unlabelled, self.rise, self.momentum = unlabelled, rise, momentum_average
        self.weak = shift_flip(data.size, shift)
        self.several = Views(self.weak, guesses)

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return {"main": self.several, "labelled": self.weak}

    def fit(self, run):
        given = labelled(run)
        for epoch in run.epochs(self):
            epoch.streams["labelled"] = given

    def step(self, batch):
        given = batch.also["labelled"]
        guess = self.guess(batch.views)  # [B, K]
        label = F.one_hot(given.label, guess.shape[1]).float()
        x, target = mixup(
            torch.cat([given.views, *batch.views]),
            torch.cat([label, *[guess] * len(batch.views)]),
            self.mixup,
            each=True,
        )  # [(1 + guesses) B, ...]
        logits = self.in_turn(x.split(len(label)))
        known = torch.arange(len(x), device=x.device) < len(label)
        weight = self.unlabelled * risen(batch.progress, self.rise)
        loss = semi_supervised(logits, target, known, weight)
        yield Update(loss, guesses=Guesses(batch.index, guess))

        follow(self.average, self.online, self.momentum, self.steps)

    @torch.no_grad()
    def guess(self, views):
        """The sharpened mean of predictions of views, each passed by itself: [B, K]."""
        with unrecorded(self.online):
            each = [self.online(view).float().softmax(1) for view in views]
        return sharpen(torch.stack(each).mean(0), self.temperature)

    def in_turn(self, parts):
        """Logits [P B, K] of parts [B, ...], of which the first passes are mostly labelled images.

        Norms see some images of each kind together, and record those of the first pass.
        """
        first, *others = interleaved(parts)
        logits = [self.online(first)]
        with unrecorded(self.online):
            logits += [self.online(part) for part in others]
        return torch.cat(interleaved(logits))

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)

    def uniform(self):
        return math.log(self.online[1].out_features)


MixMatchUSB = partial(
    MixMatch,
    epochs=1343,  # 2^20 steps on 50,000 images; code
    optimizer="sgd",  # code
    lr=0.03,  # code
    nesterov=True,  # code
    schedule="arc",  # code
    lr_end=0.1950903,  # cos(7 pi / 16); code
    weight_decay=5e-4,  # code
    mixup=0.5,  # code
    unlabelled=100.0,  # code
    rise=0.4,  # code
)
"""MixMatch as the library USB trains it: by SGD, a slower rise of a larger weight, milder mixing."""
