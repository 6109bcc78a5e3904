"""Street View House Numbers: cropped digits in Matlab files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from ..api import Card, Dataset, Images, Place
from ..arrays import Integers, Stored, assemble, gather
from .files import Layout, Official


class SVHN(Dataset):
    """99,289 digits cropped from photographs of house numbers, 32 x 32 pixels."""

    card = Card(
        summary="Digits of house numbers from street photographs, 32 x 32 pixels",
        classes=10,
        train=73_257,
        test=26_032,
        licence="for non-commercial use only",
        citation="Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng: Reading digits in "
        "natural images with unsupervised feature learning. NIPS workshop, 2011",
        source="http://ufldl.stanford.edu/housenumbers/",
    )
    official = Official(
        name="svhn",
        layouts=(Layout(("", "svhn", "SVHN"), ("train_32x32.mat", "test_32x32.mat")),),
        source=card.source,
        checksums={
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
        torchvision="SVHN",
        arguments=({"split": "train"}, {"split": "test"}),
    )

    def load(self, place: Place) -> Images:
        paths = self.official.find(place)
        return assemble(
            {
                "train": self._split(paths["train_32x32.mat"], self.card.train, place),
                "test": self._split(paths["test_32x32.mat"], self.card.test, place),
            },
            classes=map(str, range(10)),
            made={"version": self.version},
        )

    def _split(self, path: Path, count: int | None, place: Place) -> tuple[Stored, Integers]:
        self.official.read(path)
        from scipy.io import loadmat, matlab

        try:
            content = loadmat(path, variable_names=["X", "y"])
            pixels = np.asarray(content["X"], np.uint8).transpose(3, 2, 0, 1)  # [N, 3, 32, 32]
            labels = np.asarray(content["y"], np.int64).reshape(-1) % 10  # 10 stands for nought
            if pixels.shape != (len(labels), 3, 32, 32):
                raise ValueError(f"{pixels.shape} pixels for {len(labels)} labels")
        except (
            matlab.MatReadError,
            EOFError,
            KeyError,
            NotImplementedError,
            OSError,
            TypeError,
            ValueError,
            struct.error,
            zlib.error,
        ) as error:
            raise self.official.damaged(path, f"no X and y can be read: {error}") from error
        self.official.expect(path, len(labels), count)
        return gather([pixels], shape=pixels.shape, scratch=place.scratch), labels
