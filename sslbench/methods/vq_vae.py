"""VQ-VAE: an image as a map of codes out of a book that is learned."""

from __future__ import annotations

import contextlib
import math

import torch
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
    uniform, with vectors of length about 1; no prior over codes is learned, so that there are no bits
    per dimension. Judged is the mean of the map before it is quantised.
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
        self.register_buffer("weight", torch.zeros(()))  # of what the averages have seen, up to 1
        self.register_buffer("counts", torch.zeros(codes))  # [K] times that weight
        self.register_buffer("sums", torch.zeros(codes, dim))  # [K, D]
        self.register_buffer("variance", torch.ones(()))  # of the data's pixels
        self.beta, self.average, self.memory, self.restart = beta, average, memory, restart
        self.view = plain

    def fit(self, run):
        moments = run.features(lambda x: torch.stack([x, x.square()], 1).mean((2, 3, 4)))
        mean, square = moments.double().mean(0)
        self.variance.copy_((square - mean.square()).clamp_min(1e-6))
        super().fit(run)

    def step(self, batch):
        x = batch.views
        z = self.vectors(x)  # [B, h, w, D]
        index = nearest(z.detach(), self.book.detach())  # [B, h, w]
        chosen = self.book[index]
        with full_precision(x):
            learned = 0 if self.average else (chosen - z.detach()).square().mean()
            committed = (z - chosen.detach()).square().mean()
        error = (self.decoded(straight_through(z, chosen)) - x).square().mean()
        index, z = index.flatten(), z.detach().flatten(0, 2)
        counts = torch.zeros_like(self.counts).index_add_(0, index, z.new_ones(len(z)))  # [K]
        log = {"mse": error, "perplexity": perplexity(counts)}
        yield Update(error / self.variance + learned + self.beta * committed, log=log)

        self.follow(z, index, counts)

    def vectors(self, x):
        return self.to_code(self.backbone.maps(x)[-1]).float().movedim(1, -1)

    def decoded(self, codes):
        return 0.5 + self.decoder(codes.movedim(-1, 1)).float()

    @torch.no_grad()
    def follow(self, z, index, counts):
        """Moves the averages and with them the book; codes that are rarely chosen become some of z."""
        sums = torch.zeros_like(self.sums).index_add_(0, index, z)
        for average, now in ((self.weight, 1.0), (self.counts, counts), (self.sums, sums)):
            average.mul_(self.memory).add_(now, alpha=1 - self.memory)
        counts = self.counts / self.weight
        if self.average:
            some = (counts + EPS) / (1 + len(counts) * EPS / counts.sum())  # of the same sum
            moved = self.sums / self.weight / some[:, None]
            self.book.copy_(torch.where(counts[:, None] > 0, moved, self.book))
        if self.restart:
            rare = counts < self.restart  # [K]
            anew = z[torch.randint(len(z), rare.shape, device=z.device)]  # [K, D]
            count = self.restart * self.weight  # as many as let it stay
            self.book.copy_(torch.where(rare[:, None], anew, self.book))
            self.sums.copy_(torch.where(rare[:, None], anew * count, self.sums))
            self.counts.copy_(torch.where(rare, count, self.counts))

    def reconstruct(self, x):
        return self.decoded(self.book[nearest(self.vectors(x), self.book)]).clamp(0, 1)


def level_of(backbone, size, stride):
    """The map whose side is nearest to size / stride by ratio, the deepest of equals; its side."""
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
        half = book.float().square().sum(1) / 2  # [K]
        parts = z.float().flatten(0, -2).split(ROWS)
        found = [(half - part @ book.float().T).argmin(1) for part in parts]
        return torch.cat(found).view(z.shape[:-1])


def straight_through(z, chosen):
    """`chosen`, with a gradient that goes to z as if they were one."""
    return z + (chosen - z).detach()


def perplexity(counts):
    """exp of the entropy of how often codes are used [K]: as many as if all were used equally."""
    return torch.special.entr(counts / counts.sum()).sum().exp()
