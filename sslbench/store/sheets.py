"""Pictures for people beside a record: one PNG, of which the record has the digest."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..disk import opened, sha256

if TYPE_CHECKING:
    from torch import Tensor

PIXELS = 2**23  # at most
LARGEST = 2**25  # bytes of a file; so many pixels take less


def png(sheet: Tensor) -> bytes:
    """The content of the file. ValueError where it is not uint8 [3, H, W] of at most PIXELS."""
    from PIL import Image

    if sheet.dim() != 3 or len(sheet) != 3 or str(sheet.dtype) != "torch.uint8":
        raise ValueError(
            f"a sheet is {sheet.dtype} {list(sheet.shape)}, where uint8 [3, H, W] is wanted"
        )
    if not 0 < sheet[0].numel() <= PIXELS:
        raise ValueError(
            f"a sheet of {sheet.shape[1]:,} x {sheet.shape[2]:,} pixels cannot be kept; between 1 "
            f"and {PIXELS:,} can be"
        )
    file = io.BytesIO()
    Image.fromarray(sheet.cpu().permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return file.getvalue()


def check_sheet(path: Path, digest: str) -> None:
    """ValueError where a file is not the sheet of a record with this digest."""
    with opened(path) as file:
        content = file.read(LARGEST + 1)
    if sha256(content) != digest:
        raise ValueError("it is not its record's sheet")
