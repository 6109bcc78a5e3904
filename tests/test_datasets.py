"""Every data set reads its official layout, and says what is wrong with any other."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sslbench import arrays, builtin
from sslbench.api import Card, Dataset, Images, Place
from sslbench.datasets import cifar, pictures
from sslbench.datasets.cifar import CIFAR10, CIFAR100, CIFAR100Coarse
from sslbench.datasets.digits import Digits, _table, enlarged
from sslbench.datasets.folder import Folder
from sslbench.datasets.mnist import MNIST, FashionMNIST
from sslbench.datasets.stl10 import STL10
from sslbench.datasets.svhn import SVHN
from sslbench.datasets.tiny_imagenet import TinyImageNet
from sslbench.errors import MissingData, UserError

Patch = pytest.MonkeyPatch


def numbers(*shape: int, seed: int = 0, below: int = 256) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, below, shape, dtype=np.uint8)


def small(monkeypatch: Patch, kind: Any, *, train: int, test: int, **card: int) -> None:
    """The published counts and sums, replaced by those of the small files of a test."""
    monkeypatch.setattr(kind, "card", replace(kind.card, train=train, test=test, **card))
    monkeypatch.setattr(kind, "official", replace(kind.official, checksums={}, system=()))


def at(*roots: Path, **more: Any) -> Place:
    return Place(roots=roots, **more)


# ---- cards ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(builtin.datasets()))
def test_every_card_is_filled(name: str) -> None:
    module, _, attribute = builtin.datasets()[name].partition(":")
    kind = getattr(import_module(module), attribute)
    assert issubclass(kind, Dataset)
    assert isinstance(kind.card, Card)
    for text in ("summary", "licence", "citation", "source"):
        assert len(getattr(kind.card, text)) > 2, text
    counts = [kind.card.classes, kind.card.train, kind.card.test]
    assert all(counts) or (name in ("folder", "clips") and not any(counts))
    assert kind.version >= 1
    assert (kind.__doc__ or "").splitlines()[0].endswith(".")
    assert {field.name for field in fields(kind.card)} >= {"unlabelled"}


# ---- digits --------------------------------------------------------------------------------


def test_digits_are_scikit_learns_in_a_fixed_split() -> None:
    from sklearn.datasets import load_digits

    images = Digits(size=8).load(Place())
    assert [len(images.train.labels), len(images.test.labels)] == [1437, 360]
    theirs = load_digits()
    wanted = np.floor(theirs.images * 255 / 16 + 0.5).astype(np.uint8)
    rows = torch.cat([images.train.images[:, 0], images.test.images[:, 0]]).numpy()
    labels = torch.cat([images.train.labels, images.test.labels]).numpy()

    def all_of(planes: Any, marks: Any) -> list[tuple[bytes, int]]:
        return sorted(
            (plane.tobytes(), int(mark)) for plane, mark in zip(planes, marks, strict=True)
        )

    assert all_of(rows, labels) == all_of(wanted, theirs.target)
    whole = np.bincount(theirs.target)
    assert np.abs(np.bincount(images.test.labels) - whole * 360 / 1797).max() < 1


@pytest.mark.parametrize("size", [1, 5, 28, 32])
def test_digits_are_enlarged_bilinearly(size: int) -> None:
    planes, _ = _table()
    exact = F.interpolate(torch.from_numpy(planes[:, None]).double(), (size, size), mode="bilinear")
    mine = torch.from_numpy(enlarged(planes, size))
    assert (mine - exact[:, 0] * 255 / 16).abs().max() <= 0.5 + 1e-9


def test_digits_keep_their_fingerprint() -> None:
    """Cells are named after it: if this fails, every stored cell becomes stale."""
    fingerprint = Digits().load(Place()).fingerprint
    assert fingerprint == "cfd4918c6a77994bd733f884643764fafc0b4df65c12541973c62013e6fb6b12"
    assert Digits(size=16).load(Place()).fingerprint != fingerprint


@pytest.mark.parametrize("size", [0, -3, "large", 1.5])
def test_digits_want_a_size_in_pixels(size: Any) -> None:
    with pytest.raises(UserError, match=f"not {size!r}"):
        Digits(size=size)


def test_digits_and_idx_files_load_without_heavy_imports(tmp_path: Path) -> None:
    write_idx(tmp_path)
    code = f"""
import sys
from dataclasses import replace
from pathlib import Path
from sslbench.api import Place
from sslbench.datasets.digits import Digits
from sslbench.datasets.mnist import MNIST
MNIST.card = replace(MNIST.card, train=20, test=10)
MNIST.official = replace(MNIST.official, checksums={{}})
Digits().load(Place())
MNIST().load(Place(roots=(Path({str(tmp_path)!r}),)))
print(*[name for name in ("sklearn", "scipy", "torchvision", "timm", "PIL") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# ---- IDX -----------------------------------------------------------------------------------


def idx(array: np.ndarray[Any, Any]) -> bytes:
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, *, zipped: bool = False) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "train-images-idx3-ubyte": numbers(20, 28, 28, seed=1),
        "train-labels-idx1-ubyte": numbers(20, seed=2, below=10),
        "t10k-images-idx3-ubyte": numbers(10, 28, 28, seed=3),
        "t10k-labels-idx1-ubyte": numbers(10, seed=4, below=10),
    }
    for name, array in content.items():
        data = idx(array)
        path = folder / (name + ".gz" if zipped else name)
        path.write_bytes(gzip.compress(data) if zipped else data)
    return content


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        (MNIST, ""),
        (MNIST, "MNIST/raw"),
        (FashionMNIST, ""),
        (FashionMNIST, "fashion-mnist"),
        (FashionMNIST, "FashionMNIST/raw"),
    ],
)
def test_idx_files_are_read_zipped_or_not(
    kind: Any, folder: str, zipped: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    small(monkeypatch, kind, train=20, test=10)
    content = write_idx(tmp_path / folder, zipped=zipped)
    images = kind().load(at(tmp_path))
    wanted = content["train-images-idx3-ubyte"]
    assert images.train.images.shape == (20, 3, 28, 28)
    assert images.train.images.dtype == torch.uint8
    for channel in range(3):
        assert np.array_equal(images.train.images[:, channel].numpy(), wanted)
    assert images.test.labels.tolist() == content["t10k-labels-idx1-ubyte"].tolist()
    assert len(images.classes) == 10


def test_the_distributions_folder_is_known(tmp_path: Path, monkeypatch: Patch) -> None:
    assert FashionMNIST.official.system == (Path("/usr/share/datasets/fashion-mnist"),)
    small(monkeypatch, FashionMNIST, train=20, test=10)
    official = replace(FashionMNIST.official, system=(tmp_path,))
    monkeypatch.setattr(FashionMNIST, "official", official)
    write_idx(tmp_path, zipped=True)
    assert len(FashionMNIST().load(Place()).train.labels) == 20


def test_the_first_root_wins(tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, MNIST, train=20, test=10)
    write_idx(tmp_path / "a")
    write_idx(tmp_path / "b")
    (tmp_path / "b" / "train-images-idx3-ubyte").write_bytes(idx(numbers(20, 28, 28, seed=9)))
    first = MNIST().load(at(tmp_path / "a", tmp_path / "b"))
    second = MNIST().load(at(tmp_path / "b", tmp_path / "a"))
    assert first.fingerprint != second.fingerprint


def test_missing_files_say_which_where_and_how(tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, FashionMNIST, train=20, test=10)
    with pytest.raises(MissingData) as caught:
        FashionMNIST().load(at(tmp_path))
    said = str(caught.value)
    assert "fashion-mnist: train-images-idx3-ubyte was not found" in said
    assert f"{tmp_path}, " in said or f"{tmp_path})" in said
    assert str(tmp_path / "FashionMNIST/raw") in said
    assert "--download" in said
    assert "apt-get install dataset-fashion-mnist" in said
    assert "https://github.com/zalandoresearch/fashion-mnist" in said
    assert "\n" not in said


def test_the_one_missing_file_of_four_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(MissingData, match="mnist: t10k-labels-idx1-ubyte was not found"):
        MNIST().load(at(tmp_path))


def test_no_folder_to_look_in_is_said() -> None:
    with pytest.raises(MissingData, match="no folder was given to look in"):
        MNIST().load(Place())


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: content[:-100], "its header promises 15,680 bytes, 15,580 follow"),
        (lambda content: content + b"x", "its header promises 15,680 bytes, 15,681 follow"),
        (lambda content: b"\x00\x00\x0d\x03" + content[4:], "00 00 08 03, this one with 00 00 0d"),
        (lambda content: b"", "it is empty"),
        (lambda content: content[:9], "starts with 00 00 08 03"),
        (lambda _: idx(numbers(19, 28, 28)), "it holds 19 images, the published one 20"),
    ],
)
def test_damaged_idx_files_are_named(
    change: Any, why: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    small(monkeypatch, MNIST, train=20, test=10)
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    spoil(path, change)
    with pytest.raises(MissingData, match=re.escape(why)) as caught:
        MNIST().load(at(tmp_path))
    assert str(path) in str(caught.value)
    assert "get it anew" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:200] + bytes([content[200] ^ 64]) + content[201:],
        lambda content: b"no gzip at all",
    ],
)
def test_damaged_gzip_files_are_named(change: Any, tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, MNIST, train=20, test=10)
    write_idx(tmp_path, zipped=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    spoil(path, change)
    with pytest.raises(MissingData, match=f"{re.escape(str(path))} is not the published file"):
        MNIST().load(at(tmp_path))


def test_a_label_out_of_range_is_named(tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, MNIST, train=20, test=10)
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.full(20, 10, np.uint8)))
    with pytest.raises(MissingData, match="it has a label 10"):
        MNIST().load(at(tmp_path))


def test_a_wrong_checksum_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path)
    found = hashlib.md5((tmp_path / "train-images-idx3-ubyte").read_bytes()).hexdigest()
    with pytest.raises(MissingData) as caught:
        MNIST().load(at(tmp_path))
    assert f"its md5 is {found}, the published one 6bbc9ace898e44ae57da46a324031adb" in str(
        caught.value
    )


def test_the_checksum_is_that_of_the_content_unzipped(tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, MNIST, train=20, test=10)
    content = write_idx(tmp_path, zipped=True)
    sums = {name: hashlib.md5(idx(array)).hexdigest() for name, array in content.items()}
    monkeypatch.setattr(MNIST, "official", replace(MNIST.official, checksums=sums))
    assert len(MNIST().load(at(tmp_path)).train.labels) == 20


# ---- downloads -----------------------------------------------------------------------------


def test_download_goes_through_torchvision(tmp_path: Path, monkeypatch: Patch) -> None:
    from torchvision import datasets

    calls: list[Any] = []

    def fetch(root: Path, **arguments: Any) -> None:
        calls.append((root, arguments))
        write_idx(root / "MNIST/raw")

    monkeypatch.setattr(datasets, "MNIST", fetch)
    small(monkeypatch, MNIST, train=20, test=10)
    images = MNIST().load(at(tmp_path / "new", download=True))
    assert len(images.train.labels) == 20
    assert calls == [(tmp_path / "new", {"download": True})]
    MNIST().load(at(tmp_path / "new", download=True))
    assert len(calls) == 1  # what is there is not fetched again


def test_nothing_is_downloaded_unasked(tmp_path: Path, monkeypatch: Patch) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets, "CIFAR10", lambda *_, **__: pytest.fail("it was fetched"))
    with pytest.raises(MissingData):
        CIFAR10().load(at(tmp_path))


@pytest.mark.parametrize(
    "error", [OSError("no route\nto host"), RuntimeError("md5 differs"), EOFError()]
)
def test_a_failed_download_is_a_sentence(
    error: Exception, tmp_path: Path, monkeypatch: Patch
) -> None:
    from torchvision import datasets

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "SVHN", fail)
    reason = " ".join(str(error).split()) or "EOFError"
    with pytest.raises(MissingData, match=f"failed .{reason}.; try again") as caught:
        SVHN().load(at(tmp_path, download=True))
    assert "\n" not in str(caught.value)


def test_a_download_needs_a_folder() -> None:
    with pytest.raises(MissingData, match="give --data DIR"):
        MNIST().load(Place(download=True))


def test_what_cannot_be_downloaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="--download does not know how"):
        TinyImageNet().load(at(tmp_path, download=True))


# ---- CIFAR ---------------------------------------------------------------------------------


def old_pickle(data: np.ndarray[Any, Any], **lists: list[int]) -> bytes:
    """As Python 2 wrote the official files: protocol 2, byte strings, numpy.core."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    body = data.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01" + number(len(data)) + number(data.shape[1]) + b"\x86"
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(body)) + body
    ) + b"tb"
    items = text(b"data") + array
    for key, values in lists.items():
        items += text(key.encode()) + b"](" + b"".join(map(number, values)) + b"e"
    return b"\x80\x02}(" + items + b"u."


def write_cifar10(folder: Path, *, binary: bool) -> tuple[Any, list[int]]:
    folder.mkdir(parents=True, exist_ok=True)
    every: list[Any] = []
    labels: list[int] = []
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for seed, name in enumerate(names):
        pixels, marks = numbers(4, 3072, seed=seed), numbers(4, seed=seed, below=10)
        if binary:
            rows = np.concatenate([marks[:, None], pixels], 1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            (folder / name).write_bytes(old_pickle(pixels, labels=marks.tolist()))
        every.append(pixels)
        labels += marks.tolist()
    return np.concatenate(every).reshape(-1, 3, 32, 32), labels


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_both_versions_of_cifar10_are_read(
    binary: bool, nested: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    small(monkeypatch, CIFAR10, train=20, test=4)
    inner = "cifar-10-batches-bin" if binary else "cifar-10-batches-py"
    pixels, labels = write_cifar10(tmp_path / inner if nested else tmp_path, binary=binary)
    images = CIFAR10().load(at(tmp_path))
    assert np.array_equal(images.train.images.numpy(), pixels[:20])
    assert np.array_equal(images.test.images.numpy(), pixels[20:])
    assert images.train.labels.tolist() + images.test.labels.tolist() == labels


def test_both_versions_have_one_fingerprint(tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, CIFAR10, train=20, test=4)
    write_cifar10(tmp_path / "b", binary=True)
    write_cifar10(tmp_path / "p", binary=False)
    prints = {CIFAR10().load(at(tmp_path / side)).fingerprint for side in "bp"}
    assert len(prints) == 1


def test_torchvision_reads_the_same_from_the_python_version(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    from torchvision import datasets

    small(monkeypatch, CIFAR10, train=20, test=4)
    write_cifar10(tmp_path / "cifar-10-batches-py", binary=False)
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "batches.meta").write_bytes(
        pickle.dumps({"label_names": [f"kind {label}" for label in range(10)]}, protocol=2)
    )
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    theirs = datasets.CIFAR10(tmp_path, train=True)
    mine = CIFAR10().load(at(tmp_path))
    assert np.array_equal(mine.train.images.permute(0, 2, 3, 1).numpy(), theirs.data)
    assert mine.train.labels.tolist() == theirs.targets
    assert list(mine.classes) == theirs.classes


def write_cifar100(folder: Path, *, binary: bool) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    content = {}
    for seed, (name, count) in enumerate([("train", 12), ("test", 6)]):
        pixels = numbers(count, 3072, seed=seed)
        fine = numbers(count, seed=seed + 5, below=100)
        coarse = fine // 5
        content[name] = (pixels.reshape(-1, 3, 32, 32), fine.tolist(), coarse.tolist())
        if binary:
            rows = np.concatenate([coarse[:, None], fine[:, None], pixels], 1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            data = old_pickle(pixels, fine_labels=fine.tolist(), coarse_labels=coarse.tolist())
            (folder / name).write_bytes(data)
    return content


@pytest.mark.parametrize("binary", [True, False])
def test_cifar100_has_fine_and_coarse_labels(
    binary: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    inner = "cifar-100-binary" if binary else "cifar-100-python"
    content = write_cifar100(tmp_path / inner, binary=binary)
    for kind, place in [(CIFAR100, 1), (CIFAR100Coarse, 2)]:
        small(monkeypatch, kind, train=12, test=6)
        images = kind().load(at(tmp_path))
        for split, name in [(images.train, "train"), (images.test, "test")]:
            assert np.array_equal(split.images.numpy(), content[name][0])
            assert split.labels.tolist() == content[name][place]
        assert len(images.classes) == kind.card.classes


def test_cifar_names_its_classes_where_the_file_is_there(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    small(monkeypatch, CIFAR10, train=20, test=4)
    write_cifar10(tmp_path, binary=True)
    assert CIFAR10().load(at(tmp_path)).classes[0] == "0"
    names = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    (tmp_path / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    assert list(CIFAR10().load(at(tmp_path)).classes) == names


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: content[:-1], "are not rows of 3,073"),
        (lambda content: content[:-3073], "it holds 3 images, the published one 4"),
        (lambda content: b"\x0a" + content[1:], "its labels are not all below 10"),
    ],
)
def test_damaged_binary_batches_are_named(
    change: Any, why: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    small(monkeypatch, CIFAR10, train=20, test=4)
    write_cifar10(tmp_path, binary=True)
    spoil(tmp_path / "data_batch_3.bin", change)
    with pytest.raises(MissingData, match=f"data_batch_3.bin.*{why}"):
        CIFAR10().load(at(tmp_path))


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch exploded",)


def test_a_pickle_that_asks_for_more_is_refused(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    small(monkeypatch, CIFAR10, train=20, test=4)
    write_cifar10(tmp_path, binary=False)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Bomb(), "labels": []}))
    with pytest.raises(MissingData, match=r"data_batch_1.*it asks for \w+.system"):
        CIFAR10().load(at(tmp_path))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "asked",
    [b"cbuiltins\neval\n.", b"cnumpy\nload\n.", b"cnumpy.core.multiarray\nfromfile\n.", b"Ppid\n."],
)
def test_nothing_else_is_looked_up(asked: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(asked)
    with pytest.raises(MissingData, match="no plain pickled dictionary"):
        cifar._unpickled(replace(CIFAR10.official, checksums={}), path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_pickles_are_named(kept: float, tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, CIFAR10, train=20, test=4)
    write_cifar10(tmp_path, binary=False)
    spoil(tmp_path / "test_batch", lambda content: content[: int(kept * len(content))])
    with pytest.raises(MissingData, match="test_batch is not the published file"):
        CIFAR10().load(at(tmp_path))


def test_randomly_damaged_pickles_never_escape_as_another_error(tmp_path: Path) -> None:
    official = replace(CIFAR10.official, checksums={})
    whole = old_pickle(numbers(2, 3072), labels=[1, 2])
    head = [*range(200), *range(len(whole) - 40, len(whole))]
    random = np.random.default_rng(0)
    path = tmp_path / "test_batch"
    outcomes = set()
    for _ in range(150):
        content = bytearray(whole)
        content[random.choice(head)] = random.integers(256)
        path.write_bytes(bytes(content))
        try:
            cifar._python(official, path, cifar.TEN)
            outcomes.add("read")
        except MissingData:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


# ---- SVHN, STL-10, Tiny ImageNet -----------------------------------------------------------


def write_svhn(folder: Path, *, compressed: bool = True) -> Any:
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    content = {}
    for seed, (name, count) in enumerate([("train", 12), ("test", 6)]):
        pixels = numbers(32, 32, 3, count, seed=seed)
        labels = numbers(count, 1, seed=seed, below=10) + 1  # 1 ... 10
        savemat(folder / f"{name}_32x32.mat", {"X": pixels, "y": labels}, do_compression=compressed)
        content[name] = (pixels, labels[:, 0])
    return content


def test_svhn_is_read_and_ten_is_nought(tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, SVHN, train=12, test=6)
    content = write_svhn(tmp_path)
    images = SVHN().load(at(tmp_path))
    pixels, labels = content["train"]
    assert images.train.labels.tolist() == [0 if label == 10 else label for label in labels]
    for number in range(12):
        assert np.array_equal(
            images.train.images[number].permute(1, 2, 0).numpy(), pixels[:, :, :, number]
        )


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
def test_truncated_matlab_files_are_named(kept: float, tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, SVHN, train=12, test=6)
    write_svhn(tmp_path)
    path = tmp_path / "test_32x32.mat"
    spoil(path, lambda content: content[: int(kept * len(content))])
    with pytest.raises(MissingData, match=r"test_32x32.mat is not the published file"):
        SVHN().load(at(tmp_path))


def write_stl10(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    content = {}
    for seed, (name, count) in enumerate([("train", 6), ("test", 4), ("unlabeled", 9)]):
        pixels = numbers(count, 3, 96, 96, seed=seed)
        (folder / f"{name}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
        labels = numbers(count, seed=seed, below=10) + 1
        if name != "unlabeled":
            (folder / f"{name}_y.bin").write_bytes(labels.tobytes())
        content[name] = (pixels, (labels.astype(int) - 1).tolist())
    return content


def test_stl10_is_read_with_its_unlabelled_split(tmp_path: Path, monkeypatch: Patch) -> None:
    small(monkeypatch, STL10, train=6, test=4, unlabelled=9)
    content = write_stl10(tmp_path / "stl10_binary")
    images = STL10().load(at(tmp_path))
    assert images.unlabelled is not None
    for split, name in [
        (images.train, "train"),
        (images.test, "test"),
        (images.unlabelled, "unlabeled"),
    ]:
        assert np.array_equal(split.images.numpy(), content[name][0])
    assert images.train.labels.tolist() == content["train"][1]
    assert images.unlabelled.labels.tolist() == [-1] * 9


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("unlabeled_X.bin", lambda content: content[:-5], "are not images of 27,648"),
        ("unlabeled_X.bin", lambda content: content[27648:], "holds 8 images, the published one 9"),
        ("train_y.bin", lambda content: content[:-1], "holds 5 labels, the published one 6"),
        ("test_y.bin", lambda content: b"\x00" + content[1:], "its labels are not all 1 to 10"),
    ],
)
def test_damaged_stl10_files_are_named(
    name: str, change: Any, why: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    small(monkeypatch, STL10, train=6, test=4, unlabelled=9)
    write_stl10(tmp_path)
    spoil(tmp_path / name, change)
    with pytest.raises(MissingData, match=f"{name} is not.*{why}"):
        STL10().load(at(tmp_path))


def write_tiny(folder: Path) -> None:
    kinds = ["n02", "n01"]
    for kind in kinds:
        home = folder / "train" / kind / "images"
        home.mkdir(parents=True)
        for number in range(3):
            colour = (200, 0, 0) if kind == "n01" else (0, 0, 200)
            Image.new("RGB", (64, 64), colour).save(home / f"{kind}_{number}.JPEG")
    (folder / "val" / "images").mkdir(parents=True)
    lines = []
    for number, kind in enumerate(["n01", "n02", "n02", "n01"]):
        # Some official pictures are grey.
        Image.new("L", (64, 64), 50 * number).save(folder / "val" / "images" / f"val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{kind}\t0\t0\t63\t63")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (folder / "wnids.txt").write_text("\n".join(kinds) + "\n")
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tbus\nn03\tcat\n")


def tiny(monkeypatch: Patch) -> None:
    small(monkeypatch, TinyImageNet, train=6, test=4, classes=2)


def test_tiny_imagenet_is_read(tmp_path: Path, monkeypatch: Patch) -> None:
    tiny(monkeypatch)
    write_tiny(tmp_path / "tiny-imagenet-200")
    images = TinyImageNet().load(at(tmp_path))
    assert images.classes == ("goldfish", "bus")
    assert images.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.test.labels.tolist() == [0, 1, 1, 0]
    assert images.train.images.shape == (6, 3, 64, 64)
    assert images.train.images[:, 0].float().mean((1, 2))[:3].min() > 190
    assert images.test.images[3].float().mean((1, 2)).tolist() == pytest.approx([150] * 3, abs=2)


def test_tiny_imagenet_names_what_is_not_there(tmp_path: Path, monkeypatch: Patch) -> None:
    tiny(monkeypatch)
    write_tiny(tmp_path)
    (tmp_path / "val" / "images" / "val_2.JPEG").unlink()
    with pytest.raises(MissingData, match=r"val_2.JPEG is not the published file .it is not there"):
        TinyImageNet().load(at(tmp_path))
    (tmp_path / "train" / "n01" / "images" / "n01_0.JPEG").unlink()
    with pytest.raises(MissingData, match="it holds 5 images, the published one 6"):
        TinyImageNet().load(at(tmp_path))


# ---- folders -------------------------------------------------------------------------------


def picture(path: Path, *, size: tuple[int, int] = (24, 20), seed: int = 0) -> Image.Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers(size[1], size[0], 3, seed=seed))
    image.save(path)
    return image


def write_folder(folder: Path, *, test: str = "test", each: int = 3) -> Path:
    for part in ("train", test):
        for seed, kind in enumerate(["cats", "dogs"]):
            for number in range(each):
                picture(folder / part / kind / f"{number}.png", seed=10 * seed + number)
    return folder


def load(folder: Path, *, size: int | None = None, **place: Any) -> Images:
    return Folder(path=str(folder), size=size).load(Place(**place))


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder_has_one_folder_a_class(test: str, tmp_path: Path) -> None:
    images = load(write_folder(tmp_path, test=test))
    assert images.classes == ("cats", "dogs")
    assert images.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.train.images.shape == (6, 3, 20, 20)
    assert images.skipped == ()


@pytest.mark.parametrize(
    ("side", "size"), [((40, 24), 24), ((24, 40), 16), ((7, 5), 32), ((33, 33), 8), ((90, 31), 13)]
)
def test_pictures_are_resized_and_cropped_as_torchvision_does(
    side: tuple[int, int], size: int, tmp_path: Path
) -> None:
    from torchvision import transforms

    image = picture(tmp_path / "x.png", size=side)
    wanted = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])(image)
    mine = pictures.square(tmp_path / "x.png", size)
    assert np.array_equal(mine.transpose(1, 2, 0), np.asarray(wanted))


def test_the_stored_side_is_the_first_pictures_short_side_or_64(tmp_path: Path) -> None:
    assert load(write_folder(tmp_path / "a")).train.images.shape[-1] == 20
    picture(tmp_path / "b" / "train" / "cats" / "0.png", size=(300, 200))
    picture(tmp_path / "b" / "test" / "cats" / "0.png", size=(30, 20))
    assert load(tmp_path / "b").train.images.shape[-1] == 64
    assert load(tmp_path / "b", size=100).test.images.shape[-1] == 100


def one(folder: Path, image: Image.Image, name: str = "0.png", **options: Any) -> torch.Tensor:
    """What becomes of a picture."""
    for part in ("train", "test"):
        (folder / part / "only").mkdir(parents=True, exist_ok=True)
        image.save(folder / part / "only" / name, **options)
    images = load(folder, size=min(image.size))
    assert torch.equal(images.train.images, images.test.images)
    return images.train.images[0]


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = numbers(9, 9)
    assert np.array_equal(one(tmp_path, Image.fromarray(grey)).numpy(), np.stack([grey] * 3))


@pytest.mark.parametrize("name", ["0.png", "0.tif", "0.pgm"])
def test_16_bits_are_scaled_not_clipped(name: str, tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 81).astype(np.uint16).reshape(9, 9)
    mine = one(tmp_path, Image.fromarray(deep), name)
    assert (mine[0].double() - torch.from_numpy(deep / 257)).abs().max() <= 0.5
    assert torch.equal(mine[0], mine[2])


def test_an_opaque_rgba_picture_is_its_rgb(tmp_path: Path) -> None:
    colours = numbers(9, 9, 3)
    opaque = np.concatenate([colours, np.full((9, 9, 1), 255, np.uint8)], 2)
    mine = one(tmp_path, Image.fromarray(opaque))
    assert np.array_equal(mine.permute(1, 2, 0).numpy(), colours)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(mode: str, tmp_path: Path) -> None:
    half = numbers(9, 9, len(mode))
    half[..., -1] = 0
    half[:4, :, -1] = 255
    mine = one(tmp_path, Image.fromarray(half, mode=None))
    assert mine[:, 4:].min() == 255
    assert np.array_equal(mine[0, :4].numpy(), half[:4, :, 0])


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(numbers(9, 9, below=4))
    palette = image.convert("P")
    palette.putpalette([250, 1, 2, 3, 240, 5, 6, 7, 230, 90, 91, 92])
    mine = one(tmp_path, palette)
    wanted = np.array([[250, 1, 2], [3, 240, 5], [6, 7, 230], [90, 91, 92]], np.uint8)
    assert np.array_equal(mine.permute(1, 2, 0).numpy(), wanted[np.asarray(image)])


def test_a_palette_with_a_transparent_entry_is_white_there(tmp_path: Path) -> None:
    palette = Image.fromarray(numbers(9, 9, below=2)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    mine = one(tmp_path, palette, transparency=0)
    clear = np.asarray(palette) == 0
    assert (mine.permute(1, 2, 0).numpy()[clear] == 255).all()
    assert (mine.permute(1, 2, 0).numpy()[~clear] == [40, 50, 60]).all()


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 3  # upside down
    colours = numbers(9, 9, 3)
    mine = one(tmp_path, Image.fromarray(colours), exif=exif)
    assert np.array_equal(mine.permute(1, 2, 0).numpy(), colours[::-1, ::-1])


def test_large_jpegs_decode_small_yet_alike(tmp_path: Path) -> None:
    smooth = Image.fromarray(numbers(8, 8, 3)).resize((640, 480), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "x.jpg", quality=95)
    smooth.save(tmp_path / "x.png")
    jpeg, png = (pictures.square(tmp_path / f"x.{kind}", 32).astype(int) for kind in ("jpg", "png"))
    assert np.abs(jpeg - png).mean() < 2


@pytest.mark.parametrize("side", [(1, 1), (1, 9), (9, 1)])
def test_sides_of_one_pixel_work(side: tuple[int, int], tmp_path: Path) -> None:
    for part in ("train", "test"):
        picture(tmp_path / part / "only" / "0.png", size=side)
    assert load(tmp_path).train.images.shape == (1, 3, 1, 1)
    assert load(tmp_path, size=4).train.images.shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "truncated jpeg", "float"],
)
@pytest.mark.parametrize("scratch", [False, True])
def test_a_broken_image_is_named_or_skipped(
    content: bytes | str, scratch: bool, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "data")
    path = folder / "train" / "cats" / "1.png"
    if content == "truncated jpeg":
        picture(tmp_path / "whole.jpg", size=(60, 60))
        path.write_bytes((tmp_path / "whole.jpg").read_bytes()[:1500])
    elif content == "float":
        Image.fromarray(np.ones((9, 9), np.float32)).save(path, "TIFF")
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    where = {"scratch": tmp_path / "scratch"} if scratch else {}
    for _ in range(2):
        with pytest.raises(UserError, match=r"1.png is a broken image .*--skip-broken") as caught:
            load(folder, **where)
        assert str(path) in str(caught.value)
        images = load(folder, skip_broken=True, **where)
        assert images.skipped == (str(path),)
        assert images.train.labels.tolist() == [0, 0, 1, 1, 1]
    path.unlink()
    clean = load(folder, **where)
    assert clean.fingerprint == images.fingerprint
    assert clean.skipped == ()


def test_a_broken_first_image_does_not_decide_the_side(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "train" / "cats" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"cats/0.png is a broken image"):
        load(folder)
    assert load(folder, skip_broken=True).train.images.shape == (5, 3, 20, 20)


def test_nothing_but_broken_images_is_an_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, each=1)
    for path in (folder / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"every image beside .*test/cats/0.png is broken"):
        load(folder, skip_broken=True)


def test_train_may_be_flat_and_unlabelled(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    for path in sorted((folder / "train").rglob("*.png")):
        path.rename(folder / "train" / f"{path.parent.name}{path.name}")
    for kind in ("cats", "dogs"):
        (folder / "train" / kind).rmdir()
    images = load(folder)
    assert images.train.labels.tolist() == [-1] * 6
    assert images.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.classes == ("cats", "dogs")


def test_one_class_alone_is_allowed(tmp_path: Path) -> None:
    for part in ("train", "test"):
        picture(tmp_path / part / "only" / "0.png")
    assert load(tmp_path).classes == ("only",)


def test_a_class_of_test_may_be_empty(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    for path in (folder / "test" / "cats").iterdir():
        path.unlink()
    assert load(folder).test.labels.tolist() == [1, 1, 1]


def test_other_files_and_hidden_ones_are_no_pictures(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "train" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "cats" / "._0.png").write_bytes(b"x")
    (folder / "train" / "cats" / "notes.txt").write_text("x")
    picture(folder / "train" / "cats" / "deeper" / "9.PNG")
    assert len(load(folder).train.labels) == 7


def wrong_no_train(folder: Path) -> None:
    (folder / "train").rename(folder / "training")


def wrong_no_test(folder: Path) -> None:
    (folder / "test").rename(folder / "tests")


def wrong_loose(folder: Path) -> None:
    picture(folder / "train" / "loose.png")


def wrong_empty(folder: Path) -> None:
    (folder / "train" / "birds").mkdir()


def wrong_foreign(folder: Path) -> None:
    picture(folder / "test" / "birds" / "0.png")


def wrong_flat_test(folder: Path) -> None:
    for kind in ("cats", "dogs"):
        for path in (folder / "test" / kind).iterdir():
            path.rename(folder / "test" / f"{kind}{path.name}")
        (folder / "test" / kind).rmdir()


@pytest.mark.parametrize(
    ("spoiler", "why"),
    [
        (wrong_no_train, "there is no .*/train"),
        (wrong_no_test, "there is no .*/test nor .*/val"),
        (wrong_loose, "loose.png lies beside folders of classes"),
        (wrong_empty, "train/birds holds no picture"),
        (wrong_foreign, "the class 'birds' is in the test split alone; train has cats, dogs"),
        (wrong_flat_test, "test needs one folder a class"),
    ],
)
def test_a_folder_in_another_layout_says_what_is_wanted(
    spoiler: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    spoiler(write_folder(tmp_path))
    with pytest.raises(UserError, match=why) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"folder:{tmp_path}: ")


@pytest.mark.parametrize("size", [0, "big"])
def test_a_folder_wants_a_size_in_pixels(size: Any) -> None:
    with pytest.raises(UserError, match=f"not {size!r}"):
        Folder(path="x", size=size)


# ---- fingerprints and memory ---------------------------------------------------------------


def test_one_flipped_pixel_or_label_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    small(monkeypatch, MNIST, train=20, test=10)
    write_idx(tmp_path)
    prints = {MNIST().load(at(tmp_path)).fingerprint}
    assert {MNIST().load(at(tmp_path)).fingerprint} == prints
    for path in sorted(tmp_path.iterdir()):
        before = path.read_bytes()
        last = 1 if before[-1] == 0 else 0  # of a label too
        path.write_bytes(before[:-1] + bytes([last]))
        prints.add(MNIST().load(at(tmp_path)).fingerprint)
        path.write_bytes(before)
    assert len(prints) == 5


def test_the_stored_side_is_in_a_folders_fingerprint(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    assert load(folder).fingerprint == load(folder, size=20).fingerprint
    assert load(folder, size=19).fingerprint != load(folder, size=20).fingerprint


def write_all(folder: Path, monkeypatch: Patch) -> list[Dataset]:
    small(monkeypatch, MNIST, train=20, test=10)
    write_idx(folder / "mnist")
    small(monkeypatch, CIFAR10, train=20, test=4)
    write_cifar10(folder / "cifar-10-batches-bin", binary=True)
    small(monkeypatch, SVHN, train=12, test=6)
    write_svhn(folder / "svhn")
    small(monkeypatch, STL10, train=6, test=4, unlabelled=9)
    write_stl10(folder / "stl10_binary")
    tiny(monkeypatch)
    write_tiny(folder / "tiny-imagenet-200")
    write_folder(folder / "own")
    kinds = [Digits(), MNIST(), CIFAR10(), SVHN(), STL10(), TinyImageNet()]
    return [*kinds, Folder(path=str(folder / "own"))]


def test_what_is_memory_mapped_equals_what_is_held(tmp_path: Path, monkeypatch: Patch) -> None:
    """Same bytes, same fingerprint; the file holds the bytes and nothing else."""
    for dataset in write_all(tmp_path / "data", monkeypatch):
        scratch = tmp_path / type(dataset).__name__
        held = dataset.load(at(tmp_path / "data"))
        with monkeypatch.context() as context:
            context.setattr(arrays, "SHARE", 0)
            for _ in range(2):  # the second finds the first's files
                mapped = dataset.load(at(tmp_path / "data", scratch=scratch))
                assert mapped.fingerprint == held.fingerprint
                for mine, theirs in [
                    (mapped.train, held.train),
                    (mapped.test, held.test),
                    (mapped.unlabelled or held.test, held.unlabelled or held.test),
                ]:
                    assert torch.equal(mine.images, theirs.images)
                    assert torch.equal(mine.labels, theirs.labels)
        laid = {path.read_bytes() for path in scratch.glob("*.u8")}
        assert held.train.images.numpy().tobytes() in laid
        assert not list(scratch.glob("*.part"))


def test_memory_maps_begin_at_a_stated_share(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(arrays, "memory", lambda: 8 * 1437 * 3 * 32 * 32)
    Digits().load(Place(scratch=tmp_path))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(arrays, "memory", lambda: 2 * 1437 * 3 * 32 * 32)
    Digits().load(Place(scratch=tmp_path))
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [1437 * 3 * 32 * 32]


def test_memory_is_what_the_machine_has() -> None:
    assert 2**28 < arrays.memory() < 2**50


def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: Patch) -> None:
    folder = write_folder(tmp_path / "data")
    first = load(folder, scratch=tmp_path / "scratch")
    with monkeypatch.context() as context:
        context.setattr(pictures, "square", lambda *_: pytest.fail("decoded again"))
        again = load(folder, scratch=tmp_path / "scratch")
    assert again.fingerprint == first.fingerprint == load(folder).fingerprint
    picture(folder / "train" / "cats" / "1.png", seed=99)
    assert load(folder, scratch=tmp_path / "scratch").fingerprint != first.fingerprint


@pytest.mark.parametrize("suffix", ["u8", "json"])
@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-7], lambda content: b"9" * len(content), lambda content: b"[1]"],
)
def test_damaged_decoded_pictures_are_decoded_anew(
    suffix: str, change: Any, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "data")
    first = load(folder, scratch=tmp_path / "scratch")
    for path in (tmp_path / "scratch").glob(f"*.{suffix}"):
        spoil(path, change)
    again = load(folder, scratch=tmp_path / "scratch")
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.train.images, first.train.images)


def test_a_disk_that_refuses_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "SHARE", 0)
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"could not be written to .*No space left"):
            Digits().load(Place(scratch=tmp_path / "scratch"))
    assert not list((tmp_path / "scratch").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        Digits().load(Place(scratch=tmp_path / "file" / "scratch"))


def test_small_folders_load_where_nothing_can_be_written(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    (tmp_path / "file").write_text("")
    images = load(folder, scratch=tmp_path / "file" / "scratch")
    assert images.fingerprint == load(folder).fingerprint
