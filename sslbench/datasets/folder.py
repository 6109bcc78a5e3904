"""Your own pictures: train/ and test/ (or val/) with one folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..api import Card, Dataset, Images, Place
from ..arrays import Integers, Stored, assemble, side
from ..errors import MissingData, UserError
from .pictures import RULE, decode, is_picture, pictures_in, short_side

LARGEST = 64  # pixels, stored side where none was asked for and the pictures are larger


class Folder(Dataset):
    """Pictures in PATH/train and PATH/test (or val), one folder a class; train may have none.

    path: the folder.
    size: stored side in pixels; by default the short side of the first picture, 64 at most.
    """

    card = Card(
        summary="Your own pictures; resized on the short side and centre-cropped",
        classes=None,
        train=None,
        test=None,
        licence="that of the pictures",
        citation="that of the pictures",
        source="PATH/train and PATH/test or PATH/val",
    )

    def __init__(self, *, path: str, size: int | None = None) -> None:
        self.name = f"folder:{path}"
        self.path = Path(path).expanduser()
        self.size = None if size is None else side(size, f"folder:{path}")

    def load(self, place: Place) -> Images:
        train = self._listed("train")
        test = self._listed("test" if (self.path / "test").is_dir() else "val")
        classes = self._classes(train, test)
        skipped: list[str] = []
        size = self.size or self._side([path for paths in train.values() for path in paths], place)

        def split(listed: dict[str, list[Path]]) -> tuple[Stored, Integers]:
            files = [path for paths in listed.values() for path in paths]
            marks = [classes.index(kind) if kind else -1 for kind in listed]
            labels = np.repeat(np.array(marks, np.int64), [len(paths) for paths in listed.values()])
            decoded = decode(files, size=size, place=place)
            if len(decoded.broken) == len(files):
                raise UserError(f"{self.name}: every image beside {files[0]} is broken")
            skipped.extend(str(files[position]) for position in decoded.broken)
            return decoded.stored, np.delete(labels, list(decoded.broken))

        return assemble(
            {"train": split(train), "test": split(test)},
            classes=classes,
            made={"version": self.version, "size": size, "rule": RULE},
            skipped=skipped,
        )

    def _listed(self, split: str) -> dict[str, list[Path]]:
        """Pictures by class; those of a flat folder under ""."""
        folder = self.path / split
        wanted = f"{self.name}: PATH/train and PATH/test or PATH/val with one folder a class"
        if not folder.is_dir():
            what = folder if split == "train" else f"{self.path / 'test'} nor {folder}"
            raise MissingData(f"{wanted} are needed, and there is no {what}")
        entries = sorted(folder.iterdir())
        kinds = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        loose = [entry for entry in entries if entry.is_file() and is_picture(entry.name)]
        if kinds and loose:
            raise UserError(
                f"{self.name}: {loose[0]} lies beside folders of classes; move it into one of them"
            )
        listed = {kind.name: pictures_in(kind) for kind in kinds} or {"": loose}
        for kind, paths in listed.items():
            if not paths and (split == "train" or len(listed) == 1):
                raise MissingData(f"{wanted} are needed, and {folder / kind} holds no picture")
        return listed

    def _classes(self, train: dict[str, list[Path]], test: dict[str, list[Path]]) -> list[str]:
        if "" in test:
            raise UserError(
                f"{self.name}: {test[''][0].parent} needs one folder a class, for judges need "
                "labels; only train may go without"
            )
        if "" in train:
            return list(test)
        foreign = [kind for kind in test if kind not in train]
        if foreign:
            raise UserError(
                f"{self.name}: the class {foreign[0]!r} is in the test split alone; "
                f"train has {', '.join(list(train)[:10])}"
            )
        return list(train)

    def _side(self, paths: list[Path], place: Place) -> int:
        for path in paths:
            try:
                return min(short_side(path), LARGEST)
            except UserError:
                if not place.skip_broken:
                    raise
        raise UserError(f"{self.name}: every image beside {paths[0]} is broken")
