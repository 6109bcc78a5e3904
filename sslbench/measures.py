"""What is measured alike of a network while it trains and when it is judged."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rankme(x: Tensor) -> float:
    """exp of the entropy of the singular values of x [N, D]: 1 to min(N, D) (arXiv 2210.02885)."""
    x = x.double()
    gram = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(1e-300) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def flops(network: nn.Module, images: Tensor) -> int:
    """Of a forward pass over images [B, 3, H, W], as torch counts them.

    Convolutions, matrix products and attention, a multiplication and its addition as 2; norms,
    activations and pooling as 0.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(images)
    return int(counter.get_total_flops())
