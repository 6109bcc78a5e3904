"""DCGAN: a network that tells images from made ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, Recipe, Update
from ..nn import PooledMaps, decoder
from ..views import plain


class DCGAN(Method):
    """Tells real images from those of a generator that learns to make them; all its maps are judged.

    Radford et al., Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks, ICLR 2016, arXiv 1511.06434.
    Departures: the discriminator is any convolutional backbone, with the norms, activations,
    pooling and initial weights that it has (the paper: four strided convolutions, batch norm but on
    the first, leaky ReLU of slope 0.2, N(0, 0.02)); the generator repeats pixels and convolves
    (there: transposed convolutions), ends in a sigmoid (there: tanh; backbones take pixels from 0
    to 1) and starts from N(0, 0.02) as there; images are not cropped or mirrored (the code does
    both); what was made passes the discriminator again after its step, for the generator's (the
    code: the pass before it serves both), so that its norms' running statistics count made images
    twice as often as real ones (there: equally often); maps of less than 4 x 4 are judged as they
    are. Of the two losses the discriminator's is seen to fall, and the generator's need not.
    """

    least = 2
    recipe = Recipe(
        epochs=25,  # code
        batch=128,  # paper
        optimizer="adam",  # paper
        lr=2e-4,  # paper
        betas=(0.5, 0.999),  # paper
        weight_decay=0.0,  # code
        schedule="constant",  # paper
    )

    @classmethod
    def needs(cls, backbone, data):
        if backbone.patch:
            return (
                "its discriminator is judged by maps that grow coarser with depth; those of "
                f"{backbone.name} do not, and those of a ResNet do"
            )
        return None

    def __init__(
        self,
        backbone,
        data,
        *,
        noise: Count = 100,  # numbers that an image is made of, each from -1 to 1; paper
        width: Count = 64,  # channels of the generator at the full side; code
        grid: Natural = 4,  # cells a side to which maps are pooled, where judged, 0: its vector; paper
    ):
        super().__init__()
        self.backbone, self.verdict = backbone, nn.Linear(backbone.dim, 1)
        self.generator = decoder(noise, data.size, width=width)
        for name, p in [*self.generator.named_parameters(), ("", self.verdict.weight)]:
            if p.ndim > 1:
                nn.init.normal_(p, std=0.02)
            elif name.endswith("weight"):  # of a norm
                nn.init.normal_(p, 1.0, 0.02)
        self.noise, self.read = noise, PooledMaps(backbone, grid) if grid else backbone
        self.view = plain

    def groups(self):
        own = [*self.backbone.parameters(), *self.verdict.parameters()]
        return {"main": own, "generator": self.generator.parameters()}

    def step(self, batch):
        made = self.made(len(batch.views))
        real, false = self.logits(batch.views), self.logits(made.detach())
        log = {"right": ((real > 0).float().mean() + (false < 0).float().mean()) / 2}
        yield Update(opposed(real, false), log=log)

        yield Update(F.softplus(-self.logits(made)).mean(), "generator")

    def made(self, count):
        """So many new images [B, 3, H, W]."""
        noise = torch.rand(count, self.noise, device=self.verdict.weight.device) * 2 - 1
        return torch.sigmoid(self.generator(noise).float())

    def logits(self, x):
        """[B] of being real."""
        return self.verdict(self.backbone(x)).float()[:, 0]

    def encoder(self):
        return self.read


def opposed(real, made):
    """Cross-entropy of logits [B], where those of the real are to be 1 and of the made 0."""
    return F.softplus(-real.float()).mean() + F.softplus(made.float()).mean()
