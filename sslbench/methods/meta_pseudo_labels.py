"""Meta Pseudo Labels: a teacher is told how its pseudo-labels served the student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Guesses, Method, Natural, NonNegative, Positive, Recipe, Share, Update
from ..nn import copy_frozen, follow, full_precision
from ..nn.labels import labelled, one_class, weighed_entropy
from ..views import Chain, Cutout, HorizontalFlip, PadCrop, RandAugment, Views


class MetaPseudoLabels(Method):
    """A student learns a teacher's labels; the teacher, whether the student then knows more.

    Pham et al., Meta Pseudo Labels, CVPR 2021, arXiv 2003.10580.
    Departures: from Google's code for CIFAR-10 with 4,000 labels. Feedback is the student's loss on
    labelled images before its step less that after it, as derived (the code: after less before), so
    that labels which helped become more probable. Both are taken alike: in one batch with the
    strong views, in training mode, with the same dropout (there: after it in a batch of labelled
    images alone, with another dropout). Feedback acts on the teacher's most probable classes (there:
    on its soft labels, of which the gradient is zero; the paper: on sampled ones, which the student
    learns too, where here it learns soft ones as in the code). Its moving average starts at zero
    (there: anywhere). While the student waits it takes no step, and its rate follows the cosine of
    the whole fit (there: of what is left); it waits a share of the fit (there: 3,000 steps). Rates
    do not warm up (there: over 5,000 steps) and stay as the batch changes (there: in proportion to
    it). The student is not tuned on the labels afterwards (the paper: it is). Images of both kinds
    are drawn without repeats in a pass. The average starts as the student and takes its running
    statistics as they are (there: averaged, from zero and one). RandAugment is torchvision's at 16
    of 30, of 14 operations (there: of its own strengths, at 16 of ten); a strong view starts from a
    crop of its own (there: from the weak view), and is not shifted and mirrored a second time;
    shifts mirror the border (there: it is grey). Biases do not decay (there: norms only). Colours
    are normalised as the backbone states. The backbone is the suite's (there: WRN-28-2).
    """

    labels = "budget"
    least = 2
    version = 2
    targets = ("average",)
    recipe = Recipe(
        epochs=5455,  # 300,000 steps on CIFAR; paper
        batch=896,  # unlabelled images, 7 times 128; paper
        optimizer="sgd",  # paper
        lr=0.05,  # of both; code
        momentum=0.9,  # code
        nesterov=True,  # code
        weight_decay=5e-4,  # paper
        schedule="cosine",  # paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        ratio: Count = 7,  # unlabelled images a step for each labelled one; paper
        temperature: Positive = 0.7,  # of the teacher's labels for itself; paper
        threshold: Share = 0.6,  # confidence, after sharpening, from which these count; paper
        unlabelled: NonNegative = 8.0,  # their weight; paper
        rise: Natural = 5000,  # steps in which that weight rises, however long the fit; paper
        feedback: NonNegative = 1.0,  # weight of the feedback; paper
        forget: Share = 0.01,  # share of the feedback's average that is new; code
        wait: Share = 0.01,  # share of the fit before the student starts; paper
        smoothing: Share = 0.15,  # of labels and of the student's targets; paper
        dropout: Share = 0.2,  # of features; paper
        average: Share = 0.995,  # momentum of the student's average, which predicts; paper
        operations: Count = 2,  # of RandAugment; code
        strength: Natural = 16,  # of these, 0 to 30; code
        cutout: Share = 0.5,  # side of the grey square, 0: none; code
    ):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.net = nn.Sequential(backbone, self.head)
        self.average = copy_frozen(self.net)
        last = nn.Linear(backbone.dim, data.classes)
        self.teacher = nn.Sequential(backbone.anew(), nn.Dropout(dropout), last)
        self.register_buffer("usual", torch.zeros(()))  # average of the feedback
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # steps of the teacher
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # of the student
        self.ratio, self.temperature, self.threshold = ratio, temperature, threshold
        self.unlabelled, self.rise, self.wait, self.forget = unlabelled, rise, wait, forget
        self.feedback, self.smoothing = feedback, smoothing
        self.dropout, self.momentum = dropout, average
        self.weak = Chain(PadCrop(round(data.size / 8), "reflect"), HorizontalFlip())
        strong = [RandAugment(operations, strength, fill=128 / 255)]
        if hole := round(cutout * data.size):
            strong.append(Cutout(hole, 128 / 255))
        self.two = Views((self.weak, Chain(*self.weak.ops, *strong)))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def views(self):
        return {"main": self.two, "labelled": self.weak}

    def groups(self):
        return {"student": self.net.parameters(), "teacher": self.teacher.parameters()}

    def fit(self, run):
        given = labelled(run, 1 / self.ratio)
        for epoch in run.epochs(self):
            epoch.streams["labelled"] = given

    def step(self, batch):
        given, (weak, strong) = batch.also["labelled"], batch.views
        label, parts = given.label, [len(given.index), len(weak), len(weak)]
        taught = self.teacher(torch.cat([given.views, weak, strong])).float()  # [b + 2B, K]
        known, guess, answer = taught.split(parts)
        worth = None
        if batch.progress >= self.wait:
            x = torch.cat([given.views, strong])
            h = self.backbone(x)  # [b + B, D]
            keep = F.dropout(torch.ones_like(h), self.dropout)
            mine, learned = self.head(h * keep).float().split(parts[:2])
            before = F.cross_entropy(mine.detach(), label)
            target = answer.detach().softmax(1)
            loss = F.cross_entropy(learned, target, label_smoothing=self.smoothing)
            yield Update(loss, "student", {"confidence of targets": target.amax(1).mean()})

            with torch.no_grad():
                now = self.head(self.backbone(x) * keep).float()[: len(label)]
                gain = before - F.cross_entropy(now, label)
                self.usual.lerp_(gain, self.forget)
                worth = self.feedback * (gain - self.usual)
            follow(self.average, self.net, self.momentum, self.steps)
        rise = (self.seen / self.rise).clamp(max=1) if self.rise else 1.0
        agreed, p, sure = agreement(answer, guess, self.temperature, self.threshold)
        own = F.cross_entropy(known, label, label_smoothing=self.smoothing)
        loss, log = own + self.unlabelled * rise * agreed, {}
        if worth is not None:
            loss, log["feedback"] = loss + reinforced(answer, worth), worth
        yield Update(loss, "teacher", log, Guesses(batch.index, p, sure))
        self.seen.add_(1)

    def encoder(self):
        return self.average[0]

    def predict(self, x):
        return self.average(x)


def agreement(strong, weak, temperature, threshold):
    """Cross-entropy of logits [B, K] of strong views with sharpened ones of weak views, where sure.

    A mean over all images. Also the sharpened probabilities [B, K], and which are sure [B].
    """
    with full_precision(strong):
        target = (weak.detach().float() / temperature).softmax(1)
        sure = (target.amax(1) >= threshold).float()  # [B]
    return weighed_entropy(strong, target, sure), target, sure


def reinforced(logits, worth):
    """Cross-entropy of logits [B, K] with their own first class, times what that was worth."""
    with full_precision(logits):
        return worth * F.cross_entropy(logits.float(), logits.detach().argmax(1))
