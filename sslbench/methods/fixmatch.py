"""FixMatch: where a weak view of an image is named with confidence, a strong one gets that name."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Guesses, Method, Natural, NonNegative, Positive, Recipe, Share, Update
from ..nn import copy_frozen, follow, full_precision
from ..nn.labels import labelled, one_class, weighed_entropy
from ..views import Views, crop_flip, shift_flip, strong


class FixMatch(Method):
    """A few labels, and the names of weak views that are sure, teach strong views.

    Sohn et al., FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence,
    NeurIPS 2020, arXiv 2001.07685.
    Departures: the average of weights that is judged is warmed up by min(m, (1 + t) / (10 + t)) at
    step t, and has the online network's running statistics (the code: 0.999 throughout, with the
    same statistics); strong views by RandAugment (the code's default, and the paper's second:
    CTAugment), which moves by a share of the side (the code: up to 9 pixels, which is that at 32),
    and the grey square covers half of the side (there: 16 pixels, which is that at 32); a view's
    steps stay in floats (there: rounded to 8 bits); the last weights are judged (the paper: the
    median of the last 20 checkpoints); an epoch is a pass over the unlabelled images, of which a
    last batch that is not whole is left out (the code: 2^16 labelled images); labelled images are
    shuffled whole before any comes again (there: in a buffer); running statistics of norms follow
    as the backbone states (there: by 0.001 of a batch); images are normalised as the backbone does
    (there: to -1 to 1); initial weights are torch's and timm's. On ImageNet: RandAugment as
    elsewhere (the code: levels 0 to 10, inversion and addition to dark pixels too, moves of up to
    100 pixels); the warm-up is (s + 1) / (W + 1) at step s of W (the code: s / W).
    """

    labels = "budget"
    targets = ("average",)
    recipe = Recipe(
        epochs=9447,  # 2^20 steps on 50,000 images; paper
        batch=448,  # unlabelled images, 64 labelled ones beside them; paper
        optimizer="sgd",  # paper
        lr=0.03,  # paper
        schedule="arc",  # paper
        lr_end=0.1950903,  # cos(7 pi / 16); paper
        momentum=0.9,  # paper
        nesterov=True,  # paper
        weight_decay=5e-4,  # on CIFAR-100 0.001; paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        threshold: Share = 0.95,  # confidence from which a weak view's name is taken; paper
        unlabelled: NonNegative = 1.0,  # weight of the loss of unlabelled images; paper
        ratio: Positive = 7.0,  # unlabelled images to a labelled one; paper
        momentum_average: Share = 0.999,  # of the weights that are judged; paper
        shift: Share = 0.125,  # of the side, by which a view is moved at most; paper
        crop: Share = 1.0,  # smallest area of a resized crop, 1: moved in place of that; code
        operations: Natural = 2,  # of RandAugment in strong views, half of them are done; code
        strength: Natural = 10,  # of these, 2 to 10: each draws a level below it; code
        cutout: Share = 0.5,  # side of the grey square in these, 0: none; code
    ):
        super().__init__()
        self.online = nn.Sequential(backbone, nn.Linear(backbone.dim, data.classes))
        self.average = copy_frozen(self.online)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.threshold, self.unlabelled, self.ratio = threshold, unlabelled, ratio
        self.momentum = momentum_average
        size = data.size
        weak = crop_flip(size, scale=(crop, 1.0)) if crop < 1 else shift_flip(size, shift)
        self.weak = weak
        self.both = Views((weak, strong(weak, size, n=operations, m=strength, cutout=cutout)))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return {"main": self.both, "labelled": self.weak}

    def fit(self, run):
        given = labelled(run, 1 / self.ratio)
        for epoch in run.epochs(self):
            epoch.streams["labelled"] = given

    def step(self, batch):
        given = batch.also["labelled"]
        weak, strong = batch.views
        logits = self.online(torch.cat([given.views, weak, strong]))  # [B + 2U, K]
        known, weak, strong = logits.split([len(given.label), len(weak), len(strong)])
        loss, p, sure = pseudo_labelled(weak, strong, self.threshold)
        supervised = F.cross_entropy(known.float(), given.label)
        loss, log = supervised + self.unlabelled * loss, {"labelled": supervised}
        yield Update(loss, log=log, guesses=Guesses(batch.index, p, sure))

        follow(self.average, self.online, self.momentum, self.steps)

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)

    def uniform(self):
        return math.log(self.online[1].out_features)


def pseudo_labelled(weak, strong, threshold):
    """Cross-entropy of strong views with the names of weak ones [U, K], where these are sure.

    It is a mean over all images. Also the probabilities [U, K] of weak views, and which are sure [U].
    """
    with full_precision(weak):
        p = weak.detach().float().softmax(1)  # [U, K]
        confidence, name = p.max(1)  # [U]
    sure = (confidence >= threshold).float()
    return weighed_entropy(strong, name, sure), p, sure


FixMatchImageNet = partial(
    FixMatch,
    epochs=300,  # paper
    batch=5120,  # unlabelled images, 1024 labelled ones beside them; paper
    ratio=5.0,  # paper
    lr=0.4,  # paper
    schedule="step",  # paper
    milestones=(0.2, 0.4, 8 / 15, 2 / 3),  # epochs 60, 120, 160 and 200; paper
    warmup=5,  # paper
    weight_decay=3e-4,  # paper
    threshold=0.7,  # paper
    unlabelled=10.0,  # paper
    crop=0.08,  # code
    cutout=0.0,  # code
)
"""FixMatch as in its paper on ImageNet with a tenth of the labels: 300 epochs, resized crops."""
