"""Reads tensors from a file of torch.save that also holds other objects, and makes none of these.

A pickle is a list of instructions: it names classes and functions, and what to call them with. Here
every name but a few leads to `Inert`, which takes any arguments and does nothing, so that no code of
the file or of a library that it names is run. Sizes are checked before anything is read.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CONTENTS = 2**22  # bytes of the pickle itself, which grows with the number of objects
TENSORS = 2**14  # of a file; the largest networks have some thousands, with their optimiser thrice


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
    """The content of a file, with `Inert` for what is neither plain nor a tensor, and their names.

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
        self.args = args

    def __setstate__(self, state: object) -> None:
        pass

    def __call__(self, *args: object, **more: object) -> Inert:
        return Inert()

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def add(self, item: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


class _Reader(pickle.Unpickler):
    """An unpickler for which only tensors and plain data exist."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root
        self.named: dict[str, None] = {}  # what was not made, in the order of the file
        self._made = 0
        self._storages: dict[str, Tensor] = {}
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch", "Size"): tuple,
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known:
            return self._known[module, name]
        if module == "torch" and (kind := STORAGES.get(name)) is not None:
            return kind
        self.named[f"{module}.{name}"] = None
        return Inert

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage [N], read once."""
        what, kind, key, _, length = pid
        if what != "storage" or not isinstance(kind, torch.dtype) or not isinstance(key, str):
            raise ValueError("it has a storage of an unknown kind")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            flat = torch.frombuffer(content, dtype=kind) if content else torch.empty(0, dtype=kind)
            self._storages[key] = flat
        if len(self._storages[key]) != length or self._storages[key].dtype != kind:
            raise ValueError(f"its storage {key} is not what the list of its objects says")
        return self._storages[key]

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, *more: Any
    ) -> Tensor | Inert:
        if not isinstance(storage, Tensor):
            return Inert()  # of a kind that is not read here
        self._made += 1
        if self._made > TENSORS:
            raise TooMuch(f"it has more than {TENSORS:,} tensors")
        shape = _shape(size)
        if math.prod(shape) > len(storage):
            raise TooMuch("a tensor is larger than its numbers in the file")
        return storage.as_strided(shape, _shape(stride), int(offset))


def _parameter(data: Any, *more: Any) -> Any:
    return data


def _shape(numbers: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers)


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
