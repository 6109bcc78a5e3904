"""Prints to the terminal: only printable text, JSON, and tables. Everything printed passes `echo`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import click

ID = 12  # characters of a cell's id that tables show
UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


class OutputLost(Exception):
    """Standard output takes nothing more: its reader has left, or its disk is full."""

    def __init__(self, error: OSError) -> None:
        self.reader_left = isinstance(error, BrokenPipeError)
        super().__init__(f"standard output cannot be written: {error.strerror or error}")


def echo(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Prints text as it is. OutputLost where standard output takes none; standard error is let go."""
    try:
        click.echo(text, err=err, nl=nl)
    except OSError as error:
        if not err:
            raise OutputLost(error) from error


def let_go() -> None:
    """Lets what Python still holds for a lost output go nowhere, for it would complain at its end."""
    with contextlib.suppress(OSError, ValueError):  # a test's output is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def shown(text: object) -> str:
    """Makes text of plugins and records safe to print: control characters are spelt out."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(
        c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode()
        for c in plain.expandtabs(4)
    )


def one_line(text: object) -> str:
    return " ".join(shown(text).split())


def say(text: object = "", *, err: bool = False, **style: Any) -> None:
    """Prints one message; colours reach only terminals, and none under NO_COLOR."""
    line = shown(text)
    echo(click.style(line, **style) if style else line, err=err)


def say_json(plain: Any) -> None:
    echo(json.dumps(plain, indent=1, allow_nan=False))


def terminal_width() -> int | None:
    """Width of standard output; None if it is not a terminal."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else None


def say_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table; its last column is folded to a terminal's width."""
    body = [[one_line(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    echo(click.style("  ".join(_padded(heads, widths)).rstrip(), bold=True))
    indent = sum(width + 2 for width in widths[:-1])
    total = terminal_width()
    said = []
    for row in body:
        *first, last = _padded(row, widths)
        folded = [last.rstrip()]
        if total is not None and indent + len(folded[0]) > total and total - indent >= 24:
            folded = textwrap.wrap(folded[0], total - indent)
        lines = [*folded[:1], *(" " * indent + rest for rest in folded[1:])]
        said += ["  ".join([*first, lines[0]]).rstrip(), *lines[1:]]
    if said:
        echo("\n".join(said))


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [text.ljust(width) for text, width in zip(row, widths, strict=True)]


def size(count: int) -> str:
    """A number of bytes in words, such as `1.5 MiB`."""
    for unit, one in UNITS:
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """Seconds as `0:01:05`; below ten seconds, as `9.5 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
