"""SwAV with lightly's loss, head, prototypes and memory bank."""

from __future__ import annotations

import math

from lightly.loss import SwaVLoss
from lightly.models.modules.heads import SwaVProjectionHead, SwaVPrototypes
from lightly.models.modules.memory_bank import MemoryBankModule
from sslbench.api import Count, Method, Natural, NonNegative, Positive, Share
from sslbench.methods.swav import SwAV as Ours
from sslbench.nn import by_size, full_precision, normalised
from sslbench.views import MultiCrop, contrastive, small_side
from torch import nn

from .state import kept


class SwAV(Method):
    """Predicts one view's balanced cluster code from another view: lightly's loss and prototypes.

    Caron et al., SwAV, NeurIPS 2020, arXiv 2006.09882; lightly.loss.SwaVLoss, SwaVProjectionHead,
    SwaVPrototypes, MemoryBankModule.
    Departures: from sslbench's own `swav`: prototypes have a bias, so that scores are no cosines;
    codes come from every large crop, not from two; exponentials are taken as they are, not by
    logarithms (at an epsilon of 0.01 and less they overflow); the queue begins with noise and is
    used from its epoch on, full or not.
    """

    least = 2  # the code of a single image is even, whatever it shows
    recipe = Ours.recipe

    def __init__(
        self,
        backbone,
        data,
        *,
        prototypes: Count = 3000,
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,  # entropy's weight in the codes
        iterations: Count = 3,  # of Sinkhorn-Knopp
        dim: Count = 128,
        hidden: Count = 2048,  # of the head
        crops: tuple[int, int] = (2, 6),  # large, small
        crop: Share = 0.14,  # area that parts large crops from small ones
        smallest: Share = 0.05,  # area
        small_size: Natural = 0,  # pixels, 0: 3/7 of the image
        jitter: NonNegative = 1.0,  # strength
        blur: Share = 0.5,  # chance
        freeze: Natural = 1,  # epochs in which the prototypes rest
        queue: Natural = 0,  # features a large crop
        queue_from: Natural = 15,  # epoch
    ):
        super().__init__()
        self.backbone = backbone
        self.head = SwaVProjectionHead(backbone.dim, hidden, dim)
        self.prototypes = SwaVPrototypes(dim, prototypes)
        banks = [kept(MemoryBankModule((queue, dim))) for _ in range(crops[0] if queue else 0)]
        self.banks = nn.ModuleList(banks)
        self.queues = tuple(f"banks.{i}.bank" for i in range(len(banks)))
        self.loss = SwaVLoss(temperature, iterations, epsilon)
        self.freeze, self.queue_from, self.large = freeze, queue_from, crops[0]
        look = {"jitter": tuple(jitter * s for s in (0.8, 0.8, 0.8, 0.2)), "blur": blur}
        large = contrastive(data.size, scale=(crop, 1.0), **look)
        small_size = small_side(data.size, small_size)
        small = contrastive(small_size, scale=(smallest, crop), **look)
        self.view = MultiCrop(((large, crops[0]), (small, crops[1])))

    def views(self):
        return self.view

    def step(self, batch):
        self.prototypes.requires_grad_(batch.epoch >= self.freeze)
        self.prototypes.normalize()
        size = len(batch.index)
        z = normalised(self.head(by_size(self.backbone, batch.views)))  # [crops * B, D]
        with full_precision(z):
            scores = self.prototypes(z).split(size)  # each [B, K]
            old = self.remembered() if batch.epoch >= self.queue_from else None
            loss = self.loss(scores[: self.large], scores[self.large :], old)  # [1]
        yield loss.squeeze()

        for bank, crop in zip(self.banks, z.detach().split(size), strict=False):
            bank(crop, update=True)

    def remembered(self):
        """Scores [Q, K] of what each bank holds; None without banks."""
        return [self.prototypes(bank.bank) for bank in self.banks] or None

    def embed(self, x):
        return normalised(self.head(self.backbone(x)))  # [B, D]

    def clusters(self, x):
        return self.prototypes(self.embed(x))

    def uniform(self):
        return math.log(sum(self.prototypes.n_prototypes))
