"""MoCo: contrast against a queue of keys from a slowly moving encoder."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Method, Recipe
from ..nn import copy_frozen, ema, full_precision, mlp
from ..views import Views, contrastive


class MoCo(Method):
    """A query matches its key among a queue of keys, made by a slowly moving copy (v2: MLP head).

    He et al., Momentum Contrast, CVPR 2020, arXiv 1911.05722; Chen et al., Improved Baselines with
    Momentum Contrastive Learning, 2020, arXiv 2003.04297.
    Departures: shuffled batch norm by passing the shuffled keys through in `splits` parts, as the
    paper's 8 GPUs did, on one device; the queries pass in one.
    """

    recipe = Recipe(epochs=200, batch=256, lr=0.03, weight_decay=1e-4)

    def __init__(
        self,
        backbone,
        data,
        *,
        temperature: float = 0.2,
        momentum_target: float = 0.999,
        queue: int = 65536,
        dim: int = 128,
        hidden: int = 2048,  # of the head; 0: a linear head (v1)
        splits: int = 8,
        crop: float = 0.2,  # smallest area
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
        jitter_p: float = 0.8,
        blur: float = 0.5,  # probability
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

        ema(self.target, self.online, self.momentum)
        self.enqueue(k)

    def keys(self, x):
        """[B, D] of the target, in shuffled parts: a query's batch statistics must not name its key."""
        order = torch.randperm(len(x), device=x.device)
        parts = x[order].tensor_split(min(self.splits, len(x) // 2) or 1)  # of 2 or more
        shuffled = torch.cat([self.target(part) for part in parts])
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
    temperature=0.07,
    hidden=0,
    jitter=(0.4, 0.4, 0.4, 0.4),
    jitter_p=1.0,
    blur=0.0,
    schedule="step",
    milestones=(0.6, 0.8),
)
"""A query matches its key among a queue of keys, made by a slowly moving copy (v1: linear head)."""
