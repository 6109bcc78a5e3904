"""Tools for checks: raise a sentence where a promise is broken, and compare global generators."""

from __future__ import annotations

import random

import numpy as np
import torch


def require(held: bool, sentence: str) -> None:
    if not held:
        raise AssertionError(sentence)


def standing() -> dict[str, int]:
    """The state of each global generator, as a number to compare."""
    _, key, place, *_ = np.random.get_state(legacy=True)
    return {
        "random": hash(random.getstate()),
        "numpy": hash((np.asarray(key).tobytes(), place)),
        "torch": hash(torch.default_generator.get_state().numpy().tobytes()),
    }
