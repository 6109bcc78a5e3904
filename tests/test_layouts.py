"""Folders of pictures in awkward layouts: what is read, what is left out and said, what is refused."""

from __future__ import annotations

import os
import shutil
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from sslbench.api import Images, Place
from sslbench.cli.app import program
from sslbench.data import open_data
from sslbench.datasets import pictures
from sslbench.datasets.folder import Folder
from sslbench.disk import DiskError
from sslbench.errors import MissingData, UserError
from sslbench.plugins import registry
from sslbench.store import Store

KINDS = ("ants", "bees", "cats")


def picture(path: Path, seed: int, side: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side[1], side[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes, each with four pictures to train and two to test."""
    for seed, (split, each) in enumerate([("train", 4), ("test", 2)]):
        for number, kind in enumerate(KINDS):
            for row in range(each):
                path = tmp_path / "data" / split / kind / f"{row}.png"
                picture(path, 100 * seed + 10 * number + row)
    return tmp_path / "data"


def load(root: Path, **given: object) -> Images:
    return Folder(path=str(root), **given).load(Place())  # type: ignore[arg-type]


def sizes(images: Images) -> tuple[int, int]:
    return len(images.train.images), len(images.test.images)


# ---- links, and what is no picture -----------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "to"),
    [
        ("train/ants/up", ".."),
        ("train/ants/self", "."),
        ("train/ants/top", "../../.."),
        ("train/ants/bees", "../bees"),
        ("train/ants/theirs", "../../test/bees"),
        ("train/ants/all", "../../test"),
    ],
)
def test_a_link_to_a_folder_that_is_met_elsewhere_adds_nothing(
    root: Path, link: str, to: str
) -> None:
    whole = load(root)
    (root / link).symlink_to(to)
    images = load(root)
    assert images.fingerprint == whole.fingerprint
    assert images.notes == ("left out of train/ants: 1 links to folders met elsewhere",)


def test_links_to_folders_elsewhere_are_followed_once(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "train" / "bees", tmp_path / "bees")
    (root / "train" / "bees").symlink_to(tmp_path / "bees")
    picture(tmp_path / "more" / "9.png", 99)
    (tmp_path / "more" / "round").symlink_to(".")
    for name in ("one", "two"):
        (root / "train" / "ants" / name).symlink_to(tmp_path / "more")
    images = load(root)
    assert sizes(images) == (13, 6)
    assert images.train.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 4
    assert images.notes == ("left out of train/ants: 2 links to folders met elsewhere",)


def test_two_splits_that_are_one_folder_are_refused(root: Path) -> None:
    shutil.rmtree(root / "test")
    (root / "test").symlink_to("train")
    with pytest.raises(UserError, match="train and test are one folder"):
        load(root)


def test_what_is_no_picture_is_counted_by_class(root: Path) -> None:
    ants = root / "train" / "ants"
    whole = load(root).fingerprint
    (ants / "gone.png").symlink_to("/nowhere/x.png")
    (ants / "loop.png").symlink_to("loop.png")
    os.mkfifo(ants / "pipe.png")
    for name in ("a.txt", "b.TXT", "Makefile", ".hidden", "Thumbs.db", "desktop.ini", "._0.png"):
        (ants / name).write_bytes(b"x")
    (root / "train" / "__MACOSX").mkdir()
    (root / "train" / "__MACOSX" / "._0.png").write_bytes(b"x")
    (root / "test" / "notes.csv").write_text("x")
    images = load(root)
    assert images.fingerprint == whole
    assert images.notes == (
        "left out of train/ants: 2 .txt, 2 links to nothing, 1 pipes or devices, 1 without a suffix",
        "left out of test: 1 .csv",
    )


def test_a_class_that_is_a_link_to_nothing_is_no_class(root: Path) -> None:
    (root / "train" / "wasps").symlink_to("/nowhere")
    assert load(root).classes == KINDS


def test_a_link_to_a_device_is_not_read(root: Path) -> None:
    (root / "train" / "ants" / "zero.png").symlink_to("/dev/zero")
    assert load(root).notes == ("left out of train/ants: 1 pipes or devices",)


def test_a_class_of_nothing_but_other_files_says_what_they_are(root: Path) -> None:
    for path in (root / "train" / "ants").glob("*.png"):
        path.rename(path.with_suffix(".npy")).write_bytes(b"\x93NUMPY")
    with pytest.raises(MissingData, match=r"train/ants holds no picture \(4 .npy\)"):
        load(root)


@pytest.mark.parametrize("suffix", ["jfif", "avif", "jp2", "tga", "ico", "webp", "pcx", "qoi", ""])
def test_pictures_are_known_by_their_content(root: Path, suffix: str) -> None:
    path = root / "train" / "ants" / "0.png"
    image = Image.open(path)
    image.load()
    path.unlink()
    form = {"jfif": "JPEG", "jp2": "JPEG2000", "": "PNG"}.get(suffix, suffix.upper())
    image.save(path.with_name(f"0.{suffix}" if suffix else "0"), form)
    images = load(root)
    assert sizes(images) == (12, 6)
    assert images.notes == ()


def test_a_programs_text_is_never_read_whatever_its_name(root: Path) -> None:
    path = root / "train" / "ants" / "0.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(out) (w) file\n")
    with pytest.raises(UserError, match=r"0.png is a broken image \(it is in no format that is"):
        load(root)
    path.rename(path.with_suffix(".eps"))
    assert load(root).notes == ("left out of train/ants: 1 .eps",)


def test_a_picture_that_may_not_be_read_is_not_broken(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = os.open

    def refusing(path: object, *rest: int, **more: int) -> int:
        if str(path).endswith("ants/0.png"):
            raise PermissionError(13, "Permission denied")
        return open_(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(DiskError, match=r"cannot read .*ants/0.png: Permission denied"):
        Folder(path=str(root)).load(Place(skip_broken=True))


# ---- pictures of odd sizes -------------------------------------------------------------------


def test_a_line_of_a_million_pixels_is_cropped_first(root: Path) -> None:
    line = np.zeros((1, 1_000_000, 3), np.uint8)
    line[0, 499_000:501_000] = 200
    Image.fromarray(line).save(root / "train" / "ants" / "0.png")
    begun = time.monotonic()
    images = load(root)
    assert time.monotonic() - begun < 10
    assert (images.train.images[0] == 200).all()


@pytest.mark.parametrize("more", [0, 16])
def test_what_is_cropped_first_shows_the_same(tmp_path: Path, more: int) -> None:
    path = tmp_path / "long.png"
    picture(path, 0, (8 * pictures.LONG + more, 8))
    with Image.open(path) as image:
        whole = image.resize((image.width // 2, 4), Image.Resampling.BILINEAR)
    left = round((whole.width - 4) / 2)
    wanted = np.asarray(whole.crop((left, 0, left + 4, 4))).transpose(2, 0, 1)
    assert np.array_equal(pictures.square(path, 4), wanted)


def test_a_first_picture_of_one_pixel_does_not_decide_the_side(root: Path) -> None:
    Image.new("RGB", (1, 1)).save(root / "train" / "ants" / "0.png")
    assert load(root).train.images.shape[-1] == 16


def test_tiny_pictures_alone_keep_their_side(tmp_path: Path) -> None:
    for split in ("train", "test"):
        picture(tmp_path / split / "only" / "0.png", 0, (5, 4))
    assert load(tmp_path).train.images.shape[-1] == 4


def test_a_large_picture_is_good(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # more than twice as many are a bomb
    assert sizes(load(root)) == (12, 6)
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(pictures, "LARGEST", 255)
    with pytest.raises(UserError, match="its 16 x 16 pixels are too many; make it smaller"):
        load(root)


def test_a_tiff_of_twelve_bits_is_as_bright_as_it_says(tmp_path: Path) -> None:
    ramp = np.arange(0, 4096, 256, dtype=np.uint16).repeat(16).reshape(16, 16)  # rows of one value
    packed = bytearray()
    for low, high in ramp.reshape(-1, 2).tolist():
        packed += bytes([low >> 4, (low & 15) << 4 | high >> 8, high & 255])
    tags = [(256, 16), (257, 16), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 16)]
    tags += [(279, len(packed))]
    start = 8 + len(packed)
    content = b"II*\0" + start.to_bytes(4, "little") + packed + len(tags).to_bytes(2, "little")
    for tag, value in tags:
        content += tag.to_bytes(2, "little") + (4).to_bytes(2, "little")
        content += (1).to_bytes(4, "little") + value.to_bytes(4, "little")
    (tmp_path / "x.tif").write_bytes(content + bytes(4))
    rows = pictures.square(tmp_path / "x.tif", 16)[0].mean(1)
    assert np.abs(rows - ramp[:, 0] * (255 / 4095)).max() <= 1


# ---- names of splits and classes -------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("train", "validation"), ("TRAIN", "valid"), ("train", "Val")],
)
def test_splits_go_by_several_names(root: Path, train: str, test: str) -> None:
    whole = load(root).fingerprint
    (root / "train").rename(root / "x")
    (root / "x").rename(root / train)
    (root / "test").rename(root / "y")
    (root / "y").rename(root / test)
    assert load(root).fingerprint == whole


def test_two_spellings_of_a_split_are_refused(root: Path) -> None:
    shutil.copytree(root / "test", root / "Test")
    with pytest.raises(UserError, match="Test and test are both test"):
        load(root)


@pytest.mark.parametrize("state", ["empty", "without labels"])
def test_a_test_without_classes_gives_way_to_a_good_val(root: Path, state: str) -> None:
    whole = load(root)
    shutil.copytree(root / "test", root / "val")
    for path in list((root / "test").rglob("*.png")):
        if state == "empty":
            path.unlink()
        else:
            path.rename(root / "test" / f"{path.parent.name}{path.name}")
    if state != "empty":
        for kind in KINDS:
            (root / "test" / kind).rmdir()
    images = load(root)
    assert images.fingerprint == whole.fingerprint
    assert images.notes == ("test holds no pictures of classes, val is the test split",)


def test_two_spellings_of_a_letter_are_one_class(root: Path) -> None:
    for split, form in (("train", "NFC"), ("test", "NFD")):
        (root / split / "ants").rename(root / split / unicodedata.normalize(form, "Käfer"))
    images = load(root)
    assert unicodedata.normalize("NFC", "Käfer") in images.classes
    (root / "train" / unicodedata.normalize("NFD", "Käfer")).mkdir()
    with pytest.raises(UserError, match="in two spellings of Unicode; join them"):
        load(root)


def test_names_that_are_not_utf8_are_read(root: Path) -> None:
    for split in ("train", "test"):
        os.rename(  # noqa: PTH104 - a Path cannot be of bytes
            os.fsencode(root / split / "ants"), os.fsencode(root / split) + b"/\xe9t\xe9"
        )
    assert sizes(load(root)) == (12, 6)


# ---- folders without a split -----------------------------------------------------------------


@pytest.fixture
def unsplit(root: Path) -> Path:
    """Three classes of six pictures each, and no split."""
    for kind in KINDS:
        for split in ("train", "test"):
            for path in (root / split / kind).iterdir():
                path.rename(root / kind / f"{split}{path.name}") if (
                    root / kind
                ).is_dir() else shutil.move(path, _made(root / kind) / f"{split}{path.name}")
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "test")
    return root


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_folder_without_a_split_is_split_by_request(unsplit: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"\[test=0.2\] takes a fifth of each class for test"):
        load(unsplit)
    images = load(unsplit, test=0.34)
    assert torch.bincount(images.train.labels).tolist() == [4, 4, 4]
    assert torch.bincount(images.test.labels).tolist() == [2, 2, 2]
    assert images.notes[0] == "34% of each class were taken for test by their content"
    shutil.copytree(unsplit, tmp_path / "elsewhere")
    for number, path in enumerate(sorted((tmp_path / "elsewhere" / "ants").iterdir())):
        path.rename(path.with_name(f"{9 - number}.png"))  # other names, in another order
    again = load(tmp_path / "elsewhere", test=0.34)
    shown = [{row.numpy().tobytes() for row in each.test.images} for each in (images, again)]
    assert shown[0] == shown[1]
    assert load(unsplit, test=0.5).fingerprint != images.fingerprint


def test_twins_stay_on_one_side(unsplit: Path) -> None:
    for path in sorted((unsplit / "ants").iterdir()):
        shutil.copy(path, path.with_name(f"twin{path.name}"))
    images = load(unsplit, test=0.3)
    sides = [{row.numpy().tobytes() for row in s.images} for s in (images.train, images.test)]
    assert not sides[0] & sides[1]
    assert len(images.train.images) + len(images.test.images) == 24


def test_a_split_is_not_split_again(root: Path) -> None:
    with pytest.raises(UserError, match=r"test is the test split; leave out test=0.2"):
        load(root, test=0.2)
    shutil.rmtree(root / "test")
    assert sizes(load(root, test=0.25)) == (9, 3)


def test_a_class_of_one_picture_cannot_be_split(unsplit: Path) -> None:
    picture(unsplit / "wasps" / "0.png", 77)
    with pytest.raises(UserError, match="class 'wasps' has 1 pictures that show 1 things"):
        load(unsplit, test=0.2)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_share_lies_between_none_and_all(root: Path, share: float) -> None:
    with pytest.raises(UserError, match="is not a share between 0 and 1"):
        Folder(path=str(root), test=share)


def test_a_share_is_part_of_the_name_and_a_number_is_a_subset(unsplit: Path) -> None:
    known, name = registry(installed=False), f"folder:{unsplit}"
    data = open_data(f"{name}[test=0.34,train=6]", known, Place())
    assert (len(data.train.images), len(data.test.images)) == (6, 6)
    assert data.name.endswith("[test=0.34,train=6]")
    with pytest.raises(UserError, match=r"test=0.2 was asked for, and is a number of images"):
        open_data("digits[test=0.2]", known, Place())


def test_pictures_alone_are_pretrained_on_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: None
) -> None:
    for row in range(64):
        picture(tmp_path / "bare" / f"{row}.png", row)
    monkeypatch.chdir(tmp_path)
    line = ["run", "--datasets", "folder:bare", "--backbones", "test_resnet", "--methods", "simclr"]
    line += ["--epochs", "1", "--batch", "32", "--seeds", "0", "--evaluators", "knn,geometry"]
    said = CliRunner().invoke(program, line)
    assert said.exit_code == 0, said.output
    cells = list(Store(Path("sslbench-store")).cells())
    of = {r.evaluator: r for c in cells for r in c.records() if r.method == "simclr"}
    assert (of["knn"].status, of["geometry"].status) == ("skipped", "ok")
    assert "label" in of["knn"].sentence
    warned = [w.message for w in of[None].warnings if w.code == "data"]
    assert warned == ["the data: its pictures have no labels, and stand for train and test"]
    (cell,) = {r.cell_id for r in of.values()}
    out = CliRunner().invoke(program, ["store", "export", cell[:12], "--out", "x.safetensors"])
    assert out.exit_code == 0, out.output


# ---- what must be said of the data -----------------------------------------------------------


def test_pictures_of_test_that_are_in_train_are_counted(root: Path) -> None:
    for path in (root / "test" / "ants").iterdir():
        shutil.copy(path, root / "train" / "ants" / f"copy{path.name}")
    assert load(root).notes == ("2 of its test pictures are in train too",)


def test_a_class_of_broken_pictures_alone_is_said(root: Path) -> None:
    for path in (root / "train" / "ants").iterdir():
        path.write_bytes(b"")
    data = open_data(f"folder:{root}", registry(installed=False), Place(skip_broken=True))
    assert "1 of its 3 classes have no train image" in data.notes


def test_small_and_uneven_classes_are_said(root: Path) -> None:
    for row in range(12):
        picture(root / "test" / "cats" / f"more{row}.png", 500 + row)
    notes = open_data(f"folder:{root}", registry(installed=False), Place()).notes
    assert notes == (
        "2 of its 3 classes have under 10 test images",
        "78% of its test images are of the class 'cats': always saying so scores that",
    )
    assert open_data("digits", registry(installed=False), Place()).notes == ()


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def loose(root: Path) -> None:
    picture(root / "train" / "loose.png", 1)


def foreign(root: Path) -> None:
    (root / "test" / "ants").rename(root / "test" / "Ants")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (no_test, "there is no .*/test nor .*/val"),
        (loose, "loose.png lies beside folders of classes"),
        (foreign, "the class 'Ants' is in the test split alone"),
        (shutil.rmtree, "there is no folder"),
    ],
)
def test_other_layouts_get_a_sentence(root: Path, spoil: Callable[[Path], None], why: str) -> None:
    spoil(root)
    with pytest.raises(UserError, match=why) as caught:
        load(root)
    assert str(caught.value).startswith(f"folder:{root}: ")
