"""MoCo v2 with lightly's NT-Xent over a memory bank, its head, shuffling and moving average."""

from __future__ import annotations

import copy
import math

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import MoCoProjectionHead
from lightly.models.utils import (
    batch_shuffle,
    batch_unshuffle,
    deactivate_requires_grad,
    update_momentum,
)
from sslbench.api import Count, Method, Positive, Share, Strengths
from sslbench.methods.moco import MoCo as Ours
from sslbench.nn import full_precision
from sslbench.views import Views, contrastive
from torch import nn

from .state import kept


class MoCo(Method):
    """A query matches its key among a queue of keys: lightly's loss, memory bank and head.

    He et al., Momentum Contrast, CVPR 2020, arXiv 1911.05722; v2: arXiv 2003.04297;
    lightly.loss.NTXentLoss(memory_bank_size), MoCoProjectionHead, batch_shuffle, update_momentum.
    Departures: from sslbench's own `moco`: lightly's loss writes the keys into its bank while it is
    computed, before the optimiser's step and not after (it compares with the bank as it was, so
    that no number changes); a bank that is no multiple of the batch drops the last keys of a round.
    lightly shuffles keys across devices only: the parts in which they pass here are sslbench's.
    """

    targets = ("target",)  # `queues` would warn of the early write, which does no harm here
    recipe = Ours.recipe

    def __init__(
        self,
        backbone,
        data,
        *,
        temperature: Positive = 0.2,
        momentum_target: Share = 0.999,  # share of the target that stays
        queue: Count = 65536,  # keys
        dim: Count = 128,
        hidden: Count = 2048,  # of the head
        splits: Count = 8,  # parts in which the keys pass
        crop: Share = 0.2,  # smallest area
        jitter: Strengths = (0.4, 0.4, 0.4, 0.1),  # strengths
        jitter_p: Share = 0.8,  # chance
        blur: Share = 0.5,  # chance
    ):
        super().__init__()
        self.backbone = backbone
        self.online = nn.Sequential(backbone, MoCoProjectionHead(backbone.dim, hidden, dim))
        self.target = copy.deepcopy(self.online)
        deactivate_requires_grad(self.target)
        self.loss = NTXentLoss(temperature, memory_bank_size=(queue, dim))
        kept(self.loss.memory_bank)
        self.queue, self.momentum, self.splits = queue, momentum_target, splits
        look = {"jitter": jitter, "jitter_p": jitter_p, "blur": blur}
        self.view = Views(contrastive(data.size, scale=(crop, 1.0), **look), 2)

    def views(self):
        return self.view

    def step(self, batch):
        q = self.online(batch.views[0]).float()  # [B, D]
        k = self.keys(batch.views[1]).float()  # [B, D]
        with full_precision(q):
            loss = self.loss(q, k)
        yield loss

        update_momentum(self.online, self.target, self.momentum)

    @torch.no_grad()
    def keys(self, x):
        """[B, D] of the target, in shuffled parts: a query's batch statistics must not name its key."""
        shuffled, order = batch_shuffle(x)
        parts = shuffled.tensor_split(min(self.splits, len(x) // 2) or 1)  # of 2 or more
        return batch_unshuffle(torch.cat([self.target(part) for part in parts]), order)

    def embed(self, x):
        return self.online(x)

    def uniform(self):
        return math.log1p(self.queue)
