"""Context encoder: what is in the hole in the middle of an image."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Positive, Recipe, Share, Update
from ..nn import decoder, full_precision
from ..views import HorizontalFlip

COLOUR = (117 / 255, 104 / 255, 123 / 255)  # of a hole until the data's own is known; code


class Inpainting(Method):
    """Fills a hole in the middle of an image, all of which goes through one vector.

    Pathak et al., Context Encoders: Feature Learning by Inpainting, CVPR 2016, arXiv 1604.07379.
    Departures: any backbone and the vector that is judged (the paper: AlexNet or a DCGAN's
    convolutions, a channel-wise connected layer or 4000 numbers behind); a hole in the centre alone
    (the paper's features are from random regions), without the adversarial loss unless it is given
    a weight, as for the paper's features; the hole is of the mean colour of the data at hand (the
    code: of 117, 104, 123); a decoder that repeats pixels and convolves (the code: transposed
    convolutions); the critic of the adversarial loss is half as wide, sees what was made before its
    own step, and again after it (there: the same pass serves both); images are mirrored, not
    cropped; initial weights are timm's and torch's (there: N(0, 0.02)). Pixels are from -1 to 1 in
    the loss, as there.
    """

    recipe = Recipe(
        epochs=500,  # code
        batch=64,  # code
        optimizer="adam",  # code
        lr=2e-4,  # code
        betas=(0.5, 0.999),  # code
        weight_decay=0.0,  # code
        schedule="constant",  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        hole: Share = 0.5,  # of the image's side; paper
        overlap: Share = 1 / 32,  # of the image's side, its border that is shown and foretold; code
        border: Positive = 10.0,  # weight of an error there; code
        adversarial: Share = 0.0,  # weight of the adversarial loss, with the rest on errors; paper
        width: Count = 32,  # channels of decoder and critic at the hole's side; ours
    ):
        super().__init__()
        side, edge = 2 * round(hole * data.size / 2), round(overlap * data.size)
        if not 2 * edge < side < data.size:
            raise ValueError(
                f"a hole of {side} pixels a side was to be cut into images of {data.size}, of which a "
                f"border of {edge} is shown; some of the image must stay and some go: set a hole "
                f"between {2 * edge / data.size:.2g} and 1"
            )
        self.backbone = backbone
        self.decoder = decoder(backbone.dim, side, width=width)
        self.critic = critic(side, width) if adversarial else None
        self.hole = Hole((data.size - side) // 2, side, edge, border)
        self.register_buffer("colour", torch.tensor(COLOUR).view(3, 1, 1))
        self.adversarial = adversarial
        self.view = HorizontalFlip()

    def fit(self, run):
        colours = run.features(lambda x: x.mean((2, 3)))  # [N, 3]
        self.colour.copy_(colours.double().mean(0).view(3, 1, 1))
        super().fit(run)

    def groups(self):
        parts = {"main": [self.backbone, self.decoder], "critic": [self.critic]}
        return {k: [p for m in v if m for p in m.parameters()] for k, v in parts.items()}

    def step(self, batch):
        x, share = batch.views, self.adversarial
        made = self.filling(x)  # [B, 3, side, side]
        error = self.hole.error(made, x)
        if self.critic is None:
            yield error
            return
        real = 2 * self.hole.of(x) - 1
        yield Update(opposed(self.critic(real), self.critic(made.detach())), "critic")
        fooled = F.softplus(-self.critic(made).float()).mean()
        log = {"error": error, "fooled": fooled}
        yield Update((1 - share) * error + share * fooled, log=log)

    def filling(self, x):
        """What is foretold of the hole, from -1 to 1."""
        return torch.tanh(self.decoder(self.backbone(self.hole.cut(x, self.colour))).float())

    def reconstruct(self, x):
        """The image as it is, but for the part that is hidden, which is as foretold."""
        return self.hole.filled(x, (self.filling(x) + 1) / 2)


class Hole:
    """A square in the middle of an image, within it a smaller one that is hidden."""

    def __init__(self, corner, side, edge, border):
        self.outer = slice(corner, corner + side)
        self.inner = slice(corner + edge, corner + side - edge)
        self.within = slice(edge, side - edge)  # the hidden one, seen from the square
        self.border = border

    def of(self, x):
        return x[:, :, self.outer, self.outer]

    def cut(self, x, colour):
        """Images [B, 3, H, W] with the hidden part of this colour [3, 1, 1]."""
        x = x.clone()
        x[:, :, self.inner, self.inner] = colour
        return x

    def filled(self, x, made):
        """Images [B, 3, H, W] with the hidden part out of a square [B, 3, side, side]."""
        x = x.clone()
        x[:, :, self.inner, self.inner] = made[:, :, self.within, self.within].to(x.dtype)
        return x

    def error(self, made, x):
        """Mean squared error of a square made [B, 3, side, side], from -1 to 1; the border weighs more."""
        with full_precision(x):
            wrong = (made.float() - (2 * self.of(x.float()) - 1)).square()
            hidden = wrong[:, :, self.within, self.within].sum()
            return (self.border * (wrong.sum() - hidden) + hidden) / wrong.numel()


def critic(side, width):
    """[B, 3, side, side] -> [B] logits of being real."""
    layers, wide = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)], width
    while (side := side // 2) > 4:
        layers += [nn.Conv2d(wide, 2 * wide, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * wide)]
        layers, wide = [*layers, nn.LeakyReLU(0.2, inplace=True)], 2 * wide
    return nn.Sequential(*layers, nn.Conv2d(wide, 1, side), nn.Flatten(0))


def opposed(real, made):
    """Cross-entropy of the critic's logits, where the real are to be 1 and the made 0."""
    return F.softplus(-real.float()).mean() + F.softplus(made.float()).mean()


InpaintingAdversarial = partial(
    Inpainting,
    adversarial=0.001,  # paper
    lr=2e-3,  # 10 times 2e-4; code
    per={"critic*": {"lr": 0.1}},  # 2e-4; code
)
"""Fills a hole in the middle of an image, so that a critic does not see it (the paper's pictures)."""
