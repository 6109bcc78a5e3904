"""Reads and restores a module's state: parameters, buffers, frozen parameters, modes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer, by its first name.

    A shared one appears once, since safetensors refuses tensors that share memory.
    """
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


def restore(module: nn.Module, tensors: Mapping[str, Tensor], *, what: str) -> None:
    """Copies tensors into a module; ValueError when names or shapes are not the module's."""
    own = tensors_of(module)
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(
            f"{what} does not fit: missing {missing[:3] or 'nothing'}, "
            f"unexpected {unexpected[:3] or 'nothing'}"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise ValueError(
                    f"{what} does not fit: {name} is {tuple(tensor.shape)}, was saved as "
                    f"{tuple(tensors[name].shape)}; make buffers in __init__ in their final shape"
                )
            tensor.copy_(tensors[name])


def frozen(module: nn.Module) -> list[str]:
    """Names of the parameters that take no gradient."""
    return [name for name, p in module.named_parameters() if not p.requires_grad]


def set_frozen(module: nn.Module, names: list[str]) -> None:
    still = set(names)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in still)


def resting(module: nn.Module) -> list[str]:
    """Names of the submodules in eval mode."""
    return [name for name, m in module.named_modules() if not m.training]


def set_resting(module: nn.Module, names: list[str]) -> None:
    still = set(names)
    for name, m in module.named_modules():
        m.training = name not in still
