"""`sslbench leaderboard workflow`: prints GitHub workflows for submissions to leaderboards."""

from __future__ import annotations

from pathlib import Path

import click

from ..app import Command
from ..text import echo, say


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the files there, such as .github/workflows, instead of printing them.",
)
def workflow(out: Path | None) -> None:
    """Print GitHub workflows that check submissions and publish.

    They are for a repository of leaderboards on GitHub. The top of the first says what a submission
    must contain.
    """
    from ...leaderboard.publish.submission import templates, write

    if out is None:
        for name, text in templates().items():
            echo(f"# ---- {name}\n{text}---")
        return
    for path in write(out):
        say(f"written: {path}")
