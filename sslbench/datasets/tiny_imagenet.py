"""Tiny ImageNet in the folders of its archive; its validation part is the test split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..api import Card, Dataset, Images, Place
from ..arrays import Integers, Stored, assemble
from .files import Layout, Official
from .listing import find_pictures
from .pictures import RULE, decode

SIDE = 64  # pixels


class TinyImageNet(Dataset):
    """110,000 photographs of 200 kinds of things, 64 x 64 pixels."""

    card = Card(
        summary="Photographs of 200 kinds of things, 64 x 64 pixels",
        classes=200,
        train=100_000,
        test=10_000,
        licence="ImageNet's: for non-commercial research",
        citation="Y. Le, X. Yang: Tiny ImageNet visual recognition challenge. "
        "Stanford CS 231N, 2015",
        source="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    )
    official = Official(
        name="tiny-imagenet",
        layouts=(Layout(("tiny-imagenet-200", ""), ("wnids.txt", "val/val_annotations.txt")),),
        source=card.source,
    )

    def load(self, place: Place) -> Images:
        paths = self.official.find(place)
        folder = paths["wnids.txt"].parent
        kinds = sorted(paths["wnids.txt"].read_text().split())
        self.official.expect(paths["wnids.txt"], len(kinds), self.card.classes, "classes")
        train, train_labels = self._train(folder, kinds)
        test, test_labels = self._test(paths["val/val_annotations.txt"], kinds)
        skipped: list[str] = []

        def split(files: list[Path], labels: Integers) -> tuple[Stored, Integers]:
            decoded = decode(files, size=SIDE, place=place)
            skipped.extend(str(files[position]) for position in decoded.broken)
            return decoded.stored, np.delete(labels, list(decoded.broken))

        return assemble(
            {"train": split(train, train_labels), "test": split(test, test_labels)},
            classes=_words(folder, kinds),
            made={"version": self.version, "size": SIDE, "rule": RULE},
            skipped=skipped,
        )

    def _train(self, folder: Path, kinds: list[str]) -> tuple[list[Path], Integers]:
        """train/n01443537/images/n01443537_0.JPEG ..."""
        places = [folder / "train" / kind / "images" for kind in kinds]
        listed = find_pictures(place for place in places if place.is_dir())
        lists = [listed[place].pictures if place in listed else [] for place in places]
        files = [path for found in lists for path in found]
        self.official.expect(folder / "train", len(files), self.card.train)
        return files, np.repeat(np.arange(len(kinds)), [len(found) for found in lists])

    def _test(self, annotations: Path, kinds: list[str]) -> tuple[list[Path], Integers]:
        """val/images/val_0.JPEG ..., each with its class in a line of the annotations."""
        rows = [line.split("\t") for line in annotations.read_text().splitlines() if line]
        known = {kind: label for label, kind in enumerate(kinds)}
        if any(len(row) < 2 or row[1] not in known for row in rows):
            raise self.official.damaged(annotations, "a line names no known class")
        self.official.expect(annotations, len(rows), self.card.test)
        files = [annotations.parent / "images" / row[0] for row in rows]
        absent = [path for path in files if not path.is_file()]
        if absent:
            raise self.official.damaged(absent[0], "it is not there")
        return files, np.array([known[row[1]] for row in rows], np.int64)


def _words(folder: Path, kinds: list[str]) -> list[str]:
    """The first English word of each class, where the file with them was kept."""
    if not (folder / "words.txt").is_file():
        return kinds
    lines = (folder / "words.txt").read_text(errors="replace").splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return [words.get(kind, kind).split(",")[0].strip() for kind in kinds]
