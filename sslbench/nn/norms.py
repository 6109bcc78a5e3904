"""What batch norms see and record, and a norm in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
BATCH_NORM = nn.modules.batchnorm._BatchNorm


@contextlib.contextmanager
def unrecorded(*networks: nn.Module) -> Iterator[None]:
    """Within it, passes in training mode leave the running statistics of batch norms as they are."""
    every = (m for each in networks for m in each.modules() if isinstance(m, BATCH_NORM))
    with contextlib.ExitStack() as kept:
        for norm in (m for m in every if m.track_running_stats):
            norm.track_running_stats = False
            kept.callback(setattr, norm, "track_running_stats", True)
        yield


@torch.no_grad()
def in_parts(network: nn.Module, x: Tensor, parts: int) -> Tensor:
    """Passes a batch without gradient in so many parts, each with batch statistics of its own.

    On a device equal parts pass as one, where only norms look at them one by one: small passes would
    leave it idle.
    """
    norms = [m for m in network.modules() if isinstance(m, BATCH_NORM)]
    odd = any(m.momentum is None or not m.training for m in norms)
    if x.device.type == "cpu" or len(x) % parts or odd:
        return torch.cat([network(part) for part in x.tensor_split(parts)])
    with contextlib.ExitStack() as patches:
        for norm in norms:
            patches.enter_context(_forward_of(norm, partial(_norm_parts, norm, parts)))
        found: Tensor = network(x)
        return found


@contextlib.contextmanager
def _forward_of(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Lends a module another forward."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def _norm_parts(norm: nn.modules.batchnorm._BatchNorm, parts: int, x: Tensor) -> Tensor:
    """Batch norm in training mode of each of the parts [B / parts, C, ...] of x, without gradient."""
    split = x.float().reshape(parts, -1, *x.shape[1:])  # [P, b, C, ...]
    others = (1, *range(3, split.dim()))
    variance, mean = torch.var_mean(split, others, correction=0, keepdim=True)  # [P, 1, C, ...]
    scale = (variance + norm.eps).rsqrt()
    if norm.affine:
        shape = (-1, *[1] * (x.dim() - 2))
        scale = scale * norm.weight.view(shape)
        shift = norm.bias.view(shape) - mean * scale
    else:
        shift = -mean * scale
    if norm.running_mean is not None and norm.running_var is not None:
        size = x.numel() // (parts * x.shape[1])
        new = norm.momentum
        assert new is not None
        assert norm.num_batches_tracked is not None
        stay = (1 - new) ** torch.arange(parts, device=x.device).flip(0).float()
        share = new * stay  # [P], of each part in the running mean
        unbiased = variance * (size / max(size - 1, 1))
        for running, own in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            running.mul_((1 - new) ** parts).add_(share @ own.reshape(parts, -1))
        norm.num_batches_tracked.add_(parts)
    return torch.addcmul(shift, split, scale).flatten(0, 1).to(x.dtype)


def replace_batch_norms(network: ModuleT) -> ModuleT:
    """The same network with layer norms over channels and positions where batch norms were.

    For losses that must not tell an image of the others in its batch.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BATCH_NORM):
                setattr(parent, name, _layer_norm(child))
    return network


def _layer_norm(norm: Any) -> nn.Module:
    """In place of a batch norm, with its scale and shift and, where it is timm's, its activation."""
    new = nn.GroupNorm(1, norm.num_features, eps=norm.eps, affine=norm.affine)
    if norm.affine:
        new.weight, new.bias = norm.weight, norm.bias
    behind = [getattr(norm, key) for key in ("drop", "act") if hasattr(norm, key)]
    return nn.Sequential(new, *behind) if behind else new
