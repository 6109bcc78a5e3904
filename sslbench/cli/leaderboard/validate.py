"""`sslbench leaderboard validate`: checks a leaderboard's files against each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from ...errors import CheckFailed
from ..app import Command
from ..options import json_option
from ..text import count, one_line, say, say_json

COLOURS = {"error": "red", "warning": "yellow"}


@click.command(cls=Command)
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def validate(ctx: click.Context, /, root: Path, as_json: bool) -> None:
    """Check the records, seeds, numbers and lock of a leaderboard.

    This needs no data, no plugin and no weights. Exits with 5 if there is an error.
    """
    from ...leaderboard.folder.validate import refused
    from ...leaderboard.folder.validate import validate as findings_of

    findings = findings_of(root)
    if as_json:
        say_json([dataclasses.asdict(each) for each in findings])
        ctx.exit(CheckFailed.exit_code if refused(findings) else 0)
    for each in findings:
        line = f"{each.level}: {one_line(each.file)}: {one_line(each.sentence)}"
        say(line, fg=COLOURS[each.level])
    errors = sum(each.level == "error" for each in findings)
    say(f"{count(errors, 'error')}, {count(len(findings) - errors, 'warning')} in {root}")
    if errors:
        ctx.exit(CheckFailed.exit_code)
