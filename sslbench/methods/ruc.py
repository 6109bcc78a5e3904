"""RUC: a clusterer's names are noisy labels; two networks learn from the clean ones and correct the rest."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from ..api import (
    Count,
    Method,
    Natural,
    NonNegative,
    Positive,
    Pretext,
    Recipe,
    Share,
    Stream,
    Update,
)
from ..cluster import neighbours
from ..nn import full_precision, mixup, one_class, semi_supervised, sharpen
from ..views import Chain, Cutout, RandAugment, Views, crop_flip

RISES = 40  # epochs between rises of the threshold of refurbishing; code


class RUC(Method):
    """Two networks learn a clusterer's clean labels and teach each other the others.

    Park et al., Improving Unsupervised Image Clustering With Robust Learning, CVPR 2021,
    arXiv 2012.11150.
    Departures: clusters keep the base's names (the code matches them with the classes before it
    trains); each network has a clean set of its own, and which images join it and how far labels
    are refined is settled between epochs, by the other's prediction of the plain image in eval mode
    (the code: in passing, in training mode; images join one common set by the network that is
    trained); so the network that is trained passes no plain images; both networks are trained batch
    by batch in turn, not epoch by epoch; a tie of neighbours counts as agreement; neighbours in the
    space of backbone features (the code: of the pretext's head); the square of strong views sticks
    out on all sides alike (the code moves it inside at the upper left, and fills 17 pixels: on
    average 252 of 1,024, here 196); colours are normalised as the backbone states (the code: by
    CIFAR's mean and deviation, STL-10 too); a view's steps stay in floats (there: rounded to 8
    bits); on STL-10 the unlabelled images (the code: those of train and test); a last batch that is
    not whole is left out (the code: trained on); the weight of unclean images rises over the fit
    (the code: over 200 epochs); the rate falls step by step (the code: epoch by epoch); the mean of
    both networks' probabilities predicts (the code: of their logits).
    """

    least = 2
    version = 2
    recipe = Recipe(
        epochs=200,  # paper
        batch=250,  # images of each network; paper
        optimizer="sgd",  # paper
        lr=0.01,  # paper
        schedule="cosine",  # paper
        nesterov=True,  # code
        weight_decay=5e-4,  # paper
        decay="all",  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        base: Pretext = Pretext("scan"),  # whose clusters are the labels; paper
        pretext: Pretext = Pretext("simclr"),  # whose features find neighbours; paper
        start: Literal["base", "pretext"] = "base",  # whose weights both networks start from; code
        select: Literal["confidence", "metric", "hybrid"] = "hybrid",  # what is clean; paper
        confidence: Share = 0.99,  # of the base, from which a label is clean; paper
        neighbours: Count = 100,  # of an image, which vote; paper
        refurbish: Share = 0.99,  # confidence of the other network that makes a label clean; paper
        refurbish_rise: Share = 0.0,  # of that, every 40 epochs; paper
        temperature: Positive = 0.5,  # of sharpening; paper
        mixup: Positive = 4.0,  # both parameters of the beta distribution; paper
        smoothing: Share = 0.5,  # of clean labels; paper
        unlabelled: NonNegative = 25.0,  # weight of unclean images at the end; paper
        operations: Natural = 2,  # of RandAugment in strong views; paper
        strength: Natural = 2,  # of these, 2 to 10; paper
        cutout: Share = 0.5,  # side of the grey square in these, 0: none; code, of CIFAR
        crop: Share = 0.2,  # smallest area; code
    ):
        super().__init__()
        if neighbours > data.length:
            raise ValueError(
                f"{neighbours} neighbours among the {data.length} images of {data.name}; "
                f"set neighbours to at most that"
            )
        self.backbone, self.peer = backbone, backbone.anew()
        self.heads = nn.ModuleList(nn.Linear(backbone.dim, data.classes) for _ in range(2))
        many = (2, data.length)  # of each network
        self.register_buffer("clean", torch.zeros(many, dtype=torch.bool))
        self.register_buffer("label", torch.zeros(many, dtype=torch.long))
        self.register_buffer("sure", torch.zeros(many))  # of its prediction, 0 to 1 over all images
        self.base, self.pretext, self.start = base, pretext, start
        self.asks = {"base": ("predict",), "pretext": ()}
        self.asks[start] += ("backbone",)
        self.select, self.confidence, self.neighbours = select, confidence, neighbours
        self.refurbish, self.rise = refurbish, refurbish_rise
        self.temperature, self.mixup, self.smoothing = temperature, mixup, smoothing
        self.unlabelled = unlabelled
        weak = crop_flip(data.size, scale=(crop, 1.0))
        self.view = Views((Chain(), weak, weak, strong(weak, operations, strength, cutout)))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return self.view

    def groups(self):
        nets = zip(("own", "peer"), (self.backbone, self.peer), self.heads, strict=True)
        return {name: [*net.parameters(), *head.parameters()] for name, net, head in nets}

    # ---- which labels are clean ----

    def fit(self, run):
        self.begin(run)
        for epoch in run.epochs(self):
            epoch.main = False
            for group in self.groups():
                epoch.streams[group] = Stream(torch.arange(self.clean.shape[1]))
            if epoch.number:
                p = run.features(self.both).unflatten(1, (2, -1))  # [N, 2, K]
                self.correct(p, min(1.0, self.refurbish + self.rise * (epoch.number // RISES)))

    def begin(self, run):
        """Labels and clean set from the base, its weights for both networks."""
        base = run.pretrain(self.base, into=self.backbone if self.start == "base" else None)
        if type(base).predict is Method.predict:
            raise ValueError(
                f"{self.base} predicts no class of an image, and ruc corrects such predictions; "
                f"choose a base that does, such as scan"
            )
        p = run.features(base.predict).softmax(1)  # [N, K]
        if p.shape[1] != self.heads[0].out_features:
            raise ValueError(
                f"{self.base} has {p.shape[1]} clusters where the data has "
                f"{self.heads[0].out_features} classes; set as many clusters as classes"
            )
        sure, label = p.max(1)  # [N]
        clean = torch.ones_like(label, dtype=torch.bool)
        if self.select != "metric":
            clean &= sure >= self.confidence
        encoder = run.pretrain(
            self.pretext, into=self.backbone if self.start == "pretext" else None
        ).encoder()
        if self.select != "confidence":
            near = neighbours(run.features(encoder), self.neighbours)  # [N, k]
            clean &= outvoted_by_none(label, near)
        if not clean.any():
            raise ValueError(
                f"no label of {self.base} is clean (select={self.select}, confidence from "
                f"{self.confidence}); lower confidence, or train {self.base} for longer"
            )
        self.clean.copy_(clean)
        self.label.copy_(label)
        self.peer.load_state_dict(self.backbone.state_dict())

    def correct(self, p, threshold):
        """Co-refurbishing: of what one network is sure in [N, 2, K], the other takes as clean."""
        sure, name = p.to(self.sure.device).max(2)  # [N, 2]
        low, high = sure.aminmax(dim=0)
        self.sure.copy_(((sure - low) / (high - low).clamp_min(1e-12)).T)
        joins = (sure >= threshold).T.flip(0) & ~self.clean  # [2, N]
        self.label.copy_(torch.where(joins, name.T.flip(0), self.label))
        self.clean |= joins

    # ---- learning from them ----

    def step(self, batch):
        for i, group in enumerate(("own", "peer")):
            given = batch.also[group]
            clean = self.clean[i, given.index]  # [B]
            label = self.label[i, given.index]
            _, one, two, strong = given.views
            target = self.targets_of(given, i)  # [B, K]
            loss = smoothed(self.net(i, strong), label, clean, self.smoothing)
            x, target = mixup(torch.cat([one, two]), target.repeat(2, 1), self.mixup)
            weight = self.unlabelled * min(max(batch.progress, 0.1), 1.0)
            loss = loss + semi_supervised(self.net(i, x), target, clean.repeat(2), weight)
            yield Update(loss, group, {f"clean_{group}": clean.float().mean()})

    @torch.no_grad()
    def targets_of(self, given, i):
        """Of net i: clean labels refined by its peer; for the others what both guess. [B, K]"""
        plain, one, two, _ = given.views
        # each view by itself: batch norm must not mix their statistics
        mine = [self.net(i, view).float().softmax(1) for view in (one, two)]
        peers = [self.net(1 - i, view).float().softmax(1) for view in (plain, one, two)]
        label = F.one_hot(self.label[i, given.index], mine[0].shape[1]).float()
        refined = refine(label, peers[0], self.sure[1 - i, given.index])
        guessed = (mine[0] + mine[1] + peers[1] + peers[2]) / 4
        known = self.clean[i, given.index, None]  # [B, 1]
        return sharpen(torch.where(known, refined, guessed), self.temperature)

    def net(self, i, x):
        return self.heads[i]((self.backbone, self.peer)[i](x))

    def both(self, x):
        return torch.cat([self.net(i, x).float().softmax(1) for i in range(2)], dim=1)  # [B, 2K]

    def predict(self, x):
        p = torch.stack([self.net(i, x).float().log_softmax(1) for i in range(2)])
        return p.logsumexp(0) - math.log(2)  # of the mean


def strong(weak, operations, strength, hole):
    """RandAugment as the code has it, on the weak view: half of the operations are done."""
    ops = [weak, RandAugment(operations, strength, scale="offset", p=0.5, distinct=True)]
    side = round(hole * weak.size)
    return Chain(*ops, Cutout(side, 127 / 255)) if side else Chain(*ops)


def outvoted_by_none(label, near):
    """Which labels [N] no other has more votes than among the neighbours [N, k]."""
    votes = torch.zeros(len(label), int(label.max()) + 1)
    votes.scatter_add_(1, label[near], torch.ones(near.shape))
    return votes.gather(1, label[:, None])[:, 0] == votes.amax(1)


def refine(label, guess, weight):
    """Labels [B, K] moved towards guesses [B, K] by their weight [B]."""
    return label + weight[:, None] * (guess - label)


def smoothed(logits, label, known, smoothing):
    """Cross-entropy with labels [B] where known [B]; the other classes share `smoothing`."""
    with full_precision(logits):
        logs = logits.float().log_softmax(1)  # [B, K]
        own = logs.gather(1, label[:, None])[:, 0]
        others = (logs.sum(1) - own) / (logs.shape[1] - 1)
        return mean(-(1 - smoothing) * own - smoothing * others, known.float())


def mean(x, weight):
    """Of x [B] where weight is 1; 0 where it is nowhere."""
    return (x * weight).sum() / weight.sum().clamp_min(1)


RUCSTL10 = partial(
    RUC,
    refurbish=0.9,  # code
    refurbish_rise=0.02,  # code
    unlabelled=50.0,  # paper
    batch=100,  # paper
    cutout=1 / 6,  # 16 of 96 pixels; code
)
"""Two networks learn a clusterer's clean labels and teach each other the others (STL-10)."""
