"""Weights that timm publishes: found by their tag, fetched or cached, held against a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, suggestion
from .building import Spec, construct, quiet


def tag_of(architecture: str, tag: str) -> str:
    """The tag of weights asked for, or else the name's own, or timm's default."""
    with quiet():
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
    with quiet():
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
        weights: dict[str, Tensor] = construct(spec, pretrained=True).state_dict()
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


def fill(net: nn.Module, spec: Spec, tag: str) -> None:
    """Fills the network with the weights of that tag; every tensor must be among them."""
    weights, own = _published(spec, tag), net.state_dict()
    for key, value in own.items():
        if key not in weights or weights[key].shape != value.shape:
            raise _misfit(spec, tag, f"{key} is not among them in its shape")
    net.load_state_dict({key: weights[key] for key in own})


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
