"""Relative patch: tells on which side of a patch its neighbour lies."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, Recipe, Share, Update
from ..nn import Standardise, check_side
from ..views import Chain, Coarsen, DropChannels, Grayscale, RandomResizedCrop, Tiles, tile_side

SIDES = 8  # row by row: above left, above, above right, left, right ...


class RelativePatch(Method):
    """Tells on which of eight sides of one patch another one lies.

    Doersch et al., Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015,
    arXiv 1505.05192. "code" is the authors', which they rewrote after the paper.
    Departures: any backbone, whose pooled features of two patches are joined, and which is judged
    on whole images as they are (the code: AlexNet up to a fc6 of 4096); patches get ImageNet's mean
    and one common deviation, which most backbones take off again (the code: 0 and 50 grey levels);
    all patches of a batch pass as one, so that batch norms see them together, as in the code: that
    tells nothing of their places (mmselfsup: first and second patches apart); norms scale and shift
    (the code: they do not); one grid of cells an image, on a square crop of at least a third of its
    area, where patches and gaps share the data's size as 96 and 48 pixels share 144 (the code: four
    grids, of as many cells as an image of 150 to 450 thousand pixels has); patches move by whole
    pixels, and the places that they may take are rounded to a number (there: 15); dropped channels
    show half a grey level of noise of one patch a batch, which is then centred (there: of each
    patch its own, as it is); coarse patches keep 10 of 96 pixels a side or more, and never fewer
    than 2 (there: 10); a view's steps stay in floats (there: coarse patches start from 8 bits); the
    loss is the mean over pairs (there: the sum, of about 2,500, for which the rate makes up);
    initial weights are timm's and torch's (there: Xavier's); a last batch that is not whole is left
    out. mmselfsup's row warms up as (s + 1) / (W + 1) at step s of W (there: from a tenth), crops
    0.76 of the area or more (there: always that), does not decay biases and norms (there: it does),
    and has torch's momentum of norms in the head (there: 0.003).
    """

    recipe = Recipe(
        epochs=75,  # as many patches as 1.7 million steps on ImageNet; code
        batch=57,  # images, 513 patches in place of 512; code
        optimizer="sgd",  # code
        lr=0.025,  # 1e-5 beside the sum over about 2,500 pairs; code
        momentum=0.0,  # code
        weight_decay=0.0,  # code
        schedule="constant",  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        grid: Count = 3,  # patches a side; ours, the code has one or more of them
        share: Share = 96 / 144,  # of a cell's side that a patch takes, the rest is a gap; code
        jitter: Share = 14 / 48,  # share of the gap over which a patch moves; code
        tile: Natural = 0,  # pixels to which a patch is resized, 0: as cut; code
        centre: bool = False,  # pair the patch in the middle alone, with each neighbour; code
        crop: Share = 1 / 3,  # smallest area; code
        drop: bool = True,  # all but one channel of a patch; code
        coarse: Share = 1 / 3,  # chance that a patch is shrunk and enlarged; code
        grey: Share = 0.0,  # chance; code
        standardise: bool = True,  # each patch; code
        hidden: Count = 4096,  # width of fc7 and fc8; code
        layers: Count = 2,  # hidden ones on top of a pair; code
        dropout: Share = 0.0,  # after each of them; code
    ):
        super().__init__()
        side, tiles = tile_side(data.size, grid, share), grid**2
        self.tile = tile or side
        check_side(backbone, self.tile, what="patches")
        self.backbone = backbone
        first, second, label = neighbours(grid, centre=centre)
        self.register_buffer("first", first)  # [P]
        self.register_buffer("second", second)  # [P]
        self.register_buffer("label", label)  # [P]
        self.standardise = Standardise(each=False) if standardise else nn.Identity()
        self.head = nn.Sequential(nn.Linear(2 * backbone.dim, hidden, bias=False))
        self.head.extend([nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Dropout(dropout)])
        for _ in range(layers - 1):
            self.head.extend([nn.Linear(hidden, hidden), nn.ReLU(inplace=True)])
            self.head.append(nn.Dropout(dropout))
        self.head.append(nn.Linear(hidden, SIDES))
        view = [Grayscale(grey)] if grey else []
        view.append(Tiles(grid, side, jitter))
        if crop < 1:
            view.insert(0, RandomResizedCrop(data.size, (crop, 1.0), (1.0, 1.0)))
        if coarse:
            view.append(Coarsen(tiles, coarse))
        if drop:
            view.append(DropChannels(tiles))
        self.view = Chain(*view)

    def views(self):
        return self.view

    def step(self, batch):
        x = self.standardise(batch.views).flatten(0, 1)
        if x.shape[-1] != self.tile:
            x = F.interpolate(x, (self.tile, self.tile), mode="bilinear")  # [B * T, 3, t, t]
        z = self.backbone(x).unflatten(0, batch.views.shape[:2])  # [B, T, D]
        pairs = torch.cat([z[:, self.first], z[:, self.second]], dim=2)  # [B, P, 2D]
        logits = self.head(pairs.flatten(0, 1)).float()  # [B * P, 8]
        label = self.label.repeat(len(z))  # [B * P]
        right = (logits.argmax(1) == label).float().mean()
        yield Update(F.cross_entropy(logits, label), log={"accuracy": right})

    def uniform(self):
        shares = self.label.bincount(minlength=SIDES) / len(self.label)
        return float(-(shares * shares.log()).sum())  # corners have fewer neighbours than edges


def neighbours(grid, *, centre):
    """All pairs of neighbours in a grid, both ways: the first [P], the second [P], and its side [P].

    `centre` keeps those whose first is the middle. ValueError where there is no such tile.
    """
    if centre and grid % 2 == 0:
        raise ValueError(f"a grid of {grid} x {grid} has no patch in the middle; set an odd grid")
    place = torch.arange(grid**2)
    down = place[None] // grid - place[:, None] // grid  # [T, T]
    right = place[None] % grid - place[:, None] % grid
    near = (down.abs().maximum(right.abs()) == 1).nonzero()
    if centre:
        near = near[near[:, 0] == grid**2 // 2]
    first, second = near.unbind(1)
    side = 3 * (down + 1) + right + 1  # 0 to 8, where 4 is the tile itself
    found = side[first, second]
    return first, second, found - (found > 4).long()


RelativePatchImageNet = partial(
    RelativePatch,
    epochs=70,  # code of mmselfsup
    batch=512,  # code of mmselfsup
    lr=0.2,  # code of mmselfsup
    momentum=0.9,  # code of mmselfsup
    weight_decay=1e-4,  # code of mmselfsup
    per={"head.*": {"weight_decay": 5e-4}},  # code of mmselfsup
    schedule="step",  # code of mmselfsup
    milestones=(30 / 70, 50 / 70),  # code of mmselfsup
    warmup=5,  # code of mmselfsup
    share=64 / 85,  # code of mmselfsup
    jitter=1.0,  # code of mmselfsup
    centre=True,  # code of mmselfsup
    crop=0.76,  # 255 of 292 pixels a side; code of mmselfsup
    drop=False,  # code of mmselfsup
    coarse=0.0,  # code of mmselfsup
    grey=0.66,  # code of mmselfsup
    standardise=False,  # code of mmselfsup
    layers=1,  # code of mmselfsup
    dropout=0.5,  # code of mmselfsup
)
"""Relative patches as mmselfsup trains a ResNet-50 on ImageNet: the middle and its 8 neighbours."""
