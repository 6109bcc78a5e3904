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
from .show import published

if TYPE_CHECKING:
    from ...leaderboard.board.pairs import Comparison

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
    nothing.
    """
    from ...leaderboard.board.pairs import compared
    from ...leaderboard.output.text import title

    asked = [_pair(text) for text in pairs]
    whole = published(board)
    found = [(block, list(compared(block, asked, whole.level))) for block in whole.blocks]
    if as_json:
        say_json([_plain(each) for _, comparisons in found for each in comparisons])
        return
    for block, comparisons in found:
        say(title(block.setting), bold=True)
        say_table(HEADS, map(_line, comparisons))


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


def _plain(each: Comparison) -> dict[str, Any]:
    column = each.column
    return {
        "protocol": column.protocol,
        "metric": column.metric,
        "unit": column.unit,
        "one": each.one,
        "other": each.other,
        **dataclasses.asdict(each.paired),
        "better": each.leads or None,
    }
