"""Draws random numbers for each image, which depend only on its key and a counter.

It is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) in int64: products wrap around and shifts are
masked, so that every device gives the same words. With a generator they would depend on the batch.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_LOW = 2**32 - 1


def keys(index: Tensor, *, seed: int, name: str, severity: int) -> Tensor:
    """Makes a key for each image, by its position in the split: int64 [B]."""
    cell = hashlib.sha256(f"{seed}/{name}/{severity}".encode()).digest()
    start = int.from_bytes(cell[:8], "little", signed=True)
    # mixed here and again in `Draws`, lest the streams of neighbouring images overlap
    return _mix(index.long() * _GAMMA + start)


class Draws:
    """The random streams of a batch; every call goes on where the last one ended."""

    def __init__(self, keys: Tensor) -> None:
        self.keys, self._read = keys, 0

    def bits(self, *shape: int) -> Tensor:
        """Draws whole numbers below 2^32: [B, *shape]."""
        first, second = self._halves(math.prod(shape))
        return self._joined(first, second, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Draws uniform numbers between 0 and 1, both excluded: float64 [B, *shape]."""
        return _share(self.bits(*shape))

    def normal(self, *shape: int) -> Tensor:
        """Draws standard normal numbers by Box and Muller: float64 [B, *shape]."""
        first, second = self._halves(math.prod(shape))
        radius = _share(first).log_().mul_(-2).sqrt_()
        angle = _share(second).mul_(2 * math.pi)
        across = radius * angle.cos()
        return self._joined(across, radius.mul_(angle.sin_()), shape)

    def _halves(self, count: int) -> tuple[Tensor, Tensor]:
        """Draws as many words as `count` numbers need; returns their upper and lower halves."""
        words = (count + 1) // 2
        after = self._read + 1
        self._read += words
        counter = torch.arange(after, after + words, device=self.keys.device) * _GAMMA
        word = _mix(self.keys[:, None] + counter)
        return _shifted(word, 32), word.bitwise_and_(_LOW)

    def _joined(self, first: Tensor, second: Tensor, shape: tuple[int, ...]) -> Tensor:
        joined = torch.cat([first, second], 1)[:, : math.prod(shape)]
        return joined.reshape(len(joined), *shape)


def _share(bits: Tensor) -> Tensor:
    return bits.double().add_(0.5).mul_(2.0**-32)


def _mix(word: Tensor) -> Tensor:
    word = (word ^ _shifted(word, 30)).mul_(_FIRST)
    word = word.bitwise_xor_(_shifted(word, 27)).mul_(_SECOND)
    return word.bitwise_xor_(_shifted(word, 31))


def _shifted(word: Tensor, by: int) -> Tensor:
    """Shifts to the right and fills with zeros, where torch fills signed words with the sign."""
    return (word >> by).bitwise_and_(2 ** (64 - by) - 1)
