"""MNIST and Fashion-MNIST: IDX files, zipped or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..api import Card, Dataset, Images, Place
from ..arrays import Bytes, Integers, Stored, assemble, gather
from .files import Layout, Official

# Both data sets' files have these names, so folders of their own come before the bare root.
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CLOTHES = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]


class MNIST(Dataset):
    """70,000 handwritten digits, 28 x 28 pixels, grey."""

    card = Card(
        summary="Handwritten digits, 28 x 28 pixels, grey",
        classes=10,
        train=60_000,
        test=10_000,
        licence="CC BY-SA 3.0, as commonly stated; the original page names none",
        citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to "
        "document recognition. Proceedings of the IEEE 86(11), 1998",
        source="http://yann.lecun.com/exdb/mnist/",
    )
    official = Official(
        name="mnist",
        layouts=(Layout(("mnist", "MNIST/raw", ""), NAMES, zipped=True),),
        source=card.source,
        checksums={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        torchvision="MNIST",
    )

    def load(self, place: Place) -> Images:
        return _load(self, self.official, place, [str(digit) for digit in range(10)])


class FashionMNIST(Dataset):
    """70,000 articles of clothing, 28 x 28 pixels, grey."""

    card = Card(
        summary="Articles of clothing, 28 x 28 pixels, grey",
        classes=10,
        train=60_000,
        test=10_000,
        licence="MIT",
        citation="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST: a novel image dataset for "
        "benchmarking machine learning algorithms. arXiv:1708.07747",
        source="https://github.com/zalandoresearch/fashion-mnist",
    )
    official = Official(
        name="fashion-mnist",
        layouts=(Layout(("fashion-mnist", "FashionMNIST/raw", ""), NAMES, zipped=True),),
        source=card.source,
        checksums={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        system=(Path("/usr/share/datasets/fashion-mnist"),),
        package="dataset-fashion-mnist",
        torchvision="FashionMNIST",
    )

    def load(self, place: Place) -> Images:
        return _load(self, self.official, place, CLOTHES)


def _load(dataset: Dataset, official: Official, place: Place, classes: list[str]) -> Images:
    paths = official.find(place)

    def split(images: str, labels: str, count: int | None) -> tuple[Stored, Integers]:
        pixels = _idx(official, paths[images], dimensions=3)
        marks = _idx(official, paths[labels], dimensions=1)
        official.expect(paths[images], len(pixels), count)
        official.expect(paths[labels], len(marks), count, "labels")
        if marks.max(initial=0) >= len(classes):
            raise official.damaged(paths[labels], f"it has a label {marks.max()}")
        shape = (len(pixels), 3, *pixels.shape[1:])
        stored = gather([pixels[:, None]], shape=shape, scratch=place.scratch)
        return stored, marks.astype(np.int64)

    return assemble(
        {
            "train": split(NAMES[0], NAMES[1], dataset.card.train),
            "test": split(NAMES[2], NAMES[3], dataset.card.test),
        },
        classes=classes,
        made={"version": dataset.version, "grey": True},
    )


def _idx(official: Official, path: Path, *, dimensions: int) -> Bytes:
    """An IDX file of bytes: 0, 0, 8, the number of dimensions, each as 4 bytes, the content."""
    content = official.read(path)
    start = 4 + 4 * dimensions
    if len(content) < start or bytes(content[:4]) != bytes([0, 0, 8, dimensions]):
        raise official.damaged(
            path,
            f"an IDX file of bytes in {dimensions} dimensions starts with "
            f"{bytes([0, 0, 8, dimensions]).hex(' ')}, this one with {bytes(content[:4]).hex(' ')}",
        )
    shape = [int(side) for side in np.frombuffer(bytes(content[4:start]), ">u4")]
    wanted = int(np.prod(shape, dtype=object))
    if len(content) - start != wanted:
        raise official.damaged(
            path, f"its header promises {wanted:,} bytes, {len(content) - start:,} follow"
        )
    return content[start:].reshape(shape)
