"""WGAN-GP: a critic with a slope of one, whose mean verdicts tell two sets of images apart."""

from __future__ import annotations

import torch
from torch import nn

from ..api import Count, Method, Natural, NonNegative, Recipe, Update
from ..nn import PooledMaps, decoder, full_precision, replace_batch_norms
from ..views import plain


class WGANGP(Method):
    """Scores real images above those of a generator, with a gradient held to length one.

    Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017, arXiv 1704.00028.
    Departures: the critic is any convolutional backbone with its activations, pooling and initial
    weights, its batch norms layer norms over channels and positions (the code: residual networks of
    its own, with layer norm or none); the generator is not residual; a batch is cut into as many
    parts as the critic takes steps, so that it is 5 of the paper's; an epoch is as long as others'
    (the code: 200,000 steps of the generator); judged are all maps of the critic, max-pooled to 4 x
    4, as DCGAN has it (the paper judges no features). Of the two losses the critic's is seen to fall,
    from the penalty that it begins with until the generator catches up, and the other need not.
    """

    least = 5  # an image for each of the critic's steps
    recipe = Recipe(
        epochs=100,  # ours
        batch=320,  # 5 of 64; paper
        optimizer="adam",  # paper
        lr=1e-4,  # paper
        betas=(0.0, 0.9),  # paper
        weight_decay=0.0,  # paper
        schedule="constant",  # paper
    )

    @classmethod
    def needs(cls, backbone, data):
        if backbone.patch:
            return (
                "its critic is judged by maps that grow coarser with depth; those of "
                f"{backbone.name} do not, and those of a ResNet do"
            )
        return None

    def __init__(
        self,
        backbone,
        data,
        *,
        steps: Count = 5,  # of the critic for one of the generator; paper
        penalty: NonNegative = 10.0,  # weight of the gradient's; paper
        noise: Count = 128,  # numbers that an image is made of, each from N(0, 1); code
        width: Count = 64,  # channels of the generator at the full side; code
        grid: Natural = 4,  # cells a side to which maps are pooled, where judged, 0: its vector; ours
    ):
        super().__init__()
        self.backbone = replace_batch_norms(backbone)
        self.verdict = nn.Linear(backbone.dim, 1)
        self.generator = decoder(noise, data.size, width=width)
        self.noise, self.steps, self.penalty = noise, steps, penalty
        self.read = PooledMaps(backbone, grid) if grid else backbone
        self.view = plain

    def groups(self):
        own = [*self.backbone.parameters(), *self.verdict.parameters()]
        return {"main": own, "generator": self.generator.parameters()}

    def step(self, batch):
        if len(batch.views) < self.steps:
            raise ValueError(
                f"a batch of {len(batch.views)} images has none for each of the critic's {self.steps} "
                "steps; ask for a larger batch, or for fewer steps"
            )
        for real in batch.views.tensor_split(self.steps):
            with torch.no_grad():
                made = self.made(len(real))
            share = torch.rand(len(real), 1, 1, 1, device=real.device)
            steep = slope_penalty(self.score, torch.lerp(real, made, share))
            apart = self.score(real).mean() - self.score(made).mean()
            yield Update(self.penalty * steep - apart, log={"apart": apart, "penalty": steep})

        yield Update(-self.score(self.made(len(real))).mean(), "generator")

    def made(self, count):
        """So many new images [B, 3, H, W]."""
        noise = torch.randn(count, self.noise, device=self.verdict.weight.device)
        return torch.sigmoid(self.generator(noise).float())

    def score(self, x):
        return self.verdict(self.backbone(x)).float()[:, 0]  # [B]

    def encoder(self):
        return self.read


def slope_penalty(score, x):
    """Mean squared distance from 1 of the length of the gradient of `score` at x [B, 3, H, W]."""
    with full_precision(x):  # half precision would lose small gradients
        x = x.detach().float().requires_grad_()
        (slope,) = torch.autograd.grad(score(x).sum(), x, create_graph=True)
        return (slope.flatten(1).norm(dim=1) - 1).square().mean()
