"""The Pi model: two views of an image get the same prediction."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Method, NonNegative, Positive, Recipe, Share, Update
from ..nn import copy_frozen, follow, full_precision, risen, unrecorded
from ..nn.labels import labelled, one_class
from ..views import Views, shift_flip


class PiModel(Method):
    """Two views of an image get the same prediction; each is drawn to the other.

    Laine & Aila, Temporal Ensembling for Semi-Supervised Learning, ICLR 2017, arXiv 1610.02242.
    Settings are those of TorchSSL's code on CIFAR-10, whose recipe its semi-supervised methods
    share.
    Departures: as in TorchSSL, and not in the authors' code, labelled images are a batch of their
    own (the authors: batches of 100 of all images, of which the labelled few are marked), the
    squared difference weighs 10 beside the mean of the labelled (in effect 100), it rises linearly
    over two fifths of the fit (as exp(-5 (1 - t)^2) over 80 of 300 epochs, and the rate with it),
    the optimiser is SGD (Adam, whose rate and first beta fall over the last 50 epochs), images move
    by an eighth at most (by two pixels), each view is mirrored by itself (both or none), there is
    no noise on images, no dropout and no ZCA (noise of 0.15, dropout of a half), of norms, labelled
    images alone make the running statistics, while each view passes with those of its batch (batch
    norm of means alone, of all images), and an average of the weights is judged (the weights). As
    in the authors' code, both predictions take the gradient (TorchSSL: the first alone, half of
    it). Beside TorchSSL: an epoch is one pass over all images, each step beside 1/`ratio` as many
    labelled ones, drawn in turn (there: both with replacement); those of the budget among all
    images are used like the others, as there; the average of the weights warms up, min(m, (1 + t) /
    (10 + t)) after t steps (there: m from the first one); padding moves an image before it is
    mirrored or not (there: after); a view's steps stay in floats (there: rounded to 8 bits);
    colours are normalised as the backbone states (there: by CIFAR's mean and deviation), whose
    architecture, initial weights and norms it takes (there: a WRN-28-2, its norms with a momentum
    of 0.001); the weights at the end are judged (there: those that were best on test).
    """

    labels = "budget"
    least = 2
    targets = ("average",)
    recipe = Recipe(
        epochs=1343,  # 2^20 steps on CIFAR-10; code
        batch=64,  # code
        optimizer="sgd",  # code
        lr=0.03,  # code
        momentum=0.9,  # code
        nesterov=True,  # code
        weight_decay=5e-4,  # code
        schedule="arc",  # code
        lr_end=math.cos(7 * math.pi / 16),  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        unlabelled: NonNegative = 10.0,  # weight of the squared difference at the end; code
        rise: Share = 0.4,  # share of the fit until that weight is reached; code
        ratio: Positive = 1.0,  # of all images to the labelled ones of a step; code
        momentum_average: Share = 0.999,  # of the average that is judged; code
        shift: Share = 0.125,  # of the side, by which a view moves at most; code
        flip: Share = 0.5,  # chance of a mirror image; code
    ):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.online = nn.Sequential(self.backbone, self.head)
        self.average = copy_frozen(self.online)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.unlabelled, self.rise = unlabelled, rise
        self.ratio, self.momentum = ratio, momentum_average
        self.view = shift_flip(data.size, shift, flip)

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return {"main": Views(self.view, 2), "labelled": self.view}

    def fit(self, run):
        given = labelled(run, 1 / self.ratio)
        for epoch in run.epochs(self):
            epoch.streams["labelled"] = given

    def step(self, batch):
        given, (one, two) = batch.also["labelled"], batch.views
        supervised = F.cross_entropy(self.online(given.views).float(), given.label)
        with unrecorded(self.online):  # of norms, labelled images make the running statistics
            error = apart(self.online(one), self.online(two))
        weight = self.unlabelled * risen(batch.progress, self.rise)
        yield Update(supervised + weight * error, log={"labelled": supervised, "apart": error})
        follow(self.average, self.online, self.momentum, self.steps)

    def uniform(self):
        return math.log(self.head.out_features)

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)


def apart(one, two):
    """Mean squared difference of the probabilities of two sets of logits [B, K]."""
    with full_precision(one):
        return F.mse_loss(one.float().softmax(1), two.float().softmax(1))
