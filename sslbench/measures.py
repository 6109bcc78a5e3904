"""Measures of a network that both training and evaluators take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ULP = 2.0**-23  # of a column's largest magnitude: a deviation below it is float32's own
_ORDINARY = 20  # exponents of 2 between which float32 has room for squares and sums


def rankme(x: Tensor) -> float:
    """RankMe of x [N, D]: exp of the entropy of its singular values (arXiv 2210.02885).

    It lies between 1 and min(N, D).
    """
    x = x.double()
    gram = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(1e-300) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def power(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """By what to multiply rows (`dim` 1) or columns (0) of x so that squares and sums of it hold.

    1 where the largest magnitude lies between 2^-21 and 2^20, and else the power of two that
    brings it to about 1: nothing is rounded, so that features of an ordinary scale stay what they
    are to the bit, and those of an extreme one score what they would score there.
    """
    least, most = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    return power_of(torch.maximum(-least, most))


def power_of(largest: Tensor) -> Tensor:
    """The same, of the largest magnitudes."""
    home = largest.cpu() if largest.device.type == "mps" else largest  # Metal has no frexp
    exponent = torch.frexp(home).exponent
    exponent = torch.where(exponent.abs() > _ORDINARY, -exponent.clamp(-126, 126), 0)
    # 2 to the exponent, exactly and on every device: a float32 of these bits
    return (exponent.int() + 127).bitwise_left_shift(23).view(torch.float32).to(largest)


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """Rows of x at length 1, of whatever scale; a row of zeros stays one."""
    return F.normalize(x * power(x, dim), dim=dim)


def flops(network: nn.Module, images: Tensor) -> int:
    """FLOPs of a forward pass over images [B, 3, H, W], as torch counts them.

    It counts convolutions, matrix products and attention, a multiply-add as 2, and the same attention
    on every device. Norms, activations and pooling count as 0.
    """
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    # torch has formulas for the fused attention of GPUs, and none for that of CPUs
    formulas = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.no_grad(), _whole_layers_apart(), counter:
        network(images)
    return int(counter.get_total_flops())


@contextmanager
def _whole_layers_apart() -> Iterator[None]:
    """Keeps nn.MultiheadAttention from its one kernel of eval mode, which would count as 0."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
