"""MME: prototypes move to where the target is unsure, and features of the target move to prototypes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Method, NonNegative, Positive, Recipe, Share, Update
from ..nn import by_domain, full_precision, normalised, of_one_domain, reversed_gradient
from ..views import shift_flip


class MME(Method):
    """Entropy on the target, which the classifier raises and the features lower by its reversed gradient.

    Saito et al., Semi-supervised Domain Adaptation via Minimax Entropy, ICCV 2019, arXiv 1904.06487.
    Departures: features go to the classifier as they are, as with AlexNet in the code (with a
    ResNet: through a linear layer of 512); the backbone starts from scratch or as its name says, at
    the full rate (there: from ImageNet, at a tenth); the rate falls by (1 + 10 p) ** -0.75 at share p
    of the fit, a number of epochs (there: by (1 + 0.0001 t) ** -0.75 at step t, until a validation
    set of the target gets no better, whose best weights are judged); biases and norms do not decay
    (there: all); as many labelled images of the target as of the source at a step, some twice where
    there are fewer (there: each once), and none where the budget is 0; views move by a share of
    the side over a reflected border (there: a crop of 224 of 256 pixels); logarithms are those of a
    softmax (there: of a probability plus 1e-5); colours are normalised as the backbone states (there: as
    on ImageNet); an epoch has as many steps as the whole batches of all images; it is judged on images
    of the target that it has not seen (there: on the unlabelled ones from which it learned).
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
        adversary: NonNegative = 0.1,  # weight of the entropy; paper
        temperature: Positive = 0.05,  # of the classifier; paper
        ratio: Positive = 2.0,  # unlabelled images of the target to one of the source; code
        shift: Share = 0.0625,  # of the side, by which a view moves at most; code
        flip: Share = 0.5,  # chance of a mirror image; code
    ):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes, bias=False)
        self.adversary, self.temperature, self.ratio = adversary, temperature, ratio
        self.view = shift_flip(data.size, shift, flip)

    @classmethod
    def needs(cls, backbone, data):
        return of_one_domain(data)

    def fit(self, run):
        streams = by_domain(run, target=self.ratio)
        for epoch in run.epochs(self):
            epoch.main = False
            epoch.streams.update(streams)

    def groups(self):
        return {"main": self.parameters(), "adversary": self.parameters()}

    def step(self, batch):
        known = [batch.also[name] for name in ("source", "labelled") if name in batch.also]
        logits = self.predict(torch.cat([each.views for each in known]))  # [B, K]
        yield F.cross_entropy(logits.float(), torch.cat([each.label for each in known]))

        h = self.backbone(batch.also["target"].views)  # [T, D]
        unsure = entropy(self.classified(reversed_gradient(h)))
        yield Update(-self.adversary * unsure, "adversary", {"entropy": unsure})

    def classified(self, h):
        """Logits [B, K] of features [B, D], by the cosine."""
        with full_precision(h):
            return F.linear(normalised(h), self.head.weight.float()) / self.temperature

    def uniform(self):
        return math.log(self.head.out_features)

    def predict(self, x):
        return self.classified(self.backbone(x))


def entropy(logits):
    """Mean entropy of the predictions of logits [B, K], in nats."""
    with full_precision(logits):
        logs = logits.float().log_softmax(1)
        return -(logs.exp() * logs).sum(1).mean()
