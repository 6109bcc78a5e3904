"""Entropy minimisation: borders between classes move to where there are no images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Method, NonNegative, Positive, Recipe, Share, Update
from ..nn import copy_frozen, follow, full_precision, risen, unrecorded
from ..nn.labels import labelled, one_class
from ..views import shift_flip


class EntropyMinimisation(Method):
    """On images without labels, a prediction should be a sure one, whatever it says.

    Grandvalet & Bengio, Semi-supervised Learning by Entropy Minimization, NeurIPS 2004 (it has
    neither arXiv id nor DOI); beside other losses of networks in Oliver et al., Realistic
    Evaluation of Deep Semi-Supervised Learning Algorithms, NeurIPS 2018, arXiv 1804.09170.
    Departures: the paper fits a logistic regression to all examples at once, with a weight of the
    entropy that is cross-validated, or annealed; it sums over labelled and unlabelled examples
    (here: a mean over each kind, so that their numbers do not matter). The network, views and
    average are ours, and so are the weight and its rise: no code of it is known to us. Its recipe
    is that of `pseudo-label`, and beside TorchSSL's code of that method: an epoch is one pass over
    all images, each step beside 1/`ratio` as many labelled ones, drawn in turn (there: both with
    replacement); those of the budget among all images are used like the others, as there; the
    average of the weights warms up, min(m, (1 + t) / (10 + t)) after t steps (there: m from the
    first one); padding moves an image before it is mirrored or not (there: after); a view's steps
    stay in floats (there: rounded to 8 bits); colours are normalised as the backbone states (there:
    by CIFAR's mean and deviation), whose architecture, initial weights and norms it takes (there: a
    WRN-28-2, its norms with a momentum of 0.001); the weights at the end are judged (there: those
    that were best on test).
    """

    labels = "budget"
    least = 2
    targets = ("average",)
    recipe = Recipe(
        epochs=1343,  # 2^20 steps on CIFAR-10; ours
        batch=64,  # ours
        optimizer="sgd",  # ours
        lr=0.03,  # ours
        momentum=0.9,  # ours
        nesterov=True,  # ours
        weight_decay=5e-4,  # ours
        schedule="arc",  # ours
        lr_end=math.cos(7 * math.pi / 16),  # ours
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        unlabelled: NonNegative = 0.1,  # weight of the entropy at the end; ours
        rise: Share = 0.4,  # share of the fit until that weight is reached; ours
        ratio: Positive = 1.0,  # of all images to the labelled ones of a step; ours
        momentum_average: Share = 0.999,  # of the average that is judged; ours
        shift: Share = 0.125,  # of the side, by which a view moves at most; ours
        flip: Share = 0.5,  # chance of a mirror image; ours
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

    def fit(self, run):
        given = labelled(run, 1 / self.ratio)
        for epoch in run.epochs(self):
            epoch.streams["labelled"] = given

    def step(self, batch):
        given = batch.also["labelled"]
        supervised = F.cross_entropy(self.online(given.views).float(), given.label)
        with unrecorded(self.online):  # of norms, labelled images make the running statistics
            logits = self.online(batch.views)  # [B, K]
        unsure = entropy(logits)
        weight = self.unlabelled * risen(batch.progress, self.rise)
        yield Update(supervised + weight * unsure, log={"labelled": supervised, "entropy": unsure})
        follow(self.average, self.online, self.momentum, self.steps)

    def uniform(self):
        return math.log(self.head.out_features)  # at the start, where entropy has no weight

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)


def entropy(logits):
    """Mean entropy of the predictions of logits [B, K], in nats."""
    with full_precision(logits):
        logs = logits.float().log_softmax(1)  # [B, K]
        return -(logs.exp() * logs).sum(1).mean()
