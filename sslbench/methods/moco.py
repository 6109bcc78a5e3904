"""MoCo: contrast against a queue of keys from a slowly moving encoder."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, Positive, Recipe, Share, Strengths
from ..nn import copy_frozen, ema, full_precision, in_parts, mlp
from ..views import Views, contrastive


class MoCo(Method):
    """A query matches its key among a queue of keys, made by a slowly moving copy (v2: MLP head).

    He et al., Momentum Contrast, CVPR 2020, arXiv 1911.05722; Chen et al., Improved Baselines with
    Momentum Contrastive Learning, 2020, arXiv 2003.04297.
    Departures: shuffled batch norm by passing the shuffled keys through in `splits` parts, as the
    paper's 8 GPUs did, on one device; the queries pass in one (there: in 8); the rate follows its
    cosine by step, not by epoch; the hidden layer of v2's head is 2048 wide with every backbone
    (the code: as wide as its features); the last norm of a ResNet's block starts at a scale of 0
    (the code: 1); the Gaussian of blur is cut to a tenth of the side and mirrors the border (the
    code: PIL's three boxes, not cut, which repeat it), and below 20 pixels nothing is blurred; a
    view's steps stay in floats (there: rounded to 8 bits); v1 jitters colours before some images
    turn grey, not after.
    """

    queues = ("queue",)
    targets = ("target",)
    version = 3
    recipe = Recipe(
        epochs=200,  # paper
        batch=256,  # paper
        optimizer="sgd",  # paper
        lr=0.03,  # paper
        momentum=0.9,  # paper
        weight_decay=1e-4,  # paper
        decay="all",  # code
        schedule="cosine",  # paper v2
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        temperature: Positive = 0.2,  # paper v2
        momentum_target: Share = 0.999,  # share of the target that stays; paper
        queue: Count = 65536,  # keys, a multiple of the batch; paper
        dim: Count = 128,  # paper
        hidden: Natural = 2048,  # of the head, 0: a linear head (v1); paper v2
        splits: Count = 8,  # parts in which the keys pass, devices in the paper; paper
        crop: Share = 0.2,  # smallest area; code
        jitter: Strengths = (0.4, 0.4, 0.4, 0.1),  # strengths; code v2
        jitter_p: Share = 0.8,  # chance; code v2
        blur: Share = 0.5,  # chance; paper v2
    ):
        super().__init__()
        if queue > data.length:
            raise ValueError(
                f"a queue of {queue} keys is longer than the {data.length} images of {data.name}: "
                f"an image would meet its own old keys; set a queue of at most that"
            )
        widths = [hidden] if hidden else []
        self.backbone = backbone
        self.online = nn.Sequential(backbone, mlp(backbone.dim, *widths, dim, norm=False))
        self.target = copy_frozen(self.online)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))  # [Q, D]
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))
        self.temperature, self.momentum, self.splits = temperature, momentum_target, splits
        self.view = Views(
            contrastive(data.size, scale=(crop, 1.0), jitter=jitter, jitter_p=jitter_p, blur=blur),
            2,
        )

    def views(self):
        return self.view

    def step(self, batch):
        q = F.normalize(self.online(batch.views[0]).float(), dim=1)  # [B, D]
        with torch.no_grad():
            k = F.normalize(self.keys(batch.views[1]).float(), dim=1)  # [B, D]
        yield info_nce(q, k, self.queue, self.temperature)

        ema(self.target, self.online, self.momentum, buffers="keep")
        self.enqueue(k)

    def embed(self, x):
        return self.online(x)

    def uniform(self):
        return math.log1p(len(self.queue))

    def keys(self, x):
        """[B, D] of the target, in shuffled parts: a query's batch statistics must not name its key."""
        order = torch.randperm(len(x), device=x.device)
        shuffled = in_parts(self.target, x[order], min(self.splits, len(x) // 2) or 1)
        return torch.empty_like(shuffled).index_copy_(0, order, shuffled)

    def enqueue(self, k):
        k = k[-len(self.queue) :]
        at = (self.oldest + torch.arange(len(k), device=k.device)) % len(self.queue)
        self.queue[at] = k
        self.oldest.add_(len(k)).remainder_(len(self.queue))


def info_nce(q, k, queue, temperature):
    """Cross-entropy of each query's own key against the queue; q, k [B, D], queue [Q, D], unit rows."""
    with full_precision(q):
        q = q / temperature
        own = (q * k).sum(1)  # [B]
        others = torch.logsumexp(q @ queue.T, dim=1)  # [B]
        # one softmax over all would add 65536 small numbers to a large one, in float32
        return F.softplus(others - own).mean()


MoCoV1 = partial(
    MoCo,
    temperature=0.07,  # paper
    hidden=0,  # paper
    jitter=(0.4, 0.4, 0.4, 0.4),  # code
    jitter_p=1.0,  # code
    blur=0.0,  # paper
    schedule="step",  # paper
    milestones=(0.6, 0.8),  # epochs 120 and 160; paper
)
"""A query matches its key among a queue of keys, made by a slowly moving copy (v1: linear head)."""

MoCoImageNet = partial(
    MoCo,
    epochs=800,  # paper v2
)
"""MoCo v2 as in its paper's best row on ImageNet: 800 epochs."""
