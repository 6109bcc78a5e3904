"""CIFAR-10 and CIFAR-100: the official binary version, or the official python version."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from ..api import Card, Corrupted, Dataset, Images, Place
from ..arrays import Bytes, Integers, Stored, assemble, gather
from .cifar_c import CIFAR10_C, CIFAR100_C
from .files import Layout, Official

PIXELS = 3 * 32 * 32
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
PAPER = "A. Krizhevsky: Learning multiple layers of features from tiny images. 2009"
LICENCE = "none stated; ask for citation of the report"


@dataclass(frozen=True)
class Kind:
    """Which labels of which files."""

    train: tuple[str, ...]  # files of the python version; the binary one adds `.bin`
    test: str
    key: str  # of the labels in the python version
    column: int  # of the labels in the binary version
    columns: int  # label bytes before the pixels of an image
    meta: str  # of the python version: names of the classes
    names_key: str
    names: str  # the same of the binary version


TEN = Kind(
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    key="labels",
    column=0,
    columns=1,
    meta="batches.meta",
    names_key="label_names",
    names="batches.meta.txt",
)
FINE = Kind(
    train=("train",),
    test="test",
    key="fine_labels",
    column=1,
    columns=2,
    meta="meta",
    names_key="fine_label_names",
    names="fine_label_names.txt",
)
COARSE = Kind(
    train=("train",),
    test="test",
    key="coarse_labels",
    column=0,
    columns=2,
    meta="meta",
    names_key="coarse_label_names",
    names="coarse_label_names.txt",
)


def _layouts(kind: Kind, binary: str, python: str) -> tuple[Layout, Layout]:
    names = (*kind.train, kind.test)
    return (
        Layout((binary, ""), tuple(f"{name}.bin" for name in names)),
        Layout((python, ""), names),
    )


TEN_FILES = Official(
    name="cifar10",
    layouts=_layouts(TEN, "cifar-10-batches-bin", "cifar-10-batches-py"),
    source=PAGE,
    checksums={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    torchvision="CIFAR10",
)
HUNDRED_SUMS = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


class CIFAR10(Dataset):
    """60,000 small photographs of 10 kinds of animals and vehicles, 32 x 32 pixels."""

    card = Card(
        summary="Photographs of animals and vehicles, 32 x 32 pixels",
        classes=10,
        train=50_000,
        test=10_000,
        licence=LICENCE,
        citation=PAPER,
        source=PAGE,
    )
    official = TEN_FILES

    def load(self, place: Place) -> Images:
        return _load(self, self.official, TEN, place)

    def corrupted(self, place: Place, labels: Tensor) -> Corrupted:
        return CIFAR10_C.open(place, labels)


class CIFAR100(Dataset):
    """60,000 small photographs of 100 kinds of things, 32 x 32 pixels."""

    card = Card(
        summary="Photographs of 100 kinds of things, 32 x 32 pixels",
        classes=100,
        train=50_000,
        test=10_000,
        licence=LICENCE,
        citation=PAPER,
        source=PAGE,
    )
    official = Official(
        name="cifar100",
        layouts=_layouts(FINE, "cifar-100-binary", "cifar-100-python"),
        source=PAGE,
        checksums=HUNDRED_SUMS,
        torchvision="CIFAR100",
    )

    def load(self, place: Place) -> Images:
        return _load(self, self.official, FINE, place)

    def corrupted(self, place: Place, labels: Tensor) -> Corrupted:
        return CIFAR100_C.open(place, labels)


class CIFAR100Coarse(Dataset):
    """CIFAR-100 under its 20 super-classes, 32 x 32 pixels."""

    card = Card(
        summary="CIFAR-100 labelled with its 20 super-classes, 32 x 32 pixels",
        classes=20,
        train=50_000,
        test=10_000,
        licence=LICENCE,
        citation=PAPER,
        source=PAGE,
    )
    official = Official(
        name="cifar100-20",
        layouts=_layouts(COARSE, "cifar-100-binary", "cifar-100-python"),
        source=PAGE,
        checksums=HUNDRED_SUMS,
        torchvision="CIFAR100",
    )

    def load(self, place: Place) -> Images:
        return _load(self, self.official, COARSE, place)

    def corrupted(self, place: Place, labels: Tensor) -> Corrupted:
        # The published labels are the fine ones: same images, same order.
        fine = CIFAR100().load(place).test.labels
        return CIFAR100_C.open(place, fine)


# ---- reading -------------------------------------------------------------------------------


class _Part(NamedTuple):
    pixels: Bytes  # [N, 3072]
    labels: Integers  # [N]


def _load(dataset: Dataset, official: Official, kind: Kind, place: Place) -> Images:
    paths = official.find(place)
    binary = f"{kind.test}.bin" in paths
    suffix, read = (".bin", _binary) if binary else ("", _python)
    card = dataset.card

    def split(names: Sequence[str], count: int | None) -> tuple[Stored, Integers]:
        parts = []
        for name in names:
            path = paths[name + suffix]
            part = read(official, path, kind)
            official.expect(path, len(part.pixels), count and count // len(names))
            if part.labels.min(initial=0) < 0 or part.labels.max(initial=0) >= card.classes:
                raise official.damaged(path, f"its labels are not all below {card.classes}")
            parts.append(part)
        shape = (sum(len(part.pixels) for part in parts), 3, 32, 32)
        blocks = (part.pixels.reshape(-1, 3, 32, 32) for part in parts)
        stored = gather(blocks, shape=shape, scratch=place.scratch)
        return stored, np.concatenate([part.labels for part in parts])

    return assemble(
        {"train": split(kind.train, card.train), "test": split([kind.test], card.test)},
        classes=_names(official, paths[kind.test + suffix].parent, kind, card.classes or 0),
        made={"version": dataset.version},
    )


def _binary(official: Official, path: Path, kind: Kind) -> _Part:
    """Rows of one or two label bytes and 3,072 pixels: red, green, blue planes."""
    content = official.read(path)
    row = kind.columns + PIXELS
    if len(content) % row:
        raise official.damaged(path, f"its {len(content):,} bytes are not rows of {row:,}")
    table = content.reshape(-1, row)
    return _Part(table[:, kind.columns :], table[:, kind.column].astype(np.int64))


def _python(official: Official, path: Path, kind: Kind) -> _Part:
    """A pickled dictionary with `data` [N, 3072] and lists of labels."""
    content = _unpickled(official, path)
    try:
        pixels = content["data"].array()
        labels = np.array(content[kind.key], np.int64)
        if pixels.shape != (len(labels), PIXELS):
            raise ValueError(f"{pixels.shape} pixels for {len(labels)} labels")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise official.damaged(path, f"no data and {kind.key} in it: {error}") from error
    return _Part(pixels, labels)


def _names(official: Official, folder: Path, kind: Kind, classes: int) -> list[str]:
    """Names of the classes, or numbers where the file with them was not kept."""
    names: list[str] = []
    if (folder / kind.names).is_file():
        names = (folder / kind.names).read_text(errors="replace").split()
    elif (folder / kind.meta).is_file():
        names = [_text(name) for name in _unpickled(official, folder / kind.meta)[kind.names_key]]
    return names if len(names) == classes else [str(number) for number in range(classes)]


# ---- the python version, without running anything that is in it ----------------------------


class _Array:
    """Stands in for the pickled numpy array: it takes the bytes and calls nothing."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> Bytes:
        _, shape, dtype, fortran, content = self.state
        if dtype.name not in ("u1", "|u1") or not isinstance(content, bytes):
            raise ValueError("the array is not of bytes")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Type:
    """Stands in for numpy.dtype."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = _text(name)

    def __setstate__(self, state: object) -> None:
        pass


ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


class _Restricted(pickle.Unpickler):
    """Admits dictionaries, lists, text, numbers and byte arrays; names nothing else."""

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any, /) -> Literal[None]:
        raise pickle.UnpicklingError("it refers to something outside")


def _unpickled(official: Official, path: Path) -> dict[str, Any]:
    official.read(path)
    try:
        with path.open("rb") as file:
            content = _Restricted(file, encoding="bytes").load()
        return {_text(key): value for key, value in content.items()}
    # Damaged opcodes surface as whatever the byte in their place happens to do.
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        MemoryError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:
        raise official.damaged(path, f"it is no plain pickled dictionary: {error}") from error


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
