"""Crops of photographs that come with scikit-image and scikit-learn: in colour, never downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..api import Card, Dataset, Images, Place
from ..arrays import Bytes, Integers, Stored, assemble, draws, gather, side
from ..errors import MissingData
from .pictures import BROKEN, to_rgb

SKIMAGE = ("skimage", "data", "scikit-image")  # module, folder in it, distribution
SKLEARN = ("sklearn", "datasets/images", "scikit-learn")
PHOTOGRAPHS = {  # class -> file
    "astronaut": (*SKIMAGE, "astronaut.png"),
    "cat": (*SKIMAGE, "chelsea.png"),
    "coffee": (*SKIMAGE, "coffee.png"),
    "galaxies": (*SKIMAGE, "hubble_deep_field.jpg"),
    "retina": (*SKIMAGE, "retina.jpg"),
    "rocket": (*SKIMAGE, "rocket.jpg"),
    "tissue": (*SKIMAGE, "ihc.png"),
    "temple": (*SKLEARN, "china.jpg"),
    "flower": (*SKLEARN, "flower.jpg"),
}
EACH = {"train": 400, "test": 100}  # crops of a photograph
BLOCK = 50  # crops made at once


class Box(NamedTuple):
    left: int
    top: int
    side: int


class PhotoCrops(Dataset):
    """Crops of nine photographs: their left two thirds to train on, the right third to test.

    It is for tests and first tries with colour. Photographs are told apart by colour alone, so
    that its scores rank no method.

    size: stored side in pixels.
    """

    card = Card(
        summary="Crops of nine photographs, each a class, for first tries with colour (32 x 32)",
        classes=len(PHOTOGRAPHS),
        train=EACH["train"] * len(PHOTOGRAPHS),
        test=EACH["test"] * len(PHOTOGRAPHS),
        licence="public domain or CC0; temple (danielbuechele) and flower (vultilion): CC BY 2.0",
        citation="S. van der Walt et al.: scikit-image: image processing in Python. PeerJ 2:e453, 2014",
        source="files of the packages scikit-image (NASA's, SpaceX's and others) and scikit-learn",
    )

    def __init__(self, *, size: int = 32) -> None:
        self.size = side(size, "photo-crops")

    def load(self, place: Place) -> Images:
        photographs = {name: _photograph(*where) for name, where in PHOTOGRAPHS.items()}
        return assemble(
            {split: self._split(split, photographs, place) for split in EACH},
            classes=PHOTOGRAPHS,
            made={"version": self.version, "size": self.size, "resized": "bilinear"},
            notes=[f"crops of {len(PHOTOGRAPHS)} photographs: for tests and first tries"],
        )

    def _split(
        self, split: str, photographs: dict[str, Image.Image], place: Place
    ) -> tuple[Stored, Integers]:
        each = EACH[split]
        shape = (each * len(photographs), 3, self.size, self.size)

        def blocks() -> Iterator[Bytes]:
            for name, photograph in photographs.items():
                boxes = boxes_of(photograph.size, split, name)
                for start in range(0, each, BLOCK):
                    some = boxes[start : start + BLOCK]
                    yield np.stack([_cut(photograph, box, self.size) for box in some])

        labels = np.repeat(np.arange(len(photographs)), each)
        return gather(blocks(), shape=shape, scratch=place.scratch), labels


def boxes_of(size: tuple[int, int], split: str, name: str) -> list[Box]:
    """Where the crops of a split lie in a photograph of this width and height.

    Sides go from a twelfth to a third of the width. At every `size` of the crops the same are taken.
    """
    width, height = size
    edge = width * 2 // 3  # train lies left of it
    start, end = (0, edge) if split == "train" else (edge, width)
    least, most = width // 12, min(width // 3, height)
    found = []
    for raw in draws(3 * EACH[split], f"photos {split} {name}").reshape(-1, 3).tolist():
        long = least + raw[0] % (most - least + 1)
        left = start + raw[1] % (end - start - long + 1)
        found.append(Box(left, raw[2] % (height - long + 1), long))
    return found


def _cut(photograph: Image.Image, box: Box, size: int) -> Bytes:
    """The crop as [3, size, size]; no pixel outside of the box has a share in it."""
    left, top, long = box
    crop = photograph.crop((left, top, left + long, top + long))
    resized = crop.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


def _photograph(module: str, folder: str, package: str, file: str) -> Image.Image:
    """Reads a file beside its package, which takes a second to import."""
    spec = find_spec(module)
    homes = list(spec.submodule_search_locations or ()) if spec else []
    if not homes:
        raise MissingData(
            f"photo-crops: {package} is not installed, which {file} comes with; get it with "
            f"`pip install {package}`"
        )
    path = Path(homes[0]) / folder / file
    try:
        with Image.open(path) as picture:
            return to_rgb(picture)
    except BROKEN as error:
        raise MissingData(
            f"photo-crops: {path} could not be read ({error}); install {package} anew"
        ) from error
