"""VAE: a code with a distribution, from which images could be drawn."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, NonNegative, Positive, Recipe, Share, Update
from ..nn import decoder, full_precision
from ..views import plain

LOGVAR = 10.0  # largest logarithm of a code's variance, and of one over it


class VAE(Method):
    """Rebuilds each image from a sample of its code, and keeps the codes close to one Gaussian.

    Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014, arXiv 1312.6114; Higgins et al.,
    beta-VAE, ICLR 2017 (a weight on the divergence).
    Departures: any backbone and a convolutional decoder (the paper: one hidden layer each), code
    and logarithm of the variance linear in the backbone's pooled features, that logarithm within
    -10 and 10; a weight that rises from 0 in the first tenth of the fit (the paper: 1 throughout);
    Adam without weight decay (the paper: Adagrad with a prior on the weights); the Gaussian's
    deviation is set (there: learned); a grey image, which has three equal channels, counts once;
    Bernoulli likelihoods of values between black and white, which do not integrate to 1. Judged is
    the mean of the code, not a sample nor the backbone's features.
    """

    recipe = Recipe(
        epochs=100,  # ours
        batch=100,  # paper
        optimizer="adam",  # ours, the paper has Adagrad
        lr=1e-3,  # ours
        weight_decay=0.0,  # ours
        schedule="constant",  # paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        code: Count = 128,  # numbers of the code; ours, the paper has 2 to 200
        beta: NonNegative = 1.0,  # weight of the divergence; paper
        anneal: Share = 0.1,  # share of the fit in which beta rises from 0; ours
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",  # of a pixel; paper, for MNIST
        sigma: Positive = 0.1,  # deviation of the Gaussian likelihood, pixels in [0, 1]; ours
        width: Count = 32,  # channels of the decoder at the full side; ours
    ):
        super().__init__()
        self.encode = nn.Sequential(backbone, nn.Linear(backbone.dim, code))
        self.spread = nn.Linear(backbone.dim, code)
        self.decoder = decoder(code, data.size, width=width)
        self.beta, self.anneal, self.sigma = beta, anneal, sigma
        self.bernoulli = likelihood == "bernoulli"
        self.channels = 1 if data.grey else 3
        self.view = plain

    def step(self, batch):
        x = batch.views
        backbone, to_mean = self.encode
        h = backbone(x)
        mean, logvar = to_mean(h).float(), self.spread(h).float().clamp(-LOGVAR, LOGVAR)
        code = mean + (logvar / 2).exp() * torch.randn_like(mean)  # [B, K]
        missed = self.missed(self.decoder(code), x).mean()  # nats an image
        apart = divergence(mean, logvar).mean()  # nats an image
        beta = self.beta * min(1.0, batch.progress / self.anneal if self.anneal else 1.0)
        yield Update(missed + beta * apart, log={"kl": apart, "bound": missed + apart})

    def missed(self, out, x):
        """[B] -log p(x | code), summed over pixels, of the decoder's output [B, 3, H, W]."""
        with full_precision(x):
            out, x = out.float(), x.float()
            if self.bernoulli:
                each = F.binary_cross_entropy_with_logits(out, x, reduction="none")
            else:
                each = ((torch.sigmoid(out) - x) / self.sigma).square() / 2
                each = each + math.log(self.sigma * math.sqrt(2 * math.pi))
            return each.mean(1).sum((1, 2)) * self.channels

    def encoder(self):
        return self.encode

    def reconstruct(self, x):
        return torch.sigmoid(self.decoder(self.encode(x)).float())


def divergence(mean, logvar):
    """[B] KL of N(mean, exp(logvar)), each [B, K], from N(0, 1), summed over dimensions; nats."""
    with full_precision(mean):
        mean, logvar = mean.float(), logvar.float()
        return (mean.square() + logvar.exp() - logvar - 1).sum(1) / 2
