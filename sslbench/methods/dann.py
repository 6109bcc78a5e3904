"""DANN: features that serve to tell classes apart and do not serve to tell domains apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, NonNegative, Recipe, Share, Update
from ..nn import by_domain, full_precision, mlp, of_one_domain, reversed_gradient
from ..views import shift_flip


class DANN(Method):
    """A classifier of domains learns from features, which learn against it by its reversed gradient.

    Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016, arXiv 1505.07818.
    Departures: a labelled budget of the target, where there is one, is classified beside the source
    (the paper: none; Saito et al., arXiv 1904.06487, compare it so), and is no example of the
    target's domain; the classifier of classes is linear (the paper: on digits two hidden layers);
    one output says the domain, where it does not say how many; no dropout; the weight decay, the
    views and the number of epochs are ours, and biases and norms do not decay; the
    backbone starts from scratch or as its name says, at the full rate (the paper, on photographs:
    from ImageNet, at a tenth); both domains pass as one batch, whose norms see them together; the
    weights at the end are judged; an epoch has as many steps as the whole batches of all images.
    """

    labels = "budget"
    least = 2
    recipe = Recipe(
        epochs=100,  # ours
        batch=64,  # images of the source, and as many of the target; paper
        optimizer="sgd",  # paper
        lr=0.01,  # paper
        momentum=0.9,  # paper
        weight_decay=5e-4,  # ours
        schedule="inverse",  # paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        adversary: NonNegative = 1.0,  # weight of the reversed gradient at the end; paper
        steepness: NonNegative = 10.0,  # of its rise from 0; paper
        width: Count = 1024,  # of the two hidden layers that tell domains apart; paper
        shift: Share = 0.0625,  # of the side, by which a view moves at most; ours
        flip: Share = 0.5,  # chance of a mirror image; ours
    ):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.critic = mlp(backbone.dim, width, width, 1, norm=False)
        self.adversary, self.steepness = adversary, steepness
        self.view = shift_flip(data.size, shift, flip)

    @classmethod
    def needs(cls, backbone, data):
        return of_one_domain(data)

    def fit(self, run):
        streams = by_domain(run, target=1)
        for epoch in run.epochs(self):
            epoch.main = False
            epoch.streams.update(streams)

    def step(self, batch):
        target = batch.also["target"]
        known = [batch.also[name] for name in ("source", "labelled") if name in batch.also]
        label = torch.cat([each.label for each in known])
        h = self.backbone(torch.cat([*(each.views for each in known), target.views]))  # [B, D]
        supervised = F.cross_entropy(self.head(h[: len(label)]).float(), label)

        weight = self.adversary * risen(batch.progress, self.steepness)
        of_target = h[len(label) :]  # [T, D]
        both = torch.cat([h[: len(known[0].label)], of_target])
        says = self.critic(reversed_gradient(both, weight))[:, 0]
        domain, told = domains(says, len(of_target))
        log = {"labelled": supervised, "domain": domain, "domains told apart": told}
        yield Update(supervised + domain, log=log)

    def uniform(self):
        return math.log(self.head.out_features) + math.log(2)

    def predict(self, x):
        return self.head(self.backbone(x))


def risen(progress, steepness):
    """The share of its weight that the reversed gradient has: 0 at first, and nearly 1 at the end."""
    return 2 / (1 + math.exp(-steepness * progress)) - 1


def domains(says, targets):
    """Cross-entropy of logits [B] of being the target, as the last so many are; the share told right."""
    with full_precision(says):
        says = says.float()
        place = torch.arange(len(says), device=says.device)
        truth = (place >= len(says) - targets).float()
        loss = F.binary_cross_entropy_with_logits(says, truth)
        return loss, ((says > 0) == (truth > 0)).float().mean()
