"""Checks of what every backbone promises."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..api import Backbone
from ..errors import UserError
from ..names import parse
from ..plugins import Registry
from ..train.feed import kept_generators, seed_all
from ..train.state import tensors_of
from .promise import require, standing
from .trial import CPU

SIZE = 32  # pixels
CLOSE = 1e-4  # share of the largest feature by which another batch may change one


@dataclass(eq=False)
class BackboneTrial:
    """A backbones entry to be checked, built for images of 32 pixels."""

    registry: Registry
    name: str  # with its bracket

    def made(self, seed: int = 0) -> Backbone:
        asked = parse(self.name)
        create = self.registry.find("backbones", asked.base).load()
        with kept_generators(CPU):
            seed_all(seed, CPU)
            made = create(asked.base, size=SIZE, **asked.params)
        require(isinstance(made, Backbone), f"it made {made!r:.80}, not an api.Backbone")
        backbone: Backbone = made
        return backbone

    @cached_property
    def backbone(self) -> Backbone:
        return self.made().eval()

    def images(self, count: int = 4) -> Tensor:
        return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def builds_alike_from_a_seed(trial: BackboneTrial) -> None:
    """The same seed gives the same weights, another seed gives others, and it seeds nothing."""
    weights = [tensors_of(trial.made(seed)) for seed in (0, 0, 1)]
    same = all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
    require(same, "the same seed gave other weights: draw from torch's global generator alone")
    learned = [k for k, _ in trial.backbone.named_parameters()]
    differ = any(not torch.equal(weights[0][k], weights[2][k]) for k in learned)
    require(differ or not learned, "another seed gave the same weights: it seeds itself")
    stand = []
    for seed in (0, 1):
        with kept_generators(CPU):
            seed_all(seed, CPU)
            asked = parse(trial.name)
            create = trial.registry.find("backbones", asked.base).load()
            create(asked.base, size=SIZE, **asked.params)
            stand.append(standing())
    seeded = [name for name in stand[0] if stand[0][name] == stand[1][name]]
    require(not seeded, f"building it seeds the global generator of {' and '.join(seeded)}")


def has_a_name_and_a_width(trial: BackboneTrial) -> None:
    """It has the `name` asked for, `dim` D and a module `net`; features are finite floats [B, D]."""
    backbone, dim = trial.backbone, trial.backbone.dim
    require(isinstance(backbone.name, str), f"its name is {backbone.name!r}, not text")
    asked = parse(trial.name).base
    said = backbone.name.partition("[")[0]
    require(said == asked, f"its name is {backbone.name!r}, and {asked!r} was asked for")
    require(type(dim) is int and dim > 0, f"its dim is {dim!r}, not a whole number from 1")
    require(isinstance(getattr(backbone, "net", None), nn.Module), "its `net` is not a module")
    for what, x in (("random", trial.images()), ("black", trial.images() * 0)):
        with torch.no_grad():
            features = backbone(x)
        shape = [*features.shape]
        require(shape == [4, dim], f"4 images gave {shape}, where [4, {dim}] is promised")
        require(features.is_floating_point(), f"its features are {features.dtype}")
        require(bool(features.isfinite().all()), f"its features of {what} images are not finite")


def sees_each_image_alone(trial: BackboneTrial) -> None:
    """In eval mode features depend neither on the batch nor on earlier calls; images stay unchanged."""
    backbone, x = trial.backbone, trial.images()
    given, before = x.clone(), {k: v.clone() for k, v in tensors_of(backbone).items()}
    with torch.no_grad():
        together = backbone(x)
        backbone(trial.images(2).flip(3))
        again = backbone(x)
        alone = torch.cat([backbone(image[None]) for image in x])
    require(torch.equal(x, given), "it writes on the images it is given")
    require(torch.equal(together, again), "the same images gave other features the second time")
    gap = float((alone - together).abs().max() / together.abs().max().clamp_min(1))
    require(gap <= CLOSE, f"alone an image has other features than in a batch, by {gap:.1e}")
    changed = [k for k, v in tensors_of(backbone).items() if not torch.equal(v, before[k])]
    require(not changed, f"in eval mode it changed {changed[:3]}")


def normalises_inside(trial: BackboneTrial) -> None:
    """It normalises its input: its first layer with weights does not get RGB in [0, 1]."""
    x, seen = trial.images(), list[tuple[nn.Module, Tensor]]()
    hooks = []
    for module in trial.backbone.net.modules():
        weighs = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        if weighs or "Norm" in type(module).__name__:
            hook = module.register_forward_pre_hook(lambda m, given: seen.append((m, given[0])))
            hooks.append(hook)
    try:
        with torch.no_grad():
            trial.backbone(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen or "Norm" in type(seen[0][0]).__name__:
        return
    fed = seen[0][1].float()
    centred = fed.shape[:2] != x.shape[:2] or float(fed.min()) < 0 or float(fed.max()) > 1
    require(centred, "its first layer is fed RGB in [0, 1] as it came: normalise in `forward`")


def gradient_reaches_all(trial: BackboneTrial) -> None:
    """In training mode every parameter, and the images, get a finite gradient."""
    backbone = trial.made().train()
    x = trial.images().requires_grad_()
    with kept_generators(CPU):
        backbone(x).square().sum().backward()
    lacking = [k for k, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    require(not lacking, f"no gradient reaches {lacking[:3]}")
    require(x.grad is not None, "no gradient reaches the images")
    found = [x.grad, *(p.grad for p in backbone.parameters())]
    require(
        all(bool(g.isfinite().all()) for g in found if g is not None), "a gradient is not finite"
    )


def gives_maps_that_shrink(trial: BackboneTrial) -> None:
    """`maps` gives [B, C, H, W], none larger than the one before, or raises UserError."""
    try:
        with torch.no_grad():
            maps = trial.backbone.maps(trial.images())
    except UserError:
        return
    sound = isinstance(maps, list) and all(isinstance(m, Tensor) and m.ndim == 4 for m in maps)
    require(sound and bool(maps), "its maps are not a list of tensors [B, C, H, W]")
    require(all(len(m) == 4 for m in maps), "its maps do not have one entry for each image")
    sides = [m.shape[-1] for m in maps]
    require(sides == sorted(sides, reverse=True), f"its maps, shallow to deep, are {sides} wide")


def anew_is_its_like(trial: BackboneTrial) -> None:
    """`anew` makes one of the same shapes, name and mode with other weights, and changes nothing."""
    backbone = trial.backbone
    before = {k: v.clone() for k, v in tensors_of(backbone).items()}
    with kept_generators(CPU):
        seed_all(5, CPU)
        other = backbone.anew()
    require(
        isinstance(other, Backbone) and other is not backbone,
        "`anew` did not make another Backbone",
    )
    _like(other, backbone)
    shapes = {k: v.shape for k, v in tensors_of(other).items()}
    require(shapes == {k: v.shape for k, v in before.items()}, "`anew` has tensors of other shapes")
    ours = {p.data_ptr() for p in backbone.parameters()}
    shared = [k for k, p in other.named_parameters() if p.data_ptr() in ours and p.numel()]
    require(not shared, f"`anew` shares {shared[:3]} with the one it was made of")
    learned = [k for k, _ in backbone.named_parameters()]
    differ = any(not torch.equal(before[k], tensors_of(other)[k]) for k in learned)
    require(differ or not learned, "`anew` has the same weights")
    _unchanged(backbone, before, "`anew`")


def takes_another_input(trial: BackboneTrial) -> None:
    """`with_input` makes one that uses the given front, as does its `anew`, and gives [B, D]."""
    backbone, fed = trial.backbone, list[Tensor]()
    before = {k: v.clone() for k, v in tensors_of(backbone).items()}

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            fed.append(x)
            return x[:, :2] * 2 - 1

    with kept_generators(CPU), torch.no_grad():
        other = backbone.with_input(Two(), 2)
        _like(other, backbone)
        for made in (other, other.anew(), copy.deepcopy(other)):
            fed.clear()
            shape = [*made(trial.images()).shape]
            require(bool(fed), "`with_input` does not call the front that it is given")
            raw = all(torch.equal(x, trial.images()) for x in fed)
            require(raw, "`with_input` feeds its front something else than RGB in [0, 1]")
            require(shape == [4, backbone.dim], f"with another input 4 images gave {shape}")
    _unchanged(backbone, before, "`with_input`")


def _like(other: Any, backbone: Backbone) -> None:
    for what in ("name", "dim", "training"):
        one, two = getattr(other, what, None), getattr(backbone, what)
        require(one == two, f"the other one's {what} is {one!r}, and its own {two!r}")


def _unchanged(backbone: Backbone, before: dict[str, Tensor], what: str) -> None:
    moved = [k for k, v in tensors_of(backbone).items() if not torch.equal(v, before[k])]
    require(not moved, f"{what} changed {moved[:3]} of the one it was called on")


def survives_copy_and_state(trial: BackboneTrial) -> None:
    """A deep copy, and another one that loads its state, have the same features."""
    backbone, other = trial.backbone, trial.made(7).eval()
    other.load_state_dict({k: v.contiguous() for k, v in backbone.state_dict().items()})
    with torch.no_grad():
        expected = backbone(trial.images())
        for what, made in _twins(backbone, other):
            same = torch.allclose(made(trial.images()), expected, rtol=1e-5, atol=1e-6)
            require(same, f"{what} has other features: keep what matters in tensors it registers")


def _twins(backbone: Backbone, other: Backbone) -> Iterator[tuple[str, Backbone]]:
    yield "its deep copy", copy.deepcopy(backbone)
    yield "one that was given its state", other


BACKBONE_CHECKS = (
    builds_alike_from_a_seed,
    has_a_name_and_a_width,
    sees_each_image_alone,
    normalises_inside,
    gradient_reaches_all,
    gives_maps_that_shrink,
    anew_is_its_like,
    takes_another_input,
    survives_copy_and_state,
)
