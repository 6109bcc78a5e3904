"""A plugin for tests: clips of coloured sprites that move over a coloured ground."""

from __future__ import annotations

import numpy as np
import torch

from sslbench import Card, Dataset, Images, hookimpl
from sslbench.arrays import Stored, assemble

SSLBENCH_API = (1, 0)
SIDE = 32  # pixels
FRAMES = 8  # of a clip
CLIPS = {"train": 12, "test": 6}
COLOURS = {"red": (210, 40, 30), "green": (120, 230, 90), "blue": (20, 30, 120)}
GROUND = ((90, 130, 90), (180, 160, 120))  # above, below


class Sprites(Dataset):
    """Three sprites of a colour each, told by their lightness, on ways of their own."""

    card = Card("Coloured sprites", 3, 96, 48, "CC0", "nobody", "drawn here")

    def load(self, place) -> Images:
        dice = np.random.default_rng(0)
        parts, clips = {}, {}
        for split, count in CLIPS.items():
            films = [film(first % len(COLOURS), dice) for first in range(count)]
            images = torch.from_numpy(np.concatenate(films))
            clips[split] = np.repeat(np.arange(count), FRAMES)
            parts[split] = (Stored(images, f"sprites {split}"), clips[split] % len(COLOURS))
        return assemble(parts, classes=COLOURS, made={"version": self.version}, clips=clips)


def film(first: int, dice: np.random.Generator) -> np.ndarray:
    """Frames uint8 [FRAMES, 3, SIDE, SIDE]; the first sprite is the largest."""
    ground = np.array(GROUND, float)[:, :, None, None].repeat(SIDE // 2, 0)[:, :, 0]  # [H, 3, 1]
    frames = np.repeat(ground.transpose(1, 0, 2)[None], FRAMES, 0).repeat(SIDE, 3)
    colours = [*COLOURS.values()]
    for number in (2, 1, 0):
        side = (14, 10, 8)[number]
        start, pace = dice.uniform(0, SIDE - side, 2), dice.uniform(-2, 2, 2)
        for frame in range(FRAMES):
            y, x = np.clip(start + frame * pace, 0, SIDE - side).round().astype(int)
            colour = np.array(colours[(first + number) % len(colours)])
            frames[frame, :, y : y + side, x : x + side] = colour[:, None, None]
    noise = dice.normal(0, 6, (FRAMES, 1, SIDE, SIDE))
    return (frames + noise).clip(0, 255).astype(np.uint8)


@hookimpl
def datasets():
    return {"sprites": Sprites}
