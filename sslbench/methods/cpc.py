"""CPC: what is seen in the upper rows of an image foretells the patches further down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, Recipe, Share
from ..nn import BATCH_NORM, check_side, full_precision, replace_batch_norms
from ..views import Chain, Grayscale, crop_flip, grayscale, shift_crop, to_float


class CPC(Method):
    """Upper rows of overlapping patches foretell the lower ones among all patches of the batch.

    van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018,
    arXiv 1807.03748; Henaff et al., Data-Efficient Image Recognition with Contrastive Predictive
    Coding, ICML 2020, arXiv 1905.09272 (v2).
    Departures: the backbone's last features (v1: those of its third stage); its batch norms, which
    would tell a patch of its neighbours, become layer norms over channels and positions (v1 has no
    norm, v2 layer norm); the row context is v2's, its two narrow convolutions in one; crops of
    random area and aspect in place of a crop of fixed size; negatives are the patches of one
    device's batch; the next row, which shares pixels, is not foretold; where training saw grey
    patches alone, so does whoever judges.
    """

    recipe = Recipe(
        epochs=200,  # ours, the paper names none
        batch=512,  # paper
        optimizer="adam",  # paper
        lr=2e-4,  # paper
        weight_decay=0.0,  # ours, the paper names none
        schedule="constant",  # ours, the paper names none
    )

    @classmethod
    def needs(cls, backbone, data):
        shared = {
            type(m).__name__
            for m in backbone.modules()
            if "running_var" in dict(m.named_buffers(recurse=False))
            and not isinstance(m, BATCH_NORM)
        }
        if shared:
            return (
                "it needs norms that tell no patch of its neighbours; of norms over a batch it "
                f"replaces torch's own, and this network has {' and '.join(sorted(shared))}"
            )
        return None

    def __init__(
        self,
        backbone,
        data,
        *,
        grid: Count = 7,  # patches a side, which overlap by half; paper
        patch: Natural = 0,  # pixels to which a patch is enlarged, 0: as cut; paper
        steps: Count = 5,  # rows down to the last one foretold; paper
        skip: Natural = 1,  # of these the nearest are left out; ours, the next one shares pixels
        depth: Count = 5,  # layers of the row context; paper v2
        hidden: Count = 256,  # channels inside the row context; paper v2
        crop: Share = 0.73,  # smallest area; ours, the paper crops 256 of 300 pixels
        grey: Share = 1.0,  # chance; paper
        trim: Share = 0.0625,  # share of a patch's side cut off at random; paper
    ):
        super().__init__()
        stride = round(data.size / (grid + 1))
        if data.size < 2 * (grid + 1):
            raise ValueError(
                f"images of {data.size} pixels have no {grid} x {grid} patches of 4 pixels or more "
                f"that overlap by half; set a grid of at most {data.size // 2 - 1}"
            )
        if not skip < steps < grid:
            raise ValueError(
                f"rows {skip + 1} to {steps} below a patch are foretold in a grid of {grid} rows; "
                f"set skip < steps < grid"
            )
        if trim == 1:
            raise ValueError("trim=1 leaves nothing of a patch; set a smaller share of its side")
        self.backbone = replace_batch_norms(backbone)
        side, patch = stride * (grid + 1), patch or 2 * stride
        self.read = PatchMean(backbone, Patches(grid), side=side, patch=patch, grey=grey == 1)
        check_side(self.backbone, patch, what="patches", setting="patch")
        self.context = RowContext(backbone.dim, hidden, depth)
        self.foretell = nn.ModuleList(
            nn.Linear(backbone.dim, backbone.dim, bias=False) for _ in range(skip, steps)
        )
        self.skip = skip
        self.view = Chain(
            crop_flip(side, scale=(crop, 1.0)),
            Grayscale(grey),
            Patches(grid, edge=round(stride * trim)),
        )

    def views(self):
        return self.view

    def step(self, batch):
        z = self.read.latents(batch.views)  # [B, R, C, D]
        context = self.context(z)  # [B, R, C, D]
        losses = [
            foretold(w(context[:, :-k]), z, k) for k, w in enumerate(self.foretell, self.skip + 1)
        ]
        yield torch.stack(losses).mean()

    def encoder(self):
        return self.read


def foretold(guesses, z, offset):
    """Cross-entropy of each patch's guess of the one `offset` rows below, among all of the batch.

    `guesses` [B, R - offset, C, D], `z` [B, R, C, D].
    """
    with full_precision(z):
        scores = guesses.float().flatten(0, 2) @ z.float().flatten(0, 2).T  # [., B * R * C]
        place = torch.arange(scores.shape[1], device=z.device).view(z.shape[:3])
        return F.cross_entropy(scores, place[:, offset:].flatten())


@dataclass(frozen=True)
class Patches:
    """[B, 3, H, H] -> [B, grid, grid, 3, p, p]; neighbours share half of their p pixels.

    Of each patch a window that is smaller by twice the `edge`, at a random place, is kept and put
    in the middle of black: so that the border does not name the neighbour.
    """

    grid: int
    edge: int = 0  # pixels

    def __call__(self, images):
        stride = images.shape[-1] // (self.grid + 1)
        cut = to_float(images).unfold(2, 2 * stride, stride).unfold(3, 2 * stride, stride)
        cut = cut.permute(0, 2, 3, 1, 4, 5).contiguous()  # [B, R, C, 3, p, p]
        return self.trimmed(cut) if self.edge else cut

    def trimmed(self, patches):
        flat, edge = patches.flatten(0, 2), self.edge
        moved = shift_crop(flat, torch.randint(2 * edge + 1, (2, len(flat))), edge)
        inner = moved[:, :, edge:-edge, edge:-edge]
        return F.pad(inner, (edge,) * 4).unflatten(0, patches.shape[:3])


class PatchMean(nn.Module):
    """[B, 3, H, W] -> [B, D]: the mean of a backbone's features of the patches of an image."""

    def __init__(self, backbone, cut, *, side, patch, grey):
        super().__init__()
        self.backbone, self.cut = backbone, cut
        self.side, self.patch = side, patch  # pixels
        self.grey = grey

    def forward(self, x):
        x = grayscale(x) if self.grey else x
        if x.shape[-1] != self.side:
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        # a grid holds four times the pixels of its image
        return torch.cat([self.latents(self.cut(part)).mean((1, 2)) for part in x.split(64)])

    def latents(self, patches):
        """[B, R, C, 3, p, p] -> [B, R, C, D]."""
        flat = patches.flatten(0, 2)
        if flat.shape[-1] != self.patch:
            flat = F.interpolate(flat, (self.patch, self.patch), mode="bilinear")
        return self.backbone(flat).unflatten(0, patches.shape[:3])


class RowContext(nn.Module):
    """[B, R, C, D] -> [B, R, C, D], of which row r depends on rows 0 to r alone."""

    def __init__(self, dim, hidden, depth):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, hidden, 1),
                nn.ReLU(inplace=True),
                nn.ZeroPad2d((1, 1, 1, 0)),  # left, right, above; nothing below
                nn.Conv2d(hidden, hidden, (2, 3)),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, dim, 1),
            )
            for _ in range(depth)
        )

    def forward(self, z):
        c = z.permute(0, 3, 1, 2)  # [B, D, R, C]
        for layer in self.layers:
            c = c + layer(c)
        return F.relu(c).permute(0, 2, 3, 1)
