"""Few labels: cross-entropy on the budget alone, the baseline of all that use the rest."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Method, Positive, Recipe, Share
from ..nn import copy_frozen, follow
from ..nn.labels import labelled, one_class
from ..views import shift_flip


class FewLabels(Method):
    """Cross-entropy on a budget of labels and nothing else, with an average of the weights.

    The supervised row beside semi-supervised ones: Oliver et al., Realistic Evaluation of Deep
    Semi-Supervised Learning Algorithms, NeurIPS 2018, arXiv 1804.09170, which asks that it is
    trained and tuned like them. Settings are those of TorchSSL's code on CIFAR-10, whose recipe its
    semi-supervised methods share.
    Departures: an epoch has as many steps as the whole batches of all images, of which no other
    than the labelled are looked at, 1/`ratio` of a batch at each, drawn in turn (the code: with
    replacement); the average of the weights warms up, min(m, (1 + t) / (10 + t)) after t steps
    (there: m from the first one); padding moves an image before it is mirrored or not (there:
    after); a view's steps stay in floats (there: rounded to 8 bits); colours are normalised as the
    backbone states (there: by CIFAR's mean and deviation), whose architecture, initial weights and
    norms it takes (there: a WRN-28-2, its norms with a momentum of 0.001); the weights at the end
    are judged (there: those that were best on test).
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
        ratio: Positive = 1.0,  # of the batch to the labelled images of a step; code
        momentum_average: Share = 0.999,  # of the average that is judged; code
        shift: Share = 0.125,  # of the side, by which a view moves at most; code
        flip: Share = 0.5,  # chance of a mirror image; code
    ):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.online = nn.Sequential(self.backbone, self.head)
        self.average = copy_frozen(self.online)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.ratio, self.momentum = ratio, momentum_average
        self.view = shift_flip(data.size, shift, flip)

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def fit(self, run):
        given = labelled(run, 1 / self.ratio)
        for epoch in run.epochs(self):
            epoch.main = False
            epoch.streams["labelled"] = given

    def step(self, batch):
        given = batch.also["labelled"]
        logits = self.online(given.views)  # [B, K]
        yield F.cross_entropy(logits.float(), given.label)
        follow(self.average, self.online, self.momentum, self.steps)

    def uniform(self):
        return math.log(self.head.out_features)

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)
