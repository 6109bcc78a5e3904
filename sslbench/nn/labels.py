"""Parts of methods that learn from few labels, and from guesses in place of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from .losses import full_precision


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """Shares p [B, K] to the power of 1 / temperature, which again sum to 1."""
    p = p ** (1 / temperature)
    return p / p.sum(1, keepdim=True)


def mixup(x: Tensor, target: Tensor, alpha: float, *, each: bool = False) -> tuple[Tensor, Tensor]:
    """Mixes images and targets [B, ...] with those of another image of the batch.

    One's own share is at least a half, of a draw from Beta(alpha, alpha) (arXiv 1905.02249): one for
    all, or with `each` one for each.
    """
    beta = torch.distributions.Beta(alpha, alpha)
    drawn = beta.sample((len(x),) if each else ()).double()
    share = torch.maximum(drawn, 1 - drawn)
    other = torch.randperm(len(x), device=x.device)

    def mixed(of: Tensor) -> Tensor:
        shape = (-1, *[1] * (of.dim() - 1))
        own, rest = (s.view(shape).to(of, non_blocking=True) for s in (share, 1 - share))
        return own * of + rest * of[other]

    return mixed(x), mixed(target)


def semi_supervised(logits: Tensor, target: Tensor, known: Tensor, weight: float) -> Tensor:
    """MixMatch's loss of logits [B, K] (arXiv 1905.02249).

    Cross-entropy with targets [B, K] where known [B], and `weight` times the squared error of
    probabilities, a mean over classes, elsewhere. Each is 0 where there are no such images.
    """
    with full_precision(logits):
        logs, known = logits.float().log_softmax(1), known.float()  # [B, K], [B]
        entropy = -(target * logs).sum(1) * known
        error = (logs.exp() - target).square().mean(1) * (1 - known)
        count = known.sum()
        rest = (len(logits) - count).clamp_min(1)
        return entropy.sum() / count.clamp_min(1) + weight * (error.sum() / rest)
