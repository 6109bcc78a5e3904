"""Reads tensors from a stranger's file, without ever running code in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import UserError

PICKLED = (".pth", ".pt", ".bin", ".tar", ".ckpt")
SHOWN = 10  # names in a list
DEPTH = 4  # levels of nested dictionaries


class Saved(NamedTuple):
    """One tensor of a file."""

    place: str  # the keys of the dictionaries around it, "state_dict."; "" at the top
    name: str
    tensor: Tensor

    @property
    def whole(self) -> str:
        return self.place + self.name


def read(path: Path) -> list[Saved]:
    """Reads every tensor of a file. No code in it is run.

    Raises:
        UserError: it is missing, damaged, not a file of weights, or would need to run a pickle.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"--encoder {path} {what}; name a file: .safetensors, {', '.join(PICKLED)}")
    if path.stat().st_size == 0:
        raise UserError(f"--encoder {path} is empty; copy or download it again")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        content = _safetensors(path)
    elif suffix in PICKLED:
        content = _pickled(path)
    else:
        raise UserError(
            f"--encoder {path} ends in {suffix or 'nothing'}; files of weights that can be read "
            f"end in .safetensors, {', '.join(PICKLED)}"
        )
    found = list(_tensors(content))
    if not found:
        shown = type(content).__name__ if not isinstance(content, Mapping) else _some(content)
        raise UserError(
            f"{path} holds no tensors by name (found: {shown}); a file of "
            f"`torch.save(model.state_dict(), FILE)` does"
        )
    return found


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}") from error


def _pickled(path: Path) -> Any:
    """Reads a file of torch.save that holds only tensors and plain data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file breaks torch's reader anywhere
        said = str(error)
        wanted = re.search(r"(?:GLOBAL|[Cc]lass|global) ([A-Za-z_][\w.]*\.[\w.]+)", said)
        if wanted or "TorchScript" in said or ("weights_only" in said and "Unsupported" in said):
            what = wanted[1] if wanted else "a whole program"
            raise UserError(
                f"{path} holds more than tensors: it asks for {what}, and loading that would run "
                f"code from the file. If you trust the file, save its tensors alone: "
                f"`torch.save(model.state_dict(), FILE)`, or safetensors' `save_file`"
            ) from error
        with path.open("rb") as file:
            start = file.read(8)
        why = f"it begins with {start!r}"
        if start.startswith((b"PK", b"\x80")):
            why = f"it is not whole ({(said.strip().splitlines() or [type(error).__name__])[0][:200]})"
        raise UserError(f"{path} is not a readable file of torch.save: {why}") from error


def _tensors(content: Any, place: str = "", depth: int = 0) -> Iterator[Saved]:
    if not isinstance(content, Mapping) or depth > DEPTH:
        return
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield Saved(place, str(key), value.detach())
        else:
            yield from _tensors(value, f"{place}{key}.", depth + 1)


def _some(content: Mapping[Any, Any]) -> str:
    return listed([f"{key}: {type(value).__name__}" for key, value in content.items()]) or "nothing"


def listed(names: Sequence[str]) -> str:
    """Lists the first names, and says how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
