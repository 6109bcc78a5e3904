"""Parts of losses: precision, unit length, codes that spread evenly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """Turns autocast off within a block; tensors used there should be float32."""
    return torch.autocast(x.device.type, enabled=False)


def normalised(x: Tensor) -> Tensor:
    """Scales rows [B, D] to unit length, in float32 whatever the precision of x."""
    return F.normalize(x.float(), dim=-1)


@torch.no_grad()
def sinkhorn(scores: Tensor, *, eps: float = 0.05, iterations: int = 3) -> Tensor:
    """Turns scores [B, K] into float32 codes [B, K] that spread images evenly over K prototypes.

    Starting from exp(scores / eps), each iteration scales prototypes to equal mass, then images to
    mass 1 (arXiv 2006.09882, appendix). Rows sum to 1 up to float32 rounding.
    """
    if scores.ndim != 2 or iterations < 1:
        found = f"{list(scores.shape)} and {iterations}"
        raise ValueError(f"sinkhorn takes [B, K] scores and one iteration or more; found {found}")
    logits = scores.float() / eps  # [B, K]
    # The first round is taken on logarithms, so that nothing under- or overflows however far
    # scores lie apart. After it every row and column has an entry of at least 1 / (B K).
    codes = torch.softmax(logits - torch.logsumexp(logits, dim=0), dim=1)  # [B, K]
    for _ in range(iterations - 1):
        codes /= codes.sum(dim=0)
        codes /= codes.sum(dim=1, keepdim=True)
    return codes
