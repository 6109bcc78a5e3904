"""Random numbers that belong to an image: nothing but its key and a counter decides them.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) in int64: products wrap around, shifts are masked,
so every device gives the same words. A generator with a state would depend on the batch.
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
    """[B] int64: one key for each image of a cell, by its position in the split."""
    cell = hashlib.sha256(f"{seed}/{name}/{severity}".encode()).digest()
    start = int.from_bytes(cell[:8], "little", signed=True)
    # mixed here and again in `Draws`: neighbours must not be neighbours in each other's stream
    return _mix(index.long() * _GAMMA + start)


class Draws:
    """The streams of a batch, read from the front; every call goes on where the last ended."""

    def __init__(self, keys: Tensor) -> None:
        self.keys, self._read = keys, 0

    def bits(self, *shape: int) -> Tensor:
        """[B, *shape] of whole numbers below 2^32."""
        first, second = self._halves(math.prod(shape))
        return self._joined(first, second, shape)

    def uniform(self, *shape: int) -> Tensor:
        """[B, *shape] between 0 and 1, neither included; float64."""
        return _share(self.bits(*shape))

    def normal(self, *shape: int) -> Tensor:
        """[B, *shape] with mean 0 and variance 1, by Box and Muller; float64."""
        first, second = self._halves(math.prod(shape))
        radius = _share(first).log_().mul_(-2).sqrt_()
        angle = _share(second).mul_(2 * math.pi)
        across = radius * angle.cos()
        return self._joined(across, radius.mul_(angle.sin_()), shape)

    def _halves(self, count: int) -> tuple[Tensor, Tensor]:
        """Upper and lower halves of as many words as `count` numbers need."""
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
    """Shifted right, zeros moving in; on signed words torch moves the sign in."""
    return (word >> by).bitwise_and_(2 ** (64 - by) - 1)
