"""NPID: every image is a class of its own, with a row of a memory bank as its weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, NonNegative, Positive, Recipe, Share, Strengths
from ..nn import full_precision, normalised
from ..views import contrastive


class NPID(Method):
    """Tells an image from all others by its old feature, which a memory bank holds.

    Wu et al., Unsupervised Feature Learning via Non-parametric Instance Discrimination, CVPR 2018,
    arXiv 1805.01978.
    Departures: colours are jittered before some images turn grey, not after, and a view's steps
    stay in floats (the code: rounded to 8 bits); the last norm of a ResNet's block starts at a
    scale of 0 (there: 1); the denominators of the loss are exact (the code adds 1e-7 to them); a
    last batch that is not whole is left out (the code: trained on); the proximal term is off unless
    asked for, for the released code leaves it out and lets the bank's rows move slowly.
    """

    version = 2
    recipe = Recipe(
        epochs=200,  # paper
        batch=256,  # paper
        optimizer="sgd",  # paper
        lr=0.03,  # paper
        momentum=0.9,  # paper
        weight_decay=1e-4,  # code
        decay="all",  # code
        schedule="step",  # paper
        milestones=(0.6, 0.8),  # epochs 120 and 160; code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        temperature: Positive = 0.07,  # paper
        negatives: Natural = 4096,  # noise samples an image, 0: softmax over all images; paper
        momentum_bank: Share = 0.5,  # share of the old row that stays; code
        proximal: NonNegative = 0.0,  # weight of the distance to the old row; code
        dim: Count = 128,  # paper
        crop: Share = 0.2,  # smallest area; code
        jitter: Strengths = (0.4, 0.4, 0.4, 0.4),  # strengths; code
        grey: Share = 0.2,  # chance; code
    ):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.dim, dim)
        reach = 1 / math.sqrt(dim / 3)
        bank = torch.rand(data.length, dim).mul_(2 * reach).sub_(reach)  # unit rows only on average
        self.register_buffer("bank", bank)  # [N, D]
        self.register_buffer("log_z", torch.full((), -torch.inf))  # until the first batch
        self.temperature, self.negatives = temperature, negatives
        self.momentum, self.proximal = momentum_bank, proximal
        self.view = contrastive(
            data.size, scale=(crop, 1.0), jitter=jitter, jitter_p=1.0, grey=grey, blur=0.0
        )

    def views(self):
        return self.view

    def step(self, batch):
        v = normalised(self.head(self.backbone(batch.views)))  # [B, D]
        old, log_z = self.bank[batch.index], self.log_z.clone()  # [B, D]
        if self.negatives:
            noise = torch.randint(len(self.bank), (len(v), self.negatives), device=v.device)
            rows = torch.cat([batch.index[:, None], noise], dim=1)  # [B, 1 + m], the own one first
            scores = similarity(v, self.bank, rows) / self.temperature
            log_z = torch.where(log_z.isinf(), estimated_log_z(scores, len(self.bank)), log_z)
            loss = nce(scores - log_z, len(self.bank))
        else:
            with full_precision(v):
                loss = F.cross_entropy(v @ self.bank.T / self.temperature, batch.index)
        yield loss + self.proximal * (v - old).square().sum(1).mean()

        mixed = self.momentum * old + (1 - self.momentum) * v.detach()
        self.bank[batch.index] = F.normalize(mixed, dim=1)
        self.log_z.copy_(log_z)

    def embed(self, x):
        return self.head(self.backbone(x))

    def uniform(self):
        n, m = len(self.bank), self.negatives
        return math.log1p(m) + m * math.log1p(1 / m) if m else math.log(n)


def similarity(v, bank, rows):
    """[B, R] products of each of v [B, D] with its own rows [B, R] of the bank [N, D]."""
    with full_precision(v):
        if len(bank) <= 8 * rows.shape[1]:  # all products cost less than to collect so many rows
            return (v @ bank.T).gather(1, rows)
        return torch.einsum("bd,brd->br", v, bank[rows])


@torch.no_grad()
def estimated_log_z(scores, n):
    """Logarithm of n times the mean exponential of all scores: the softmax's sum over n images."""
    return torch.logsumexp(scores.flatten(), 0) - math.log(scores.numel()) + math.log(n)


def nce(log_p, n):
    """Noise-contrastive estimation with uniform noise over n images.

    `log_p` [B, 1 + m]: logarithms of the model's probabilities, first of the image itself, then of
    m noise samples; each is told from noise by p / (p + m / n).
    """
    with full_precision(log_p):
        odds = log_p.float() - math.log((log_p.shape[1] - 1) / n)  # [B, 1 + m]
        return (F.softplus(-odds[:, 0]) + F.softplus(odds[:, 1:]).sum(1)).mean()
