"""Frost: blends a part of a picture of ice with the image.

The script's photographs may not be distributed here. Four textures made here, with the photographs'
mean colours and spread, take their place; sets made with them have another name.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import UserError
from .draws import Draws, keys
from .entry import Corruption, Level, Sides
from .linear import smooth

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
COUNT = 5  # pictures that the script draws from: it never draws the last of its six

# mean red, green, blue, and spread of the script's photographs at the size it uses
_LOOKS = (
    ((78, 149, 166), 43),
    ((201, 205, 215), 23),
    ((138, 153, 166), 32),
    ((112, 123, 135), 44),
)


@dataclass(frozen=True)
class Frost:
    """The pictures of ice, uint8 [3, h, w] each. One that appears twice is drawn twice as often."""

    textures: tuple[Tensor, ...]
    source: str  # in words

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the pictures, their shapes and order."""
        digest = hashlib.sha256()
        for texture in self.textures:
            digest.update(f"{list(texture.shape)}".encode())
            digest.update(texture.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check(self, sides: Sides) -> None:
        """Raises UserError where a picture is not larger than the images."""
        for place, texture in enumerate(self.textures):
            high, wide = texture.shape[1:]
            if high <= sides[0] or wide <= sides[1]:
                raise UserError(
                    f"picture {place + 1} of the frost from {self.source} is {high} x {wide} pixels "
                    f"at a fifth of its size, and images are {sides[0]} x {sides[1]}; each side "
                    f"of a photograph needs at least {5 * (max(sides) + 1)} pixels"
                )


# ---- blending ------------------------------------------------------------------------------


def numbers(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    """Draws a picture, and the top and left of the part that is cut out."""
    return (draws.bits(3),)


def frost(images: Tensor, level: Level, bits: Tensor, pictures: Frost) -> Tensor:
    of_image, of_frost = level
    ice = corners(bits, (images.shape[2], images.shape[3]), pictures)
    blend = images.double().mul_(of_image).add_(ice.double().mul_(of_frost))
    return blend.clamp_(0, 255).to(torch.uint8)


def corners(bits: Tensor, sides: Sides, pictures: Frost) -> Tensor:
    """Cuts the parts that `bits` [B, 3] drew out of the pictures: uint8 [B, 3, H, W]."""
    device = bits.device
    flat = torch.cat([texture.flatten(1) for texture in pictures.textures], 1).to(device)
    shapes = torch.tensor([texture.shape[1:] for texture in pictures.textures])
    starts = shapes.prod(1).cumsum(0) - shapes.prod(1)
    which = (bits[:, 0] * len(shapes)) >> 32
    high, wide = shapes.to(device)[which].unbind(1)
    top = (bits[:, 1] * (high - sides[0])) >> 32
    left = (bits[:, 2] * (wide - sides[1])) >> 32
    row = (top[:, None] + torch.arange(sides[0], device=device)) * wide[:, None]
    column = left[:, None] + torch.arange(sides[1], device=device)
    first = starts.to(device)[which][:, None, None]
    place = first + row[:, :, None] + column[:, None]  # [B, H, W]
    return torch.stack([channel.take(place) for channel in flat], 1)


# ---- photographs ---------------------------------------------------------------------------


def frost_from(folder: Path | str) -> Frost:
    """Reads the first five photographs of a folder, by name, at a fifth of their size.

    Raises:
        UserError: there is no photograph, or one cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; frost needs one with photographs of ice")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(
            f"{folder} holds no photograph; frost reads files that end in {', '.join(SUFFIXES)}"
        )
    return Frost(tuple(_read(path) for path in files[:COUNT]), str(folder))


def _read(path: Path) -> Tensor:
    """Reads a picture, uint8 [3, h, w], keeping every fifth pixel, as the script's resize does."""
    try:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as fault:
        raise UserError(
            f"{path} cannot be read as a picture: {fault}; mend or remove it"
        ) from fault
    rows, columns = (
        (5 * np.arange(round(side / 5)) + 2).clip(0, side - 1) for side in pixels.shape[:2]
    )
    return torch.from_numpy(pixels[rows][:, columns].transpose(2, 0, 1).copy())


# ---- procedural textures -------------------------------------------------------------------


def procedural(sides: Sides) -> Frost:
    """Makes four textures that are large enough; the second is drawn twice as often."""
    return _procedural(max(192, 2 * max(sides)))


@lru_cache(maxsize=4)
def _procedural(side: int) -> Frost:
    first, second, *others = (_texture(place, side) for place in range(len(_LOOKS)))
    return Frost((first, second, second, *others), "procedural textures")


def _texture(place: int, side: int) -> Tensor:
    """Makes one texture from clouds of ice, ridges and crystals."""
    draws = Draws(keys(torch.tensor([place]), seed=0, name="frost textures", severity=0))
    clouds, ridges = torch.zeros(2, side, side, dtype=torch.float64)
    for cells in (4, 8, 16, 32, 64):
        swell, fold = _hills(draws, cells, side), _hills(draws, cells, side)
        clouds += swell * (4 / cells) ** 0.8
        ridges += (1 - fold.abs()) * (4 / cells) ** 0.5
    ice = _standard(clouds) + 0.7 * _standard(ridges) + _standard(_crystals(draws, side))
    means, spread = _LOOKS[place]
    return torch.stack([_levels(ice, mean, spread) for mean in means])


def _hills(draws: Draws, cells: int, side: int) -> Tensor:
    """Interpolates smoothly between `cells` x `cells` random heights: [side, side]."""
    at = torch.linspace(0, cells - 1, side, dtype=torch.float64)
    near = at.floor().clamp_(max=cells - 2)
    part = at - near
    part = part * part * (3 - 2 * part)
    grid = torch.zeros(side, cells, dtype=torch.float64)
    grid.scatter_(1, near.long()[:, None], (1 - part)[:, None])
    grid.scatter_(1, near.long()[:, None] + 1, part[:, None])
    return grid @ draws.normal(cells, cells)[0] @ grid.T


def _crystals(draws: Draws, side: int, count: int = 70) -> Tensor:
    """Draws soft stars of six arms, with side arms at 60 degrees: [side, side]."""
    x, y, turn, size = draws.uniform(4, count)[0].numpy()
    size = side * (0.03 + 0.12 * size**2)
    arms = turn[:, None] * (math.pi / 3) + np.arange(6) * (math.pi / 3)  # [count, 6]
    along = np.linspace(0, 1, 25)
    points = [_line(x * side, y * side, size, arms, along)]
    for share in np.linspace(0.2, 0.85, 6):
        foot_x, foot_y = _line(x * side, y * side, size, arms, np.array([share]))
        for bend in (-math.pi / 3, math.pi / 3):
            length = np.repeat(size * (1 - share) * 0.6, 6)
            points.append(_line(foot_x, foot_y, length, arms.reshape(-1, 1) + bend, along))
    columns, rows = np.concatenate(points, 1).round().astype(np.int64) % side
    drawn = np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)
    return smooth(torch.from_numpy(drawn.clip(0, 3).astype(float)), 0.7)


def _line(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    length: NDArray[np.float64],
    angle: NDArray[np.float64],
    along: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Points [2, n x k x points] on lines from (x, y) [n] at angles [n, k]."""
    far = length[:, None, None] * along
    across = x[:, None, None] + far * np.cos(angle)[..., None]
    return np.stack([across.ravel(), (y[:, None, None] + far * np.sin(angle)[..., None]).ravel()])


def _standard(field: Tensor) -> Tensor:
    return (field - field.mean()) / field.std()


def _levels(ice: Tensor, mean: float, spread: float) -> Tensor:
    """Converts to bytes of this mean and spread, correcting for those cut off at black and white."""
    levels = _standard(ice) * spread + mean
    for _ in range(8):
        cut = levels.clamp(0, 255)
        levels = (levels - cut.mean()) * (spread / cut.std()) + mean
    return levels.clamp_(0, 255).round_().to(torch.uint8)


FROST = Corruption(((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)), frost, numbers)
