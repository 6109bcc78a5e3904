"""`emoji`: 1,906 pictures of 32 pixels in nine categories, in one style, in two, or from one to another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sslbench.api import Card, Dataset, Images, Place
from sslbench.arrays import assemble, gather
from sslbench.datasets.pictures import BROKEN, to_rgb
from sslbench.disk import read_file
from sslbench.errors import MissingData, UserError

from .families import Pictures, families, in_test
from .packages import FOLDER, VERSION, make

STYLES = ("twitter", "google")
SIDE = 32  # pixels; on a sheet each picture has a border of one
LEFT_OUT = "Component"  # skin tones and hair, which are no emoji by themselves


class Form(NamedTuple):
    """A picture on the sheets: an emoji, or one of its skin tones."""

    emoji: int  # position of the emoji among all
    x: int  # column on the sheet
    y: int  # row on the sheet
    styles: tuple[str, ...]  # in which it is drawn


class Emoji(Dataset):
    """Emoji of 32 pixels in nine categories, drawn in Twitter's style, in Google's, or in both.

    style: twitter, google or both.
    target: of both styles the one that is judged: test has its pictures alone, and in train the other
        style is the source, whose labels are known. Unset: both are judged, as one domain.
    variants: whether skin tones are there too; they are on the side of the emoji that they are of.
    """

    card = Card(
        summary="Emoji in nine categories, 32 x 32 pixels, in colour on white",
        classes=9,
        train=1524,
        test=382,
        licence="Twitter's (Twemoji): CC BY 4.0; Google's (Noto Emoji): Apache-2.0; table: MIT",
        citation="C. Henderson: emoji-data, 2013; Twitter and others: Twemoji; Google: Noto Emoji",
        source=f"npm: emoji-datasource-twitter and emoji-datasource-google {VERSION}",
    )

    def __init__(
        self, *, style: str = "twitter", target: str | None = None, variants: bool = False
    ) -> None:
        if style not in (*STYLES, "both"):
            raise UserError(f"emoji: style is twitter, google or both, not {style!r}")
        if target is not None and target not in STYLES:
            raise UserError(f"emoji: target is twitter or google, not {target!r}")
        if target is not None and style != "both":
            raise UserError(
                f"emoji: target={target} was asked for, and takes both styles, of which one is the "
                f"source; write emoji[style=both,target={target}]"
            )
        if not isinstance(variants, bool):
            raise UserError(f"emoji: variants is true or false, not {variants!r}")
        self.styles = STYLES if style == "both" else (style,)
        self.target, self.variants = target, variants

    def load(self, place: Place) -> Images:
        folder = self._folder(place)
        sheets = {style: _sheet(folder / f"{style}.png") for style in STYLES}
        try:
            table = [e for e in json.loads(read_file(folder / "emoji.json")) if _counts(e)]
            forms = {form: _forms(table, variants=form) for form in (False, True)}
            pixels = {style: _cut(sheets[style], forms[False], style) for style in STYLES}
            unified = [str(each["unified"]) for each in table]
            kinds = [str(each["category"]) for each in table]
            # both styles always, so that the split is the same in each
            test = in_test(unified, kinds, families(unified, list(pixels.values())))
            return self._assembled(sheets, forms[self.variants], kinds, test, place)
        except (FileNotFoundError, KeyError, IndexError, TypeError, ValueError) as error:
            raise MissingData(
                f"emoji: {folder} is not what `python -m sslbench_emoji DIR` makes "
                f"({type(error).__name__}: {error}); make it anew"
            ) from error

    def _assembled(
        self,
        sheets: Mapping[str, NDArray[np.uint8]],
        forms: Sequence[Form],
        kinds: Sequence[str],
        test: NDArray[np.bool_],
        place: Place,
    ) -> Images:
        classes = sorted(set(kinds))
        numbers = np.array([classes.index(kind) for kind in kinds], np.int64)
        parts, domains = {}, {}
        for split, wanted in (("train", ~test), ("test", test)):
            some = [form for form in forms if wanted[form.emoji]]
            judged = self.target is not None and split == "test"
            styles = [style for style in self.styles if not judged or style == self.target]
            drawn = [(style, *_cut(sheets[style], some, style)) for style in styles]
            images = np.concatenate([pixels for _, _, pixels in drawn]).transpose(0, 3, 1, 2)
            owners = np.array([form.emoji for form in some], np.int64)
            labels = np.concatenate([numbers[owners[rows]] for _, rows, _ in drawn])
            if self.target is not None:
                sizes = [len(rows) for _, rows, _ in drawn]
                domains[split] = np.repeat([style == self.target for style in styles], sizes)
            blocks = [np.ascontiguousarray(images)]
            parts[split] = gather(blocks, shape=images.shape, scratch=place.scratch), labels
        self.card = replace(  # as it is here: the class has the counts of one style of this version
            self.card,
            classes=len(classes),
            train=len(parts["train"][1]),
            test=len(parts["test"][1]),
        )
        made: dict[str, Any] = {"version": self.version, "styles": list(self.styles)}
        if self.target is not None:
            made["target"] = self.target
        made["transparent"] = "white"
        return assemble(parts, classes=classes, made=made, domains=domains)

    def _folder(self, place: Place) -> Path:
        looked = [folder for root in place.roots for folder in (root / FOLDER, root)]
        found = next((folder for folder in looked if (folder / "emoji.json").is_file()), None)
        if found is not None:
            return found
        if place.download and place.roots:
            return make(place.roots[0])
        where = f"looked in {', '.join(map(str, looked))}" if looked else "no folder was given"
        raise MissingData(
            f"emoji: emoji.json was not found ({where}); make it with `python -m sslbench_emoji DIR`, "
            "or with --download, and give DIR as --data"
        )


def _counts(entry: Mapping[str, Any]) -> bool:
    return bool(entry["category"] != LEFT_OUT)


def _forms(table: Sequence[Mapping[str, Any]], *, variants: bool) -> list[Form]:
    """The pictures of all emoji, in the order of the table, each with its skin tones behind it."""
    found = []
    for number, entry in enumerate(table):
        tones = entry.get("skin_variations", {}).values() if variants else ()
        for each in (entry, *tones):
            styles = tuple(style for style in STYLES if each[f"has_img_{style}"])
            found.append(Form(number, int(each["sheet_x"]), int(each["sheet_y"]), styles))
    return found


def _sheet(path: Path) -> NDArray[np.uint8]:
    """[H, W, 3], over white."""
    try:
        with Image.open(path) as picture:
            return np.asarray(to_rgb(picture))
    except BROKEN as error:
        raise MissingData(
            f"emoji: {path} cannot be read ({error}); make its folder anew with `python -m "
            "sslbench_emoji DIR`"
        ) from error


def _cut(sheet: NDArray[np.uint8], forms: Sequence[Form], style: str) -> Pictures:
    """Those that there are in this style. ValueError where one lies beside the sheet."""
    rows, cut = [], []
    for row, form in enumerate(forms):
        if style not in form.styles:
            continue
        top, left = (at * (SIDE + 2) + 1 for at in (form.y, form.x))
        picture = sheet[top : top + SIDE, left : left + SIDE] if min(top, left) > 0 else sheet[:0]
        if picture.shape != (SIDE, SIDE, 3):
            raise ValueError(f"column {form.x}, row {form.y} is not on the sheet {style}.png")
        rows.append(row)
        cut.append(picture)
    pixels = np.stack(cut) if cut else np.zeros((0, SIDE, SIDE, 3), np.uint8)
    return Pictures(np.array(rows, np.int64), pixels)
