"""DINO: self-distillation from a centred, sharpened teacher that is the student's moving average."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from ..api import Count, Method, Natural, NonNegative, Positive, Recipe, Share
from ..nn import by_size, copy_frozen, cosine, ema
from ..nn.distillation import PrototypeHead, distilled, stepped, without_drop_path
from ..views import MultiCrop, asymmetric, contrastive, small_side


class DINO(Method):
    """A student matches the centred, sharpened output of its moving average, across crops.

    Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021,
    arXiv 2104.14294.
    Departures: drop path is what the backbone's name asks for
    (`vit_small_patch16_224[drop_path_rate=0.1]`, the paper's rate) and acts in the student alone;
    crops are resampled bilinearly (the code: bicubically); the Gaussian of blur is cut to a tenth
    of the side and mirrors the border (the code: PIL's three boxes, not cut, which repeat it), and
    below 20 pixels nothing is blurred; a view's steps stay in floats (there: rounded to 8 bits);
    warm-up is (s + 1) / (W + 1) at step s of W (the code: s / (W - 1)); ViTs are timm's: images are
    normalised as timm states, for ViT-S/16 by 0.5 and 0.5 (the code: by ImageNet's mean and
    deviation), the class token starts at deviation 1e-6 (there: 0.02), positions are resampled for
    small crops with antialiasing (there: without, by a tenth of a patch more); the last norm of a
    ResNet's block starts at a scale of 0 (there: 1); the teacher is judged by its pooled features
    (the paper's linear probe of ViT-S: of the last four blocks).
    """

    targets = ("target",)
    recipe = Recipe(
        epochs=100,  # code
        batch=1024,  # paper
        optimizer="adamw",  # paper
        lr=5e-4,  # paper
        lr_scaling="linear",  # paper
        lr_end=5e-4,  # 1e-6 of 2e-3; code
        weight_decay=0.04,  # paper
        weight_decay_end=0.4,  # paper
        warmup=10,  # paper
        clip=3.0,  # code
        clip_each=True,  # code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        prototypes: Count = 65536,  # outputs of the head; paper
        hidden: Count = 2048,  # of the head; paper
        bottleneck: Count = 256,  # of the head; paper
        norm: bool = False,  # batch norm in the head; paper
        unit: bool = True,  # the last layer's rows have length 1 and keep it; code
        temperature: Positive = 0.1,  # the student's; paper
        temperature_target: Positive = 0.04,  # the teacher's; code
        temperature_start: Positive = 0.04,  # the teacher's at first; paper
        temperature_warmup: Natural = 0,  # epochs from there to its own; code
        momentum_target: Share = 0.996,  # rises to 1 along a cosine; paper
        momentum_centre: Share = 0.9,  # code
        freeze: Natural = 1,  # epochs in which the last layer rests; code
        crops: tuple[int, int] = (2, 8),  # large, small; code
        crop: Share = 0.4,  # area that parts large crops from small ones; code
        smallest: Share = 0.05,  # area; code
        small_size: Natural = 0,  # pixels, 0: 3/7 of the image in whole patches; paper, 96 of 224
        jitter: NonNegative = 1.0,  # factor on BYOL's strengths; paper
        blur: Share = 1.0,  # factor on the chances .1 to 1 of the three kinds of crops; code
    ):
        super().__init__()
        if crops[0] < 2:
            raise ValueError(
                f"the teacher sees two large crops or more, crops={crops} has {crops[0]}"
            )
        head = PrototypeHead(backbone.dim, hidden, bottleneck, prototypes, unit=unit, norm=norm)
        self.online = nn.Sequential(backbone, head)
        self.target = without_drop_path(copy_frozen(self.online))
        self.register_buffer("centre", torch.zeros(prototypes))  # [K]
        self.temperature, self.freeze, self.large = temperature, freeze, crops[0]
        self.sharpness = temperature_start, temperature_target, temperature_warmup
        self.momentum, self.momentum_centre = momentum_target, momentum_centre
        patch = getattr(getattr(backbone.net, "patch_embed", None), "patch_size", (1,))[0]
        small_size = small_side(data.size, small_size, patch=patch)
        chances = (blur, 0.1 * blur)
        first, second = asymmetric(
            data.size, scale=(crop, 1.0), jitter=jitter, blur=chances, solarise=(0.0, 0.2)
        ).view
        strengths = tuple(jitter * s for s in (0.4, 0.4, 0.2, 0.1))
        small = contrastive(small_size, scale=(smallest, crop), jitter=strengths, blur=0.5 * blur)
        self.view = MultiCrop(((first, 1), (second, crops[0] - 1), (small, crops[1])))

    def views(self):
        return self.view

    def step(self, batch):
        body, head = self.online
        head.rest(batch.epoch < self.freeze)
        size = len(batch.index)
        with torch.no_grad():
            teacher = self.target(torch.cat(batch.views[: self.large])).float()  # [large * B, K]
        student = head(by_size(body, batch.views)).split(size)  # each [B, K]
        yield distilled(
            teacher.split(size),
            student,
            self.centre,
            sharp=stepped(*self.sharpness, batch.epoch),
            soft=self.temperature,
        )

        # the teacher passes large crops in training, as it will be judged: its statistics are its own
        momentum = cosine(self.momentum, 1.0, batch.progress)
        ema(self.target, self.online, momentum, buffers="keep")
        self.centre.lerp_(teacher.mean(0), 1 - self.momentum_centre)

    def encoder(self):
        return self.target[0]

    def embed(self, x):
        return self.target[1].mlp(self.target[0](x))  # [B, bottleneck]

    def clusters(self, x):
        return self.target(x) - self.centre

    def uniform(self):
        return math.log(len(self.centre))


DINOImageNet = partial(
    DINO,
    epochs=800,  # paper
    temperature_target=0.07,  # paper
    temperature_warmup=30,  # paper
    unit=False,  # code, for ViT-S alone
    crops=(2, 10),  # paper
    crop=0.25,  # code
)
"""A student matches the centred, sharpened output of its moving average (the paper's ViT-S)."""

DINOResNet = partial(
    DINO,
    batch=512,  # code
    optimizer="sgd",  # code
    lr=0.03,  # code
    lr_end=1.7e-5,  # 1e-6 of 0.06; code
    weight_decay=1e-4,  # code
    weight_decay_end=None,  # code
    crop=0.14,  # code
)
"""A student matches the centred, sharpened output of its moving average (the code's ResNet-50)."""
