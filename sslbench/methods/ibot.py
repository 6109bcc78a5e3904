"""iBOT: DINO's self-distillation, and the same for masked patches."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Natural, NonNegative, Positive, Recipe, Share
from ..nn import by_size, copy_frozen, cosine, ema, taken
from ..nn.distillation import PrototypeHead, distilled, stepped, without_drop_path
from ..views import Blockwise, Masked, MultiCrop, asymmetric, contrastive, small_side


class IBOT(Method):
    """A student that sees some patches masked matches its moving average, in image and in patches.

    Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, ICLR 2022, arXiv 2111.07832.
    Departures: the head is shared as in the paper (the code: by default only the teacher's); what
    stands for the class token is what the backbone pools, the class token itself in most ViTs; drop
    path is what the backbone's name asks for (`vit_small_patch16_224[drop_path_rate=0.1]`, the code's
    rate) and acts in the student alone; masks are drawn for large crops alone, which draws other
    numbers and no other masks; crops are resampled bilinearly (the code: bicubically); the Gaussian
    of blur is cut to a tenth of the side and mirrors the border (the code: PIL's three boxes, not
    cut, which repeat it), and below 20 pixels nothing is blurred; a view's steps stay in floats
    (there: rounded to 8 bits); warm-up is (s + 1) / (W + 1) at step s of W (the code: s / (W - 1));
    ViTs are timm's: images are normalised as timm states, the class token starts at deviation 1e-6
    (there: 0.02), positions are resampled for small crops with antialiasing (there: without, by a
    tenth of a patch more); the teacher is judged by its pooled features (the paper's linear probe of
    ViT-S: of the last four blocks).
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

    @classmethod
    def needs(cls, backbone, data):
        lacking = f"it masks patches by a token of their own, which {backbone.name} has none of; "
        return None if backbone.patch else lacking + "a ViT has, such as vit_tiny_patch16_224"

    def __init__(
        self,
        backbone,
        data,
        *,
        masked: Share = 0.5,  # chance that some of a large crop is; paper
        share: tuple[float, float] = (0.1, 0.5),  # of the patches that is masked then; paper
        prototypes: Count = 8192,  # outputs of the head; paper
        hidden: Count = 2048,  # of the head; paper
        bottleneck: Count = 256,  # of the head; paper
        unit: bool = True,  # the last layer's rows have length 1 and keep it; code
        temperature: Positive = 0.1,  # the student's; paper
        temperature_target: Positive = 0.04,  # the teacher's, of images; code
        temperature_patches: Positive = 0.07,  # the teacher's, of patches; paper
        temperature_start: Positive = 0.04,  # both at first; paper
        temperature_warmup: Natural = 30,  # epochs from there; paper
        momentum_target: Share = 0.996,  # rises to 1 along a cosine; paper
        momentum_centre: Share = 0.9,  # of both centres; code
        freeze: Natural = 1,  # epochs in which the last layer rests; code
        crops: tuple[int, int] = (2, 0),  # large, small; code
        crop: Share = 0.14,  # area that parts large crops from small ones; code
        smallest: Share = 0.05,  # area; code
        jitter: NonNegative = 1.0,  # factor on BYOL's strengths; paper
        blur: Share = 1.0,  # factor on the chances .1 to 1 of the three kinds of crops; code
    ):
        super().__init__()
        grid = (data.size // backbone.patch,) * 2
        self.most = int(share[1] * grid[0] ** 2)  # m, patches
        if crops[0] < 2 or masked == 0 or not 0 <= share[0] <= share[1] <= 1 or self.most < 1:
            raise ValueError(
                f"of two large crops or more a rising share of {grid[0]} x {grid[1]} patches was to "
                f"be masked; crops={crops} has {crops[0]}, share={share} is {self.most} patches at "
                f"most, with a chance of masked={masked}"
            )
        head = PrototypeHead(backbone.dim, hidden, bottleneck, prototypes, unit=unit)
        self.online = nn.Sequential(backbone, head)
        self.target = without_drop_path(copy_frozen(self.online))
        self.blank = nn.Parameter(torch.zeros(1, backbone.dim))  # the mask token
        self.register_buffer("centre", torch.zeros(2, prototypes))  # [2, K], of images, of patches
        self.soft, self.freeze, self.large = temperature, freeze, crops[0]
        self.start, self.ends = temperature_start, (temperature_target, temperature_patches)
        self.warmup, self.chance, self.prefix = temperature_warmup, masked, backbone.prefix
        self.momentum, self.momentum_centre = momentum_target, momentum_centre
        look = {"scale": (crop, 1.0), "jitter": jitter, "blur": (blur, 0.1 * blur)}
        first, second = asymmetric(data.size, **look, solarise=(0.0, 0.2)).view
        side = small_side(data.size, patch=backbone.patch)  # 96 of 224
        strengths = tuple(jitter * s for s in (0.4, 0.4, 0.2, 0.1))
        small = contrastive(side, scale=(smallest, crop), jitter=strengths, blur=0.5 * blur)
        views = MultiCrop(((first, 1), (second, crops[0] - 1), (small, crops[1])))
        self.view = Masked(views, Blockwise(grid, crops[0], share, masked))

    def step(self, batch):
        crops, masks = batch.views  # masks [B, V, T]
        large, masks = torch.cat(crops[: self.large]), masks.transpose(0, 1).flatten(0, 1)
        places = masks.byte().argsort(dim=1, descending=True, stable=True)[:, : self.most]
        masked = masks.gather(1, places)  # [V * B, m], as many of each crop, masked ones first
        body, head = self.online
        head.rest(batch.epoch < self.freeze)
        with torch.no_grad():
            tokens = self.target[0].attend(self.target[0].tokens(large))
            teacher = self.target[1](self.target[0].pool(tokens)).float()  # [V * B, K]
            whole = self.target[1](tokens[:, self.prefix :]).float()  # [V * B, T, K]
        tokens = body.attend(body.tokens(large, masks, self.blank))
        patches = head(taken(tokens[:, self.prefix :], places))  # [V * B, m, K]
        small = crops[self.large :]
        images = torch.cat([body.pool(tokens), *([by_size(body, small)] if small else [])])
        teachers, students = (x.split(len(batch.index)) for x in (teacher, head(images)))
        one, two = (stepped(self.start, end, self.warmup, batch.epoch) for end in self.ends)
        of_images = distilled(teachers, students, self.centre[0], sharp=one, soft=self.soft)
        asked, centre = taken(whole, places), self.centre[1]
        yield of_images + rebuilt(asked, patches, masked, centre, sharp=two, soft=self.soft)

        ema(self.target, self.online, cosine(self.momentum, 1.0, batch.progress), buffers="keep")
        means = torch.stack([teacher.mean(0), whole.mean((0, 1))])
        self.centre.lerp_(means, 1 - self.momentum_centre)

    def encoder(self):
        return self.target[0]

    def embed(self, x):
        return self.target[1].mlp(self.target[0](x))  # [B, bottleneck]

    def clusters(self, x):
        return self.target(x) - self.centre[0]

    def uniform(self):
        return (1 + self.chance) * math.log(self.centre.shape[1])  # patches of no mask cost nothing


def rebuilt(teacher, student, masked, centre, *, sharp, soft):
    """Mean over crops of the mean cross-entropy of masked patches [N, m, K]; of a crop of none, 0."""
    target = F.softmax((teacher.float() - centre) / sharp, dim=-1)
    each = -(target * F.log_softmax(student.float() / soft, dim=-1)).sum(-1) * masked  # [N, m]
    return (each.sum(1) / masked.sum(1).clamp(min=1)).mean()


IBOTImageNet = partial(
    IBOT,
    epochs=800,  # paper
    temperature_target=0.07,  # paper
    unit=False,  # code, for ViT-S alone
    crops=(2, 10),  # paper
    crop=0.25,  # code
)
"""iBOT as its paper trains a ViT-S/16 on ImageNet: 800 epochs, ten small crops."""
