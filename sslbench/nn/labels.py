"""Parts of methods that learn from few labels, and from guesses in place of the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import DataInfo, Run, Stream
from .losses import full_precision


def one_class(data: DataInfo) -> str | None:
    """Why a method that tells classes apart cannot use the data; None where it can."""
    return None if data.classes > 1 else f"it tells classes apart, {data.name} has one"


def labelled(run: Run, share: float | None = None) -> Stream:
    """The stream of images whose labels the method may see, as many a step as the main batch.

    With `share`, that share of the main batch.
    """
    return Stream((run.labels().cpu() >= 0).nonzero()[:, 0], share=share)


def weighed_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of logits [B, K] with classes [B] or shares [B, K], times a weight [B].

    The mean is over all images, also over those whose weight is 0: a few that are sure count little.
    """
    with full_precision(logits):
        each = F.cross_entropy(logits.float(), target, reduction="none")
        return (each * weight).mean()


def aligned(p: Tensor, wanted: Tensor, found: Tensor) -> Tensor:
    """Shares p [B, K] brought from the mix `found` [K] towards `wanted` [K]; each still sums to 1.

    Distribution alignment of arXiv 1911.09785.
    """
    p = p * (1e-6 + wanted) / (1e-6 + found)
    return p / p.sum(1, keepdim=True)


def balanced(p: Tensor, recent: Tensor, steps: Tensor) -> Tensor:
    """Shares p [B, K] over their mean in the last batches, this one among them; each sums to 1.

    Distribution alignment with an even mix, as in arXiv 2011.11183. The mean of p is written to
    `recent` [W, K], to the row whose turn it is after so many steps.
    """
    recent.index_copy_(0, (steps % len(recent)).view(1), p.mean(0, keepdim=True))
    p = p / recent.sum(0).clamp_min(1e-12)
    return p / p.sum(1, keepdim=True)


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


def interleaved(parts: Sequence[Tensor]) -> list[Tensor]:
    """Swaps the i-th slice of the first part [B, ...] with that of the i-th; done twice, nothing is.

    So norms see some of each part in every pass (MixMatch's code).
    """
    slices = [list(part.tensor_split(len(parts))) for part in parts]
    for i in range(1, len(parts)):
        slices[0][i], slices[i][i] = slices[i][i], slices[0][i]
    return [torch.cat(each) for each in slices]
