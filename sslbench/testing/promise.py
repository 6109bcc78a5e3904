"""A promise kept or broken, in a sentence."""

from __future__ import annotations

import random

import numpy as np
import torch


def require(held: bool, sentence: str) -> None:
    if not held:
        raise AssertionError(sentence)


def standing() -> dict[str, int]:
    """Where each global generator stands, as a number to compare."""
    _, key, place, *_ = np.random.get_state(legacy=True)
    return {
        "random": hash(random.getstate()),
        "numpy": hash((np.asarray(key).tobytes(), place)),
        "torch": hash(torch.default_generator.get_state().numpy().tobytes()),
    }
