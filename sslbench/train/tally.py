"""Adds up losses and what methods log over an epoch, and stops at a loss that is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..api import Guesses, Update

GPU_CHECK = 50  # steps between looks at the loss where looking would wait for the device


class Diverged(ValueError):
    """The loss is not finite."""


class Tally:
    """Sums over the epoch at hand, of one fit. On a GPU values are looked at now and then only."""

    def __init__(self, path: str, device: torch.device) -> None:
        self.path, self.device = path, device
        self.sums: dict[str, list[float]] = {}  # log name -> total, count
        self.not_finite: dict[str, int] = {}  # how many logged values were not, by name
        self.last_finite: float | None = None
        self._pending: list[tuple[int, int, Tensor]] = []  # losses not looked at yet
        self._held: dict[str, list[Tensor]] = {}  # logged values still on the device
        self._shares: dict[str, list[Tensor]] = {}  # sums [2] of weighted values and of weights

    def note(self, update: Update, *, epoch: int, step: int, of: str) -> None:
        """Takes the loss and the log of an update of the class `of`."""
        name = "loss" if update.group == "main" else f"loss.{update.group}"
        loss = update.loss.detach()
        self._pending.append((epoch, step, loss))
        for key, value in {name: loss, **update.log}.items():
            self._held.setdefault(key, []).append(_logged(of, key, value))
        if self.device.type == "cpu" or len(self._pending) >= GPU_CHECK:
            self.look()

    def judge(self, guesses: Guesses, hidden: Tensor | None) -> None:
        """Takes how sure guesses are and, of images whose label is hidden, how many are right.

        They are held until the next look.
        """
        _check(guesses)
        confidence, label = guesses.shares.detach().float().max(1)  # [B]
        one = torch.ones_like(confidence)
        sure = one if guesses.sure is None else guesses.sure.detach().float()
        self._weigh("mask", sure, one)
        self._weigh("confidence", confidence, one)
        if hidden is not None:
            truth = hidden.index_select(0, guesses.index)  # [B]
            right, known = (label == truth).float(), (truth >= 0).float()
            self._weigh("probe.right", right, known)
            self._weigh("probe.right where sure", right, known * sure)

    def _weigh(self, name: str, values: Tensor, weights: Tensor) -> None:
        both = torch.stack([(values * weights).sum(), weights.sum()])
        self._shares.setdefault(name, []).append(both)

    def look(self) -> None:
        """Adds what is still on the device. Diverged on the first loss that is not finite."""
        losses = [loss for _, _, loss in self._pending]
        for (epoch, step, _), value in zip(self._pending, _numbers(losses), strict=True):
            if not math.isfinite(value):
                last = "none before it" if self.last_finite is None else f"{self.last_finite:.6g}"
                raise Diverged(
                    f"the loss is {value} at epoch {epoch}, step {step} of stage {self.path} "
                    f"(last finite loss: {last}); a lower lr or a warm-up may help"
                )
            self.last_finite = value
        self._pending.clear()
        for key, values in self._held.items():
            self._add(key, _numbers(values))
        self._held.clear()
        for key, pairs in self._shares.items():
            for total, weight in torch.stack(pairs).tolist():
                if math.isfinite(total):
                    self._add_to(key, total, weight)
                else:
                    self._count_odd(key, 1)
        self._shares.clear()

    def means(self) -> dict[str, float]:
        """The mean of each name over the epoch so far."""
        return {key: total / count for key, (total, count) in self.sums.items() if count}

    def _add(self, name: str, values: Sequence[float]) -> None:
        """Adds to the mean of an epoch; what is not finite is counted, and left out."""
        finite = [value for value in values if math.isfinite(value)]
        self._add_to(name, math.fsum(finite), len(finite))
        if odd := len(values) - len(finite):
            self._count_odd(name, odd)

    def _count_odd(self, name: str, times: int) -> None:
        self.not_finite[name] = self.not_finite.get(name, 0) + times

    def _add_to(self, name: str, total: float, weight: float) -> None:
        sums = self.sums.setdefault(name, [0.0, 0])
        sums[0] += total
        sums[1] += weight


def _check(guesses: Guesses) -> None:
    index, shares, sure = guesses
    shapes = {"index": index, "shares": shares, "sure": index if sure is None else sure}
    count, whole = len(index), not index.is_floating_point()
    each = shapes["sure"].shape == index.shape == (count,)
    if whole and each and shares.dim() == 2 and len(shares) == count:
        return
    found = ", ".join(f"{name} {list(value.shape)}" for name, value in shapes.items())
    raise TypeError(
        f"the guesses of an update have {found}; they are index int64 [B], shares [B, K], sure [B]"
    )


def _logged(of: str, name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        shown = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"
        raise TypeError(
            f"{of}.step logged {name!r} {shown}; what is logged is a tensor of one number"
        )
    return value.detach().reshape(())


def _numbers(values: Sequence[Tensor]) -> list[float]:
    """Scalars of a device, read at once."""
    found: list[float] = torch.stack([v.float() for v in values]).tolist() if values else []
    return found
