"""CoMatch: pseudo-labels and embeddings teach each other by a graph of the batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Guesses, Method, NonNegative, Positive, Recipe, Share, Strengths, Update
from ..nn import copy_frozen, follow, full_precision, normalised
from ..nn.labels import balanced, labelled, one_class, weighed_entropy
from ..views import Chain, Cutout, HorizontalFlip, PadCrop, RandAugment, Views, contrastive


class CoMatch(Method):
    """Pseudo-labels are smoothed by near embeddings, and embeddings attract where labels agree.

    Li et al., CoMatch: Semi-supervised Learning with Contrastive Graph Regularization, ICCV 2021,
    arXiv 2011.11183.
    Departures: as on CIFAR; not the paper's ImageNet, where keys come from a momentum encoder. The
    unlabelled images are all images (the code: those without a label), both kinds drawn without
    repeats in a pass (there: with). The average starts with a small momentum that grows to its own
    (there: constant). Labelled embeddings lie in a memory of their own, a share as large (there:
    with the others); empty rows have no weight; smoothing starts after so many steps, not also with
    the second pass. No 1e-7 within the logarithm of similarities. RandAugment is torchvision's at
    full strength, half of it done: shifts of up to 14 of 32 pixels (the code: 10), brightness,
    contrast, saturation and sharpness go both ways (there: up), solarising inverts everything
    (there: nothing). Weak shifts are an eighth of the side to all sides (there: a pixel less down
    and right). Colours are normalised as the backbone states; a view's steps stay in floats (there:
    rounded to 8 bits). Biases do not decay (there: norms only). The backbone is the suite's (there:
    WRN-28-2, its norms' momentum 0.001), whose width the projector's hidden layer has (there too).
    """

    labels = "budget"
    least = 2
    queues = ("queue",)
    targets = ("average",)
    recipe = Recipe(
        epochs=4723,  # 2 ** 19 steps on CIFAR; paper
        batch=448,  # unlabelled images, 7 times 64; paper
        optimizer="sgd",  # paper
        lr=0.03,  # paper
        momentum=0.9,  # paper
        nesterov=True,  # code
        weight_decay=5e-4,  # paper
        schedule="arc",  # paper
        lr_end=math.cos(7 * math.pi / 16),  # paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        ratio: Count = 7,  # unlabelled images a step for each labelled one; paper
        threshold: Share = 0.95,  # confidence from which a pseudo-label counts; paper
        unlabelled: NonNegative = 1.0,  # weight of pseudo-labels; paper
        contrast: NonNegative = 1.0,  # weight of the graph; paper
        edge: Share = 0.8,  # similarity of pseudo-labels from which images are joined; paper
        temperature: Positive = 0.2,  # of similarities; paper
        own: Share = 0.9,  # share of the own prediction in a smoothed pseudo-label; paper
        queue: Count = 2240,  # unlabelled embeddings in memory, a multiple of the batch; code
        window: Count = 32,  # batches over which predictions are balanced; code
        dim: Count = 64,  # of the embedding; paper
        average: Share = 0.999,  # momentum of the average that predicts; paper
        cutout: Share = 0.5,  # side of the grey square, 0: none; code
        crop: Share = 0.2,  # smallest area in the second strong view; code
        jitter: Strengths = (0.4, 0.4, 0.4, 0.1),  # there; code
    ):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.project = nn.Sequential(
            nn.Linear(backbone.dim, backbone.dim), nn.LeakyReLU(0.1), nn.Linear(backbone.dim, dim)
        )
        self.net = nn.Sequential(backbone, self.head)
        self.average = copy_frozen(self.net)
        width = dim + data.classes  # of an embedding and of its class probabilities
        self.register_buffer("queue", torch.zeros(queue, width))  # [Q, D + K]
        self.register_buffer("shown", torch.zeros(max(1, queue // ratio), width))  # [R, D + K]
        self.register_buffer("recent", torch.zeros(window, data.classes))  # [W, K], batch means
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.ratio, self.threshold, self.edge, self.own = ratio, threshold, edge, own
        self.unlabelled, self.contrast, self.momentum = unlabelled, contrast, average
        self.temperature, self.dim = temperature, dim
        weak = [PadCrop(round(data.size / 8), "reflect"), HorizontalFlip()]
        strong = [*weak, RandAugment(2, 10, 11, "bilinear", fill=128 / 255, p=0.5)]
        if hole := round(cutout * data.size):
            strong.append(Cutout(hole, 128 / 255))
        other = contrastive(data.size, scale=(crop, 1.0), jitter=jitter, blur=0.0)
        self.weak, self.three = Chain(*weak), Views((Chain(*weak), Chain(*strong), other))

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
        known, weak, strong, _ = self.head(h).float().split(parts)
        z_known, z, z_strong, z_other = normalised(self.project(h)).split(parts)
        with torch.no_grad(), full_precision(z):
            guess = balanced(weak.softmax(1), self.recent, self.steps)  # [B, K]
            target = self.smoothed(z, guess)
        sure = target.amax(1) >= self.threshold
        loss = F.cross_entropy(known, given.label)
        loss = loss + self.unlabelled * weighed_entropy(strong, target, sure)
        loss = loss + self.contrast * graph(z_strong, z_other, target, self.temperature, self.edge)
        yield Update(loss, guesses=Guesses(batch.index, target, sure))

        self.remember(self.queue, z, guess)
        self.remember(self.shown, z_known, F.one_hot(given.label, guess.shape[1]))
        follow(self.average, self.net, self.momentum, self.steps)

    def smoothed(self, z, guess):
        """Moves predictions [B, K] towards those of near embeddings in memory, once it is full."""
        near, classes = torch.cat([self.queue, self.shown]).tensor_split([self.dim], dim=1)
        mixed = (z @ near.T / self.temperature).softmax(1) @ classes  # [B, K]
        mixed = mixed / mixed.sum(1, keepdim=True).clamp_min(1e-12)  # an empty row has no weight
        full = self.steps > len(self.queue) // len(z)
        return torch.where(full, torch.lerp(mixed, guess, self.own), guess)

    def remember(self, memory, z, classes):
        """Writes what a step brings over the oldest rows."""
        rows = torch.cat([z.detach(), classes], 1)[-len(memory) :]
        at = self.steps * len(z) + torch.arange(len(rows), device=z.device)
        memory.index_copy_(0, at % len(memory), rows)

    def embed(self, x):
        return self.project(self.backbone(x))

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)


def graph(z, other, target, temperature, edge):
    """Cross-entropy of similarities between views [B, D] with agreements of pseudo-labels [B, K].

    These count from `edge` on; that of an image with itself is 1.
    """
    with full_precision(z):
        logs = (z.float() @ other.float().T / temperature).log_softmax(1)  # [B, B]
        joined = (target.float() @ target.float().T).fill_diagonal_(1.0)  # [B, B]
        joined = joined * (joined >= edge)
        return -(joined / joined.sum(1, keepdim=True) * logs).sum(1).mean()
