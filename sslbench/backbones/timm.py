"""Any network of timm as a backbone.

`resnet50`, `vit_tiny_patch16_224[patch_size=4]` (constructor arguments in brackets),
`resnet18-small` (the stem for small images: 3x3, stride 1, no max-pool).
"""

from __future__ import annotations

import copy
import inspect
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..api import Backbone
from ..errors import UnknownName, UserError, suggestion
from ..names import parse
from ..nn import sincos

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
    with _quiet():
        import timm

        return sorted([*timm.list_models(), *(name + SMALL for name in _resnets())])


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
        self.net = _build(spec)
        if front is None:  # buffers, for they belong to the weights and travel with them
            for key in ("mean", "std"):
                values = torch.tensor(self.net.pretrained_cfg[key], dtype=torch.float32)
                self.register_buffer(key, values.view(-1, 1, 1))
        self.channels_last = _convolutional(self.net)
        if self.channels_last:
            self.net.to(memory_format=torch.channels_last)
        self._multiple, self._fixed = _cut(self.net)
        self._check_side(spec.size)
        self.dim = _width(spec, self.net)
        if _has_tokens(self.net):
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
        halves = _halves(self.net)
        if halves is None:
            raise UserError(
                f"{self.name} has no twin of half its width; ResNets, ConvNeXts and ViTs have one"
            )
        spec = replace(self.spec, arguments={**self.spec.arguments, **halves}, level=None)
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
                f"is not a multiple of{_advice(replace(self.spec, size=side))}"
            )

    def anew(self) -> Network:
        return self._beside(Network(self.spec, copy.deepcopy(self.front)))

    def with_input(self, front: Callable[[Tensor], Tensor], channels: int) -> Network:
        return self._beside(Network(replace(self.spec, channels=channels), front))

    def pretrained(self, tag: str) -> Network:
        if self.front is not None or self.spec.small:
            odd = "another stem" if self.spec.small else "another input"
            raise UserError(f"{self.name} has {odd} than the networks whose weights are published")
        tag = _tag(self.spec.architecture, tag)
        architecture = f"{self.spec.architecture.partition('.')[0]}.{tag}"
        network = Network(replace(self.spec, architecture=architecture))
        _load(network, _published(network.spec, tag), tag)
        return self._beside(network)

    def _beside(self, other: Network) -> Network:
        """The other network on this one's device, in this one's mode."""
        return other.to(next(self.net.parameters()).device).train(self.training)


def _check_name(name: str, architecture: str) -> None:
    with _quiet():
        import timm

        base, _, tag = architecture.partition(".")
        if ":" in base or "/" in base or not timm.is_model(base):
            raise UnknownName("backbone", name, known(), "any name of timm.list_models() will do")
    if tag:
        _tag(base, tag)


def _resnets() -> list[str]:
    """Names of the family whose stem can be exchanged."""
    import timm

    found: list[str] = timm.list_models(module="resnet")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
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


# ---- building ------------------------------------------------------------------------------


def _build(spec: Spec) -> Any:
    """The network without classifier, its first layers exchanged where the name says so."""
    net = _construct(spec, num_classes=0)
    if spec.small:
        width = net.feature_info[0]["num_chs"]
        stem = nn.Conv2d(spec.channels, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        net.conv1, net.maxpool = stem, nn.Identity()
    return net


def _construct(spec: Spec, **ours: Any) -> Any:
    """timm's network, told the image size in whichever way its constructor understands."""
    offered: dict[str, Any] = {"dynamic_img_size": True, "img_size": spec.size}
    if spec.channels != 3:
        ours["in_chans"] = spec.channels
    generator = torch.get_rng_state()
    with _quiet():
        import timm

        while True:
            arguments = offered | ours | dict(spec.arguments)
            try:
                return timm.create_model(spec.architecture, **arguments)
            except TypeError as error:
                refused = _unexpected(error) & offered.keys() - spec.arguments.keys()
                if not refused:
                    raise _not_built(spec, error) from error
                offered = {key: value for key, value in offered.items() if key not in refused}
                torch.set_rng_state(generator)  # the attempt may have drawn from it
            except Exception as error:
                if "pretrained" in ours:
                    raise
                raise _not_built(spec, error) from error


def _unexpected(error: Exception) -> set[str]:
    """Names of the arguments that a constructor did not expect."""
    _, found, names = str(error).partition("unexpected keyword argument")
    return set(re.findall(r"'(\w+)'", names)) if found else set()


def _not_built(spec: Spec, error: Exception) -> UserError:
    """Why there is no such network: a wrong argument, or too small an image for it."""
    wrong = sorted(_unexpected(error) & spec.arguments.keys())
    if wrong:
        takes = _parameters(replace(spec, arguments={}))
        return UserError(f"{spec}: {spec.name} takes no {wrong[0]!r}{suggestion(wrong[0], takes)}")
    said = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
    return UserError(f"{spec} cannot be built for {spec.size} pixels ({said}){_advice(spec)}")


def _parameters(spec: Spec) -> set[str]:
    """What the constructor of this network takes."""
    return set(inspect.signature(type(_construct(spec)).__init__).parameters) - OURS - {"self"}


def _width(spec: Spec, net: Any) -> int:
    """D, by a look at what comes out; fails where images of this size are too small to go in."""
    blank = torch.zeros(1, spec.channels, spec.size, spec.size)
    net.eval()
    try:
        with torch.no_grad():
            out = net(blank)
    except Exception as error:
        raise _not_built(spec, error) from error
    net.train()
    if not isinstance(out, Tensor) or out.ndim != 2:
        found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise UserError(f"{spec} gives {found} for one image where a vector is wanted, [1, D]")
    if getattr(getattr(net, "patch_embed", None), "num_patches", 2) < 2:
        raise UserError(
            f"{spec} sees an image of {spec.size} pixels as a single patch{_advice(spec)}"
        )
    return out.shape[1]


def _advice(spec: Spec) -> str:
    """What would work, where it is the patch that is too large."""
    if "patch" in spec.name or "patch_size" in spec.arguments:
        size = spec.size
        fits = max((p for p in range(1, size // 4 + 1) if size % p == 0), default=1)
        return f"; try {spec.name}[patch_size={fits}]"
    if spec.arguments:
        return "; try other values in the bracket"
    return "; try larger images, or a network made for small ones"


def _cut(net: Any) -> tuple[int, int]:
    """What sides of images must be a multiple of, and the one side they must have, or 0."""
    from timm.layers import PatchEmbed

    for patches in (getattr(net, "patch_embed", None), getattr(net, "stem", None)):
        if isinstance(patches, PatchEmbed):
            fixed = patches.img_size[0] if patches.strict_img_size and patches.img_size else 0
            return 1 if patches.dynamic_img_pad else patches.patch_size[0], fixed
    return 1, 0


def _has_tokens(net: Any) -> bool:
    """Whether its blocks take any of its tokens: positions are added once, before them."""
    from timm.models.vision_transformer import VisionTransformer

    return type(net) is VisionTransformer and net.pos_embed is not None


def _halves(net: Any) -> dict[str, Any] | None:
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
    if _has_tokens(net):
        heads = net.blocks[0].attn.num_heads
        return {"embed_dim": net.embed_dim // 2, "num_heads": heads if heads % 2 else heads // 2}
    return None


def _convolutional(net: nn.Module) -> bool:
    """Whether it has convolutions other than those that cut an image into patches."""
    return any(
        module.kernel_size[0] > max(1, module.stride[0])
        for module in net.modules()
        if isinstance(module, nn.Conv2d) and isinstance(module.kernel_size[0], int)
    )


# ---- published weights ---------------------------------------------------------------------


def _tag(architecture: str, tag: str) -> str:
    """The tag of weights asked for, or else the name's own, or timm's default."""
    with _quiet():
        import timm

        base, _, own = architecture.partition(".")
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{base}.*")]
        default = timm.get_pretrained_cfg(base)
    if not tags:
        raise UserError(f"timm publishes no weights of {base}")
    tag = tag or own or (default.tag if default else "")
    if tag not in tags:
        raise UserError(f"{base} has no weights tagged {tag!r}{suggestion(tag, tags)}")
    return tag


def _published(spec: Spec, tag: str) -> dict[str, Tensor]:
    """The weights of that tag, out of the cache, or fetched into it."""
    with _quiet():
        import timm

        config = timm.get_pretrained_cfg(spec.architecture)
    cached = _cached(config)
    if not cached and _offline():
        raise UserError(
            f"the weights {tag!r} of {spec.name} are not in the local cache; "
            f"--download fetches them"
        )
    try:
        # with its own classifier, so that timm insists on every tensor
        weights: dict[str, Tensor] = _construct(spec, pretrained=True).state_dict()
    except UserError:
        raise
    except RuntimeError as error:  # from load_state_dict
        raise _misfit(spec, tag, str(error).splitlines()[-1].strip()) from error
    except Exception as error:
        if cached:
            raise UserError(
                f"the cached weights {tag!r} of {spec.name} cannot be read ({error})"
            ) from error
        raise UserError(
            f"the weights {tag!r} of {spec.name} are not in the local cache, and could not be "
            f"fetched ({type(error).__name__}); --download fetches them where there is a network"
        ) from error
    return weights


def _load(network: Network, weights: Mapping[str, Tensor], tag: str) -> None:
    """Fills the network with the weights; every tensor must be among them."""
    for key, value in network.net.state_dict().items():
        if key not in weights or weights[key].shape != value.shape:
            raise _misfit(network.spec, tag, f"{key} is not among them in its shape")
    network.net.load_state_dict({key: weights[key] for key in network.net.state_dict()})


def _misfit(spec: Spec, tag: str, why: str) -> UserError:
    return UserError(f"the weights {tag!r} do not fit {spec} ({why}); they fit {spec.name}")


def _offline() -> bool:
    """Whether nothing may be fetched."""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return asked or bool(constants.HF_HUB_OFFLINE)


def _cached(config: Any) -> bool:
    """Whether weights lie on this machine, where timm looks for them."""
    if config.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        names = [config.hf_hub_filename] if config.hf_hub_filename else []
        names = names or ["model.safetensors", "pytorch_model.bin"]
        return any(isinstance(try_to_load_from_cache(config.hf_hub_id, n), str) for n in names)
    if config.url:
        return (Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name).exists()
    return bool(config.file)
