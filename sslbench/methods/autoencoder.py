"""Autoencoder: an image goes through a short code and comes back."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ..api import Count, Method, NonNegative, Recipe, Share
from ..nn import decoder, full_precision
from ..views import plain


class Autoencoder(Method):
    """Rebuilds each image from a short code; a denoising one from a damaged copy of it.

    Hinton & Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, Science 2006,
    doi 10.1126/science.1127647; Vincent et al., Extracting and Composing Robust Features with
    Denoising Autoencoders, ICML 2008, doi 10.1145/1390156.1390294.
    Departures: any backbone and a convolutional decoder, trained at once (the papers: layers that
    are all connected, trained one by one with tied weights); the code is linear in the backbone's
    pooled features, which are what is judged (the papers: the code); the mean squared error (the
    papers: cross-entropy of binary images); noise is drawn anew in each epoch, on the device of
    the images, and a masked pixel loses all of its channels.
    """

    recipe = Recipe(
        epochs=100,  # ours
        batch=256,  # ours
        optimizer="adam",  # ours
        lr=1e-3,  # ours
        weight_decay=0.0,  # ours
        schedule="cosine",  # ours
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        code: Count = 128,  # numbers of the code; ours
        sigma: NonNegative = 0.0,  # of Gaussian noise on pixels in [0, 1], which is not clipped; ours
        masked: Share = 0.0,  # share of the pixels that become black; ours
        width: Count = 32,  # channels of the decoder at the full side; ours
    ):
        super().__init__()
        if masked == 1:
            raise ValueError(
                "masked=1 leaves nothing of an image to rebuild it from; mask a smaller share of its "
                "pixels"
            )
        self.backbone = backbone
        self.code = nn.Linear(backbone.dim, code)
        self.decoder = decoder(code, data.size, width=width)
        self.sigma, self.masked = sigma, masked
        self.view = plain

    def step(self, batch):
        x = batch.views
        yield squared_error(self.rebuilt(damaged(x, self.sigma, self.masked)), x)

    def rebuilt(self, x):
        return torch.sigmoid(self.decoder(self.code(self.backbone(x))).float())

    def reconstruct(self, x):
        return self.rebuilt(x)


def damaged(x, sigma, masked):
    """Images with Gaussian noise, of which a share of the pixels is black."""
    if sigma:
        x = x + sigma * torch.randn_like(x)
    if masked:
        x = x * (torch.rand_like(x[:, :1]) >= masked)
    return x


def squared_error(rebuilt, x):
    """Mean over images, channels and pixels."""
    with full_precision(x):
        return (rebuilt.float() - x.float()).square().mean()


DenoisingAutoencoder = partial(
    Autoencoder,
    masked=0.25,  # paper: 10 to 40 %, by data set
)
"""Rebuilds each image from a copy of which a quarter of the pixels is black."""
