"""`hf:ORG/NAME`: an image dataset of the Hugging Face hub, or a copy of one in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sslbench.api import Card, Dataset, Images, Place
from sslbench.arrays import assemble, stratified
from sslbench.datasets.pictures import RULE
from sslbench.errors import UserError

from .columns import classes_and_labels, image_column, label_column
from .pictures import Column
from .source import opened

TESTS = ("test", "validation", "valid", "val", "dev")  # the first of them that is there


class HuggingFace(Dataset):
    """Images of the Hugging Face hub: hf:ORG/NAME from the local cache, or hf:FOLDER.

    path: ORG/NAME, or a folder written by `save_to_disk` or holding a dataset's files.
    image, label: columns, where there is more than one that may be meant.
    train_split, test_split: names of splits; by default train, and test or else validation.
    test_share: instead of a test split, this share of train, drawn by class and always the same.
    config: which of several configurations.
    size: stored side in pixels; by default the short side of the first picture, 64 at most.
    """

    card = Card(
        summary="Images of the Hugging Face hub; resized on the short side and centre-cropped",
        classes=None,
        train=None,
        test=None,
        licence="that of the dataset",
        citation="that of the dataset",
        source="https://huggingface.co/datasets, by way of the local cache",
    )

    def __init__(
        self,
        *,
        path: str,
        image: str = "",
        label: str = "",
        train_split: str = "train",
        test_split: str = "",
        test_share: float | None = None,
        config: str = "",
        size: int | None = None,
    ) -> None:
        self.path, self.name, self.config = path, f"hf:{path}", str(config)
        self.image, self.label = str(image), str(label)
        self.train_split, self.test_split = str(train_split), str(test_split)
        self.test_share, self.size = test_share, size
        if size is not None and (not isinstance(size, int) or size < 1):
            raise UserError(f"{self.name}: size is a side in pixels such as 64, not {size!r}")
        if test_share is None:
            return
        if isinstance(test_share, str) or not 0 < test_share < 1:
            raise UserError(f"{self.name}: test_share is a share such as 0.2, not {test_share!r}")
        if test_split:
            raise UserError(f"{self.name}: test_share and test_split exclude each other")

    def load(self, place: Place) -> Images:
        splits = opened(self.path, self.config, place)
        train, test, said = self._parted(splits)
        image = image_column(self.name, train.features, self.image)
        label = label_column(self.name, train.features, self.label)
        for column in (image, label):
            if column not in test.features:
                raise UserError(f"{self.name}: the test split has no column {column!r}")
        classes, *marks = classes_and_labels(self.name, label, train, test)
        if self.test_share is not None:
            count = max(1, round(self.test_share * len(marks[0])))
            held = np.zeros(len(train), bool)
            held[stratified(marks[0], count, "hf test")] = True
            train, test = (train.select(np.flatnonzero(rows)) for rows in (~held, held))
            marks = [marks[0][~held], marks[0][held]]
        if not (marks[1] >= 0).any():
            raise UserError(
                f"{self.name}: no image of {said} has a label, and judges need some; say "
                f"test_split=NAME (there are {', '.join(splits)}) or test_share=0.2"
            )
        columns = [
            Column(f"{self.name}, {part}", data, image)
            for part, data in (("train", train), (said, test))
        ]
        images = self._assembled(columns, marks, classes, place)
        self.card = self._card(train, images, said)
        return images

    def _assembled(
        self, columns: list[Column], marks: list[np.ndarray], classes: tuple[str, ...], place: Place
    ) -> Images:
        size = self.size or columns[0].side(place)
        parts, skipped = {}, []
        for split, column, labels in zip(("train", "test"), columns, marks, strict=True):
            stored, broken = column.decoded(size, place)
            if len(broken) == len(labels):
                raise UserError(f"{column.name}: every image is broken")
            parts[split] = stored, np.delete(labels, list(broken))
            skipped += [f"{column.name}: row {position}" for position in broken]
        made = {"version": self.version, "size": size, "rule": RULE}
        return assemble(parts, classes=classes, made=made, skipped=skipped)

    def _parted(self, splits: Mapping[str, Any]) -> tuple[Any, Any, str]:
        """Train, test, and what the test split is in words."""
        there = ", ".join(f"{name} ({len(split):,} images)" for name, split in splits.items())
        for asked, key in ((self.train_split, "train_split"), (self.test_split, "test_split")):
            if asked and asked not in splits:
                raise UserError(f"{self.name} has no split {asked!r} for {key}; there are {there}")
        train = splits[self.train_split]
        if self.test_share is not None:
            return train, train, f"{self.test_share:g} of {self.train_split}"
        others = [name for name in TESTS if name in splits and name != self.train_split]
        test = self.test_split or (others[0] if others else "")
        if not test:
            raise UserError(
                f"{self.name} has no split to judge on; say test_split=NAME, or test_share=0.2 to "
                f"hold a fifth of {self.train_split} out by class; there are {there}"
            )
        if test == self.train_split:
            raise UserError(f"{self.name}: {test!r} cannot be both what is learned and the test")
        return train, splits[test], f"the split {test}"

    def _card(self, train: Any, images: Images, said: str) -> Card:
        """With what is known only now; where validation stands in for test, it says so."""
        return replace(
            self.card,
            summary=f"{self.path} of the Hugging Face hub; test is {said}",
            classes=len(images.classes),
            train=len(images.train.labels),
            test=len(images.test.labels),
            licence=train.info.license or self.card.licence,
            citation=train.info.citation or self.card.citation,
        )
