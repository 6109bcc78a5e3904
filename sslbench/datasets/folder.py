"""Your own pictures: train/ and test/ (or val/) with one folder a class, or split by request."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .. import arrays
from ..api import Card, Dataset, Images, Place
from ..arrays import Integers, Stored, assemble, rows_of, side
from ..errors import MissingData, UserError
from .listing import (
    TEST,
    check_apart,
    find_pictures,
    folders_in,
    located,
    loose_in,
    said,
    splits_in,
)
from .pictures import RULE, common_side, decode
from .twins import hashes, twins

WANTED = "PATH/train and PATH/test or PATH/val with one folder a class"
UNSPLIT = "; where nothing is split, [test=0.2] takes a fifth of each class for test"


class Listing(NamedTuple):
    """The pictures of one split."""

    classes: dict[str, list[Path]]  # those of a flat folder under ""
    left_out: dict[str, Counter[str]]  # by class: why -> number

    @property
    def pictures(self) -> list[Path]:
        return [path for paths in self.classes.values() for path in paths]

    @property
    def labelled(self) -> bool:
        return any(kind and paths for kind, paths in self.classes.items())


class Folder(Dataset):
    """Pictures in PATH/train and PATH/test (or val), one folder a class; train may have none.

    path: the folder; a relative one is looked for here and in the folders of --data.
    size: stored side in pixels; by default the short side of the first picture, 64 at most.
    test: share of each class, from 0 to 1, that becomes the test split where there is none.
    """

    card = Card(
        summary="Your own pictures; resized on the short side and centre-cropped",
        classes=None,
        train=None,
        test=None,
        licence="that of the pictures",
        citation="that of the pictures",
        source="PATH/train and PATH/test or PATH/val; or classes in PATH, with [test=0.2]",
    )

    def __init__(self, *, path: str, size: int | None = None, test: float | None = None) -> None:
        self.name = f"folder:{path}"
        self.path = Path(path).expanduser()
        self.size = None if size is None else side(size, f"folder:{path}")
        if test is not None and not (isinstance(test, float) and 0 < test < 1):
            raise UserError(f"{self.name}: test={test!r} is not a share between 0 and 1")
        self.share = test

    def load(self, place: Place) -> Images:
        self.path = located(self.path, place)
        folders = splits_in(self._existing(self.path), self.name)
        if self.share is not None:
            return self._split_here(self._whole(folders), place)
        if not folders:
            return self._unsplit(place)
        if "train" not in folders:
            raise self._lacking(f"there is no {self.path / 'train'}{UNSPLIT}")
        names = [name for name in TEST if name in folders]
        if not names:
            raise self._lacking(
                f"there is no {self.path / 'test'} nor {self.path / 'val'}{UNSPLIT}"
            )
        name, train, test = self._train_and_test(folders, names)
        notes = [
            f"{other} holds no pictures of classes, {name} is the test split"
            for other in names[: names.index(name)]
        ]
        self._check_listing(folders["train"], train, need_all=True)
        self._check_listing(folders[name], test, need_all=False)
        classes = self._classes(train, test, folders[name])
        size = self.size or common_side(train.pictures, place, self.name)
        skipped: list[str] = []

        def split(listing: Listing) -> tuple[Stored, Integers]:
            stored, labels, broken = self._decoded(listing, classes, size, place)
            skipped.extend(broken)
            return stored, labels

        parts = {"train": split(train), "test": split(test)}
        return assemble(
            parts,
            classes=classes,
            made={"version": self.version, "size": size, "rule": RULE},
            skipped=skipped,
            notes=[
                *notes,
                *_left_out("train", train),
                *_left_out(name, test),
                *twins(parts["train"][0], parts["test"][0], place),
            ],
        )

    # ---- what lies there ----

    def _train_and_test(
        self, folders: Mapping[str, Path], names: Sequence[str]
    ) -> tuple[str, Listing, Listing]:
        """The first test split that has pictures of classes, or else the first, beside train."""
        first: tuple[str, Listing, Listing] | None = None
        for name in names:
            read = {each: folders[each] for each in ("train", name)}
            check_apart(read, self.name)
            found = self._listed(read)
            if found[name].labelled:
                return name, found["train"], found[name]
            first = first or (name, found["train"], found[name])
        assert first is not None
        return first

    def _existing(self, folder: Path) -> Path:
        if not folder.is_dir():
            raise self._lacking(f"there is no folder {folder}")
        return folder

    def _listed(self, splits: dict[str, Path]) -> dict[str, Listing]:
        """The pictures of each split by class; all splits at once, so that no link joins two."""
        kinds = {name: folders_in(folder) for name, folder in splits.items()}
        found = find_pictures(kind for each in kinds.values() for kind in each)
        listings = {}
        for name, folder in splits.items():
            loose, left = loose_in(folder)
            if kinds[name] and loose:
                raise UserError(
                    f"{self.name}: {loose[0]} lies beside folders of classes; move it into one of "
                    "them"
                )
            classes: dict[str, list[Path]] = {} if kinds[name] else {"": loose}
            left_out = {"": left}
            for kind in kinds[name]:
                own = unicodedata.normalize("NFC", kind.name)
                if own in classes:
                    raise UserError(
                        f"{self.name}: two folders in {folder} are called {own!r}, in two spellings "
                        "of Unicode; join them"
                    )
                classes[own], left_out[own] = found[kind]
            listings[name] = Listing(classes, left_out)
        return listings

    def _check_listing(self, folder: Path, listing: Listing, *, need_all: bool) -> None:
        for kind, paths in listing.classes.items():
            if paths or not (need_all or len(listing.classes) == 1):
                continue
            left = listing.left_out[kind]
            told = f" ({said(left)})" if left else ""
            raise self._lacking(f"{folder / kind} holds no picture{told}")

    def _lacking(self, why: str) -> MissingData:
        return MissingData(f"{self.name}: {WANTED} are needed, and {why}")

    def _classes(self, train: Listing, test: Listing, folder: Path) -> list[str]:
        if "" in test.classes:
            raise UserError(
                f"{self.name}: {folder} needs one folder a class, for judges need labels; only train "
                "may go without"
            )
        if "" in train.classes:
            return list(test.classes)
        foreign = [kind for kind in test.classes if kind not in train.classes]
        if foreign:
            raise UserError(
                f"{self.name}: the class {foreign[0]!r} is in the test split alone; "
                f"train has {', '.join(list(train.classes)[:10])}"
            )
        return list(train.classes)

    def _decoded(
        self, listing: Listing, classes: Sequence[str], size: int, place: Place
    ) -> tuple[Stored, Integers, list[str]]:
        """Pixels and labels of the sound pictures, and the paths of the broken ones."""
        files = listing.pictures
        marks = [classes.index(kind) if kind else -1 for kind in listing.classes]
        counts = [len(paths) for paths in listing.classes.values()]
        labels = np.repeat(np.array(marks, np.int64), counts)
        decoded = decode(files, size=size, place=place)
        if len(decoded.broken) == len(files):
            raise UserError(f"{self.name}: every image beside {files[0]} is broken")
        broken = [str(files[position]) for position in decoded.broken]
        return decoded.stored, np.delete(labels, list(decoded.broken)), broken

    # ---- folders without a split ----

    def _whole(self, folders: dict[str, Path]) -> Path:
        """The folder with the classes that are to be split."""
        if tests := [name for name in TEST if name in folders]:
            raise UserError(
                f"{self.name}: {folders[tests[0]]} is the test split; leave out test={self.share}"
            )
        return folders.get("train", self.path)

    def _split_here(self, folder: Path, place: Place) -> Images:
        """Splits each class by what its pictures show: twins go to one side, on any machine."""
        assert self.share is not None
        listing = self._listed({"all": folder})["all"]
        self._check_listing(folder, listing, need_all=True)
        if "" in listing.classes:
            raise self._lacking(f"{folder} has no folders of classes to split")
        classes = list(listing.classes)
        size = self.size or common_side(listing.pictures, place, self.name)
        stored, labels, skipped = self._decoded(listing, classes, size, place)
        rows = hashes(stored)
        key = arrays.digest(sorted(rows), self.share)  # whatever the files are called
        test = np.zeros(len(labels), bool)
        for number, kind in enumerate(classes):
            mine = np.flatnonzero(labels == number)
            order = sorted(mine, key=lambda row: (arrays.digest(key, rows[row]), row))
            wanted = max(1, math.floor(self.share * len(mine) + 0.5))
            chosen = {rows[row] for row in order[:wanted]}
            test[[row for row in mine if rows[row] in chosen]] = True
            if test[mine].all():
                raise UserError(
                    f"{self.name}: class {kind!r} has {len(mine)} pictures that show "
                    f"{len({rows[row] for row in mine})} things; test={self.share} leaves none to train"
                )
        parts = {
            name: (_part(stored, index, place), labels[index])
            for name, index in (("train", np.flatnonzero(~test)), ("test", np.flatnonzero(test)))
        }
        made = {"version": self.version, "size": size, "rule": RULE, "test": self.share}
        return assemble(
            parts,
            classes=classes,
            made=made,
            skipped=skipped,
            notes=[
                f"{self.share:.0%} of each class were taken for test by their content",
                *_left_out("", listing),
                *twins(parts["train"][0], parts["test"][0], place),
            ],
        )

    def _unsplit(self, place: Place) -> Images:
        """Pictures alone, without classes: to be pretrained on, and not to be judged by labels."""
        if folders_in(self.path):
            raise self._lacking(f"there is no {self.path / 'train'}{UNSPLIT}")
        listing = self._listed({"all": self.path})["all"]
        self._check_listing(self.path, listing, need_all=True)
        size = self.size or common_side(listing.pictures, place, self.name)
        stored, labels, skipped = self._decoded(listing, [], size, place)
        return assemble(
            {"train": (stored, labels), "test": (stored, labels)},
            classes=[],
            made={"version": self.version, "size": size, "rule": RULE, "labels": "none"},
            skipped=skipped,
            notes=[
                "its pictures have no labels, and stand for train and test",
                *_left_out("", listing),
            ],
        )


def _left_out(split: str, listing: Listing) -> list[str]:
    """Sentences on files that are not read."""
    return [
        f"left out of {'/'.join(filter(None, (split, kind))) or 'the folder'}: {said(left)}"
        for kind, left in listing.left_out.items()
        if left
    ]


def _part(stored: Stored, index: Integers, place: Place) -> Stored:
    shape = (len(index), *stored.images.shape[1:])
    rows = rows_of(stored.images, torch.from_numpy(index))
    return arrays.gather(rows, shape=shape, scratch=place.scratch)
