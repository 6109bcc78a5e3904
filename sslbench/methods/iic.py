"""IIC: the mutual information between an image's cluster and that of its transform."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ..api import Count, Method, NonNegative, Positive, Recipe, Share, Update
from ..nn import full_precision, one_class
from ..views import Chain, ColorJitter, RandomResizedCrop, Sobel, Views

EPSILON = 2.220446049250313e-16  # least probability of a pair; code


class IIC(Method):
    """Clusters that tell the most about the clusters of the same images transformed.

    Ji et al., Invariant Information Clustering for Unsupervised Image Classification and
    Segmentation, ICCV 2019, arXiv 1807.06653.
    Departures: batch norm keeps running statistics for judging (the paper's CIFAR-10 network has
    none); heads start as torch's linear layers do (the code: from N(0, 0.01), without shift) and
    the last norm of a ResNet's block at a scale of 0 (there: 1); a view's steps stay in floats
    (there: rounded to 8 bits); the head whose pass it is not rests (the code: Adam moves it on by
    its averages); the sub-head is the one with the lowest loss over the last pass of the main head
    (the paper: the most accurate by label; its code offers the lowest loss); test images are not
    trained on (the code: with those of train, and without the unlabelled ones of STL-10 in the main
    head's pass); images in another order each pass (the code: always in the data's), without a last
    batch that is not whole; whole images are judged (the code: their middle, as large as crops
    are); STL-10 at its full size (the code: crops of 64 pixels, as they are); one round more than
    the code's 1,999.
    """

    version = 2
    least = 2  # of a single pair nothing can be learned
    recipe = Recipe(
        epochs=6000,  # passes: 2000 rounds of three; code
        batch=220,  # images, each in three pairs; code
        optimizer="adam",  # paper
        lr=1e-4,  # paper
        weight_decay=0.0,  # code
        schedule="constant",  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        overclusters: Count = 70,  # of the head beside the main one; paper
        subheads: Count = 5,  # of each head; paper
        passes: tuple[Count, Count] = (1, 2),  # a round: by the overclustering head, the main; code
        repeats: Count = 3,  # transforms of an image in a step; code
        weight: Positive = 1.0,  # of the marginal entropies; paper
        crop: Share = 0.390625,  # area of every crop, 20 x 20 of 32 x 32; code
        jitter: NonNegative = 1.0,  # strength; code
        sobel: bool = True,  # gradients of luma in place of colours; paper
    ):
        super().__init__()
        if overclusters > data.length:
            raise ValueError(
                f"{overclusters} overclusters of the {data.length} images of {data.name}; "
                f"set overclusters to at most that"
            )
        self.backbone = backbone.with_input(Sobel(luma=True), 2) if sobel else backbone
        self.main = nn.Linear(backbone.dim, subheads * data.classes)
        self.over = nn.Linear(backbone.dim, subheads * overclusters)
        self.register_buffer(
            "loss", torch.zeros(subheads)
        )  # of the main ones, over their last pass
        self.subheads, self.passes, self.weight = subheads, passes, weight
        box = {"scale": (crop, crop), "ratio": (1.0, 1.0)}
        colour = ColorJitter(0.4 * jitter, 0.4 * jitter, 0.4 * jitter, 0.125 * jitter)
        changed = Chain(RandomResizedCrop(data.size, flip=0.5, **box), colour)
        self.view = Views((RandomResizedCrop(data.size, **box), *[changed] * repeats))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return self.view

    def fit(self, run):
        for epoch in run.epochs(self):
            if self.on_main(epoch.number):
                self.loss.zero_()

    def on_main(self, epoch):
        """Whether this pass is the main head's; the overclustering one begins each round."""
        return epoch % sum(self.passes) >= self.passes[0]

    def step(self, batch):
        plain, *changed = batch.views
        main = self.on_main(batch.epoch)
        one = self.logits(plain, main)  # [heads, B, K]
        others = self.logits(torch.cat(changed), main)  # [heads, repeats * B, K]
        losses = lost_information(one.repeat(1, len(changed), 1), others, self.weight)  # [heads]
        loss = losses.mean()
        yield Update(loss, log={"loss_main" if main else "loss_over": loss})
        if main:
            self.loss += losses.detach()

    def logits(self, x, main=True):
        head = self.main if main else self.over
        return head(self.backbone(x)).unflatten(1, (self.subheads, -1)).movedim(1, 0)

    def predict(self, x):
        return self.logits(x).index_select(0, self.loss.argmin().view(1)).squeeze(0)  # [B, K]

    def uniform(self):
        return 0.0 if self.weight == 1 else None  # clusters all equal, or all drawn by lot


def lost_information(x, y, weight):
    """Less the mutual information of two clusterings: logits [..., B, K] -> [...]."""
    with full_precision(x):
        pairs = x.float().softmax(-1).mT @ y.float().softmax(-1)  # [..., K, K]
        joint = pairs + pairs.mT
        joint = joint / joint.sum((-2, -1), keepdim=True)
        own = joint.sum(-1).clamp_min(EPSILON).log()  # [..., K], of either side
        joint = joint.clamp_min(EPSILON)
        gain = joint.log() - weight * (own[..., :, None] + own[..., None, :])
        return -(joint * gain).sum((-2, -1))


IICSTL10 = partial(
    IIC,
    passes=(1, 1),  # code
    repeats=5,  # code
    crop=0.4444444444444444,  # 64 x 64 of 96 x 96; code
    epochs=4000,  # passes: 2000 rounds of two; code
    batch=140,  # images, each in five pairs; code
)
"""Clusters that tell the most about the clusters of the same images transformed (STL-10)."""
