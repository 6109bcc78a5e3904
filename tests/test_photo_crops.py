"""Crops of photographs: the same on every machine, and nothing of test in train."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslbench.api import Images, Place
from sslbench.data import open_data
from sslbench.datasets import photo_crops as photos
from sslbench.datasets.photo_crops import EACH, PHOTOGRAPHS, Box, PhotoCrops, boxes_of
from sslbench.errors import MissingData
from sslbench.plugins import registry


@pytest.fixture(scope="module")
def images() -> Images:
    return PhotoCrops().load(Place())


def test_there_are_as_many_as_the_card_says(images: Images) -> None:
    for split, count in (
        (images.train, PhotoCrops.card.train),
        (images.test, PhotoCrops.card.test),
    ):
        assert split.images.shape == (count, 3, 32, 32)
        assert (torch.bincount(split.labels) == len(split.images) // 9).all()
    assert images.classes == tuple(PHOTOGRAPHS)
    assert images.notes == ("crops of 9 photographs: for tests and first tries",)


def test_it_is_in_colour() -> None:
    data = open_data("photo-crops[train=90,test=90]", registry(), Place())
    assert not data.pretraining("none").info.grey
    assert data.classes == 9


@pytest.mark.parametrize("size", [(451, 300), (1411, 1411), (640, 427)])
def test_no_pixel_is_in_train_and_test(size: tuple[int, int]) -> None:
    width, height = size
    taken = {split: np.zeros((height, width), bool) for split in EACH}
    for split, each in EACH.items():
        boxes = boxes_of(size, split, "made up")
        assert len(boxes) == each
        assert len(set(boxes)) > each * 0.9
        for left, top, side in boxes:
            assert 0 <= left <= left + side <= width
            assert 0 <= top <= top + side <= height
            assert width // 12 <= side <= width // 3
            taken[split][top : top + side, left : left + side] = True
    assert not (taken["train"] & taken["test"]).any()
    assert (taken["train"] | taken["test"]).mean() > 0.95  # of the photograph


def test_where_crops_lie_stays() -> None:
    """Cells are named after the pixels: if this fails, every stored cell of it becomes stale."""
    assert boxes_of((512, 512), "train", "astronaut")[:2] == [
        Box(69, 8, 94),
        Box(2, 220, 145),
    ]
    assert boxes_of((640, 427), "test", "flower")[0] == Box(461, 101, 64)


def test_a_crop_is_resized_from_its_box_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    photograph, box = Image.fromarray(pixels), Box(11, 7, 20)
    alone = Image.fromarray(pixels[7:27, 11:31]).resize((8, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(photos._cut(photograph, box, 8), np.asarray(alone).transpose(2, 0, 1))
    same = photos._cut(photograph, box, 20)
    assert np.array_equal(same, pixels[7:27, 11:31].transpose(2, 0, 1))


def test_another_size_has_the_same_crops(images: Images) -> None:
    large = PhotoCrops(size=64).load(Place())
    assert large.fingerprint != images.fingerprint
    half = torch.nn.functional.avg_pool2d(large.test.images.float(), 2)
    assert (half - images.test.images).abs().mean() < 4  # of 255


def test_it_says_where_photographs_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    find = photos.find_spec
    monkeypatch.setattr(photos, "find_spec", lambda name: None if name == "skimage" else find(name))
    with pytest.raises(
        MissingData, match=r"photo-crops: scikit-image is not installed, .*`pip install"
    ):
        PhotoCrops().load(Place())


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_damaged_package_is_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    if content is not None:
        (tmp_path / "data" / "astronaut.png").write_bytes(content)
    spec = ModuleSpec("skimage", None)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(photos, "find_spec", lambda name: spec)
    with pytest.raises(MissingData, match=r"astronaut.png could not be read .*scikit-image anew"):
        PhotoCrops().load(Place())


@pytest.mark.slow
def test_neither_package_is_imported() -> None:
    code = (
        "import sys; from sslbench.api import Place; from sslbench.datasets.photo_crops import PhotoCrops;"
        "PhotoCrops(size=8).load(Place()); print(sum(n in sys.modules for n in ('skimage', 'sklearn')))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "0"
