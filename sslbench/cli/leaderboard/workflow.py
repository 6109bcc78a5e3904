"""`sslbench leaderboard workflow`: GitHub Actions that check submissions and publish."""

from __future__ import annotations

from pathlib import Path

import click

from ..app import Command
from ..text import say


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the files there, such as .github/workflows, instead of printing them.",
)
def workflow(out: Path | None) -> None:
    """Print workflows that check submissions and publish.

    They are for a repository of leaderboards on GitHub. What a submission must contain stands at
    the top of the first.
    """
    from ...leaderboard.publish.submission import templates, write

    if out is None:
        for name, text in templates().items():
            click.echo(f"# ---- {name}\n{text}---")
        return
    for path in write(out):
        say(f"written: {path}")
