"""Looks at a dataset or at a method's views: counts of classes, and a sheet of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..api import Method, Place, View
from ..data import Data
from ..errors import UserError
from ..names import parse
from ..plugins import Registry

BATCH = 8  # for the plan alone: no view knows it
SHOWN = 20  # images whose views are drawn
OF_CLASS = 8  # images of one class that are drawn
CLASSES = 40  # that are drawn at most
COLUMNS = 24  # views of one image that are drawn at most
SMALL, LARGE = 48, 96  # pixels: sides of pictures are enlarged or reduced to between these
GAP, EDGE, LINE = 4, 16, 22  # pixels: between pictures, the rim, a line of text
PAPER, INK, PALE = (255, 255, 255), (24, 24, 24), (110, 110, 110)


# ---- counts ------------------------------------------------------------------------------------


def counted(data: Data) -> dict[str, Any]:
    """How many images there are of which class, and which are there twice."""
    train, test = data.train, data.test
    counts = {
        name: (int((train.labels == at).sum()), int((test.labels == at).sum()))
        for at, name in enumerate(data.class_names)
    }
    known = test.labels[test.labels >= 0]
    most = int(torch.bincount(known).max()) if len(known) else 0
    once = _digests(train.images)
    again = _digests(test.images)
    return {
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        "size": data.size,
        "train": len(train.labels),
        "test": len(test.labels),
        "classes": {name: {"train": a, "test": b} for name, (a, b) in counts.items()},
        "without_label": {
            "train": int((train.labels < 0).sum()),
            "test": int((test.labels < 0).sum()),
        },
        "chance": most / len(known) if len(known) else None,
        "twice_in_train": len(once) - len(set(once)),
        "twice_in_test": len(again) - len(set(again)),
        "of_test_in_train": sum(each in set(once) for each in again),
        "skipped": len(data.skipped),
    }


def _digests(images: Tensor) -> list[int]:
    return [hash(image.numpy().tobytes()) for image in images]


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on what was counted, but for the table of classes."""
    yield (
        f"{found['train']:,} images of train and {found['test']:,} of test, "
        f"{found['size']} x {found['size']} pixels as they are stored"
    )
    if found["classes"]:
        name, counts = min(found["classes"].items(), key=lambda item: item[1]["train"])
        yield f"smallest class: {name}, {counts['train']:,} of train"
    if found["chance"] is not None:
        yield f"chance: {100 * found['chance']:.1f} %, for who always names test's most frequent class"
    lacking = {split: n for split, n in found["without_label"].items() if n}
    if lacking:
        yield "without a label: " + ", ".join(f"{n:,} of {split}" for split, n in lacking.items())
    twins = [
        f"{found['twice_in_train']:,} within train" if found["twice_in_train"] else "",
        f"{found['twice_in_test']:,} within test" if found["twice_in_test"] else "",
        f"{found['of_test_in_train']:,} of test in train" if found["of_test_in_train"] else "",
    ]
    if any(twins):
        yield f"the same picture again, bit for bit: {', '.join(filter(None, twins))}"
    if found["skipped"]:
        yield f"left out, for they cannot be read: {found['skipped']:,}"


# ---- sheets ------------------------------------------------------------------------------------


def of_dataset(data: Data) -> Image.Image:
    """Some images of train of each class, a row each."""
    labels = data.train.labels
    rows = []
    for at, name in list(enumerate(data.class_names))[:CLASSES]:
        places = (labels == at).nonzero()[:, 0]
        rows.append((f"{name} ({len(places):,})", _pictures(data, _spread(places, OF_CLASS))))
    if not rows:
        places = _spread(torch.arange(len(labels)), OF_CLASS * 4)
        rows = [("", _pictures(data, part)) for part in torch.split(places, OF_CLASS)]
    more = len(data.class_names) - CLASSES
    title = f"{data.name}: {len(labels):,} images of train" + (
        f", the first {CLASSES} of {len(data.class_names)} classes" if more > 0 else ""
    )
    return _drawn(title, [], rows)


def views_of(
    method: str, dataset: str | None, registry: Registry, place: Place, store: Path, *, suite: str
) -> tuple[Data, Mapping[str, View]]:
    """A dataset, and the views that a method makes of its images by the settings of a suite.

    UserError where the method does not suit the data or the suite's backbone.
    """
    from ..cells.parameters import anatomy
    from ..one_cell.building import Builder, Unsupported
    from ..plan.planning import make_plan
    from ..plan.selection import Selection

    target = anatomy(registry.find("methods", parse(method))).target
    few = getattr(target, "labels", "none") == "budget"
    asked = Selection(
        suite,
        (method,),
        datasets=(dataset,) if dataset else (),
        seeds=(0,),
        batch=BATCH,
        labels="all" if few else None,
        store=store,
        place=place,
    )
    plan = make_plan(asked, registry, preflight=False)
    cell = next(each.cell for each in plan.cells if parse(each.cell.method).base == method)
    builder = Builder(registry, place, torch.device("cpu"), plan.store)
    try:
        made, _ = builder.build(cell)
    except Unsupported as error:
        raise UserError(
            f"{method} has no views of {cell.dataset} on {cell.backbone}: {error}"
        ) from error
    if not isinstance(made, Method):
        raise UserError(f"{method} is never trained: it has no views")
    views = made.views()
    return builder.data(cell.dataset), views if isinstance(views, Mapping) else {"main": views}


def of_views(name: str, data: Data, views: Mapping[str, View]) -> Image.Image:
    """Some images of train, each beside the views that a method makes of it.

    UserError where the method's views are no pictures.
    """
    places = _spread(data.train.labels.argsort(stable=True), SHOWN)
    images = data.train.images[places].float() / 255
    columns: list[tuple[str, Tensor]] = [("image", images)]
    for stream, view in views.items():
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            made = list(_flat(view(images), len(images)))
        columns += [
            (f"{stream} {at + 1}" if len(made) > 1 else stream, part)
            for at, part in enumerate(made)
        ]
    if len(columns) == 1:
        raise UserError(f"the views of {name} are no pictures that could be shown")
    heads = [head for head, _ in columns[:COLUMNS]]
    rows = [
        (
            "",
            [
                _picture((part[at].clamp(0, 1) * 255).round().byte())
                for _, part in columns[:COLUMNS]
            ],
        )
        for at in range(len(images))
    ]
    return _drawn(f"{name} on {data.name}", heads, rows)


def _flat(made: Any, count: int) -> Iterator[Tensor]:
    """The pictures [B, 3, H, W] in what a view returned; values beyond [0, 1] are stretched to it."""
    if isinstance(made, Mapping):
        made = list(made.values())
    if isinstance(made, list | tuple):
        for part in made:
            yield from _flat(part, count)
    elif isinstance(made, Tensor) and len(made) == count and made.is_floating_point():
        if made.dim() == 5 and made.shape[2] in (1, 3):  # tiles, or several views
            for part in made.unbind(1):
                yield from _flat(part, count)
        elif made.dim() == 4 and made.shape[1] in (1, 3):
            low, high = float(made.min()), float(made.max())
            if low < -0.5 or high > 1.5:  # other units, such as those of Lab
                made = (made - low) / (high - low)
            yield made.expand(-1, 3, -1, -1)


def _spread(places: Tensor, count: int) -> Tensor:
    """So many of these positions at even steps, or all."""
    steps = (torch.arange(min(count, len(places)), dtype=torch.float64) + 0.5) * len(places)
    return places[(steps / max(1, min(count, len(places)))).long()]


def _pictures(data: Data, places: Tensor) -> list[Image.Image]:
    return [_picture(image) for image in data.train.images[places]]


def _picture(image: Tensor) -> Image.Image:
    """uint8 [3, H, W], enlarged by whole pixels or reduced to between SMALL and LARGE."""
    side = max(image.shape[1:])
    if side > LARGE:
        small = [max(1, round(s * LARGE / side)) for s in image.shape[1:]]
        image = F.interpolate(image[None].float(), small, mode="area")[0].round().byte()
    one = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    factor = max(1, -(-SMALL // max(one.size)))
    return one.resize((one.width * factor, one.height * factor), Image.Resampling.NEAREST)


def _drawn(
    title: str, heads: Sequence[str], rows: Sequence[tuple[str, list[Image.Image]]]
) -> Image.Image:
    """Rows of pictures, each with its name on the left, and heads above the columns."""
    font, small = ImageFont.load_default(16), ImageFont.load_default(12)
    wide = max((p.width for _, row in rows for p in row), default=SMALL) + GAP
    high = max((p.height for _, row in rows for p in row), default=SMALL) + GAP
    if heads:
        wide = max(wide, *(round(small.getlength(head)) + 2 * GAP for head in heads))
    named = max(round(small.getlength(name)) for name, _ in rows)
    left = EDGE + named + (EDGE if named else 0)
    across = left + wide * max(len(row) for _, row in rows) + EDGE
    top = EDGE + LINE + (LINE if heads else 0)
    size = max(across, round(font.getlength(title)) + 2 * EDGE), top + high * len(rows) + EDGE
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((EDGE, EDGE), title, INK, font)
    for at, head in enumerate(heads):
        pen.text((left + at * wide, EDGE + LINE), head, PALE, small)
    for down, (name, row) in enumerate(rows):
        pen.text((EDGE, top + down * high + high / 2), name, INK, small, anchor="lm")
        for at, picture in enumerate(row):
            sheet.paste(picture, (left + at * wide, top + down * high))
    return sheet
