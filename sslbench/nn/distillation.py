"""Parts of a student that learns what its moving average says: DINO, and iBOT after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .losses import normalised

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class PrototypeHead(nn.Module):
    """Three layers with GELU to a unit vector, and its products with K weights of set lengths.

    The head of DINO (arXiv 2104.14294). With `unit` all lengths are 1 and stay.
    """

    def __init__(
        self, dim: int, hidden: int, bottleneck: int, out: int, *, unit: bool, norm: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide in (dim, hidden):
            layers.append(nn.Linear(wide, hidden))
            layers += [nn.BatchNorm1d(hidden)] if norm else []
            layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last = nn.Linear(bottleneck, out, bias=False)  # directions alone
        self.length = nn.Parameter(torch.ones(out, 1), requires_grad=not unit)
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        weight = self.length * F.normalize(self.last.weight, dim=1)  # [K, bottleneck]
        return F.linear(normalised(self.mlp(x)), weight)

    def rest(self, resting: bool) -> None:
        """Lets the last layer rest, or not."""
        self.last.requires_grad_(not resting)
        self.length.requires_grad_(not resting and not self.unit)


def without_drop_path(network: ModuleT) -> ModuleT:
    """The same network, whose paths (timm's DropPath) are never dropped, also in training mode."""
    dropping: list[Any] = [m for m in network.modules() if hasattr(m, "drop_prob")]
    for module in dropping:
        module.drop_prob = 0.0
    return network


def stepped(start: float, end: float, epochs: int, epoch: int) -> float:
    """From start to end in equal steps, over so many epochs; then end."""
    return end if epoch >= epochs else start + (end - start) * epoch / max(epochs - 1, 1)


def distilled(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    centre: Tensor,
    *,
    sharp: float,
    soft: float,
) -> Tensor:
    """Mean cross-entropy of each teacher's crop against every other crop of the student.

    `teacher` and `student` are crops' logits, each [B, K], the same large ones first in both;
    `centre` [K]; `sharp` and `soft` are the temperatures of the two.
    """
    targets = [F.softmax((t.float() - centre) / sharp, dim=1) for t in teacher]
    logs = [F.log_softmax(s.float() / soft, dim=1) for s in student]
    losses = [
        -(target * log).sum(1).mean()
        for i, target in enumerate(targets)
        for v, log in enumerate(logs)
        if v != i
    ]
    return torch.stack(losses).mean()
