"""SimCLR v2's third step: a student learns a teacher's answers on all images."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Guesses, Method, Positive, Pretext, Recipe, Share, Update
from ..nn import full_precision
from ..nn.labels import labelled, one_class
from ..views import crop_flip


class SimCLRv2Distil(Method):
    """A student, as large as its teacher or smaller, learns what that answers on every image.

    Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, NeurIPS 2020,
    arXiv 2006.10029. The teacher is that fine-tuned on the budget, in eval mode, and sees the
    student's view; the student starts anew.
    Departures: the loss is multiplied by the temperature's square (the paper: not; the code: so);
    of labelled images, where they count, a batch of their own is drawn beside the others, and each
    part of the loss is a mean over its images (the paper: sums over both sets); the teacher has the
    backbone of the row, the student may have another (the paper: up to ResNet-152, three times as
    wide and with selective kernels, teaches ResNet-50); timm's LARS, which divides by
    |g| + wd |w| (the code: by |g + wd w|) and multiplies by the rate outside the momentum (there:
    inside); warm-up is (s + 1) / (W + 1) at step s of W (there: s / W); batches end with an epoch
    (there: they run on into the next); crops are resampled bilinearly with antialiasing (there:
    bicubically without), uniform in area and the logarithm of the aspect (there: in height and the
    aspect); images of test are whole (there: their middle, but of small ones); initial weights are
    timm's and, of the classifier, torch's (there: by fan-in and N(0, 0.01)).
    """

    labels = "budget"
    least = 2
    asks = {"pretext": ("predict",)}
    recipe = Recipe(
        epochs=400,  # paper
        batch=4096,  # paper
        optimizer="lars",  # paper
        lr=1.6,  # 0.1 sqrt(batch), so 6.4; paper
        lr_scaling="sqrt",  # paper
        momentum=0.9,  # code
        weight_decay=1e-4,  # paper
        schedule="cosine",  # paper
        warmup=20,  # 5 % of the epochs; paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        pretext: Pretext = Pretext("simclr-v2-finetune"),  # the teacher; paper
        student: str = "",  # name of the student's backbone, "": as the teacher's; paper
        temperature: Positive = 0.1,  # of both, 1 for a smaller student; paper
        taught: Share = 1.0,  # weight of the teacher's answers, the rest is the labels'; paper
        ratio: Positive = 1.0,  # of the batch to the labelled images beside it; ours
        crop: Share = 0.08,  # smallest area; code
    ):
        super().__init__()
        self.backbone = smaller(backbone, student) if student else backbone
        self.head = nn.Linear(self.backbone.dim, data.classes)
        self.pretext, self.temperature, self.taught = pretext, temperature, taught
        self.ratio, self.teacher = ratio, None
        self.view = crop_flip(data.size, scale=(crop, 1.0))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def fit(self, run):
        # no module of this one: what a pretext has learned is kept in that pretext's cell
        self.teacher = run.pretrain(self.pretext).predict
        given = labelled(run, 1 / self.ratio)
        for epoch in run.epochs(self):
            if self.taught < 1:
                epoch.streams["labelled"] = given

    def step(self, batch):
        with torch.no_grad():
            answer = self.teacher(batch.views).float()  # [B, K]
        x = batch.views
        if self.taught < 1:
            x = torch.cat([x, batch.also["labelled"].views])
        logits, known = self.predict(x).float().split([len(answer), len(x) - len(answer)])
        loss = distilled(logits, answer, self.temperature)
        agreed = (logits.argmax(1) == answer.argmax(1)).float().mean()
        log = {"distilled": loss, "agreed": agreed}
        if self.taught < 1:
            log["labelled"] = F.cross_entropy(known, batch.also["labelled"].label)
            loss = self.taught * loss + (1 - self.taught) * log["labelled"]
        yield Update(loss, log=log, guesses=Guesses(batch.index, answer.softmax(1)))

    def predict(self, x):
        return self.head(self.backbone(x))


def smaller(backbone, name):
    """The backbone of that name; ValueError where it has more parameters than the teacher's."""
    student = backbone.another(name)
    sizes = [sum(p.numel() for p in net.parameters()) for net in (student, backbone)]
    if sizes[0] > sizes[1]:
        raise ValueError(
            f"student={name} has {sizes[0]:,} parameters, its teacher {backbone.name} "
            f"{sizes[1]:,}; a student is as large as its teacher or smaller"
        )
    return student


def distilled(logits, answer, temperature):
    """Cross-entropy of logits [B, K] with a teacher's, both divided by the temperature.

    Times its square: the gradient is (student's share less teacher's) times the temperature.
    """
    with full_precision(logits):
        target = (answer.float() / temperature).softmax(1)
        return temperature**2 * F.cross_entropy(logits.float() / temperature, target)


SimCLRv2DistilImageNet = partial(
    SimCLRv2Distil,
    pretext=Pretext("simclr-v2-finetune-imagenet"),  # paper
)
"""A student learns what SimCLR v2, fine-tuned as on ImageNet, answers on every image."""
