"""`sslbench watch`: a page on this machine that shows a plan while it runs."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import Any

import click

from .app import INTERRUPTED, OUTPUT, Command, State, quiet_libraries
from .options import asked, selection, under
from .text import say

PORT = 8686


@click.command(cls=Command)
@selection
@under(
    OUTPUT,
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=PORT,
        show_default=True,
        metavar="N",
        help="Port of the page; 0 takes a free one.",
    ),
    click.option(
        "--no-browser",
        "browser",
        flag_value=False,
        default=True,
        help="Print the address, and open no browser.",
    ),
)
@click.pass_context
def watch(ctx: click.Context, /, port: int, browser: bool, **given: Any) -> None:
    """Show a suite while it runs, on a page of this machine. Nothing is run or written.

    The page shows which cells are done, at work or failed, their learning curves, the time to go
    and the table so far. It reads the store's files, so the run may be anywhere. Ctrl-C ends it.

    \b
    Examples:
      sslbench watch --suite fashion
      sslbench watch --methods moco,swav --store /mnt/shared/store --no-browser
    """
    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        options = asked(state, given)
        from ..leaderboard.live import LiveServer, Watcher

        watcher = Watcher(options, state.registry)
        with LiveServer(port, watcher.state) as server:
            cells = len(watcher.plan.cells)
            say(f"suite {watcher.plan.suite_id}, {cells} cells: {server.url} (Ctrl-C ends it)")
            if browser and _has_display():
                webbrowser.open(server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                ctx.exit(INTERRUPTED)


def _has_display() -> bool:
    """Whether a browser gets a window; one that takes over the terminal is not wanted."""
    windows = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return windows or sys.platform in ("darwin", "win32")
