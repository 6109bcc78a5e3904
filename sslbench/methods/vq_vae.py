"""VQ-VAE: an image as a map of codes out of a book that is learned."""

from __future__ import annotations

import contextlib
import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, NonNegative, Recipe, Share, Update
from ..errors import UserError
from ..nn import decoder, full_precision
from ..views import plain

EPS = 1e-5  # added to the count of each code (Laplace); code
ROWS = 1 << 16  # vectors compared with the book at once


class VQVAE(Method):
    """Rebuilds each image from the nearest codes of a learned book, one for each small square.

    van den Oord et al., Neural Discrete Representation Learning, NeurIPS 2017, arXiv 1711.00937.
    Departures: the backbone up to the map with one position for 4 x 4 pixels or nearest to it (the
    code: two strided convolutions, two residual blocks); a decoder that repeats pixels and convolves,
    with batch norm (there: residual blocks, transposed convolutions, no norm); averages move after
    the optimiser's step, and a code that none ever chose stays (there: it goes to 0); the book starts
    uniform, with vectors of length about 1; no prior over codes. Judged is the mean of the map.
    """

    recipe = Recipe(
        epochs=100,  # ours, the code has 10,000 or more steps of 32
        batch=32,  # code
        optimizer="adam",  # code
        lr=3e-4,  # code
        weight_decay=0.0,  # code
        schedule="constant",  # code
    )

    @classmethod
    def needs(cls, backbone, data):
        with contextlib.suppress(UserError):
            backbone.upto(0)
            return None
        return f"its codes stand on a map, and {backbone.name} cannot be cut after one"

    def __init__(
        self,
        backbone,
        data,
        *,
        codes: Count = 512,  # in the book; code
        dim: Count = 64,  # numbers of a code; code
        stride: Count = 4,  # pixels a side that a code stands for; code
        beta: NonNegative = 0.25,  # weight of the commitment; paper
        average: bool = True,  # the book follows moving averages; else a loss; code
        memory: Share = 0.99,  # decay of the averages; code
        restart: NonNegative = 0.0,  # vectors a step below which a code starts anew, 0: never; ours
        width: Count = 32,  # channels of the decoder at the full side; ours
    ):
        super().__init__()
        level, side = level_of(backbone, data.size, stride)
        if codes > (many := data.length * side**2):
            raise ValueError(
                f"codes={codes} are more than the {many} vectors of {data.length} images; ask for fewer"
            )
        self.backbone = backbone.upto(level)
        self.to_code = nn.Conv2d(self.backbone.dim, dim, 1)
        book = torch.empty(codes, dim).uniform_(-1, 1) * math.sqrt(3 / dim)
        self.book = nn.Parameter(book, requires_grad=not average)  # [K, D]
        self.decoder = decoder(dim, data.size, side=side, width=width)
        self.register_buffer("variance", torch.ones(()))  # of the data's pixels
        # averages that start from 0: of 1; of the sum of each code's vectors, and of how many they are
        self.register_buffer("weight", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(codes, dim + 1))
        self.beta, self.average, self.memory, self.restart = beta, average, memory, restart
        self.view = plain

    def fit(self, run):
        moments = run.features(lambda x: torch.stack([x, x.square()], 1).mean((2, 3, 4)))
        mean, square = moments.double().mean(0)
        self.variance.copy_((square - mean.square()).clamp_min(1e-6))
        super().fit(run)

    def step(self, batch):
        x, z = batch.views, self.vectors(batch.views)  # z [B, h, w, D]
        index = nearest(z.detach(), self.book.detach())  # [B, h, w]
        chosen = self.book[index]
        error = (self.decoded(straight_through(z, chosen)) - x).square().mean()
        apart = drawn(z, chosen, self.beta, both=not self.average)
        z = z.detach().flatten(0, 2)
        one = F.pad(z, (0, 1), value=1.0)  # [B * h * w, D + 1]
        seen = torch.zeros_like(self.seen).index_add_(0, index.flatten(), one)  # [K, D + 1]
        log = {"mse": error, "perplexity": perplexity(seen[:, -1])}
        yield Update(error / self.variance + apart, log=log)

        self.follow(z, seen)

    def vectors(self, x):
        return self.to_code(self.backbone.maps(x)[-1]).float().movedim(1, -1)

    def decoded(self, codes):
        return 0.5 + self.decoder(codes.movedim(-1, 1)).float()

    @torch.no_grad()
    def follow(self, z, seen):
        """Moves the averages and with them the book; codes that are rarely chosen become some of z."""
        for average, now in ((self.weight, 1.0), (self.seen, seen)):
            average.mul_(self.memory).add_(now, alpha=1 - self.memory)
        sums, often = (self.seen / self.weight).split([z.shape[1], 1], dim=1)  # [K, D], [K, 1]
        if self.average:
            some = (often + EPS) / (1 + len(often) * EPS / often.sum())  # of the same sum
            self.book.copy_(torch.where(often > 0, sums / some, self.book))
        if self.restart:
            anew = z[torch.randint(len(z), (len(often),), device=z.device)]  # [K, D]
            stay = F.pad(anew, (0, 1), value=1.0) * self.restart * self.weight
            self.book.copy_(torch.where(often < self.restart, anew, self.book))
            self.seen.copy_(torch.where(often < self.restart, stay, self.seen))

    def reconstruct(self, x):
        return self.decoded(self.book[nearest(self.vectors(x), self.book)]).clamp(0, 1)


def level_of(backbone, size, stride):
    """The deepest map of those nearest to size / stride a side, by ratio; its side."""
    sides = [side for _, side, _ in backbone.shapes(size)]
    far = [abs(math.log2(side * stride / size)) for side in sides]
    level = max(i for i, each in enumerate(far) if each < min(far) + 1e-9)
    if far[level] > 1:
        raise ValueError(
            f"a code was to stand for {stride} x {stride} of {size} pixels, and {backbone.name} has "
            f"maps of {sides[0]} to {sides[-1]} a side; set a stride near {size // sides[level]}"
        )
    return level, sides[level]


def nearest(z, book):
    """[...] the numbers of the codes, of a book [K, D], that are nearest to vectors [..., D]."""
    with full_precision(z):
        half, z = book.float().square().sum(1) / 2, z.float()
        found = [(half - part @ book.float().T).argmin(1) for part in z.flatten(0, -2).split(ROWS)]
        return torch.cat(found).view(z.shape[:-1])


def straight_through(z, chosen):
    """`chosen`, whose gradient goes to z as if they were one."""
    return z + (chosen - z).detach()


def drawn(z, chosen, beta, *, both):
    """Mean squared distance of vectors from codes; moves vectors, times beta, or both."""
    with full_precision(z):
        committed = beta * (z.float() - chosen.detach().float()).square().mean()
        return committed + (chosen.float() - z.detach().float()).square().mean() * both


def perplexity(counts):
    """exp of the entropy of how often codes are used [K]: as many as if all were used equally."""
    return torch.special.entr(counts / counts.sum()).sum().exp()
