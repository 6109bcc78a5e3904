"""Your own videos as frames: train/ and test/ (or val/) with one folder of pictures a clip."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..api import Card, Dataset, Images, Place
from ..arrays import Integers, Stored, assemble, side
from ..errors import MissingData, UserError
from .listing import (
    TEST,
    Found,
    check_apart,
    find_pictures,
    folders_in,
    located,
    loose_in,
    said,
    splits_in,
)
from .pictures import RULE, common_side, decode
from .twins import twins

WANTED = "PATH/train and PATH/test or PATH/val with one folder of frames a clip"
SHOWN = 5  # names of clips in a sentence

Clip: TypeAlias = tuple[Path, Found]


class Clips(Dataset):
    """Clips in PATH/train and PATH/test (or val), one folder of frames each, in order of name.

    Frames have no labels. 2.png is before 10.png.

    path: the folder; a relative one is looked for here and in the folders of --data.
    size: stored side in pixels; by default the short side of the first frame, 64 at most.
    """

    card = Card(
        summary="Your own clips as frames; resized on the short side and centre-cropped",
        classes=None,
        train=None,
        test=None,
        licence="that of the clips",
        citation="that of the clips",
        source="PATH/train and PATH/test or PATH/val; in them CLIP/FRAME.png, for example",
    )

    def __init__(self, *, path: str, size: int | None = None) -> None:
        self.name = f"clips:{path}"
        self.path = Path(path).expanduser()
        self.size = None if size is None else side(size, self.name)

    def load(self, place: Place) -> Images:
        self.path = located(self.path, place)
        splits = self._splits()
        found = find_pictures(clip for folder in splits.values() for clip in folders_in(folder))
        clips = {split: self._clips(folder, found) for split, folder in splits.items()}
        if all(len(each.pictures) == 1 for _, each in clips["train"]):
            raise UserError(
                f"{self.name}: every clip in {splits['train']} has one frame; pictures without an "
                f"order are folder:{self.path}"
            )
        first = [path for _, each in clips["train"] for path in each.pictures]
        size = self.size or common_side(first, place, self.name)
        skipped: list[str] = []
        parts: dict[str, tuple[Stored, Integers]] = {}
        sequences: dict[str, Integers] = {}
        for split, listed in clips.items():
            stored, sequences[split], broken = self._decoded(listed, size, place)
            parts[split] = stored, np.full(len(stored.images), -1, np.int64)
            skipped.extend(broken)
        return assemble(
            parts,
            classes=[],
            made={"version": self.version, "size": size, "rule": RULE, "frames": "natural order"},
            skipped=skipped,
            notes=[
                "its frames have no labels",
                *_short(sequences),
                *_shared(clips),
                *_left_out(splits, clips),
                *twins(parts["train"][0], parts["test"][0], place),
            ],
            clips=sequences,
        )

    def _splits(self) -> dict[str, Path]:
        """The folders that are read, as train and test."""
        if not self.path.is_dir():
            raise self._lacking(f"there is no folder {self.path}")
        folders = splits_in(self.path, self.name)
        if "train" not in folders:
            raise self._lacking(f"there is no {self.path / 'train'}")
        test = next((folders[name] for name in TEST if name in folders), None)
        if test is None:
            raise self._lacking(
                f"there is no {self.path / 'test'} nor {self.path / 'val'}; move some clips there"
            )
        splits = {"train": folders["train"], "test": test}
        check_apart(splits, self.name)
        return splits

    def _clips(self, folder: Path, found: Mapping[Path, Found]) -> list[Clip]:
        """The clips of a split in natural order, each with its frames in natural order."""
        loose, _ = loose_in(folder)
        if loose:
            raise UserError(
                f"{self.name}: {loose[0]} lies in no clip; put the frames of each clip into a "
                f"folder of its own in {folder}"
            )
        clips = sorted(folders_in(folder), key=lambda clip: natural(clip.name))
        if not clips:
            raise self._lacking(f"{folder} holds no folder of frames")
        return [(clip, self._frames(clip, found[clip])) for clip in clips]

    def _frames(self, clip: Path, found: Found) -> Found:
        if not found.pictures:
            told = f" ({said(found.left_out)})" if found.left_out else ""
            raise self._lacking(f"{clip} holds no picture{told}")
        deep = next((path for path in found.pictures if path.parent != clip), None)
        if deep is not None:
            raise UserError(
                f"{self.name}: {deep} lies deeper than the frames of a clip; make {deep.parent} a "
                f"folder of {clip.parent}"
            )
        return found._replace(pictures=sorted(found.pictures, key=lambda path: natural(path.name)))

    def _decoded(
        self, clips: Iterable[Clip], size: int, place: Place
    ) -> tuple[Stored, Integers, list[str]]:
        """Pixels of the sound frames, which clip each is of, and the paths of the broken ones."""
        frames = [each.pictures for _, each in clips]
        files = [path for paths in frames for path in paths]
        owners = np.repeat(np.arange(len(frames)), [len(paths) for paths in frames])
        decoded = decode(files, size=size, place=place)
        if len(decoded.broken) == len(files):
            raise UserError(f"{self.name}: every image beside {files[0]} is broken")
        broken = [str(files[position]) for position in decoded.broken]
        return decoded.stored, np.delete(owners, list(decoded.broken)), broken

    def _lacking(self, why: str) -> MissingData:
        return MissingData(f"{self.name}: {WANTED} are needed, and {why}")


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorts names as people count: numbers in them by value, so that 2.png is before 10.png."""
    parts = re.split(r"([0-9]+)", unicodedata.normalize("NFC", name))
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], name


def _short(sequences: Mapping[str, Integers]) -> list[str]:
    """Sentences on clips in which nothing moves: those of one frame."""
    counts = {
        split: np.unique(owners, return_counts=True)[1] for split, owners in sequences.items()
    }
    return [
        f"{(frames == 1).sum():,} of its {len(frames):,} {split} clips have one frame"
        for split, frames in counts.items()
        if (frames == 1).any()
    ]


def _shared(clips: Mapping[str, list[Clip]]) -> list[str]:
    """A sentence on clips of test that are called as clips of train, if there are any."""
    train, test = (
        {unicodedata.normalize("NFC", clip.name) for clip, _ in clips[split]}
        for split in ("train", "test")
    )
    both = sorted(train & test, key=natural)
    if not both:
        return []
    names = ", ".join(both[:SHOWN]) + (", ..." if len(both) > SHOWN else "")
    return [f"{len(both):,} of its test clips are called as train clips are ({names})"]


def _left_out(splits: Mapping[str, Path], clips: Mapping[str, list[Clip]]) -> list[str]:
    """Sentences on files that are not read."""
    found = []
    for split, folder in splits.items():
        left: Counter[str] = loose_in(folder)[1]
        for _, each in clips[split]:
            left += each.left_out
        if left:
            found.append(f"left out of {split}: {said(left)}")
    return found
