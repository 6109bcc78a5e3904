"""Jigsaw: tells in which order the tiles of an image were laid."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, Recipe, Share, Update
from ..nn import Standardise, check_side
from ..views import Chain, Grayscale, HorizontalFlip, ShiftChannels, Tiles, far_apart, tile_side


class Jigsaw(Method):
    """Tells by which of a thousand permutations the nine tiles of an image were shuffled.

    Noroozi & Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles,
    ECCV 2016, arXiv 1603.09246. "code" is the authors', in Caffe; "port" is Brattoli's, in PyTorch.
    Departures: any backbone, whose pooled features of a tile go on to fc6, and which is judged on
    whole images as they are (the code: AlexNet up to its last maps, with a first stride of 2 that
    becomes 4 when it is judged); tiles get ImageNet's mean and deviation, which most backbones take
    off again (the port: 0 and 1, by the unbiased deviation; the code: only the mean is taken off);
    all tiles of a batch pass as one, so that batch norms see them together, as in VISSL: that tells
    nothing of their order (code and port have no norm); cells and tiles share the data's size as 85
    and 64 pixels do 255, and the grid lies at random where it does not fill the image (code and
    port: in the middle of 256); channels are shifted by grey levels as in the port, which a
    standardised tile shows only where it is clipped (the paper, unless we are mistaken: in space;
    the code: not at all); a view's steps stay in floats (there: rounded to 8 bits); permutations are
    far apart by the smallest distance, then by the mean, and the first one is drawn by a seed (the
    port: by the mean, without a seed); biases learn at the rate of weights (the code: at twice
    that); initial weights are timm's and torch's (the code: Gaussians, with some biases of 1); a
    last batch that is not whole is left out (there: trained on). VISSL's row warms up as
    (s + 1) / (W + 1) at step s of W (there: from a quarter, by epochs), does not decay biases
    (there: it does), moves tiles by one pixel more, and finds 2000 permutations of its own.
    """

    recipe = Recipe(
        epochs=70,  # 350,000 steps on ImageNet; code
        batch=256,  # code
        optimizer="sgd",  # code
        lr=0.01,  # code
        momentum=0.9,  # code
        weight_decay=5e-4,  # code
        schedule="step",  # code
        milestones=(2 / 7, 4 / 7, 6 / 7),  # every 100,000 steps; code
        gamma=0.1,  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        grid: Count = 3,  # tiles a side; code
        share: Share = 64 / 85,  # of a cell's side, that of a tile; code
        jitter: Share = 1.0,  # share of a cell's free pixels over which its tile moves; code
        tile: Natural = 0,  # pixels to which a tile is resized, 0: as cut; code
        permutations: Count = 1000,  # code
        rule: Literal["maximin", "mean"] = "maximin",  # which distance is large; ours
        permutation_seed: Natural = 0,  # another one is another set; ours
        grey: Share = 0.3,  # chance; code of the port
        shift: bool = True,  # of each channel by -2 to 1 grey levels; code of the port
        flip: Share = 0.0,  # chance; code
        standardise: bool = True,  # each channel of each tile; code of the port
        fc6: Count = 1024,  # width, of each tile; code
        norm: bool = False,  # batch norm in fc6; code
        fc7: Natural = 4096,  # width, of all tiles, 0: none; code
        dropout: Share = 0.5,  # after fc6 and fc7; code
    ):
        super().__init__()
        side, count = tile_side(data.size, grid, share), grid**2
        self.tile = tile or side
        check_side(backbone, self.tile, what="tiles")
        self.backbone = backbone
        orders = far_apart(count, permutations, rule, permutation_seed)
        self.register_buffer("orders", orders.clone())  # [K, T]
        self.standardise = Standardise() if standardise else nn.Identity()
        self.fc6 = nn.Sequential(nn.Linear(backbone.dim, fc6, bias=not norm))
        self.fc6.extend([nn.BatchNorm1d(fc6)] if norm else [])
        self.fc6.extend([nn.ReLU(inplace=True), nn.Dropout(dropout)])
        self.head = nn.Sequential()
        if fc7:
            self.head.extend([nn.Linear(count * fc6, fc7), nn.ReLU(inplace=True)])
            self.head.append(nn.Dropout(dropout))
        self.head.append(nn.Linear(fc7 or count * fc6, permutations))
        view = [Grayscale(grey), Tiles(grid, side, jitter)]
        if flip:
            view.insert(0, HorizontalFlip(flip))
        if shift:
            view.append(ShiftChannels(count))
        self.view = Chain(*view)

    def views(self):
        return self.view

    def step(self, batch):
        tiles = batch.views  # [B, T, 3, t, t]
        order = torch.randint(len(self.orders), (len(tiles),), device=tiles.device)  # [B]
        x = self.standardise(laid(tiles, self.orders[order])).flatten(0, 1)
        if x.shape[-1] != self.tile:
            x = F.interpolate(x, (self.tile, self.tile), mode="bilinear")
        z = self.fc6(self.backbone(x))  # [B * T, D]
        logits = self.head(z.view(len(tiles), -1)).float()  # [B, K]
        right = (logits.argmax(1) == order).float().mean()
        yield Update(F.cross_entropy(logits, order), log={"accuracy": right})

    def uniform(self):
        return math.log(len(self.orders))


def laid(tiles, orders):
    """Lays tile orders[b, i] of image b at place i: [B, T, ...], [B, T] -> [B, T, ...]."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], orders]


JigsawImageNet = partial(
    Jigsaw,
    epochs=105,  # code of VISSL
    lr=0.1,  # code of VISSL
    lr_scaling="linear",  # code of VISSL
    warmup=5,  # code of VISSL
    weight_decay=1e-4,  # code of VISSL
    milestones=(30 / 105, 60 / 105, 90 / 105, 100 / 105),  # code of VISSL
    permutations=2000,  # code of VISSL
    rule="mean",  # code of VISSL
    grey=0.66,  # code of VISSL
    shift=False,  # code of VISSL
    flip=0.5,  # code of VISSL
    standardise=False,  # code of VISSL
    fc6=1000,  # code of VISSL
    norm=True,  # code of VISSL
    fc7=0,  # code of VISSL
    dropout=0.0,  # code of VISSL
)
"""Jigsaw as VISSL trains a ResNet-50 on ImageNet: 105 epochs, 2000 permutations, tiles as they are."""
