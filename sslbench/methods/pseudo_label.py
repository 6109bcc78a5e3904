"""Pseudo-label: what the network is sure of, it learns as if it were a label."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Guesses, Method, NonNegative, Positive, Recipe, Share, Update
from ..nn import copy_frozen, follow, full_precision, risen, unrecorded
from ..nn.labels import labelled, one_class
from ..views import shift_flip


class PseudoLabel(Method):
    """An image without a label is taken for the class that the network is sure it shows.

    Lee, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural
    Networks, ICML workshop 2013 (it has neither arXiv id nor DOI); as a baseline in Oliver et al.,
    Realistic Evaluation of Deep Semi-Supervised Learning Algorithms, NeurIPS 2018,
    arXiv 1804.09170. Settings are those of TorchSSL's code on CIFAR-10.
    Departures: the paper has no threshold (`threshold=0`); its weight rises from epoch 100 to 600,
    to 3 (here and in the code: from the first step to two fifths of the fit, to 1); it trains a
    perceptron with dropout on digits, 32 labelled and 256 others a step, without views, Nesterov's
    momentum or an average. Beside the code: an epoch is one pass over all images, each step beside
    1/`ratio` as many labelled ones, drawn in turn (there: both with replacement); those of the
    budget among all images are used like the others, as there; the average of the weights warms up,
    min(m, (1 + t) / (10 + t)) after t steps (there: m from the first one); padding moves an image
    before it is mirrored or not (there: after); a view's steps stay in floats (there: rounded to 8
    bits); colours are normalised as the backbone states (there: by CIFAR's mean and deviation),
    whose architecture, initial weights and norms it takes (there: a WRN-28-2, its norms with a
    momentum of 0.001); the weights at the end are judged (there: those that were best on test).
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
        threshold: Share = 0.95,  # of the probability, from which a class is taken; code
        unlabelled: NonNegative = 1.0,  # weight of images without labels at the end; code
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
        self.threshold, self.unlabelled, self.rise = threshold, unlabelled, rise
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
        named, p, sure = self_named(logits, self.threshold)
        weight = self.unlabelled * risen(batch.progress, self.rise)
        guesses = Guesses(batch.index, p, sure)
        yield Update(supervised + weight * named, log={"labelled": supervised}, guesses=guesses)
        follow(self.average, self.online, self.momentum, self.steps)

    def uniform(self):
        return math.log(self.head.out_features)

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)


def self_named(logits, threshold):
    """Cross-entropy of logits [B, K] with their own best class, where that is sure; a mean over all.

    Also the probabilities [B, K], and where the best reaches the threshold: bool [B].
    """
    with full_precision(logits):
        logs = logits.float().log_softmax(1)  # [B, K]
        best, p = logs.max(1).values, logs.detach().exp()  # [B], [B, K]
        sure = p.amax(1) >= threshold
        return -(sure * best).mean(), p, sure
