"""STL-10: few labelled pictures, many without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..api import Card, Dataset, Images, Place
from ..arrays import BLOCK, Integers, Stored, assemble, gather
from .files import Layout, Official

PIXELS = 3 * 96 * 96
NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


class STL10(Dataset):
    """13,000 labelled and 100,000 unlabelled photographs, 96 x 96 pixels."""

    card = Card(
        summary="Photographs of animals and vehicles, 96 x 96 pixels, most without labels",
        classes=10,
        train=5_000,
        test=8_000,
        unlabelled=100_000,
        licence="none stated; the pictures are ImageNet's",
        citation="A. Coates, H. Lee, A. Y. Ng: An analysis of single-layer networks in "
        "unsupervised feature learning. AISTATS 2011",
        source="https://cs.stanford.edu/~acoates/stl10/",
    )
    official = Official(
        name="stl10",
        layouts=(
            Layout(
                ("stl10_binary", ""),
                ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin"),
            ),
        ),
        source=card.source,
        checksums={
            "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
            "train_y.bin": "5a34089d4802c674881badbb80307741",
            "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
            "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
            "unlabeled_X.bin": "5242ba1fed5e4be9e1e742405eb56ca4",
        },
        torchvision="STL10",
        # One archive holds everything; its small split is the cheapest to open after it.
        arguments=({"split": "test"},),
    )

    def load(self, place: Place) -> Images:
        paths = self.official.find(place)

        def split(name: str, count: int | None) -> tuple[Stored, Integers]:
            stored = self._pixels(paths[f"{name}_X.bin"], count, place)
            return stored, self._labels(paths[f"{name}_y.bin"], len(stored.images))

        unlabelled = self._pixels(paths["unlabeled_X.bin"], self.card.unlabelled, place)
        return assemble(
            {
                "train": split("train", self.card.train),
                "test": split("test", self.card.test),
                "unlabelled": (unlabelled, np.full(len(unlabelled.images), -1, np.int64)),
            },
            classes=NAMES,
            made={"version": self.version},
        )

    def _pixels(self, path: Path, count: int | None, place: Place) -> Stored:
        """Planes are stored column by column."""
        content = self.official.read(path)
        if len(content) % PIXELS:
            raise self.official.damaged(
                path, f"its {len(content):,} bytes are not images of {PIXELS:,}"
            )
        planes = content.reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2)
        self.official.expect(path, len(planes), count)
        each = BLOCK // PIXELS
        blocks = (planes[start : start + each] for start in range(0, len(planes), each))
        return gather(blocks, shape=planes.shape, scratch=place.scratch)

    def _labels(self, path: Path, count: int) -> Integers:
        labels = self.official.read(path).astype(np.int64) - 1
        self.official.expect(path, len(labels), count, "labels")
        if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(NAMES):
            raise self.official.damaged(path, "its labels are not all 1 to 10")
        return labels
