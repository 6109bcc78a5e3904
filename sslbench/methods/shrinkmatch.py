"""ShrinkMatch: where a prediction is unsure, classes that it confuses are left out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Guesses, Method, NonNegative, Positive, Recipe, Share, Update
from ..nn import copy_frozen, follow, full_precision
from ..nn.labels import balanced, labelled, one_class, weighed_entropy
from ..views import Chain, Cutout, HorizontalFlip, PadCrop, RandAugment, Views


class ShrinkMatch(Method):
    """Unsure images are told apart from the classes that are left when the confusing ones are gone.

    Yang et al., Shrinking Class Space for Enhanced Certainty in Semi-Supervised Learning,
    ICCV 2023, arXiv 2308.06777.
    Departures: as on CIFAR; its ImageNet code is not written. Both kinds of images are drawn without
    repeats in a pass; the unlabelled are all, as there. The average is taken after a step (the code:
    before), its momentum grows from a small one (there: constant). The share of sure images is
    averaged over the whole fit, as in the paper (the code starts anew every 1,024 steps).
    RandAugment draws its strength evenly (there: of nine levels): shifts and shears to a tenth
    (0.27), rotations to 30 degrees (27), factors of brightness, contrast, saturation and sharpness
    from 0.05 to 0.95 (0.14 to 0.86), bits that stay from 4 to 8 (7), solarising from any value (from
    a tenth). Its square of half the side sticks out on all sides alike (there: it is moved inside at
    the upper left, and has 17 of 32 pixels). Weak views mirror after they shift, not before. Colours
    are normalised as the backbone states; a view's steps stay in floats (there: rounded to 8 bits).
    The backbone is the suite's (there: WRN-28-2).
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
        weight_decay=5e-4,  # on CIFAR-100 twice as much; paper
        schedule="arc",  # paper
        lr_end=math.cos(7 * math.pi / 16),  # paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        ratio: Count = 7,  # unlabelled images a step for each labelled one; paper
        threshold: Share = 0.95,  # confidence from which an image is sure; paper
        unlabelled: NonNegative = 1.0,  # weight of sure images; paper
        shrunk: NonNegative = 1.0,  # weight of unsure images, beside those that it finds; paper
        window: Count = 32,  # batches over which predictions are balanced; code
        align: bool = True,  # whether they are; code
        narrow: Positive = 0.25,  # width of the auxiliary head, share of the features'; code
        average: Share = 0.999,  # momentum of the average that predicts; paper
        average_sure: Share = 0.999,  # momentum of the share of sure images; paper
        operations: Count = 2,  # of RandAugment; code
        cutout: Share = 0.5,  # side of the grey square, 0: none; code
    ):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.net = nn.Sequential(backbone, self.head)
        self.average = copy_frozen(self.net)
        self.auxiliary = auxiliary(backbone.dim, max(1, int(narrow * backbone.dim)), data.classes)
        self.register_buffer("recent", torch.zeros(window, data.classes))  # [W, K], batch means
        self.register_buffer("sure", torch.zeros(()))  # share of sure images
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.ratio, self.threshold, self.align = ratio, threshold, align
        self.unlabelled, self.shrunk = unlabelled, shrunk
        self.momentum, self.momentum_sure = average, average_sure
        self.weak = Chain(PadCrop(round(data.size / 8), "reflect"), HorizontalFlip())
        strong = [RandAugment(operations, scale="drawn", fill=127 / 255, p=0.5)]
        if hole := round(cutout * data.size):
            strong.append(Cutout(hole, 127 / 255))
        self.two = Views((self.weak, Chain(*self.weak.ops, *strong)))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return {"main": self.two, "labelled": self.weak}

    def fit(self, run):
        given = labelled(run, 1 / self.ratio)
        for epoch in run.epochs(self):
            epoch.streams["labelled"] = given

    def step(self, batch):
        given, size = batch.also["labelled"], len(batch.index)
        parts = [len(given.index), size, size]
        h = self.backbone(torch.cat([given.views, *batch.views]))  # [b + 2B, D]
        known, weak, strong = self.head(h).float().split(parts)
        with torch.no_grad():
            target = weak.softmax(1)  # [B, K]
            if self.align:
                target = balanced(target, self.recent, self.steps)
            sure = (target.amax(1) >= self.threshold).float()  # [B]
            old = torch.where(self.steps > 0, self.sure, sure.mean())
            self.sure.copy_(torch.lerp(sure.mean(), old, self.momentum_sure))
        loss = F.cross_entropy(known, given.label)
        loss = loss + self.unlabelled * weighed_entropy(strong, target, sure)
        left = shrunk(self.auxiliary(h[-size:]), target, self.threshold)
        loss = loss + self.shrunk * self.sure * left
        yield Update(loss, guesses=Guesses(batch.index, target, sure))

        follow(self.average, self.net, self.momentum, self.steps)

    def uniform(self):
        return math.log(self.head.out_features)

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)


def auxiliary(dim, width, classes):
    """A head of two hidden layers."""
    layers = []
    for wide in (dim, width):
        layers += [nn.Linear(wide, width), nn.BatchNorm1d(width), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def shrunk(logits, target, threshold):
    """Cross-entropy with the first class of targets [B, K], without the classes it is confused with.

    These are the second, the third ... until the first is sure among what is left. An image weighs
    as much as its first class was probable; one that was sure, or never becomes so, nothing.
    """
    with full_precision(logits):
        p, order = target.float().sort(dim=1, descending=True, stable=True)  # [B, K]
        first = p[:, :1]
        rest = p.flip(1).cumsum(1).flip(1)[:, 2:]  # [B, K - 2], left when 1, 2 ... are gone
        enough = first >= threshold * (first + rest)  # once true, it stays
        gone = 1 + (~enough).sum(1, keepdim=True)  # classes
        place = torch.arange(p.shape[1], device=p.device)
        logits = logits.float().gather(1, order)
        kept = logits.masked_fill((place > 0) & (place <= gone), -torch.inf)
        weight = first[:, 0] * ((first[:, 0] < threshold) & enough.any(1))
        return ((kept.logsumexp(1) - kept[:, 0]) * weight).mean()
