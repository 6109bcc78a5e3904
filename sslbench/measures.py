"""Measures of a network that both training and evaluators take."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rankme(x: Tensor) -> float:
    """RankMe of x [N, D]: exp of the entropy of its singular values (arXiv 2210.02885).

    It lies between 1 and min(N, D).
    """
    x = x.double()
    gram = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(1e-300) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def flops(network: nn.Module, images: Tensor) -> int:
    """FLOPs of a forward pass over images [B, 3, H, W], as torch counts them.

    It counts convolutions, matrix products and attention, a multiply-add as 2. Norms, activations
    and pooling count as 0.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(images)
    return int(counter.get_total_flops())
