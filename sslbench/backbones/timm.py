"""Any network of timm as a backbone.

`resnet50`, `vit_tiny_patch16_224[patch_size=4]` (constructor arguments in brackets),
`resnet18-small` (the stem for small images: 3x3, stride 1, no max-pool).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..api import Backbone
from ..errors import UnknownName, UserError
from ..names import parse
from ..nn import sincos
from .building import (
    OURS,
    Spec,
    advice,
    build,
    convolutional,
    cut,
    halves,
    has_tokens,
    quiet,
    width,
)
from .published import fill, tag_of

SMALL = "-small"


def create(name: str, *, size: int, **bracket: Any) -> Network:
    """The network of that name for images of `size` pixels, fresh from torch's global generator."""
    architecture = name.removesuffix(SMALL)
    small = architecture != name
    _check_name(name, architecture)
    if small and architecture.partition(".")[0] not in _resnets():
        raise UserError(
            f"{name!r} asks for a stem for small images, which only the ResNets have "
            f"(such as resnet18{SMALL}); {architecture!r} has none"
        )
    for key in bracket:
        if key in OURS:
            raise UserError(f"{name}[{key}=...]: {key} is not for the bracket, the harness sets it")
    return Network(Spec(name, architecture, size, small=small, arguments=bracket))


def known() -> list[str]:
    """Every name that `create` takes, brackets and tags of weights aside."""
    with quiet():
        import timm

        return sorted([*timm.list_models(), *(name + SMALL for name in _resnets())])


class Network(Backbone):
    """A timm network without its classifier.

    Images are normalised with the mean and deviation that timm states for the network's weights,
    whether these are loaded or not. Convolutional networks run channels-last on processors and
    CUDA (on one thread at 32 pixels 1.35 times the speed for test_resnet, 1.1 for resnet18).
    """

    net: Any  # of some class of timm's
    mean: Tensor  # [C, 1, 1]
    std: Tensor  # [C, 1, 1]
    front: Callable[[Tensor], Tensor] | None

    def __init__(self, spec: Spec, front: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.spec, self.name, self.front = spec, str(spec), front
        self.net = build(spec)
        if front is None:  # buffers, for they belong to the weights and travel with them
            for key in ("mean", "std"):
                values = torch.tensor(self.net.pretrained_cfg[key], dtype=torch.float32)
                self.register_buffer(key, values.view(-1, 1, 1))
        self.channels_last = convolutional(self.net)
        if self.channels_last:
            self.net.to(memory_format=torch.channels_last)
        self._multiple, self._fixed = cut(self.net)
        self._check_side(spec.size)
        self.dim = width(spec, self.net)
        if has_tokens(self.net):
            self.patch, self.prefix = self.net.patch_embed.patch_size[0], self.net.num_prefix_tokens
        if spec.level is not None:
            self._shorten(spec.level)

    def forward(self, x: Tensor) -> Tensor:
        if self.spec.level is not None:
            return self.maps(x)[-1].mean((2, 3))
        features: Tensor = self.net(self._fed(x))
        return features

    def maps(self, x: Tensor) -> list[Tensor]:
        if not hasattr(self.net, "forward_intermediates"):
            raise UserError(f"timm gives no feature maps of {self.name}; another backbone does")
        level = self.spec.level
        wanted = {} if level is None else {"indices": [*range(level + 1)], "stop_early": True}
        x = self._fed(x)
        return list(
            self.net.forward_intermediates(x, intermediates_only=True, output_fmt="NCHW", **wanted)
        )

    def upto(self, level: int) -> Network:
        count = len(self.shapes(self.spec.size))
        if not -count <= level < count:
            raise UserError(
                f"{self.name} was to be cut after map {level} and has {count}: 0 to {count - 1}"
            )
        if not hasattr(self.net, "prune_intermediate_layers"):
            raise UserError(f"timm cannot cut {self.name} after one of its maps")
        short = copy.deepcopy(self)
        short.spec = replace(self.spec, level=level % count)
        short._shorten(level % count)
        return short

    def _shorten(self, level: int) -> None:
        self.net.prune_intermediate_layers([level], prune_norm=True, prune_head=True)
        self.patch = self.prefix = 0  # its tokens would pass no last norm
        self.dim = self.shapes(self.spec.size)[-1][0]

    def narrower(self) -> Network:
        half = halves(self.net)
        if half is None:
            raise UserError(
                f"{self.name} has no twin of half its width; ResNets, ConvNeXts and ViTs have one"
            )
        spec = replace(self.spec, arguments={**self.spec.arguments, **half}, level=None)
        return self._beside(Network(spec, copy.deepcopy(self.front)))

    def another(self, name: str) -> Network:
        asked = parse(name)
        if asked.argument is not None:
            raise UserError(f"{name!r} is no name of a network, such as resnet18; it has a colon")
        return self._beside(create(asked.base, size=self.spec.size, **asked.params))

    def tokens(self, x: Tensor, mask: Tensor | None = None, blank: Tensor | None = None) -> Tensor:
        if not self.patch:
            return super().tokens(x)
        patches = self.net.patch_embed(self._fed(x))  # [B, T, D], or [B, H, W, D]
        if mask is not None and blank is not None:
            hidden = mask.view(*patches.shape[:-1], 1)
            patches = torch.where(hidden, blank.to(patches.dtype), patches)
        tokens: Tensor = self.net._pos_embed(patches)
        return tokens

    def attend(self, tokens: Tensor) -> Tensor:
        if not self.patch:
            return super().attend(tokens)
        attended: Tensor = self.net.norm(self.net.blocks(self.net.norm_pre(tokens)))
        return attended

    def pool(self, attended: Tensor) -> Tensor:
        if not self.patch:
            return super().pool(attended)
        features: Tensor = self.net.forward_head(attended)
        return features

    @torch.no_grad()
    def fix_positions(self) -> None:
        table = getattr(self.net, "pos_embed", None)
        grid = getattr(getattr(self.net, "patch_embed", None), "grid_size", None)
        if table is None or grid is None or table.ndim != 3:
            super().fix_positions()  # which says what does
            return
        fixed = sincos(grid, table.shape[2])
        table.zero_()  # tokens before the patches get 0
        table[0, -len(fixed) :] = fixed
        table.requires_grad_(False)

    def _fed(self, x: Tensor) -> Tensor:
        """What the network is fed."""
        self._check_side(x.shape[-1])
        x = self.front(x) if self.front is not None else (x - self.mean).div_(self.std)
        if self.channels_last and x.device.type in ("cpu", "cuda"):
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def _check_side(self, side: int) -> None:
        """A sentence for crops that patches cannot cover, or cut off in silence."""
        if self._fixed and side != self._fixed:
            raise UserError(f"{self.name} takes images of {self._fixed} pixels only; found {side}")
        if side % self._multiple:
            raise UserError(
                f"{self.name} cuts images into patches of {self._multiple} pixels, which {side} "
                f"is not a multiple of{advice(replace(self.spec, size=side))}"
            )

    def anew(self) -> Network:
        return self._beside(Network(self.spec, copy.deepcopy(self.front)))

    def with_input(self, front: Callable[[Tensor], Tensor], channels: int) -> Network:
        return self._beside(Network(replace(self.spec, channels=channels), front))

    def pretrained(self, tag: str) -> Network:
        if self.front is not None or self.spec.small:
            odd = "another stem" if self.spec.small else "another input"
            raise UserError(f"{self.name} has {odd} than the networks whose weights are published")
        tag = tag_of(self.spec.architecture, tag)
        architecture = f"{self.spec.architecture.partition('.')[0]}.{tag}"
        network = Network(replace(self.spec, architecture=architecture))
        fill(network.net, network.spec, tag)
        return self._beside(network)

    def _beside(self, other: Network) -> Network:
        """The other network on this one's device, in this one's mode."""
        return other.to(next(self.net.parameters()).device).train(self.training)


def _check_name(name: str, architecture: str) -> None:
    with quiet():
        import timm

        base, _, tag = architecture.partition(".")
        if ":" in base or "/" in base or not timm.is_model(base):
            raise UnknownName("backbone", name, known(), "any name of timm.list_models() will do")
    if tag:
        tag_of(base, tag)


def _resnets() -> list[str]:
    """Names of the family whose stem can be exchanged."""
    import timm

    found: list[str] = timm.list_models(module="resnet")
    return found
