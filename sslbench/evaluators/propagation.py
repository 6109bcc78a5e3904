"""Colours carried from the first frame of a clip through the others."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.api import Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.cluster import kmeans
from sslbench.errors import Unsuited, UserError
from sslbench.measures import unit
from sslbench.views import grayscale, quantised, to_bytes, to_lab

BLOCK = 64  # frames whose maps are held at once
POINTS = 1 << 16  # places of train, about, that the palette is made of
LOOKED_AT = 500  # images at most that are looked at for colour


class Frame(NamedTuple):
    features: Tensor  # [P, C], rows of unit length
    kind: Tensor  # int64 [P], what is to be carried: the number of a colour


class Propagation(Evaluator):
    """Colours carried from the first frame of a clip to all others by similar features.

    Measured: how many places of the later frames of test clips get their right colour, `accuracy`;
    how many have it if the first frame is copied unmoved, `copy`; and `gap`, the first less the
    second, by which methods rank. Each is the mean over clips, with the standard error over clips.
    A frame is a grid of places, one for every `stride` pixels, of which each has the mean of its a
    and b, as the nearest of `colours` of a palette. The encoder sees all frames without colour,
    else it would see the answer. Features of a place: of the encoder's deepest map that is as fine
    as the grid, or else of its finest, resized to the grid, L2-normalised. Frame after frame, each
    place takes the colours of the `k` most similar places of the first frame and of the `context`
    frames before it, weighted by exp(cosine / temperature): from the first true colours, from the
    others the shares that they were given; the largest share is its answer.
    Chosen: nothing. The palette is k-means of train's colours, the same for every encoder and seed.
    Source: Vondrick et al., arXiv 1806.09594 (colours, the palette, copying as the bar); Caron et
    al., arXiv 2104.14294 (k, context and temperature, of their code for masks).
    Traps: most places of a film keep their colour, so that `accuracy` says more of the data than of
    the encoder, and `copy` differs between data sets; the gap does not reward a still background.
    Light and blur change colours though nothing moved, which is missed by everybody. Published
    tables carry masks at a finer grid in clips of DAVIS, with a radius: they cannot be compared
    with this column. Encoders that were trained in colour are judged on grey frames.

    stride: pixels from one place to the next. colours: of the palette. k: places that a place takes
    from. context: earlier frames beside the first. temperature: of the weights. radius: places,
    beyond which none are taken; 0 is no bound.
    """

    metrics = (
        Metric("gap", summary="accuracy less that of copying the first frame"),
        Metric("accuracy", summary="places of later frames with the right colour"),
        Metric("copy", summary="the same where the first frame is copied unmoved"),
    )
    version = 1

    def __init__(
        self,
        *,
        stride: int = 8,
        colours: int = 16,
        k: int = 5,
        context: int = 7,
        temperature: float = 0.1,
        radius: int = 0,
    ) -> None:
        least = {"stride": (stride, 1), "colours": (colours, 2), "k": (k, 1)}
        for name, (value, bound) in {
            **least,
            "context": (context, 0),
            "radius": (radius, 0),
        }.items():
            if value < bound:
                raise UserError(
                    f"propagation was given {name}={value}; give one of at least {bound}"
                )
        if temperature <= 0:
            raise UserError(f"propagation was given temperature={temperature}; give one above 0")
        self.stride, self.colours, self.k = stride, colours, k
        self.context, self.temperature, self.radius = context, temperature, radius

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        films = _films(data)
        images = data.images("test")
        grid = max(1, round(images.shape[-1] / self.stride))
        device = torch.device("cpu") if subject.device.type == "mps" else subject.device
        palette = self._palette(data.images("train"), grid).to(device)
        bound = _beyond(grid, self.radius).to(device) if self.radius else None
        merits = []
        for film in films:
            frames = _frames(subject, images[film.start : film.stop], grid, palette)
            merits.append(self._followed(frames, bound))
        found = torch.stack(merits).cpu().double()  # [M, 2]
        columns = {
            "gap": found[:, 0] - found[:, 1],
            "accuracy": found[:, 0],
            "copy": found[:, 1],
        }
        return Judgement({name: _mean(column) for name, column in columns.items()})

    def _palette(self, images: Tensor, grid: int) -> Tensor:
        """k-means of the colours of some hundreds of images or more, spread over all: [K, 2]."""
        some = images[:: len(images) * grid * grid // POINTS + 1]
        parts = [_colours(part, grid).permute(0, 2, 3, 1) for part in torch.split(some, BLOCK)]
        points = torch.cat(parts).reshape(-1, 2)
        return kmeans(points, min(self.colours, len(points)), restarts=3, seed=0).centroids

    def _followed(self, frames: Iterator[Frame], bound: Tensor | None) -> Tensor:
        """The shares of right places in the frames behind the first: carried, and copied; [2]."""
        first = next(frames)
        right = []
        for kind, truth in self.carried(first, frames, self.colours, bound):
            right.append(torch.stack([kind == truth, first.kind == truth]).float().mean(1))
        return torch.stack(right).mean(0)

    def carried(
        self, first: Frame, frames: Iterable[Frame], kinds: int, bound: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each further frame what its places were given, and their own: int64 [P] each.

        `bound`: bool [P, P], true where a place may not take from another.
        """
        start = first.features, F.one_hot(first.kind, kinds).float()
        before: deque[tuple[Tensor, Tensor]] = deque(maxlen=self.context)
        for features, truth in frames:
            known, shares = (torch.cat(parts) for parts in zip(start, *before, strict=True))
            cosine = features @ known.T  # [P, R]
            if bound is not None:
                cosine = cosine.masked_fill(bound.repeat(1, 1 + len(before)), -math.inf)
            near, place = cosine.topk(min(self.k, len(known)), dim=1)
            weight = (near / self.temperature).softmax(1)  # [P, k]
            given = (weight[..., None] * shares[place]).sum(1)  # [P, K]
            before.append((features, given))
            yield given.argmax(1), truth


def _films(data: Judged) -> list[range]:
    """The test clips of two frames or more, as ranges of images."""
    clips = data.clips("test")
    if clips is None:
        raise Unsuited(
            f"colours were to be followed through clips, and the images of {data.name} are frames of "
            "none; use a dataset of clips"
        )
    for split in ("test", "train"):
        images = data.images(split)
        some = images[:: len(images) // LOOKED_AT + 1]
        if bool((some == some[:, :1]).all()):
            raise Unsuited(
                f"colours were to be followed, and the {split} images of {data.name} are grey; use a "
                "dataset in colour"
            )
    starts = [0, *((clips.diff() != 0).nonzero()[:, 0] + 1).tolist(), len(clips)]
    films = [range(a, b) for a, b in pairwise(starts) if b - a > 1]
    if not films:
        raise Unsuited(
            f"colours were to be followed through clips, and those of the test split of {data.name} "
            "have one frame each; use longer ones"
        )
    return films


def _frames(subject: Subject, images: Tensor, grid: int, palette: Tensor) -> Iterator[Frame]:
    """Frames of a clip, some of them at a time in memory."""
    for part in torch.split(images, BLOCK):
        unseen = to_bytes(grayscale(part))
        maps = torch.cat([m.to(palette.device) for m in subject.dense(unseen, grid)])
        if maps.shape[2:] != (grid, grid):
            maps = F.interpolate(maps, (grid, grid), mode="bilinear", antialias=True)
        if not maps.isfinite().all():
            raise ValueError(
                "feature maps of test hold NaN or infinity; train again with a lower learning rate"
            )
        features = unit(maps.flatten(2).mT, 2)  # [n, P, C]
        kinds = quantised(_colours(part.to(palette.device), grid), palette).flatten(1)
        yield from (Frame(*each) for each in zip(features, kinds, strict=True))


def _colours(images: Tensor, grid: int) -> Tensor:
    """Mean a and b of each place: [n, 2, grid, grid] of images [n, 3, H, W]."""
    return F.adaptive_avg_pool2d(to_lab(images)[:, 1:], grid)


def _beyond(grid: int, radius: int) -> Tensor:
    """Whether two places lie farther apart than the radius: bool [P, P]."""
    side = torch.arange(grid)
    at = torch.cartesian_prod(side, side).float()
    return torch.cdist(at, at) > radius


def _mean(column: Tensor) -> Value:
    n = len(column)
    stderr = float(column.std()) / math.sqrt(n) if n > 1 else None
    return Value(float(column.mean()), n, stderr)
