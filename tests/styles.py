"""A plugin for tests: shapes in two styles, a source that is light on dark and a coloured target."""

from __future__ import annotations

import numpy as np
import torch

from sslbench import Card, Dataset, Images, hookimpl
from sslbench.arrays import Stored, assemble

SSLBENCH_API = (1, 2)
SIDE = 32  # pixels
SIZES = {"train": 150, "test": 60}  # of train a half is of the target, of test all
SHAPES = ("across", "down", "square")


class Styles(Dataset):
    """Bars across, bars down and squares, drawn in two styles."""

    card = Card("Shapes in two styles", 3, 150, 60, "CC0", "nobody", "drawn here")

    def load(self, place) -> Images:
        dice = np.random.default_rng(0)
        parts, domains = {}, {}
        for split, count in SIZES.items():
            kinds = np.arange(count) % len(SHAPES)
            styles = np.arange(count) // len(SHAPES) % 2 if split == "train" else np.ones(count)
            images = np.stack([drawn(*each, dice) for each in zip(kinds, styles, strict=True)])
            parts[split] = (Stored(torch.from_numpy(images), f"styles {split}"), kinds)
            domains[split] = styles
        made = {"version": self.version}
        return assemble(parts, classes=SHAPES, made=made, domains=domains)


def drawn(kind: int, style: int, dice: np.random.Generator) -> np.ndarray:
    """uint8 [3, SIDE, SIDE]"""
    high, wide = ((8, 24), (24, 8), (16, 16))[kind]
    top, left = dice.integers(0, (SIDE - high, SIDE - wide), endpoint=True)
    ground, colour = ((120, 70, 160), (90, 170, 60)) if style else ((20,) * 3, (220,) * 3)
    image = np.empty((3, SIDE, SIDE))
    image[:] = np.array(ground)[:, None, None]
    image[:, top : top + high, left : left + wide] = np.array(colour)[:, None, None]
    return (image + dice.normal(0, 12, image.shape)).clip(0, 255).astype(np.uint8)


@hookimpl
def datasets():
    return {"styles": Styles}
