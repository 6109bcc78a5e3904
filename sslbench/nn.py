"""Building blocks that three or more methods share."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def mlp(
    *dims: int,
    norm: bool = True,
    last_norm: bool = False,
    last_affine: bool = True,
    last_shift: bool = True,
    last_bias: bool = True,
) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them.

    `norm` puts batch norm before each ReLU. `last_norm` puts one after the last layer, with scale
    and shift unless `last_affine` is off; with `last_shift` off its shift stays 0. A layer before a
    norm has no bias: the norm shifts.
    """
    if len(dims) < 2:
        raise ValueError(f"an MLP has at least two widths, in and out; found {dims}")
    layers: list[nn.Module] = []
    for i, (wide, out) in enumerate(pairwise(dims), start=2):
        last = i == len(dims)
        normed = last_norm if last else norm
        layers.append(nn.Linear(wide, out, bias=not normed and (last_bias or not last)))
        if normed:
            layers.append(nn.BatchNorm1d(out, affine=last_affine or not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    if last_norm and last_affine and not last_shift:
        layers[-1].bias.requires_grad_(False)
    return nn.Sequential(*layers)


def cosine(start: float, end: float, progress: float) -> float:
    """Interpolates from start to end along half a cosine, as `progress` goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def copy_frozen(module: ModuleT) -> ModuleT:
    """Copies a module; the copy takes no gradient, and its training mode stays as it is."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema(
    target: nn.Module,
    online: nn.Module,
    momentum: float,
    *,
    buffers: Literal["copy", "keep"] = "copy",
) -> None:
    """Sets target = momentum * target + (1 - momentum) * online, in place.

    Buffers, such as the running statistics of norms, are copied: an average that is used in eval
    mode needs them. `buffers="keep"` is for a target that passes batches in training mode, and so
    gathers statistics of its own.
    ValueError where the two differ in what is averaged or copied.
    """
    old: list[Tensor] = list(target.parameters())
    new: list[Tensor] = list(online.parameters())
    if [p.shape for p in old] != [p.shape for p in new]:
        raise ValueError("ema takes two networks of the same parameters; these differ")
    if buffers == "copy":
        _copy_buffers(target, online)
    elif buffers != "keep":
        raise ValueError(f"ema's buffers are 'copy' or 'keep', got {buffers!r}")
    torch._foreach_mul_(old, momentum)
    torch._foreach_add_(old, new, alpha=1 - momentum)


def _copy_buffers(target: nn.Module, online: nn.Module) -> None:
    old, new = list(target.buffers()), list(online.buffers())
    if [b.shape for b in old] != [b.shape for b in new]:
        raise ValueError(
            "ema copies buffers between two networks of the same; these differ, "
            'so pass buffers="keep"'
        )
    for mine, theirs in zip(old, new, strict=True):
        mine.copy_(theirs)


def warm(momentum: float, steps: int) -> float:
    """A momentum for `ema` after so many steps: min(momentum, (1 + steps) / (10 + steps)).

    Of a momentum of 0.999, 95 % of the average is still initial weights after 50 steps.
    """
    return min(momentum, (1 + steps) / (10 + steps))


@torch.no_grad()
def sinkhorn(scores: Tensor, *, eps: float = 0.05, iterations: int = 3) -> Tensor:
    """Turns scores [B, K] into float32 codes [B, K] that spread images evenly over K prototypes.

    Starting from exp(scores / eps), each iteration scales prototypes to equal mass, then images to
    mass 1 (arXiv 2006.09882, appendix). Rows sum to 1 up to float32 rounding.
    """
    if scores.ndim != 2 or iterations < 1:
        raise ValueError(
            f"sinkhorn takes [B, K] scores and one iteration or more; found {list(scores.shape)} "
            f"and {iterations}"
        )
    logits = scores.float() / eps  # [B, K]
    # The first round is taken on logarithms, so that nothing under- or overflows however far
    # scores lie apart. After it every row and column has an entry of at least 1 / (B K).
    codes = torch.softmax(logits - torch.logsumexp(logits, dim=0), dim=1)  # [B, K]
    for _ in range(iterations - 1):
        codes /= codes.sum(dim=0)
        codes /= codes.sum(dim=1, keepdim=True)
    return codes


def normalised(x: Tensor) -> Tensor:
    """Scales rows [B, D] to unit length, in float32 whatever the precision of x."""
    return F.normalize(x.float(), dim=-1)


def full_precision(x: Tensor) -> torch.autocast:
    """Turns autocast off within a block; tensors used there should be float32."""
    return torch.autocast(x.device.type, enabled=False)


def by_size(network: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Applies a network to views [B, 3, H, W], one pass for each size.

    Returns [views * B, ...] with the largest views first.
    """
    sizes = sorted({v.shape[-1] for v in views}, reverse=True)
    return torch.cat([network(torch.cat([v for v in views if v.shape[-1] == s])) for s in sizes])
