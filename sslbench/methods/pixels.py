"""The image itself as its features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..api import Backbone, Count, DataInfo


class Flat(nn.Module):
    """[B, 3, H, W] -> [B, 3 * s * s], s the side or `largest`."""

    def __init__(self, size: int, largest: int) -> None:
        super().__init__()
        self.side = min(size, largest)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.side:
            x = F.interpolate(x, self.side, mode="area")
        return x.flatten(1)


def pixels(
    backbone: Backbone,
    data: DataInfo,
    *,
    largest: Count = 32,  # pixels a side that are kept; ours, more makes neighbours slow
) -> nn.Module:
    """The flattened image, shrunk to `largest` pixels a side: a strong baseline on small pictures."""
    return Flat(data.size, largest)
