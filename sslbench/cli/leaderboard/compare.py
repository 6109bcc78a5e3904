"""`sslbench leaderboard compare`: compares pairs of methods, seed by seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UserError
from ..app import Command
from ..options import json_option, split
from ..text import say, say_json, say_table

if TYPE_CHECKING:
    from ...leaderboard.board.pairs import Comparison
    from ...leaderboard.folder.images import Imagewise

IMAGES = (
    "protocol",
    "minus",
    "images",
    "difference",
    "95 %",
    "p",
    "better",
    "balanced",
    "only one right",
    "class most apart",
)
HEADS = ("protocol", "minus", "n", "difference", "95 %", "p", "better")


@click.command(cls=Command)
@click.argument("board", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("pairs", metavar="A,B...", nargs=-1, required=True)
@json_option
def compare(board: Path, pairs: tuple[str, ...], as_json: bool) -> None:
    """Compare pairs of rows, as their table does.

    `compare DIR moco,swav` prints moco minus swav in the leaderboard DIR, under each protocol: the
    mean over the seeds that both have, its interval and its p. All rows of the table together say
    what is noise, and both are corrected for all pairs of the table: asking for fewer changes
    nothing. Where predictions are kept, a second table compares these trained encoders image by
    image: the difference with its interval over images, that of balanced accuracy, how many images
    all seeds of one and none of the other have right, and the class that differs most.
    """
    from ...leaderboard.board.pairs import compared
    from ...leaderboard.folder.folder import board_of, read
    from ...leaderboard.folder.images import Images
    from ...leaderboard.output.text import title

    asked = [_pair(text) for text in pairs]
    folder = read(board)
    whole = board_of(folder)
    found = []
    for block in whole.blocks:
        images, rows = Images(folder, block, whole.level), {row.label: row for row in block.rows}
        both = [
            (each, images.compared(each.column, rows[each.one], rows[each.other]))
            for each in compared(block, asked, whole.level)
        ]
        found.append((block, both))
    if as_json:
        say_json([_plain(each, images) for _, both in found for each, images in both])
        return
    for block, both in found:
        say(title(block.setting), bold=True)
        say("Would other trainings come out so? (over seeds)")
        say_table(HEADS, [_line(each) for each, _ in both])
        lines = [_images_line(each, images) for each, images in both if images]
        if lines:
            say("Do these trained encoders differ on other images like these? (over images)")
            say_table(IMAGES, lines)


def _pair(text: str) -> tuple[str, str]:
    names = split(text)
    if len(names) != 2:
        raise UserError(f"{text!r} is not a pair of rows; write A,B")
    return names[0], names[1]


def _line(each: Comparison) -> tuple[str, ...]:
    found = each.paired
    scale = 1 if each.column.unit else 100
    interval = "-"
    if found.interval is not None:
        interval = " to ".join(f"{scale * end:+.2f}" for end in found.interval)
    return (
        f"{each.column.protocol} {each.column.metric}",
        f"{each.one} - {each.other}",
        str(len(found.differences)),
        "-" if found.mean is None else f"{scale * found.mean:+.2f}",
        interval,
        "-" if found.p is None else f"{found.p:.3f}",
        each.leads or "-",
    )


def _images_line(each: Comparison, found: Imagewise) -> tuple[str, ...]:
    most = max(found.by_class, key=lambda own: abs(own.one - own.other))
    return (
        f"{each.column.protocol} {each.column.metric}",
        f"{each.one} - {each.other}",
        str(found.images),
        f"{100 * found.mean:+.2f}",
        " to ".join(f"{100 * end:+.2f}" for end in found.interval),
        f"{found.p:.3f}",
        {1: each.one, -1: each.other, 0: "-"}[found.leads],
        f"{100 * (found.balanced[0] - found.balanced[1]):+.2f}",
        f"{found.right[0]} and {found.right[1]}",
        f"{most.number}: {100 * (most.one - most.other):+.1f}",
    )


def _plain(each: Comparison, images: Imagewise | None) -> dict[str, Any]:
    column = each.column
    return {
        "protocol": column.protocol,
        "metric": column.metric,
        "unit": column.unit,
        "one": each.one,
        "other": each.other,
        **dataclasses.asdict(each.paired),
        "better": each.leads or None,
        "over_images": dataclasses.asdict(images) if images else None,
    }
