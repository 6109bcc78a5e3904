"""`sslbench leaderboard`: shows, builds, checks, compares and publishes leaderboards."""

from __future__ import annotations

from importlib import import_module

import click

from ..app import Commands

COMMANDS = {
    "show": "show:show",
    "agreement": "agreement:agreement",
    "build": "build:build",
    "validate": "validate:validate",
    "compare": "compare:compare",
    "diff": "diff:diff",
    "merge": "merge:merge",
    "bundle": "bundle:bundle",
    "verify": "verify:verify",
    "publish": "publish:publish",
    "workflow": "workflow:workflow",
}


class Lazy(Commands):
    """A group whose commands are files, imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name].split(":")
        found = getattr(import_module(f"{__package__}.{module}"), attribute)
        return found if isinstance(found, click.Command) else None


@click.group(cls=Lazy)
def leaderboard() -> None:
    """Show, build, check, compare and publish leaderboards."""
