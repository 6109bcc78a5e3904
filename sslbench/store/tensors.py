"""Reads files of tensors and plain data, and checks their checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..disk import cannot_read, opened, utf8

if TYPE_CHECKING:
    from torch import Tensor


class Damaged(ValueError):
    """A file's checksum does not match its content."""


def read_tensors(path: Path, *, cell: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads tensors and plain data that `CellFolder.save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is not one of ours, its content and its checksum do not match, or it is not
            that of `cell`.
        CannotRead: the system refuses to read it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with opened(path) as held:
            try:
                with safe_open(utf8(path, held), framework="pt") as file:
                    meta = file.metadata() or {}
                    tensors = {key: file.get_tensor(key) for key in list(file.keys())}
            except (OSError, RuntimeError) as error:  # it is there: others opened too many files
                raise cannot_read(path, OSError(None, str(error))) from error
    except (SafetensorError, ValueError) as error:
        raise Damaged(str(error)) from error
    if meta.get("sha256") != digest_of(tensors, meta.get("plain", "")):
        raise Damaged("its checksum does not hold")
    of = meta.get("cell", "")  # older files do not say it
    if cell and of and of != cell:
        raise Damaged(f"it belongs to cell {of[:12]}")
    return tensors, json.loads(meta["plain"])


def digest_of(tensors: Mapping[str, Tensor], plain: str = "") -> str:
    """sha256 of plain text and of tensors: names, types, shapes and contents, sorted by name."""
    import torch

    total = hashlib.sha256(plain.encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        if tensor.numel():
            total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
