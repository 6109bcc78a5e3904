"""Draws a contact sheet: a few images under each corruption and severity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..api import Corrupted, Split
from ..corruptions import EXTRA, GROUPS, VERSION
from ..disk import replacing
from ..errors import UserError

SHOWN = 2  # images in a field of the sheet
LARGE = 72  # pixels that the side of a small image is enlarged to, at least
BETWEEN, GAP, EDGE, LINE = 2, 12, 20, 28  # pixels: images, cells, the rim, a line of text
PAPER, INK, PALE = (255, 255, 255), (24, 24, 24), (110, 110, 110)


def draw(
    test: Split, corrupted: Corrupted, *, corruptions: Sequence[str], severities: Sequence[int]
) -> Image.Image:
    """Draws the sheet: rows are corruptions, columns the clean images and each severity."""
    chosen = _examples(test.labels)
    clean = _strip(test.images[chosen])
    title = f"{corrupted.name}, version {VERSION}, test images {' and '.join(map(str, chosen.tolist()))}"
    font, small = ImageFont.load_default(17), ImageFont.load_default(14)
    groups = list(_groups(corruptions))
    left = 2 * EDGE + max(round(font.getlength(_words(name))) for name in corruptions)
    right = left + (1 + len(severities)) * (clean.width + GAP) - GAP + EDGE
    down = EDGE + 2 * LINE + len(corruptions) * (clean.height + GAP) + len(groups) * LINE
    sheet = Image.new("RGB", (max(right, round(font.getlength(title)) + 2 * EDGE), down), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((EDGE, EDGE), title, INK, font)
    heads = ["clean", *(f"severity {severity}" for severity in severities)]
    places = [left + column * (clean.width + GAP) for column in range(len(heads))]
    for place, head in zip(places, heads, strict=True):
        middle = place + clean.width / 2
        pen.text((middle, EDGE + 2 * LINE), head, INK, small, anchor="ms")
    y = EDGE + 2 * LINE + GAP // 2
    for group, members in groups:
        pen.text((EDGE, y + LINE / 2), group, PALE, small, anchor="lm")
        pen.line((left, y + LINE / 2, right - EDGE, y + LINE / 2), (210, 210, 210))
        y += LINE
        for name in members:
            pen.text((left - EDGE, y + clean.height / 2), _words(name), INK, font, anchor="rm")
            strips = (_strip(corrupted.block(name, s, chosen)) for s in severities)
            for place, strip in zip(places, (clean, *strips), strict=True):
                sheet.paste(strip, (place, y))
            y += clean.height + GAP
    return sheet


def saved(sheet: Image.Image, path: Path) -> None:
    """Writes a sheet as a PNG, whole or not at all; UserError where the disk does not let it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            sheet.save(part, "PNG")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _examples(labels: Tensor) -> Tensor:
    """The first test image of each of a few classes."""
    kinds = torch.unique(labels)
    chosen = kinds[torch.arange(SHOWN) * len(kinds) // SHOWN]
    return torch.stack(
        [torch.nonzero(labels == kind)[0, 0] for kind in dict.fromkeys(chosen.tolist())]
    )


def _strip(images: Tensor) -> Image.Image:
    """Images [M, 3, H, W] side by side, enlarged by whole pixels."""
    _, _, height, width = images.shape
    factor = max(1, -(-LARGE // max(height, width)))
    high, wide = height * factor, width * factor
    strip = Image.new("RGB", (len(images) * (wide + BETWEEN) - BETWEEN, high), PAPER)
    for place, image in enumerate(images):
        one = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        large = one.resize((wide, high), Image.Resampling.NEAREST)
        strip.paste(large, (place * (wide + BETWEEN), 0))
    return strip


def _groups(corruptions: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Groups corruptions as the papers do, with those beyond the benchmark last."""
    for group, known in {**GROUPS, "extra, not in mCE": EXTRA}.items():
        members = [name for name in corruptions if name in known]
        if members:
            yield group, members


def _words(name: str) -> str:
    return name.replace("_", " ")
