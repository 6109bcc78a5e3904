"""ReMixMatch: a weak view's guess, brought to the labels' mix, is the target of many strong views."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Guesses, Method, Natural, NonNegative, Positive, Recipe, Share, Update
from ..nn import copy_frozen, follow, full_precision, risen, unrecorded
from ..nn.labels import aligned, interleaved, labelled, mixup, one_class, sharpen
from ..views import Views, shift_flip, strong

TURNS = 4


class ReMixMatch(Method):
    """MixMatch with aligned guesses of a weak view for several strong ones, and with rotations.

    Berthelot et al., ReMixMatch: Semi-Supervised Learning with Distribution Alignment and
    Augmentation Anchoring, ICLR 2020, arXiv 1911.09785.
    Departures: the average of weights that is judged is warmed up by min(m, (1 + t) / (10 + t)) at
    step t (the code: 0.999 throughout), and has the online network's running statistics, as there;
    strong views by FixMatch's RandAugment and a grey square (the code: CTAugment, with cutout among
    its operations); guesses are aligned with the classes of the labelled images (the code: where it
    knows them with those of the unlabelled ones); weights decay before the step of Adam (the code:
    after it), whose epsilon is added to the corrected root (there: to the root before); a batch need
    not be a multiple of four, and slices of what is not divisible are larger at its start (there: at
    its end); a view's steps stay in floats (there: rounded to 8 bits); the last weights are judged
    (the paper: the median of the last 20 checkpoints); an epoch is a pass over the unlabelled
    images, of which a last batch that is not whole is left out (the code: 2^16 labelled images);
    labelled images are shuffled whole before any comes again (there: in a buffer); running
    statistics of norms follow as the backbone states (there: by 0.001 of a batch); images are
    normalised as the backbone does (there: to -1 to 1); initial weights are torch's and timm's.
    """

    labels = "budget"
    targets = ("average",)
    recipe = Recipe(
        epochs=1343,  # 2^20 steps on 50,000 images; code
        batch=64,  # unlabelled images, and as many labelled ones; paper
        optimizer="adamw",  # Adam, weights shrink beside it; code
        lr=0.002,  # paper
        schedule="constant",  # paper
        weight_decay=0.02,  # times the rate; paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        anchored: Count = 8,  # strong views of an unlabelled image; paper
        temperature: Positive = 0.5,  # of sharpening; paper
        mixup: Positive = 0.75,  # both parameters of the beta distribution; paper
        mixed: NonNegative = 1.5,  # weight of the loss of mixed unlabelled images; paper
        plain: NonNegative = 0.5,  # weight of that of one strong view that is not mixed; paper
        rotation: NonNegative = 0.5,  # weight of that of its rotation; paper
        rise: Positive = 1 / 64,  # share of the fit in which the first two rise, 16,384 steps; code
        window: Count = 128,  # steps over which the mean prediction is taken; paper
        momentum_average: Share = 0.999,  # of the weights that are judged; paper
        shift: Share = 0.125,  # of the side, by which a view is moved at most; code
        operations: Natural = 2,  # of RandAugment in strong views, half of them are done; ours
        strength: Natural = 10,  # of these, 2 to 10: each draws a level below it; ours
        cutout: Share = 0.5,  # side of the grey square in these, 0: none; ours
    ):
        super().__init__()
        self.online = nn.Sequential(backbone, nn.Linear(backbone.dim, data.classes))
        self.turned = nn.Linear(backbone.dim, TURNS)
        self.average = copy_frozen(self.online)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        even = torch.full((window, data.classes), 1 / data.classes)
        self.register_buffer("of_labels", even[0].clone())  # [K] share of each class
        self.register_buffer("guessed", even)  # [window, K] mean prediction of the last steps
        self.temperature, self.mixup, self.momentum = temperature, mixup, momentum_average
        self.mixed, self.plain, self.rotation, self.rise = mixed, plain, rotation, rise
        self.weak = shift_flip(data.size, shift)
        hard = strong(self.weak, data.size, n=operations, m=strength, cutout=cutout)
        self.anchor = Views((self.weak, *[hard] * anchored))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return {"main": self.anchor, "labelled": self.weak}

    def fit(self, run):
        given = labelled(run)
        count = torch.bincount(run.labels()[given.pool], minlength=len(self.of_labels))
        self.of_labels.copy_(count / len(given.pool))
        for epoch in run.epochs(self):
            epoch.streams["labelled"] = given

    def step(self, batch):
        given, strong = batch.also["labelled"], batch.views[1]
        p = self.predicted(batch.views[0])  # [B, K]
        guess = sharpen(aligned(p, self.of_labels, self.guessed.mean(0)), self.temperature)
        with unrecorded(self.online):
            plain = cross_entropy(self.online(strong), guess)
            x, turns = quarter_turned(strong)
            rotation = F.cross_entropy(self.turned(self.online[0](x)).float(), turns)
        label = F.one_hot(given.label, p.shape[1]).float()
        x, target = mixup(
            torch.cat([given.views, *batch.views]),
            torch.cat([label, *[guess] * len(batch.views)]),
            self.mixup,
            each=True,
        )  # [(2 + anchored) B, ...]
        logits, count = self.in_turn(x.split(len(label))), len(label)
        supervised = cross_entropy(logits[:count], target[:count])
        others = cross_entropy(logits[count:], target[count:])
        unlabelled = self.mixed * others + self.plain * plain
        loss = supervised + risen(batch.progress, self.rise) * unlabelled
        loss, log = loss + self.rotation * rotation, {"labelled": supervised, "turned": rotation}
        yield Update(loss, log=log, guesses=Guesses(batch.index, guess))

        self.guessed.copy_(torch.cat([self.guessed[1:], p.mean(0, keepdim=True)]))
        follow(self.average, self.online, self.momentum, self.steps)

    @torch.no_grad()
    def predicted(self, x):
        with unrecorded(self.online):
            return self.online(x).float().softmax(1)

    def in_turn(self, parts):
        """Logits [P B, K] of parts [B, ...], of which the first passes are mostly labelled images.

        Norms see some images of each kind together, and record those of the last pass.
        """
        *others, last = interleaved(parts)
        with unrecorded(self.online):
            logits = [self.online(part) for part in others]
        return torch.cat(interleaved([*logits, self.online(last)]))

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)

    def uniform(self):
        return math.log(self.online[1].out_features) + self.rotation * math.log(TURNS)


def quarter_turned(x):
    """The batch [B, C, H, H], each quarter of it turned by 0, 90, 180 or 270 degrees, and which [B]."""
    parts = x.tensor_split(TURNS)
    turns = [torch.full((len(part),), k, device=x.device) for k, part in enumerate(parts)]
    turned = [torch.rot90(part, k, (2, 3)) for k, part in enumerate(parts)]
    return torch.cat(turned), torch.cat(turns)


def cross_entropy(logits, target):
    """Mean cross-entropy of logits with targets, both [B, K]."""
    with full_precision(logits):
        return -(target.float() * logits.float().log_softmax(1)).sum(1).mean()
