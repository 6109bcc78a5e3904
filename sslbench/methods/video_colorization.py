"""Video colorization: each place of a frame points at the places of earlier frames with its colour."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, Positive, Recipe, Stream
from ..cluster import kmeans
from ..errors import UserError
from ..nn import deepest, full_precision
from ..views import plain, quantised, signed_lightness, to_lab

SAMPLES = 8  # rows and columns of places of an image that the palette is made of


class VideoColorization(Method):
    """Places of a grey frame find their colours in earlier frames, and so learn to track.

    Vondrick et al., Tracking Emerges by Colorizing Videos, ECCV 2018, arXiv 1806.09594. The code
    that is meant is public and not the authors'.
    Departures: any backbone, cut after its deepest map with a position for every `stride` pixels
    and judged by the mean of that map (the paper: a ResNet-18 that keeps 1/8 of the side to its
    end); each frame is embedded by itself, in one convolution of 1 x 1 behind the map, as in the
    code (the paper: in five layers of 3-D convolutions over the frames, told where a place is); it
    sees lightness (the code: a luma); the colour of a position is the mean over its pixels (the
    code: of a resized image); the palette is fitted to places of the pretraining images on a
    coarse grid; the target is any frame but the first of its clip, drawn with replacement, and a
    reference that would lie before the first frame is the first (the code: all frames lie in the
    clip); places whose colour no reference has are left out, for there is nothing to point at (the
    code: their loss is that of a rounding error); the loss is of the mixture itself (the code takes
    it for logits, a second softmax); frames are as they are, neither cropped nor turned. Batch,
    rate and its step are the paper's, unless we are mistaken.
    """

    recipe = Recipe(
        epochs=40,  # ours, the paper counts 400,000 batches
        batch=32,  # clips; paper
        optimizer="adam",  # paper
        lr=1e-3,  # paper
        weight_decay=0.0,  # ours, the paper names none
        schedule="step",  # paper
        milestones=(0.15,),  # 60,000 of 400,000 batches; paper
        gamma=0.1,  # paper
    )

    @classmethod
    def needs(cls, backbone, data):
        if data.grey:
            return f"it learns from colours, and the images of {data.name} are grey"
        if not data.clips:
            return f"it learns from clips, and the images of {data.name} are frames of none"
        if data.clips == data.length:
            return f"it points at earlier frames, and the clips of {data.name} have one frame each"
        try:
            backbone.upto(-1)
        except UserError as error:
            return str(error)
        return None

    def __init__(
        self,
        backbone,
        data,
        *,
        skips: tuple[Natural, ...] = (4, 4, 8),  # frames left out before the next one; code
        palette: Count = 16,  # colours; paper
        dim: Count = 64,  # of an embedding; paper
        temperature: Positive = 1.0,  # paper
        stride: Count = 8,  # pixels at most between positions of the map that is read; paper
    ):
        super().__init__()
        if not skips:
            raise ValueError("skips=() leaves no frame to point at; name one gap for each of them")
        backbone = backbone.with_input(signed_lightness, 1)
        self.backbone = backbone.upto(deepest(backbone.shapes(data.size), data.size / stride))
        self.head = nn.Conv2d(self.backbone.dim, dim, 1)
        self.register_buffer("palette", torch.zeros(palette, 2))  # a and b
        self.gaps = [sum(skips[i:]) + len(skips[i:]) for i in range(len(skips))]  # to the target
        self.temperature = temperature

    def views(self):
        return plain

    def fit(self, run):
        clips = run.clips()
        streams = {f"{gap} before": Stream(before(clips, gap)) for gap in self.gaps}
        for epoch in run.epochs(self):
            if epoch.number == 0:
                places = run.features(self.sampled).view(-1, 2)
                seed = int(torch.randint(2**31, ()))
                self.palette.copy_(kmeans(places, len(self.palette), seed=seed).centroids)
            epoch.weights = has_one_before(clips).float()
            epoch.streams |= streams

    def step(self, batch):
        frames = [*(also.views for also in batch.also.values()), batch.views]
        x = torch.cat(frames)
        z = self.head(self.backbone.maps(x)[-1])  # [(R + 1) B, D, h, w]
        label = quantised(averaged(x, z.shape[2:]), self.palette)  # [(R + 1) B, h, w]
        z, label = z.flatten(2).mT, label.flatten(1)  # [., P, D], [., P]
        *z, z_target = z.chunk(len(frames))
        *label, target = label.chunk(len(frames))
        yield pointed(z_target, torch.cat(z, 1), target, torch.cat(label, 1), self.temperature)

    def sampled(self, x):
        """The colours of some places of each image: [B, 2 * places]."""
        side = min(SAMPLES, x.shape[-1])
        some = F.interpolate(x, (side, side), mode="nearest-exact")
        return to_lab(some)[:, 1:].permute(0, 2, 3, 1).flatten(1)


def averaged(x, shape):
    """Mean a and b within each position of a map: [B, 2, h, w] of images [B, 3, H, W]."""
    return F.adaptive_avg_pool2d(to_lab(x)[:, 1:], shape)


def before(clips, gap):
    """The frame so far before each in its clip, or its clip's first: [N, 1]."""
    at = torch.arange(len(clips), device=clips.device)
    starts = clips.diff(prepend=clips[:1] - 1) != 0
    first = torch.where(starts, at, 0).cummax(0).values
    return torch.maximum(at - gap, first)[:, None]


def has_one_before(clips):
    """Whether each frame has an earlier one in its clip: bool [N]."""
    return clips.diff(prepend=clips[:1] - 1) == 0


def pointed(target, reference, wanted, found, temperature):
    """-log of the share of each place's colour in what it points at, over all references at once.

    Embeddings `target` [B, P, D] and `reference` [B, R, D]; their colours `wanted` [B, P] and
    `found` [B, R], numbers of a palette.
    """
    with full_precision(target):
        scores = target.float() @ reference.float().mT / temperature  # [B, P, R]
        same = wanted[:, :, None] == found[:, None]
        own = scores.masked_fill(~same, torch.finfo(torch.float32).min / 2)
        loss = scores.logsumexp(2) - own.logsumexp(2)  # [B, P]
        there = same.any(2)
        return torch.where(there, loss, 0.0).sum() / there.sum().clamp_min(1)
