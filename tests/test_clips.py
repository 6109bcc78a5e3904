"""Folders of clips: frames in order, clips apart, and a sentence for every other layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslbench.api import Images, Place
from sslbench.data import open_data
from sslbench.datasets.clips import Clips, natural
from sslbench.errors import MissingData, UserError
from sslbench.plugins import registry

CLIPS = {"train": {"walk2": 12, "walk10": 3}, "test": {"jump": 4}}


def frame(path: Path, level: int, side: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", side, (level, 0, 255 - level)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Frames are numbered without leading zeros; their red tells clip and number."""
    for at, (split, clips) in enumerate(CLIPS.items()):
        for number, (clip, frames) in enumerate(clips.items()):
            for row in range(frames):
                level = 100 * at + 20 * number + row
                frame(tmp_path / "data" / split / clip / f"f{row}.png", level)
    return tmp_path / "data"


def load(root: Path, **place: object) -> Images:
    return Clips(path=str(root)).load(Place(**place))  # type: ignore[arg-type]


def reds(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_frames_are_in_order_and_clips_together(root: Path) -> None:
    images = load(root)
    assert reds(images.train.images) == [*range(12), 20, 21, 22]
    assert reds(images.test.images) == [100, 101, 102, 103]
    assert images.train.clips is not None
    assert images.test.clips is not None
    assert images.train.clips.tolist() == [0] * 12 + [1] * 3
    assert images.test.clips.tolist() == [0] * 4
    assert images.train.clips.dtype == torch.int64
    assert images.classes == ()
    assert (images.train.labels == -1).all()
    assert images.notes == ("its frames have no labels",)


def test_methods_are_told_how_many_clips_there_are(root: Path) -> None:
    data = open_data(f"clips:{root}[size=8]", registry(), Place())
    seen = data.pretraining("none")
    assert (seen.info.clips, seen.info.size, seen.info.classes) == (2, 8, 0)
    assert seen.clips is not None
    assert seen.clips.tolist() == [0] * 12 + [1] * 3


@pytest.mark.parametrize(
    "names",
    [
        ["2.png", "10.png"],
        ["frame2.png", "frame02b.png", "frame10.png"],
        ["1_2", "1_10", "2_1"],
        ["007", "8", "08a"],
        ["1.png", "a.png"],
        ["é1", "é2", "é10"],
    ],
)
def test_names_are_in_the_order_in_which_people_count(names: list[str]) -> None:
    mixed = names[::-1]
    mixed.sort(key=natural)
    assert mixed == names


def test_what_moves_between_clips_or_in_time_is_other_data(root: Path) -> None:
    before = load(root).fingerprint
    assert load(root).fingerprint == before
    (root / "train" / "walk2" / "f11.png").rename(root / "train" / "walk10" / "f.png")
    between = load(root)
    assert reds(between.train.images) == reds(load(root).train.images)
    assert between.fingerprint != before  # the same frames in the same order, cut elsewhere
    a, b = (root / "train" / "walk2" / name for name in ("f0.png", "f1.png"))
    a.rename(root / "x")
    b.rename(a)
    (root / "x").rename(b)
    assert load(root).fingerprint not in (before, between.fingerprint)


def test_val_is_a_test_split_and_letters_may_be_large(root: Path) -> None:
    before = load(root).fingerprint
    (root / "test").rename(root / "Val")
    (root / "train").rename(root / "Train")
    assert load(root).fingerprint == before


def test_a_relative_path_is_looked_for_in_the_roots(root: Path) -> None:
    assert load(Path("data"), roots=(root.parent,)).fingerprint == load(root).fingerprint


def test_the_first_frame_gives_the_side_up_to_64(root: Path) -> None:
    assert load(root).train.images.shape[-1] == 16
    frame(root / "train" / "walk2" / "f0.png", 0, (200, 90))
    assert load(root).train.images.shape[-1] == 64
    assert Clips(path=str(root), size=90).load(Place()).test.images.shape[-1] == 90


# ---- what is said ----------------------------------------------------------------------------


def test_a_broken_frame_is_named_or_left_out_in_order(root: Path) -> None:
    path = root / "train" / "walk2" / "f2.png"
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"walk2/f2.png is a broken image .*--skip-broken"):
        load(root)
    images = load(root, skip_broken=True)
    assert reds(images.train.images) == [0, 1, *range(3, 12), 20, 21, 22]
    assert images.train.clips is not None
    assert images.train.clips.tolist() == [0] * 11 + [1] * 3
    assert images.skipped == (str(path),)


def test_a_clip_of_broken_frames_alone_is_left_out(root: Path) -> None:
    for path in (root / "train" / "walk2").iterdir():
        path.write_bytes(b"")
    images = load(root, skip_broken=True)
    assert images.train.clips is not None
    assert images.train.clips.tolist() == [1, 1, 1]
    for path in (root / "test" / "jump").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"every image beside .*jump/f0.png is broken"):
        load(root, skip_broken=True)


def test_clips_of_one_frame_are_counted(root: Path) -> None:
    frame(root / "train" / "still" / "0.png", 9)
    frame(root / "test" / "one" / "0.png", 8)
    frame(root / "test" / "two" / "0.png", 7)
    assert "1 of its 3 train clips have one frame" in load(root).notes
    assert "2 of its 3 test clips have one frame" in load(root).notes


def test_clips_of_one_frame_alone_are_pictures(root: Path) -> None:
    shutil.rmtree(root / "train")
    for number in range(3):
        frame(root / "train" / str(number) / "0.png", number)
    with pytest.raises(UserError, match=r"every clip in .*train has one frame; .* are folder:"):
        load(root)


def test_clips_called_alike_in_train_and_test_are_said(root: Path) -> None:
    frame(root / "test" / "walk10" / "0.png", 250)
    (note,) = (note for note in load(root).notes if "called" in note)
    assert note == "1 of its test clips are called as train clips are (walk10)"
    for number in range(12):
        for split in ("train", "test"):
            frame(root / split / f"c{number}" / "0.png", 200 + number, (16, 17))
    notes = load(root).notes
    assert any(n.startswith("13 of its test") and "(c0, c1, c2, c3, c4, ...)" in n for n in notes)
    assert "12 of its test pictures are in train too" in notes


def test_other_files_are_counted(root: Path) -> None:
    (root / "train" / "walk2" / "times.csv").write_text("0,1")
    (root / "train" / "list.txt").write_text("walk2")
    (root / "train" / "walk2" / ".DS_Store").write_text("")
    assert "left out of train: 1 .csv, 1 .txt" in load(root).notes


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "train" / "walk2" / "f3x.png")
    images = load(root)
    assert len(images.train.images) == 15
    assert "left out of train: 1 pipes or devices" in images.notes


# ---- what is refused -------------------------------------------------------------------------


def no_folder(root: Path) -> None:
    shutil.rmtree(root)


def no_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def empty_test(root: Path) -> None:
    shutil.rmtree(root / "test" / "jump")


def empty_clip(root: Path) -> None:
    (root / "test" / "run").mkdir()


def videos(root: Path) -> None:
    (root / "train" / "film").mkdir()
    (root / "train" / "film" / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom")


def loose(root: Path) -> None:
    frame(root / "train" / "f.png", 0)


def deep(root: Path) -> None:
    (root / "deep").mkdir()
    (root / "train").rename(root / "deep" / "train")
    (root / "deep").rename(root / "train")


def one_folder(root: Path) -> None:
    no_test(root)
    (root / "test").symlink_to(root / "train")


def one_clip(root: Path) -> None:
    (root / "test" / "again").symlink_to(root / "train" / "walk2")


@pytest.mark.parametrize(
    ("spoil", "kind", "why"),
    [
        (no_folder, MissingData, "there is no folder .*data"),
        (no_train, MissingData, "are needed, and there is no .*train"),
        (no_test, MissingData, "there is no .*test nor .*val; move some clips there"),
        (empty_test, MissingData, "test holds no folder of frames"),
        (empty_clip, MissingData, "test/run holds no picture"),
        (videos, MissingData, r"film holds no picture \(1 .mp4\)"),
        (loose, UserError, "train/f.png lies in no clip; put the frames of each clip into"),
        (deep, UserError, "lies deeper than the frames of a clip; make .* a folder of .*train"),
        (one_folder, UserError, "train and test are one folder; give two"),
        (one_clip, MissingData, r"again holds no picture \(1 links to folders met elsewhere\)"),
    ],
)
def test_other_layouts_get_a_sentence(
    root: Path, spoil: Callable[[Path], None], kind: type[UserError], why: str
) -> None:
    spoil(root)
    with pytest.raises(kind, match=why) as caught:
        load(root)
    assert str(caught.value).startswith(f"clips:{root}: ")


@pytest.mark.parametrize("size", [0, 5000, "big", 2.5])
def test_a_size_is_a_side_in_pixels(size: object) -> None:
    with pytest.raises(UserError, match=r"clips:x: size is a side in pixels"):
        Clips(path="x", size=size)  # type: ignore[arg-type]


def test_a_path_is_wanted() -> None:
    with pytest.raises(UserError, match="clips wants a path, such as clips:/data"):
        open_data("clips", registry(), Place())


def test_what_is_decoded_is_kept_and_found_again(root: Path, tmp_path: Path) -> None:
    first, again = (load(root, scratch=tmp_path / "scratch") for _ in range(2))
    assert np.array_equal(first.train.images.numpy(), again.train.images.numpy())
    assert first.fingerprint == again.fingerprint == load(root).fingerprint
