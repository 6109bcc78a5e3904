"""SimCLR v2's second step: a pretext and the first layer of its head learn a budget of labels."""

from __future__ import annotations

import math
from functools import partial

import torch.nn.functional as F
from torch import nn

from ..api import Method, Natural, Positive, Pretext, Recipe, Share
from ..nn import mlp
from ..nn.labels import labelled, one_class
from ..views import crop_flip


class SimCLRv2Finetune(Method):
    """SimCLR v2, of whose head the first layer is kept, is trained on with a few labels.

    Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, NeurIPS 2020,
    arXiv 2006.10029; settings are those for 1 % of ImageNet's labels.
    Departures: an epoch has as many steps as the whole batches of all images, one step drawing a
    batch of labelled ones without repeats in a pass (the paper: 60 epochs of the labelled, which on
    1 % of ImageNet are 0.6 of such epochs); timm's LARS, which multiplies by the rate outside the
    momentum (the code: inside); crops are resampled bilinearly with antialiasing (there: bicubically
    without), uniform in area and the logarithm of the aspect (there: in height and the aspect); the
    pretext and its head are as they stand here, with no selective kernels; images of test are whole
    (there: their middle, but of small ones).
    """

    labels = "budget"
    least = 2
    asks = {"pretext": ()}
    recipe = Recipe(
        epochs=1,  # of all images: 60 of a hundredth of them are less; ours
        batch=1024,  # paper
        optimizer="lars",  # paper
        lr=0.08,  # 0.005 sqrt(batch), so 0.16; paper
        lr_scaling="sqrt",  # paper
        momentum=0.9,  # code
        weight_decay=0.0,  # paper
        schedule="cosine",  # paper
        per={"head.*": {"exempt": True}},  # LARS scales all but the classifier; code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        pretext: Pretext = Pretext("simclr-v2"),  # which is trained on; paper
        read: Natural = 1,  # layers at the end of its encoder that were its head's; paper
        ratio: Positive = 1.0,  # of the batch to the labelled images of a step; paper
        crop: Share = 0.08,  # smallest area; code
    ):
        super().__init__()
        kept = mlp(*[backbone.dim] * (read + 1), last_norm=True) if read else ()
        ends = (nn.ReLU(inplace=True),) if read else ()
        self.backbone = nn.Sequential(backbone, *kept, *ends)
        self.head = nn.Linear(backbone.dim, data.classes)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)  # code
        self.pretext, self.read, self.ratio = pretext, read, ratio
        self.view = crop_flip(data.size, scale=(crop, 1.0))

    @classmethod
    def needs(cls, backbone, data):
        return one_class(data)

    def fit(self, run):
        self.begin(run.pretrain(self.pretext).encoder())
        given = labelled(run, 1 / self.ratio)
        for epoch in run.epochs(self):
            epoch.main = False
            epoch.streams["labelled"] = given

    def begin(self, encoder):
        """Takes over the weights of the pretext's encoder, which ends in `read` layers of a head."""
        encoder = encoder if isinstance(encoder, nn.Sequential) else nn.Sequential(encoder)
        own, found = (
            {key: tensor.shape for key, tensor in net.state_dict().items()}
            for net in (self.backbone, encoder)
        )
        if own != found:
            raise ValueError(
                f"the encoder of {self.pretext} is not a backbone and {self.read} layers of a head, "
                f"as read={self.read} says; set read to the layers that it keeps, 0 for a bare "
                f"backbone"
            )
        self.backbone.load_state_dict(encoder.state_dict())

    def step(self, batch):
        given = batch.also["labelled"]
        logits = self.predict(given.views)  # [B, K]
        yield F.cross_entropy(logits.float(), given.label)

    def uniform(self):
        return math.log(self.head.out_features)

    def predict(self, x):
        return self.head(self.backbone(x))


SimCLRv2FinetuneImageNet = partial(
    SimCLRv2Finetune,
    pretext=Pretext("simclr-v2-imagenet"),  # paper
)
"""SimCLR v2 as pretrained on ImageNet, trained on with a few labels."""
