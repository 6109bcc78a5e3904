"""SimCLR: contrast within the batch."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, NonNegative, Positive, Recipe, Share
from ..nn import full_precision, mlp
from ..views import Views, contrastive


class SimCLR(Method):
    """Two views of an image attract; all other views in the batch repel.

    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
    arXiv 2002.05709; Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners,
    NeurIPS 2020, arXiv 2006.10029 (v2: a deeper head, of which the first layer is kept).
    Departures: the loss is the mean over all anchors (the code: the sum of both directions, twice
    as much; decay and rate make up for it); weight decay as in the released code (the paper says
    1e-6); LARS is timm's, which divides by |g| + wd |w| (the code: by |g + wd w|) and multiplies by
    the rate outside the momentum (there: inside); warm-up is (s + 1) / (W + 1) at step s of W (the
    code: s / W); batches end with an epoch (there: they run on into the next); crops are resampled
    bilinearly with antialiasing (there: bicubically without), uniform in area and the logarithm of
    the aspect (there: in height and the aspect); brightness is multiplied, as in v2 (v1 adds it),
    contrast moves pixels from the mean luma (there: from each channel's mean), saturation mixes
    with grey (there: in HSV); blur mirrors the border (there: zeros); the backbone normalises
    images (there: they stay in [0, 1]); initial weights are timm's and, in the head, torch's
    (there: by fan-in and, in the head, N(0, 0.01)). Of v2 the pretraining alone; it keeps v1's rate
    and warm-up, 4.8 at a batch of 4096 and 10 epochs (its paper's, unless we are mistaken: 0.1
    sqrt(4096) = 6.4 and 5 % of the epochs).
    """

    least = 2
    version = 3
    recipe = Recipe(
        epochs=100,  # paper
        batch=4096,  # paper
        optimizer="lars",  # paper
        lr=0.3,  # paper
        lr_scaling="linear",  # paper
        momentum=0.9,  # code
        weight_decay=5e-5,  # 1e-4 beside a loss of twice ours, the sum of both directions; code
        schedule="cosine",  # paper
        warmup=10,  # paper
        per={"vectors": {"lr": 2.0}},  # LARS scales all others, these see that loss's factor; code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        temperature: Positive = 0.1,  # paper
        dim: Count = 128,  # paper
        layers: Count = 2,  # of the head; paper
        read: Natural = 0,  # layers of the head that are judged with the backbone; paper
        crop: Share = 0.08,  # smallest area; paper
        jitter: NonNegative = 1.0,  # strength; paper
        blur: Share = 0.5,  # chance; paper
    ):
        super().__init__()
        if read >= layers:
            raise ValueError(
                f"read={read} asks for the output of a head of {layers} layers, which only the "
                f"loss sees; read fewer of its layers"
            )
        self.backbone = backbone
        self.head = mlp(*[backbone.dim] * layers, dim, last_norm=True, last_shift=False)
        self.temperature, self.read = temperature, read
        strengths = tuple(jitter * s for s in (0.8, 0.8, 0.8, 0.2))
        self.view = Views(contrastive(data.size, scale=(crop, 1.0), jitter=strengths, blur=blur), 2)

    def views(self):
        return self.view

    def step(self, batch):
        h = self.backbone(torch.cat(batch.views))  # [2B, D]
        yield nt_xent(self.head(h), self.temperature)

    def embed(self, x):
        return self.head(self.backbone(x))

    def encoder(self):
        kept = self.head[: 3 * self.read]  # linear, norm and ReLU of each layer
        return nn.Sequential(self.backbone, *kept) if self.read else self.backbone


def nt_xent(z, temperature):
    """Normalised temperature-scaled cross-entropy of z [2B, D]; row i and row i + B are a pair."""
    with full_precision(z):
        z = F.normalize(z.float(), dim=1)
        similarity = z @ z.T / temperature  # [2B, 2B]
        similarity.fill_diagonal_(-torch.inf)
        partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return F.cross_entropy(similarity, partner)


SimCLRv2 = partial(
    SimCLR,
    layers=3,  # paper v2
    read=1,  # paper v2
)
"""Two views of an image attract, all others repel; three layers of head, the first one kept (v2)."""

SimCLRImageNet = partial(
    SimCLR,
    epochs=1000,  # paper
)
"""SimCLR as in its paper's best row on ImageNet: 1000 epochs of batches of 4096."""

SimCLRv2ImageNet = partial(
    SimCLRv2,
    epochs=800,  # paper v2
)
"""SimCLR v2 as pretrained on ImageNet: 800 epochs of batches of 4096."""
