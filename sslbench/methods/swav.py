"""SwAV: swapped prediction of online cluster codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Method, Recipe
from ..nn import full_precision, mlp, sinkhorn
from ..views import MultiCrop, contrastive


class SwAV(Method):
    """Predicts one view's balanced cluster code from another view; codes by Sinkhorn-Knopp.

    Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
    NeurIPS 2020, arXiv 2006.09882.
    Departures: LARS with clipped trust ratio (timm's larc) over one device's batch; prototypes are
    frozen for whole epochs (the paper's 313 steps are one).
    """

    recipe = Recipe(
        epochs=100,
        batch=4096,
        optimizer="larc",
        lr=0.3,
        lr_scaling="linear",
        lr_end=0.001,
        weight_decay=1e-6,
        warmup=10,
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,  # of Sinkhorn-Knopp
        dim: int = 128,
        hidden: int = 2048,
        crops: tuple[int, int] = (2, 6),  # large, small
        crop: float = 0.14,  # area that parts large crops from small ones
        smallest: float = 0.05,  # area
        small_size: int = 0,  # pixels; 0: 3/7 of the image, as 96 is of 224
        jitter: float = 1.0,  # strength
        blur: float = 0.5,  # probability
        freeze: int = 1,  # epochs in which the prototypes rest
        queue: int = 0,  # features a large crop, used once full
        queue_from: int = 15,  # epoch
    ):
        super().__init__()
        if queue > data.length:
            raise ValueError(
                f"a queue of {queue} features is longer than the {data.length} images of "
                f"{data.name}; set a queue of at most that"
            )
        if crops[0] < 2:
            raise ValueError(f"codes are those of two large crops, crops={crops} has {crops[0]}")
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
        small_size = small_size or round(data.size * 3 / 7)
        small = contrastive(small_size, scale=(smallest, crop), **look)
        self.view = MultiCrop(((large, crops[0]), (small, crops[1])))

    def views(self):
        return self.view

    def step(self, batch):
        self.prototypes.requires_grad_(batch.epoch >= self.freeze)
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        size = len(batch.views[0])
        z = F.normalize(self.head(self.encode(batch.views)).float(), dim=1)  # [crops * B, D]
        with full_precision(z):
            scores = F.linear(z, self.prototypes.weight.float()).split(size)  # each [B, K]
            codes = [self.code(scores[i], i, batch.epoch) for i in range(2)]
            loss = swapped(codes, scores, self.temperature)
        yield loss

        self.enqueue(z.detach().split(size)[:2])

    def encode(self, views):
        """One pass for the large crops, one for the small ones."""
        sizes = sorted({v.shape[-1] for v in views}, reverse=True)
        return torch.cat(
            [self.backbone(torch.cat([v for v in views if v.shape[-1] == s])) for s in sizes]
        )

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
            for queue, z in zip(self.queue, crops, strict=True):
                queue.copy_(torch.cat([z, queue])[:length])
            self.queued.add_(len(crops[0]))


def swapped(codes, scores, temperature):
    """Cross-entropy of each code against every other crop's prediction; each [B, K]."""
    logs = [F.log_softmax(s / temperature, dim=1) for s in scores]
    losses = [
        torch.stack([-(code * log).sum(1).mean() for v, log in enumerate(logs) if v != i]).mean()
        for i, code in enumerate(codes)
    ]
    return torch.stack(losses).mean()
