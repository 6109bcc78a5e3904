"""Source only: what is learned on a source, as it is, on a target; the baseline of domain adaptation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Method, Recipe, Share
from ..nn import by_domain, of_one_domain
from ..views import shift_flip


class SourceOnly(Method):
    """Cross-entropy on the labels of the source and, where it has any, on a budget of the target's.

    The row without adaptation: "source only" of Ganin et al., Domain-Adversarial Training of Neural
    Networks, JMLR 2016, arXiv 1505.07818; with labels of the target, "S+T" of Saito et al.,
    Semi-supervised Domain Adaptation via Minimax Entropy, ICCV 2019, arXiv 1904.06487, whose code
    its settings are from.
    Departures: the classifier is linear (that code: of the cosine, at a temperature; `mme` with
    adversary=0 has that); the backbone starts from scratch or as its name says, at the full rate
    (there: from ImageNet, at a tenth); the rate falls by (1 + 10 p) ** -0.75 at share p of the fit, a
    number of epochs (there: by (1 + 0.0001 t) ** -0.75 at step t, until a validation set of the
    target gets no better, whose best weights are judged); biases and norms do not decay (there:
    all); as many labelled images of the target as of the source at a step, some twice where there
    are fewer (there: each once); views move by a share of the side over a reflected border (there: a
    crop of 224 of 256 pixels); colours are normalised as the backbone states (there: as on ImageNet);
    an epoch has as many steps as the whole batches of all images; it is judged on images of the
    target that it has not seen (there: on the unlabelled ones of training).
    """

    labels = "budget"
    least = 2
    recipe = Recipe(
        epochs=100,  # ours
        batch=24,  # images of the source, and as many labelled ones of the target; code
        optimizer="sgd",  # code
        lr=0.01,  # code
        momentum=0.9,  # code
        nesterov=True,  # code
        weight_decay=5e-4,  # code
        schedule="inverse",  # ours
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        shift: Share = 0.0625,  # of the side, by which a view moves at most; code
        flip: Share = 0.5,  # chance of a mirror image; code
    ):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.view = shift_flip(data.size, shift, flip)

    @classmethod
    def needs(cls, backbone, data):
        return of_one_domain(data)

    def fit(self, run):
        streams = by_domain(run, target=0)
        for epoch in run.epochs(self):
            epoch.main = False
            epoch.streams.update(streams)

    def step(self, batch):
        known = [batch.also[name] for name in ("source", "labelled") if name in batch.also]
        logits = self.predict(torch.cat([each.views for each in known]))  # [B, K]
        yield F.cross_entropy(logits.float(), torch.cat([each.label for each in known]))

    def uniform(self):
        return math.log(self.head.out_features)

    def predict(self, x):
        return self.head(self.backbone(x))
