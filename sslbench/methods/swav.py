"""SwAV: swapped prediction of online cluster codes."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, NonNegative, Positive, Recipe, Share
from ..nn import by_size, full_precision, mlp, normalised, sinkhorn
from ..views import MultiCrop, contrastive, small_side


class SwAV(Method):
    """Predicts one view's balanced cluster code from another view; codes by Sinkhorn-Knopp.

    Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
    NeurIPS 2020, arXiv 2006.09882.
    Departures: batch norm over one device's batch (the code: over 512 of 4,096 images, or over all
    256); colours are normalised as the backbone states (the code divides red by 0.228); blur has as
    many taps as a tenth of the crop's side, 9 at 96 pixels (there: 23 on every crop), and below 20
    pixels nothing is blurred; a view's steps stay in floats (there: rounded to 8 bits); the last
    norm of a ResNet's block starts at a scale of 0 (there: 1), which it leaves by one step at the
    full rate and then by LARC's, a small share of the scale each; the rate warms up from zero, at
    step s of W to (s + 1) / (W + 1) (the code: from 0.3, by s / (W - 1)); prototypes rest for whole
    epochs (there for 313 or 5005 steps, an epoch and one more); the queue fills from the first step
    on, not from the epoch in which it is first used, and has any length (there: whole batches).
    """

    version = 2
    least = 2  # the code of a single image is even, whatever it shows
    queues = ("queue",)
    recipe = Recipe(
        epochs=100,  # paper
        batch=4096,  # paper
        optimizer="lars",  # apex's LARC without clipping; code
        lr=0.3,  # paper, 4.8 at 4096
        lr_scaling="linear",  # paper
        lr_end=0.001,  # paper
        weight_decay=1e-6,  # paper
        decay="all",  # code
        warmup=10,  # paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        prototypes: Count = 3000,  # paper
        temperature: Positive = 0.1,  # paper
        epsilon: Positive = 0.05,  # entropy's weight in the codes; paper
        iterations: Count = 3,  # of Sinkhorn-Knopp; paper
        dim: Count = 128,  # paper
        hidden: Count = 2048,  # of the head; paper
        crops: tuple[int, int] = (2, 6),  # large, small; paper
        crop: Share = 0.14,  # area that parts large crops from small ones; paper
        smallest: Share = 0.05,  # area; paper
        small_size: Natural = 0,  # pixels, 0: 3/7 of the image; paper, 96 of 224
        jitter: NonNegative = 1.0,  # strength; paper
        blur: Share = 0.5,  # chance; paper
        freeze: Natural = 1,  # epochs in which the prototypes rest; code
        queue: Natural = 0,  # features a large crop, used once full; paper
        queue_from: Natural = 15,  # epoch; paper
    ):
        super().__init__()
        if queue > data.length:
            raise ValueError(
                f"a queue of {queue} features is longer than the {data.length} images of "
                f"{data.name}; set a queue of at most that"
            )
        if crops[0] < 2:
            raise ValueError(f"codes are those of two large crops, crops={crops} has {crops[0]}")
        small_size = small_side(data.size, small_size)
        self.backbone = backbone
        self.head = mlp(backbone.dim, hidden, dim)
        self.prototypes = nn.Linear(dim, prototypes, bias=False)
        self.register_buffer("queue", torch.zeros(2, queue, dim))  # [2, Q, D]; newest first
        self.register_buffer("queued", torch.zeros((), dtype=torch.long))
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.freeze, self.queue_from = freeze, queue_from
        strengths = tuple(jitter * s for s in (0.8, 0.8, 0.8, 0.2))
        look = {"jitter": strengths, "blur": blur}
        large = contrastive(data.size, scale=(crop, 1.0), **look)
        small = contrastive(small_size, scale=(smallest, crop), **look)
        self.view = MultiCrop(((large, crops[0]), (small, crops[1])))

    def views(self):
        return self.view

    def step(self, batch):
        self.prototypes.requires_grad_(batch.epoch >= self.freeze)
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        size = len(batch.index)
        z = normalised(self.head(by_size(self.backbone, batch.views)))  # [crops * B, D]
        with full_precision(z):
            scores = F.linear(z, self.prototypes.weight.float()).split(size)  # each [B, K]
            codes = [self.code(scores[i], i, batch.epoch) for i in range(2)]
            loss = swapped(codes, scores, self.temperature)
        yield loss

        self.enqueue(z.detach().split(size)[:2])

    @torch.no_grad()
    def code(self, scores, crop, epoch):
        """[B, K] of one large crop; the queue joins Sinkhorn, not the loss."""
        if epoch >= self.queue_from and 0 < self.queue.shape[1] <= int(self.queued):
            old = F.linear(self.queue[crop], self.prototypes.weight)  # [Q, K]
            both = sinkhorn(torch.cat([scores, old]), eps=self.epsilon, iterations=self.iterations)
            return both[: len(scores)]
        return sinkhorn(scores, eps=self.epsilon, iterations=self.iterations)

    def enqueue(self, crops):
        length = self.queue.shape[1]
        if length:
            z = torch.stack(list(crops))  # [2, B, D]
            self.queue.copy_(torch.cat([z, self.queue], dim=1)[:, :length])
            self.queued.add_(z.shape[1])

    def embed(self, x):
        return normalised(self.head(self.backbone(x)))  # [B, D]

    def clusters(self, x):
        return F.linear(self.embed(x), normalised(self.prototypes.weight))

    def uniform(self):
        return math.log(self.prototypes.out_features)


def swapped(codes, scores, temperature):
    """Cross-entropy of each code against every other crop's prediction; each [B, K]."""
    logs = [F.log_softmax(s.float() / temperature, dim=1) for s in scores]
    losses = [
        torch.stack([-(code * log).sum(1).mean() for v, log in enumerate(logs) if v != i]).mean()
        for i, code in enumerate(codes)
    ]
    return torch.stack(losses).mean()


SwAVImageNet = partial(
    SwAV,
    epochs=800,  # paper
)
"""Predicts one view's balanced cluster code from another view (the paper's longest schedule)."""

SwAVBatch256 = partial(
    SwAV,
    epochs=400,  # paper
    batch=256,  # paper
    lr=0.6,  # paper
    warmup=0,  # code
    queue=3840,  # features a large crop; paper
    queue_from=15,  # epoch; paper
    freeze=1,  # epoch; code
)
"""Predicts one view's balanced cluster code from another view (the paper's small batch)."""
