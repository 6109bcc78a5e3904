"""Reads tensors from a file of torch.save that also holds other objects, and makes none of these.

A pickle is a list of instructions: it names classes and functions, and what to call them with. Here
every name but a few leads to `Inert`, which takes any arguments and does nothing, and what the few
make is held by an object that takes no state: no code of the file, of torch or of a library that it
names is run. The sizes in an archive are checked before it is read. The time is not bounded by that: a
pickle can be made whose dictionary's key takes for ever to hash, in any reader.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CONTENTS = 2**22  # bytes of the pickle itself, which grows with the number of objects
TENSORS = 2**14  # of a file; the largest networks have some thousands, with their optimiser thrice
DIMENSIONS = 64  # of a tensor, as many as torch allows


class TooMuch(ValueError):
    """A file holds more than any network's has."""


def check_archive(path: Path) -> None:
    """Checks the sizes in a file of torch.save, before torch reads it.

    Raises:
        TooMuch: it unfolds to more than it is, or names more objects than a network has.
        zipfile.BadZipFile: it is not whole.
    """
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if packed := [info.filename for info in infos if info.compress_type != zipfile.ZIP_STORED]:
            raise TooMuch(f"its part {packed[0]!r} is compressed, which torch.save never does")
        if sum(info.file_size for info in infos) > path.stat().st_size:
            raise TooMuch("its parts say that they are larger than the file")
        contents = sum(info.file_size for info in infos if info.filename.endswith("/data.pkl"))
        if contents > CONTENTS:
            raise TooMuch(
                f"the list of its objects has {contents:,} bytes, where {CONTENTS:,} are allowed"
            )
        if len(infos) > TENSORS:
            raise TooMuch(f"it has {len(infos):,} parts, where {TENSORS:,} are allowed")


def read_inert(path: Path) -> tuple[Any, list[str]]:
    """The content of an archive, with `Held` for tensors and `Inert` for what is not plain.

    Returns it with the names of what was not made.

    Raises:
        ValueError: it is not a file of torch.save that can be read so.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise ValueError("it has not one list of objects")
            reader = _Reader(archive, names[0].removesuffix("data.pkl"))
            return reader.load(), list(reader.named)
    except ValueError:
        raise
    except Exception as error:  # an archive and a pickle may fail anywhere
        raise ValueError(f"{type(error).__name__}: {error}") from error


class Inert:
    """Stands for an object that was not made."""

    def __init__(self, *args: object, **more: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __call__(self, *args: object, **more: object) -> object:
        return Inert()

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def add(self, item: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


class Held(Inert):
    """Holds a tensor of the file, so that the file cannot give it a state."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Maker(Inert):
    """One of the few functions that are called."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __call__(self, *args: object, **more: object) -> object:
        return self.function(*args)


class _Kind(Inert):
    """A type of storage."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Reader(pickle.Unpickler):
    """An unpickler for which only tensors and plain data exist."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root
        self.named: dict[str, None] = {}  # what was not made, in the order of the file
        self._made = 0
        self._storages: dict[str, Tensor] = {}
        self._known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): _Maker(lambda *args: {}),
            ("torch._utils", "_rebuild_tensor_v2"): _Maker(self._tensor),
            ("torch._utils", "_rebuild_parameter"): _Maker(lambda data, *more: data),
            ("torch", "Size"): _Maker(lambda *args: ()),
        }
        self._known |= {("torch", name): _Kind(dtype) for name, dtype in STORAGES.items()}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known:
            return self._known[module, name]
        self.named[f"{module}.{name}"] = None
        return Inert

    def persistent_load(self, pid: Any) -> Inert:
        """The numbers of a storage [N], read once."""
        what, kind, key, _, length = pid
        if what != "storage" or not isinstance(kind, _Kind) or not isinstance(key, str):
            return Inert()  # of a type that no plain tensor has
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            empty = torch.empty(0, dtype=kind.dtype)
            self._storages[key] = torch.frombuffer(content, dtype=kind.dtype) if content else empty
        if len(self._storages[key]) != length or self._storages[key].dtype != kind.dtype:
            raise ValueError(f"its storage {key} is not what the list of its objects says")
        return Held(self._storages[key])

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Inert:
        if not isinstance(storage, Held):
            return Inert()
        self._made += 1
        if self._made > TENSORS:
            raise TooMuch(f"it has more than {TENSORS:,} tensors")
        shape, steps = _numbers(size), _numbers(stride)
        if math.prod(shape) > len(storage.tensor):
            raise TooMuch("a tensor is larger than its numbers in the file")
        return Held(storage.tensor.as_strided(shape, steps, *_numbers((offset,))))


def _numbers(given: Any) -> tuple[int, ...]:
    """A shape or strides. ValueError where they are none."""
    sound = isinstance(given, tuple) and len(given) <= DIMENSIONS
    if not sound or not all(type(number) is int and 0 <= number < 2**48 for number in given):
        raise ValueError("a tensor has a shape that is none")
    return tuple(given)


STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
