"""SCAN: neighbours of a pretext's features agree on a cluster; then confident images teach the rest."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, Positive, Pretext, Recipe, Share, Stream, Update
from ..cluster import neighbours
from ..nn import copy_frozen, ema, full_precision, normalised, one_class
from ..views import (
    Chain,
    Cutout,
    HorizontalFlip,
    RandAugment,
    RandomResizedCrop,
    Views,
    contrastive,
    crop_flip,
)


class Heads(nn.Module):
    """Linear heads side by side, of which the one with the lowest loss is chosen."""

    def __init__(self, dim, clusters, count):
        super().__init__()
        self.shape = (count, clusters)
        self.linear = nn.Linear(dim, count * clusters)
        self.register_buffer("loss", torch.zeros(count))  # of each, summed over the running epoch
        self.register_buffer("chosen", torch.zeros((), dtype=torch.long))

    def every(self, h):
        return self.linear(h).unflatten(1, self.shape).unbind(1)  # each [B, K]

    def forward(self, h):
        logits = self.linear(h).unflatten(1, self.shape)  # [B, heads, K]
        return logits.index_select(1, self.chosen.view(1)).squeeze(1)  # [B, K]


class Agree(Method):
    """An image and its neighbours get the same cluster, all clusters the same share.

    The second step of SCAN, arXiv 2005.12320. Departures: those of SCAN.
    """

    version = 3
    recipe = Recipe(
        epochs=50,  # paper
        batch=128,  # paper
        optimizer="adam",  # paper
        lr=1e-4,  # paper
        weight_decay=1e-4,  # paper
        decay="all",  # code
        schedule="constant",  # code
    )

    def __init__(self, backbone, heads, near, *, entropy, view, head_only=False, log=None):
        super().__init__()
        self.backbone, self.heads, self.near, self.view = backbone, heads, near, view
        self.entropy, self.head_only, self.log = entropy, head_only, log or {}

    def views(self):
        return self.view

    def fit(self, run):
        for epoch in run.epochs(self):
            epoch.streams["near"] = Stream(self.near)
            self.backbone.train(not self.head_only)  # its norms' statistics rest too
            self.heads.loss.zero_()
        self.heads.chosen.copy_(self.heads.loss.argmin())

    def step(self, batch):
        # each by itself: batch norm must not mix the statistics of images and neighbours
        with torch.set_grad_enabled(not self.head_only):
            h = [self.backbone(x) for x in (batch.views, batch.also["near"].views)]  # each [B, D]
        pairs = zip(*map(self.heads.every, h), strict=True)
        losses = torch.stack([agreement(*pair, self.entropy) for pair in pairs])  # [heads]
        yield Update(losses.sum(), log=self.log)  # each head learns as if it were alone
        self.heads.loss += losses.detach()

    def uniform(self):
        count, clusters = self.heads.shape
        return count * (1 - self.entropy) * math.log(clusters)


def agreement(anchor, neighbour, entropy):
    """SCAN's loss of logits [B, K]: disagreement less the weighted entropy of the mean assignment."""
    with full_precision(anchor):
        log_p, log_q = anchor.float().log_softmax(1), neighbour.float().log_softmax(1)
        same = torch.logsumexp(log_p + log_q, dim=1)  # [B], log of the inner product
        mean = log_p.exp().mean(0)  # [K]
        spread = -(mean * mean.clamp_min(1e-8).log()).sum()
        return -same.mean() - entropy * spread


def self_labelled(logits, label, *, balance):
    """Cross-entropy of logits [B, K] with labels [B]; `balance`: each that occurs weighs the same."""
    with full_precision(logits):
        size = torch.bincount(label, minlength=logits.shape[1])  # [K]
        weight = torch.where(size > 0, len(label) / size.clamp_min(1), 0.0) if balance else None
        return F.cross_entropy(logits.float(), label, weight=weight)


class SCAN(Method):
    """Neighbours in a pretext's feature space share a cluster; confident images then label themselves.

    Van Gansbeke et al., SCAN: Learning to Classify Images without Labels, ECCV 2020,
    arXiv 2005.12320.
    Departures: defaults are those of CIFAR-10; the pretext on small images is SimCLR as
    it stands here (the code: of 500 epochs, with settings of its own); on STL-10 all steps see
    the unlabelled images (the code: the 5,000 of train once the pretext is done); neighbours in the
    space of backbone features (the paper: of the pretext's head on small images); resized crops in
    both views (the code: strong ones are whole on small images and 224 of 256 pixels on ImageNet,
    weak ones are plain); colours are normalised as the backbone states, whose mean fills the square
    of strong views (the code: as its data are); a view's steps stay in floats (there: rounded to 8
    bits); the head that stays has the lowest loss over the last epoch's batches (the code: among
    neighbours of the test split, with an entropy weight of 1); self-labelling batches where nobody
    is confident are skipped (the code: an error); with `momentum_target` the average gives the
    labels and is judged, with statistics that its norms gathered from weak views (the code writes
    it back into the network at every step, which is the network without an average at 1 -
    `momentum_target` of its rate, and judges it with the statistics that the stage before left); no
    epoch is selected on the test split.
    """

    waits = "it takes no step where no image of the batch is confident"
    version = 3
    stages = {"agree": Agree}
    asks = {"pretext": ("backbone",)}
    recipe = Recipe(
        epochs=200,  # paper
        batch=1000,  # paper
        optimizer="adam",  # paper
        lr=1e-4,  # paper
        weight_decay=1e-4,  # paper
        decay="all",  # code
        schedule="constant",  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        pretext: Pretext = Pretext("simclr"),  # whose neighbours agree; paper, on small images
        neighbours: Count = 20,  # of an image, beside itself; paper
        heads: Count = 1,  # of which the one with the lowest loss stays; paper, on small images
        head_only: bool = False,  # the backbone rests while neighbours agree; paper, small images
        entropy: Positive = 5.0,  # weight of the entropy of the mean assignment; paper
        confidence: Share = 0.99,  # from which an image labels itself; paper
        balance: bool = True,  # its own labels weigh the same, rare or not; code
        momentum_target: Share = 0.0,  # of an average that gives labels, 0: none; paper, small images
        operations: Natural = 4,  # of RandAugment in strong views; paper
        cutout: Share = 0.5,  # largest side of the square, 0: none; code, of CIFAR
        crop: Share = 0.2,  # smallest area; ours, as its pretext's
        agree_views: Literal["strong", "contrastive"] = "strong",  # of the stage; code
    ):
        super().__init__()
        if neighbours >= data.length:
            raise ValueError(
                f"{neighbours} neighbours among the {data.length} images of {data.name}; "
                f"set neighbours to {data.length - 1} or less"
            )
        self.backbone, self.heads = backbone, Heads(backbone.dim, data.classes, heads)
        self.online = nn.Sequential(self.backbone, self.heads)
        self.target = copy_frozen(self.online) if momentum_target else None
        self.targets = ("target",) if momentum_target else ()
        self.pretext, self.neighbours, self.head_only = pretext, neighbours, head_only
        self.entropy, self.confidence, self.balance = entropy, confidence, balance
        self.momentum, scale = momentum_target, (crop, 1.0)
        self.weak = crop_flip(data.size, scale=scale)
        self.strong = strong(backbone, data.size, scale, operations, round(cutout * data.size))
        mild = contrastive(data.size, scale=scale, jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0)
        self.agreeing = mild if agree_views == "contrastive" else self.strong

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return Views((self.weak, self.strong))

    def fit(self, run):
        run.pretrain(self.pretext, into=self.backbone)
        features = run.features(self.backbone)  # [N, D]
        near = neighbours(features, self.neighbours + 1)  # [N, 1 + k], itself among them
        agree = Agree(
            self.backbone,
            self.heads,
            near,
            entropy=self.entropy,
            view=self.agreeing,
            head_only=self.head_only,
            log=statistics(features, near),
        )
        self.backbone.requires_grad_(not self.head_only)
        run.fit(agree, "agree")
        self.backbone.requires_grad_(True)
        if self.target is not None:
            self.target.load_state_dict(self.online.state_dict())
        for _ in run.epochs(self):
            pass

    def step(self, batch):
        weak, strong = batch.views
        with torch.no_grad():
            sure, label = self.predict(weak).float().softmax(1).max(1)  # [B]
        chosen = (sure > self.confidence).nonzero()[:, 0]  # waits for the device
        if len(chosen):
            logits = self.online(strong)[chosen]
            loss = self_labelled(logits, label[chosen], balance=self.balance)
            yield Update(loss, log={"confident": torch.tensor(len(chosen) / len(sure))})
            if self.target is not None:
                # it names weak views in training mode: its statistics are its own
                ema(self.target, self.online, self.momentum, buffers="keep")

    def judged(self):
        return self.online if self.target is None else self.target

    def encoder(self):
        return self.judged()[0]

    def predict(self, x):
        return self.judged()(x)

    def uniform(self):
        return math.log(self.heads.shape[1])


def strong(backbone, size, scale, operations, hole):
    ops = [
        RandomResizedCrop(size, scale=scale),
        HorizontalFlip(0.5),
        RandAugment(operations, scale="drawn"),
    ]
    if hole:
        ops.append(Cutout(hole, mean_colour(backbone), least=1))
    return Chain(*ops)


def mean_colour(backbone):
    """What the backbone normalises to zero, where it says so; else grey."""
    mean = getattr(backbone, "mean", None)
    known = isinstance(mean, torch.Tensor) and mean.numel() == 3
    return tuple(round(value, 6) for value in mean.flatten().tolist()) if known else (0.5,) * 3


def statistics(features, near):
    """Of the neighbours [N, k], each first its own: mean cosine, and the share that is mutual."""
    others = near[:, 1:].unbind(1)
    if not others:
        return {}
    unit, own = normalised(features), near[:, :1]
    cosines = [(unit * unit[other]).sum(1).mean() for other in others]
    mutual = [(near[other] == own).any(1).float().mean() for other in others]
    return {"similarity": torch.stack(cosines).mean(), "mutual": torch.stack(mutual).mean()}


SCANImageNet = partial(
    SCAN,
    pretext=Pretext("moco-imagenet"),  # paper
    neighbours=50,  # paper
    heads=10,  # paper
    head_only=True,  # paper
    balance=False,  # code
    momentum_target=0.999,  # paper
    cutout=1 / 3,  # 75 of 224 pixels; code
    agree_views="contrastive",  # code
    epochs=25,  # paper
    batch=512,  # paper
    optimizer="sgd",  # paper
    lr=0.03,  # paper
    weight_decay=0.0,  # code
    **{
        "agree.epochs": 100,  # paper
        "agree.batch": 512,  # paper
        "agree.optimizer": "sgd",  # paper
        "agree.lr": 5.0,  # paper
        "agree.weight_decay": 0.0,  # code
    },
)
"""Neighbours in a pretext's feature space share a cluster; ten heads on a resting backbone."""
