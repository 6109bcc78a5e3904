"""Builds networks of timm, and looks at what they are made of."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, suggestion

# Constructor arguments that the harness sets itself, or that would read files of weights.
OURS = frozenset(
    [
        "cache_dir",
        "checkpoint_path",
        "exportable",
        "features_only",
        "img_size",
        "in_chans",
        "num_classes",
        "out_indices",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_model_args",
        "pretrained_strict",
        "scriptable",
    ]
)


@dataclass(frozen=True)
class Spec:
    """All it takes to build a network again."""

    name: str  # as asked for
    architecture: str  # timm's name, with the tag of its weights where one is given
    size: int  # pixels
    small: bool
    arguments: Mapping[str, Any]
    channels: int = 3
    level: int | None = None  # of its maps, after which it is cut

    def __str__(self) -> str:
        inside = ",".join(f"{key}={value}" for key, value in sorted(self.arguments.items()))
        return f"{self.name}[{inside}]" if inside else self.name


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what timm and its hub say on the side."""
    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def build(spec: Spec) -> Any:
    """The network without classifier, its first layers exchanged where the name says so."""
    net = construct(spec, num_classes=0)
    if spec.small:
        width = net.feature_info[0]["num_chs"]
        stem = nn.Conv2d(spec.channels, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        net.conv1, net.maxpool = stem, nn.Identity()
    return net


def construct(spec: Spec, **ours: Any) -> Any:
    """timm's network, told the image size in whichever way its constructor understands."""
    offered: dict[str, Any] = {"dynamic_img_size": True, "img_size": spec.size}
    if spec.channels != 3:
        ours["in_chans"] = spec.channels
    generator = torch.get_rng_state()
    with quiet():
        import timm

        while True:
            arguments = offered | ours | dict(spec.arguments)
            try:
                return timm.create_model(spec.architecture, **arguments)
            except TypeError as error:
                refused = _unexpected(error) & offered.keys() - spec.arguments.keys()
                if not refused:
                    raise not_built(spec, error) from error
                offered = {key: value for key, value in offered.items() if key not in refused}
                torch.set_rng_state(generator)  # the attempt may have drawn from it
            except Exception as error:
                if "pretrained" in ours:
                    raise
                raise not_built(spec, error) from error


def _unexpected(error: Exception) -> set[str]:
    """Names of the arguments that a constructor did not expect."""
    _, found, names = str(error).partition("unexpected keyword argument")
    return set(re.findall(r"'(\w+)'", names)) if found else set()


def not_built(spec: Spec, error: Exception) -> UserError:
    """Why there is no such network: a wrong argument, or too small an image for it."""
    wrong = sorted(_unexpected(error) & spec.arguments.keys())
    if wrong:
        takes = _parameters(replace(spec, arguments={}))
        return UserError(f"{spec}: {spec.name} takes no {wrong[0]!r}{suggestion(wrong[0], takes)}")
    said = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
    return UserError(f"{spec} cannot be built for {spec.size} pixels ({said}){advice(spec)}")


def _parameters(spec: Spec) -> set[str]:
    """What the constructor of this network takes."""
    return set(inspect.signature(type(construct(spec)).__init__).parameters) - OURS - {"self"}


def width(spec: Spec, net: Any) -> int:
    """D, by a look at what comes out; fails where images of this size are too small to go in."""
    blank = torch.zeros(1, spec.channels, spec.size, spec.size)
    net.eval()
    try:
        with torch.no_grad():
            out = net(blank)
    except Exception as error:
        raise not_built(spec, error) from error
    net.train()
    if not isinstance(out, Tensor) or out.ndim != 2:
        found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise UserError(f"{spec} gives {found} for one image where a vector is wanted, [1, D]")
    if getattr(getattr(net, "patch_embed", None), "num_patches", 2) < 2:
        raise UserError(
            f"{spec} sees an image of {spec.size} pixels as a single patch{advice(spec)}"
        )
    return out.shape[1]


def advice(spec: Spec) -> str:
    """What would work, where it is the patch that is too large."""
    if "patch" in spec.name or "patch_size" in spec.arguments:
        size = spec.size
        fits = max((p for p in range(1, size // 4 + 1) if size % p == 0), default=1)
        return f"; try {spec.name}[patch_size={fits}]"
    if spec.arguments:
        return "; try other values in the bracket"
    return "; try larger images, or a network made for small ones"


def cut(net: Any) -> tuple[int, int]:
    """What sides of images must be a multiple of, and the one side they must have, or 0."""
    from timm.layers import PatchEmbed

    for patches in (getattr(net, "patch_embed", None), getattr(net, "stem", None)):
        if isinstance(patches, PatchEmbed):
            fixed = patches.img_size[0] if patches.strict_img_size and patches.img_size else 0
            return 1 if patches.dynamic_img_pad else patches.patch_size[0], fixed
    return 1, 0


def has_tokens(net: Any) -> bool:
    """Whether its blocks take any of its tokens: positions are added once, before them."""
    from timm.models.vision_transformer import VisionTransformer

    return type(net) is VisionTransformer and net.pos_embed is not None


def halves(net: Any) -> dict[str, Any] | None:
    """What its constructor is told for half the width; None where that is not known."""
    from timm.models.convnext import ConvNeXt
    from timm.models.resnet import ResNet

    if isinstance(net, ResNet):
        blocks = [getattr(net, f"layer{stage}")[0] for stage in range(1, 5)]
        return {
            "channels": tuple(
                feature["num_chs"] // type(block).expansion // 2
                for feature, block in zip(net.feature_info[1:], blocks, strict=True)
            )
        }
    if isinstance(net, ConvNeXt):
        return {"dims": tuple(feature["num_chs"] // 2 for feature in net.feature_info)}
    if has_tokens(net):
        heads = net.blocks[0].attn.num_heads
        return {"embed_dim": net.embed_dim // 2, "num_heads": heads if heads % 2 else heads // 2}
    return None


def convolutional(net: nn.Module) -> bool:
    """Whether it has convolutions other than those that cut an image into patches."""
    return any(
        module.kernel_size[0] > max(1, module.stride[0])
        for module in net.modules()
        if isinstance(module, nn.Conv2d) and isinstance(module.kernel_size[0], int)
    )
