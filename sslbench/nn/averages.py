"""Averages of networks over their past, and how weights and momenta move in a fit."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
NumberT = TypeVar("NumberT", float, Tensor)


def copy_frozen(module: ModuleT) -> ModuleT:
    """Copies a module; the copy takes no gradient, and its training mode stays as it is."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema(
    target: nn.Module,
    online: nn.Module,
    momentum: float | Tensor,
    *,
    buffers: Literal["copy", "keep"] = "copy",
) -> None:
    """Sets target = momentum * target + (1 - momentum) * online, in place.

    The momentum may be a number on the device, as `warm` gives of steps counted there.
    Buffers, such as the running statistics of norms, are copied: an average that is used in eval
    mode needs them. `buffers="keep"` is for a target that passes batches in training mode, and so
    gathers statistics of its own.
    ValueError where the two differ in what is averaged or copied.
    """
    old, new = _held(target), _held(online)
    if [p.shape for p in old.parameters()] != [p.shape for p in new.parameters()]:
        raise ValueError("ema takes two networks of the same parameters; these differ")
    if buffers == "copy":
        _copy_buffers(old.buffers(), new.buffers())
    elif buffers != "keep":
        raise ValueError(f"ema's buffers are 'copy' or 'keep', got {buffers!r}")
    torch._foreach_mul_(old.parameters(), momentum)
    if isinstance(momentum, Tensor):
        torch._foreach_add_(old.parameters(), torch._foreach_mul(new.parameters(), 1 - momentum))
    else:
        torch._foreach_add_(old.parameters(), new.parameters(), alpha=1 - momentum)


def _copy_buffers(old: list[Tensor], new: list[Tensor]) -> None:
    if [b.shape for b in old] != [b.shape for b in new]:
        raise ValueError(
            'ema copies buffers of the same kind; these differ, so pass buffers="keep"'
        )
    kinds = {b.dtype for b in old}  # lists of one type go to a device as one
    for kind in sorted(kinds, key=str):
        mine = [b for b in old if b.dtype == kind]
        torch._foreach_copy_(mine, [b for a, b in zip(old, new, strict=True) if a.dtype == kind])


class _Held(NamedTuple):
    """Where a network keeps its tensors. To walk through its modules at each step takes long."""

    places: list[tuple[dict[str, Any], str]]  # of parameters
    buffer_places: list[tuple[dict[str, Any], str]]

    def parameters(self) -> list[Tensor]:
        return [held[key] for held, key in self.places]

    def buffers(self) -> list[Tensor]:
        return [held[key] for held, key in self.buffer_places]


_HELD: WeakKeyDictionary[nn.Module, _Held] = WeakKeyDictionary()


def _held(network: nn.Module) -> _Held:
    """Where the network keeps its tensors, found once: its modules must not be exchanged later."""
    if (found := _HELD.get(network)) is None:
        found = _HELD[network] = _Held(
            [*_places(network, "_parameters")], [*_places(network, "_buffers")]
        )
    return found


def _places(network: nn.Module, kind: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The dictionary and the key of each tensor; a shared one counts once, as in `parameters()`."""
    seen = set[int]()
    for module in network.modules():
        held = getattr(module, kind)
        for key, tensor in held.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield held, key


def warm(momentum: float, steps: NumberT) -> NumberT:
    """A momentum for `ema` after so many steps: min(momentum, (1 + steps) / (10 + steps)).

    Of steps counted in a buffer it is a number on the device, for which nothing waits.
    Of a momentum of 0.999, 95 % of the average is still initial weights after 50 steps.
    """
    share = (1 + steps) / (10 + steps)
    return share.clamp(max=momentum) if isinstance(share, Tensor) else min(momentum, share)


def follow(average: nn.Module, online: nn.Module, momentum: float, steps: Tensor) -> None:
    """Moves an average to be judged by a momentum that is warmed up, and counts the step, in place."""
    ema(average, online, warm(momentum, steps))
    steps.add_(1)


def cosine(start: float, end: float, progress: float) -> float:
    """Interpolates from start to end along half a cosine, as `progress` goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def risen(progress: float, rise: float) -> float:
    """The share of its weight that a loss has at this share of the fit, when it is whole at `rise`."""
    return min(1.0, progress / rise) if rise else 1.0
