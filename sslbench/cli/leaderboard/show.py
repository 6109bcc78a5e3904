"""`sslbench leaderboard show`: prints the table of a suite from its records."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..app import OUTPUT, Command, State, quiet_libraries
from ..options import asked, json_option, refuse_selection, selection, under
from ..text import echo, one_line, say, terminal_width

if TYPE_CHECKING:
    from ...leaderboard import Board
    from ...plan.plan import Plan
    from ...plugins import Registry

FORMATS = ("text", "markdown", "csv", "json", "latex")
of_folder = click.argument(
    "board", required=False, metavar="[DIR]", type=click.Path(path_type=Path)
)


@click.command(cls=Command)
@of_folder
@selection
@under(
    OUTPUT,
    click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        metavar="FORMAT",
        help=f"Format of the table: {', '.join(FORMATS)}.",
    ),
    json_option,
)
@click.pass_context
def show(ctx: click.Context, /, board: Path | None, form: str, as_json: bool, **given: Any) -> None:
    """Print the table of a suite, or of the leaderboard in DIR. Nothing is run.

    \b
    Examples:
      sslbench leaderboard show --suite fashion
      sslbench leaderboard show leaderboards/fashion --format markdown
    """
    form = "json" if as_json else form
    if board is not None:
        refuse_selection(ctx, board)
        say_in(form, published(board))
        return
    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        options = asked(state, given)
        from ...plan.planning import make_plan

        # Building a backbone is the only way to learn that timm does not know its name.
        plan = make_plan(options, state.registry, preflight=bool(options.backbones))
    for notice in plan.store.notices:
        say(f"notice: {one_line(notice)}", err=True)
    say_board(plan, state.registry, form)
    if form == "text" and plan.open:
        say(f"{len(plan.open)} of {len(plan.cells)} cells are still to do: sslbench run")


def board_of(plan: Plan, registry: Registry) -> Board:
    """The board of a plan, from its records in the store."""
    from ...leaderboard.board import making
    from ...leaderboard.board.planned import material_of

    material = material_of(plan, registry)
    return making.board_of(material, command=f"sslbench run --suite {plan.suite.name}")


def published(folder: Path) -> Board:
    """The board of a leaderboard's folder."""
    from ...leaderboard.folder.folder import board_of, read, read_lock

    lock = read_lock(folder)
    return board_of(read(folder), reference=lock is not None and lock.reference)


def say_board(plan: Plan, registry: Registry, form: str) -> None:
    say_in(form, board_of(plan, registry))


def say_in(form: str, board: Board) -> None:
    """Prints a board in one of FORMATS; text is fitted to a terminal, and styled there."""
    from ...leaderboard import as_csv, as_json, as_latex, as_markdown, as_rich, as_text

    if form != "text":
        makers = {"markdown": as_markdown, "csv": as_csv, "json": as_json, "latex": as_latex}
        echo(makers[form](board), nl=False)
    elif sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        from rich.console import Console

        console = Console()
        with console.capture() as printed:
            console.print(as_rich(board))
        echo(printed.get(), nl=False)
    else:
        echo(as_text(board, width=terminal_width()), nl=False)
