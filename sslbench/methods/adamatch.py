"""AdaMatch: FixMatch with a threshold that follows the labelled images, and names brought to their mix."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import (
    Count,
    Guesses,
    Method,
    Natural,
    NonNegative,
    Positive,
    Recipe,
    Share,
    Stream,
    Update,
)
from ..nn import copy_frozen, cosine, follow, full_precision, unrecorded
from ..nn.labels import aligned, labelled, one_class
from ..views import Views, shift_flip, strong


class AdaMatch(Method):
    """FixMatch whose threshold is relative to the confidence on labelled images, with aligned names.

    Of two domains the labelled images are the source's, by which threshold and mix go, the
    unlabelled ones all of the target; a budget of the target's is a second labelled loss.

    Berthelot et al., AdaMatch: A Unified Approach to Semi-Supervised Learning and Domain
    Adaptation, ICLR 2022, arXiv 2106.04732.
    Departures: the average of weights that is judged is warmed up by min(m, (1 + t) / (10 + t)) at
    step t (the code: 0.999 throughout), and has the online network's running statistics, as there;
    strong views by FixMatch's RandAugment and a grey square (the code: CTAugment and cutout), which
    moves by a share of the side (there: by less than a pixel); a weight of unlabelled images other
    than 1 is reached at the half (the code: 1 there, that weight at the end); a view's steps stay
    in floats (there: rounded to 8 bits); an epoch is a pass over the unlabelled images, of which a
    last batch that is not whole is left out (the code: 2^16 labelled images); labelled images are
    shuffled whole before any comes again (there: in a buffer); running statistics of norms follow
    as the backbone states (there: by 0.001 of a batch); images are normalised as the backbone does
    (there: to -1 to 1); initial weights are torch's and timm's; the last weights are judged, as
    there.
    """

    labels = "budget"
    targets = ("average",)
    recipe = Recipe(
        epochs=504,  # 2^17 steps on 50,000 images; code
        batch=192,  # unlabelled images, 64 labelled ones beside them; code
        optimizer="sgd",  # code
        lr=0.03,  # code
        schedule="arc",  # code
        lr_end=0.25,  # code
        momentum=0.9,  # code
        weight_decay=1e-3,  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        relative: Share = 0.9,  # threshold, share of the mean confidence on labelled images; paper
        unlabelled: NonNegative = 1.0,  # weight of the loss of unlabelled images; paper
        rise: Positive = 0.5,  # share of the fit in which it rises from 0, half a cosine; paper
        ratio: Positive = 3.0,  # unlabelled images to a labelled one; paper
        momentum_labelled: Share = 0.999,  # of the mean prediction on labelled images; code
        window: Count = 128,  # steps over which that on unlabelled images is a mean; code
        momentum_average: Share = 0.999,  # of the weights that are judged; paper
        shift: Share = 0.125,  # of the side, by which a view is moved at most; code
        operations: Natural = 2,  # of RandAugment in strong views, half of them are done; ours
        strength: Natural = 10,  # of these, 2 to 10: each draws a level below it; ours
        cutout: Share = 0.5,  # side of the grey square in these, 0: none; code
    ):
        super().__init__()
        self.online = nn.Sequential(backbone, nn.Linear(backbone.dim, data.classes))
        self.average = copy_frozen(self.online)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        even = torch.full((window, data.classes), 1 / data.classes)
        self.register_buffer("of_labelled", even[0].clone())  # [K] mean prediction
        self.register_buffer("of_unlabelled", even)  # [window, K] of each of the last steps
        self.domains = data.domains
        self.relative, self.unlabelled, self.rise, self.ratio = relative, unlabelled, rise, ratio
        self.momentum_labelled, self.momentum = momentum_labelled, momentum_average
        weak = shift_flip(data.size, shift)
        hard = strong(weak, data.size, n=operations, m=strength, cutout=cutout)
        self.view = Views((weak, hard))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def fit(self, run):
        streams = {"labelled": labelled(run, 1 / self.ratio)}
        if self.domains > 1:
            streams = self.by_domain(run.labels().cpu() >= 0, run.domains() == 1)
        for epoch in run.epochs(self):
            epoch.main = self.domains == 1
            epoch.streams.update(streams)

    def by_domain(self, shown, own):
        """Streams of rows that show a label and that are the target's: bool [N] each."""
        share = 1 / self.ratio
        streams = {"labelled": Stream(rows(shown & ~own), share=share), "target": Stream(rows(own))}
        if (shown & own).any():
            streams["of target"] = Stream(rows(shown & own), share=share)
        return streams

    def step(self, batch):
        free = batch.also.get("target", batch)
        given = [batch.also[name] for name in ("labelled", "of target") if name in batch.also]
        known = torch.cat([view for each in given for view in each.views])
        with unrecorded(self.online):
            alone = self.online(known)  # [2B, K]
        together = self.online(torch.cat([known, *free.views]))  # [2B + 2U, K]
        joint, weak, strong = together.split([len(known), *(len(view) for view in free.views)])
        parts = between(alone, joint).split([len(each.label) for each in given for _ in each.views])

        with torch.no_grad():
            p_known, p = (x.float().softmax(1) for x in (parts[0], weak))  # [B, K], [U, K]
            of_labelled = p_known.mean(0).lerp(self.of_labelled, self.momentum_labelled)  # [K]
            of_unlabelled = torch.cat([self.of_unlabelled[1:], p.mean(0, keepdim=True)])
            p_aligned = aligned(p, of_labelled, of_unlabelled.mean(0))  # [U, K]
            confidence, name = p_aligned.max(1)  # [U]
            threshold = self.relative * p_known.amax(1).mean()
            sure = (confidence >= threshold).float()  # [U]
        labels = [each.label for each in given for _ in each.views]
        supervised = sum(cross_entropy(*e).mean() for e in zip(parts, labels, strict=True)) / 2
        loss = (cross_entropy(strong, name) * sure).mean()
        weight = cosine(0.0, self.unlabelled, batch.progress / self.rise)
        log = {"labelled": supervised, "threshold": threshold}
        guesses = Guesses(free.index, p_aligned, sure)
        yield Update(supervised + weight * loss, log=log, guesses=guesses)

        self.of_labelled.copy_(of_labelled)
        self.of_unlabelled.copy_(of_unlabelled)
        follow(self.average, self.online, self.momentum, self.steps)

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)

    def uniform(self):
        return math.log(self.online[1].out_features)


def rows(mask):
    """Where a mask [N] is true."""
    return mask.nonzero()[:, 0]


def between(one, other):
    """Each logit anywhere between that of one pass and that of another, [B, K], drawn uniformly."""
    with full_precision(one):
        one, other = one.float(), other.float()
        return other + torch.rand_like(one) * (one - other)


def cross_entropy(logits, label):
    """Of each image [B]."""
    with full_precision(logits):
        return F.cross_entropy(logits.float(), label, reduction="none")
