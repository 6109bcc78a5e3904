"""Reads tensors from a stranger's file, without ever running code in it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...disk import opened, utf8
from ...errors import UserError
from .unpickling import CONTENTS, TENSORS, Held, TooMuch, check_archive, read_inert

PICKLED = (".pth", ".pt", ".bin", ".tar", ".ckpt")
SHOWN = 10  # names in a list
DEPTH = 4  # levels of nested dictionaries
LONGEST = 1000  # characters of a name
# How files begin that are no weights -> what they are, and what would work.
OTHERS = {
    b"<!doctype": "a page of HTML: the download gave a page; take the link to the file itself",
    b"<html": "a page of HTML: the download gave a page; take the link to the file itself",
    b"<?xml": "XML, perhaps an error of the server; download the file again",
    b"version https://git-lfs": "a pointer of Git LFS, without the weights; `git lfs pull` gets them",
    b"{": "JSON, not weights",
    b"\x89hdf": "HDF5, of Keras or h5py; save the weights by torch or safetensors",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
}
MAGIC = bytes.fromhex("6cfc9c46f9206aa850")  # torch's, as a pickle writes it


class Saved(NamedTuple):
    """One tensor of a file."""

    place: str  # the keys of the dictionaries around it, "state_dict."; "" at the top
    name: str
    tensor: Tensor

    @property
    def whole(self) -> str:
        return self.place + self.name


class Contents(NamedTuple):
    """The tensors of a file, and the names of objects in it that were not made."""

    tensors: list[Saved]
    not_made: list[str]


def read(path: Path) -> Contents:
    """Reads every tensor of a file. No code in it is run, nor of what it names.

    Raises:
        UserError: it is missing, damaged, not a file of weights, or would need to run a pickle.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"--encoder {path} {what}; name a file: .safetensors, {', '.join(PICKLED)}")
    if path.stat().st_size == 0:
        raise UserError(f"--encoder {path} is empty; copy or download it again")
    suffix = path.suffix.lower()
    _check_kind(path)
    not_made: list[str] = []
    if suffix == ".safetensors":
        content: Any = _safetensors(path)
    elif suffix in PICKLED:
        content, not_made = _pickled(path)
    else:
        raise UserError(
            f"--encoder {path} ends in {suffix or 'nothing'}; files of weights that can be read "
            f"end in .safetensors, {', '.join(PICKLED)}"
        )
    found = list(itertools.islice(_tensors(content, set()), TENSORS + 1))
    if len(found) > TENSORS:
        raise _many(path)
    if not found:
        if not_made:
            raise _program(path, not_made[0])
        shown = type(content).__name__ if not isinstance(content, Mapping) else _some(content)
        raise UserError(
            f"{path} holds no tensors by name (found: {shown}); a file of "
            f"`torch.save(model.state_dict(), FILE)` does"
        )
    return Contents(found, not_made)


def _many(path: Path) -> UserError:
    return UserError(f"{path} holds more than {TENSORS:,} tensors; save those of one network alone")


def _check_kind(path: Path) -> None:
    """Refuses a file whose first bytes say that it is something else, whatever it is called."""
    start = _start(path)
    if path.suffix.lower() == ".safetensors" and b"\0" in start[:8]:
        return  # which is the length of its header, whatever it looks like
    for sign, what in OTHERS.items():
        if start.lstrip().lower().startswith(sign):
            raise UserError(f"--encoder {path} is {what}")


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with opened(path) as held, safe_open(utf8(path, held), framework="pt") as file:
            names = list(file.keys())
            if len(names) > TENSORS:
                raise _many(path)
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}") from error


def _pickled(path: Path) -> tuple[Any, list[str]]:
    """Reads a file of torch.save: its tensors and plain data, and the names of other objects."""
    try:
        zipped = _start(path).startswith(b"PK\3\4")
        if zipped:
            check_archive(path)
        elif path.stat().st_size > CONTENTS and not _of_old_torch(path):
            raise TooMuch("it is a pickle that torch.save did not write")
        return torch.load(path, map_location="cpu", weights_only=True), []
    except TooMuch as error:
        raise UserError(f"{path} is not read: {error}; save a network's tensors alone") from error
    except Exception as error:  # a broken file breaks torch's reader anywhere
        said = str(error)
        wanted = re.search(r"(?:GLOBAL|[Cc]lass|global) ([A-Za-z_][\w.]*\.[\w.]+)", said)
        if wanted and zipped:
            try:
                return read_inert(path)
            except ValueError as fault:
                raise UserError(f"{path} is not read: {fault}") from fault
        if wanted or "TorchScript" in said or ("weights_only" in said and "Unsupported" in said):
            raise _program(path, wanted[1] if wanted else "a whole program") from error
        start = _start(path)[:8]
        why = f"it begins with {start!r}"
        if start.startswith((b"PK", b"\x80")):
            why = f"it is not whole ({(said.strip().splitlines() or [type(error).__name__])[0][:200]})"
        raise UserError(f"{path} is not a readable file of torch.save: {why}") from error


def _of_old_torch(path: Path) -> bool:
    """Whether a file begins as those of torch.save did before they were archives."""
    return MAGIC in _start(path)[:64]


def _start(path: Path) -> bytes:
    """The first bytes of a file. CannotRead where the system refuses."""
    with opened(path) as file:
        return file.read(512)


def _program(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} holds more than tensors: it asks for {what}, and loading that would run code from "
        "the file. If you trust the file, save its tensors alone: `torch.save(model.state_dict(), "
        "FILE)`, or safetensors' `save_file`"
    )


def _tensors(content: Any, met: set[int], place: str = "", depth: int = 0) -> Iterator[Saved]:
    """The tensors of nested dictionaries, each of which is looked into once."""
    if not isinstance(content, dict) or depth > DEPTH or id(content) in met:
        return
    met.add(id(content))
    for key, value in dict.items(content):  # a file may have given it another `items`
        found = value.tensor if isinstance(value, Held) else value
        if isinstance(found, Tensor):
            yield Saved(place, str(key)[:LONGEST], found.detach())
        else:
            yield from _tensors(found, met, f"{place}{key}."[:LONGEST], depth + 1)


def _some(content: Mapping[Any, Any]) -> str:
    return listed([f"{key}: {type(value).__name__}" for key, value in content.items()]) or "nothing"


def listed(names: Sequence[str]) -> str:
    """Lists the first names, and says how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
