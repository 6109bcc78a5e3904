"""`sslbench plugins new`: writes the package of a plugin to start from."""

from __future__ import annotations

from pathlib import Path

import click

from ..plugins.scaffold import THINGS, names_of, write
from .app import COMMANDS, Command, State
from .text import one_line, say


@click.command(cls=Command)
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(list(THINGS)),
    required=True,
    help="What the plugin provides.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Make the package's folder in DIR.  [default: here]",
)
@click.pass_context
def new(ctx: click.Context, name: str, kind: str, out: Path) -> None:
    """Write the package of a new plugin to start from.

    It can be installed, passes its own tests and runs. NAME is the distribution's, such as
    sslbench-spread; what it provides is then called spread.
    """
    entries = ctx.ensure_object(State).registry.entries(f"{kind}s")
    taken = {entry.name: entry.dist for entry in entries.values()}
    if kind == "command":
        taken |= dict.fromkeys(COMMANDS, "sslbench")
    written = write(names_of(name, kind, taken), out)
    say(f"written: {one_line(written.folder)}, with the {kind} {written.names.key!r}")
    for file in written.files:
        say(f"  {file}")
    say("next:")
    for line in written.commands():
        say(f"  {one_line(line)}")
