"""ConMatch: strong views teach each other as far as an estimator trusts them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Guesses, Method, NonNegative, Recipe, Share, Update
from ..nn import copy_frozen, follow, full_precision
from ..nn.labels import labelled, one_class, weighed_entropy
from ..views import Chain, Cutout, HorizontalFlip, PadCrop, RandAugment, Views


class ConMatch(Method):
    """Two strong views learn each other's classes, weighted by how sure an estimator is of these.

    Kim et al., ConMatch: Semi-Supervised Learning with Confidence-Guided Consistency, ECCV 2022,
    arXiv 2208.08631.
    Departures: the released code lacks the file of its consistency losses; they are hard
    cross-entropies here, times the confidence, a mean over all images, as their calls suggest.
    Trained end to end, as the code's settings are; the paper's phases (labels alone, then the
    estimator, then both) and its confidence without an estimator are not written. The estimator
    predicts with its last weights and is not averaged, as it is not asked for a prediction. The
    average's momentum grows from a small one (there: constant). Images of both kinds are drawn
    without repeats in a pass. RandAugment shifts and shears by up to a tenth (there: 0.3, unless we
    are mistaken); sides of its square are even. Biases and norms do not decay. Colours are
    normalised as the backbone states; a view's steps stay in floats (there: rounded to 8 bits). The
    backbone is the suite's (there: WRN-28-2), and the estimator takes features of its width.
    """

    labels = "budget"
    least = 2
    targets = ("average",)
    recipe = Recipe(
        epochs=9447,  # 2 ** 20 steps on CIFAR; paper
        batch=448,  # unlabelled images, 7 times 64; paper
        optimizer="sgd",  # paper
        lr=0.03,  # paper
        momentum=0.9,  # paper
        nesterov=True,  # code
        weight_decay=5e-4,  # paper
        schedule="arc",  # paper
        lr_end=math.cos(7 * math.pi / 16),  # paper
        per={"estimator.*": {"lr": 1e-4}},  # 3e-6; code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        ratio: Count = 7,  # unlabelled images a step for each labelled one; paper
        threshold: Share = 0.95,  # confidence from which a weak view teaches the strong; paper
        unlabelled: NonNegative = 1.0,  # weight of what weak views teach; paper
        consistency: NonNegative = 1.0,  # weight of what strong views teach each other; code
        estimate: NonNegative = 1.0,  # weight of what the estimator learns; code
        trust: NonNegative = 0.5,  # weight of its reward for trust in strong views; code
        hidden: Count = 64,  # width of its layers; code
        average: Share = 0.999,  # momentum of the average that predicts; paper
        operations: Count = 3,  # of RandAugment; code
        cutout: Share = 0.5,  # largest side of the grey square, 0: none; code
    ):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.net = nn.Sequential(backbone, self.head)
        self.average = copy_frozen(self.net)
        self.estimator = Estimator(backbone.dim, data.classes, hidden)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.ratio, self.threshold, self.momentum = ratio, threshold, average
        self.unlabelled, self.consistency = unlabelled, consistency
        self.estimate, self.trust = estimate, trust
        self.weak = Chain(PadCrop(round(data.size / 8), "reflect"), HorizontalFlip())
        ops = [RandAugment(operations, scale="drawn", fill=127 / 255)]
        if hole := round(cutout * data.size):
            ops.append(Cutout(hole, 127 / 255, least=1))
        strong = Chain(*self.weak.ops, *ops)
        self.three = Views((self.weak, strong, strong))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return {"main": self.three, "labelled": self.weak}

    def fit(self, run):
        given = labelled(run, 1 / self.ratio)
        for epoch in run.epochs(self):
            epoch.streams["labelled"] = given

    def step(self, batch):
        given, size = batch.also["labelled"], len(batch.index)
        parts = [len(given.index), size, size, size]
        h = self.backbone(torch.cat([given.views, *batch.views]))  # [b + 3B, D]
        logits = self.head(h).float()
        known, weak, one, two = logits.split(parts)
        belief = self.estimator(h.detach(), logits.detach()).float().split(parts)  # each [B]
        loss = F.cross_entropy(known, given.label)
        p = weak.detach().softmax(1)  # [B, K]
        sure = (p.amax(1) >= self.threshold).float()
        taught = guided(one, weak, sure) + guided(two, weak, sure)
        sides = [b.detach().sigmoid() for b in belief[2:]]
        mutual = guided(two, one, sides[0]) + guided(one, two, sides[1])
        learned = right(belief[0], known, given.label)
        for strong, b in ((one, belief[2]), (two, belief[3])):
            learned = learned + trusted(b, strong, weak, self.trust)
        loss = loss + self.unlabelled * taught + self.consistency * mutual
        log, guesses = {"belief": torch.cat(sides).mean()}, Guesses(batch.index, p, sure)
        yield Update(loss + self.estimate * learned, log=log, guesses=guesses)

        follow(self.average, self.net, self.momentum, self.steps)

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)


class Estimator(nn.Module):
    """From features [B, D] and logits [B, K] to the log odds [B] that the prediction is right."""

    def __init__(self, dim, classes, hidden):
        super().__init__()
        self.of_features = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU())
        self.of_classes = nn.Sequential(nn.Linear(classes, hidden), nn.ReLU())
        narrow = max(1, hidden // 2)
        self.last = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, narrow), nn.ReLU(),
            nn.Linear(narrow, 1),
        )  # fmt: skip

    def forward(self, features, logits):
        unit = F.normalize(features.float(), dim=1)
        p = logits.float().softmax(1).sort(dim=1, descending=True).values  # whatever the class
        both = torch.cat([self.of_features(unit), self.of_classes(p)], dim=1)
        return self.last(both)[:, 0]


def guided(logits, teacher, weight):
    """Cross-entropy with the teacher's first class, times a weight [B]; a mean over all images."""
    return weighed_entropy(logits, teacher.detach().argmax(1), weight)


def right(belief, logits, label):
    """Binary cross-entropy of log odds [B] with whether the logits' first class is the label."""
    with full_precision(belief):
        truth = (logits.detach().argmax(1) == label).float()
        return F.binary_cross_entropy_with_logits(belief.float(), truth)


def trusted(belief, strong, weak, trust):
    """Trains log odds [B] alone: confidence costs what strong views err, and distrust its log."""
    with full_precision(belief):
        belief = belief.float()
        return guided(strong.detach(), weak, belief.sigmoid()) - trust * F.logsigmoid(belief).mean()
