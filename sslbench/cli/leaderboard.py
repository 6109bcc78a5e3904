"""`sslbench leaderboard`: the table of a suite, from records alone."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .app import Commands, State, quiet_libraries
from .options import asked, json_option, selection
from .text import one_line, say, say_json, terminal_width

if TYPE_CHECKING:
    from ..leaderboard import Board
    from ..planning import Plan

FORMATS = ("text", "markdown", "csv", "json")


@click.group(cls=Commands)
def leaderboard() -> None:
    """The leaderboard."""


@leaderboard.command()
@selection
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="Of what is printed.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also write README.md, leaderboard.csv and leaderboard.json there.",
)
@json_option
@click.pass_context
def show(ctx: click.Context, /, form: str, out: Path | None, as_json: bool, **given: Any) -> None:
    """Print the table of a suite. Nothing is run."""
    from ..planning import make_plan

    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        options = asked(state, given)
        # Building a backbone is the only way to learn that timm does not know its name.
        plan = make_plan(options, state.registry, preflight=bool(options.backbones))
    for notice in plan.store.notices:
        say(f"notice: {one_line(notice)}", err=True)
    form = "json" if as_json else form
    say_board(plan, form)
    written = _write(plan, out) if out else []
    if form == "text" and plan.open:
        say(f"{len(plan.open)} of {len(plan.cells)} cells are still to do: sslbench run")
    if written:
        say(f"written: {', '.join(map(str, written))}", err=form != "text")


@leaderboard.command()
@selection
@json_option
@click.pass_context
def agreement(ctx: click.Context, /, as_json: bool, **given: Any) -> None:
    """Print whether the judges of a suite put the methods in the same order (Kendall's tau)."""
    from ..leaderboard.agreement import as_markdown, between, steadiness
    from ..leaderboard.render import title
    from ..planning import make_plan

    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        board = board_of(make_plan(asked(state, given), state.registry, preflight=False))
    if as_json:
        say_json(
            [
                {
                    "setting": dataclasses.asdict(block.setting),
                    "between": [dataclasses.asdict(each) for each in between(block)],
                    "from seed to seed": [dataclasses.asdict(each) for each in steadiness(block)],
                }
                for block in board.blocks
            ]
        )
        return
    for block in board.blocks:
        say(title(block.setting), bold=True)
        click.echo(as_markdown(block), nl=False)


def board_of(plan: Plan) -> Board:
    from ..bench import members
    from ..leaderboard import build

    return build(
        members(plan),
        suite_id=plan.suite_id,
        notes=plan.notes,
        normaliser=plan.suite.normaliser,
    )


def say_board(plan: Plan, form: str) -> None:
    """In one of FORMATS; text is cut to a terminal, and bold there."""
    from ..leaderboard import as_csv, as_json, as_markdown, as_rich, as_text

    board = board_of(plan)
    if form != "text":
        makers = {"markdown": as_markdown, "csv": as_csv, "json": as_json}
        click.echo(makers[form](board), nl=False)
    elif sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        from rich.console import Console

        Console().print(as_rich(board))
    else:
        click.echo(as_text(board, width=terminal_width()), nl=False)


def _write(plan: Plan, out: Path) -> list[Path]:
    from ..leaderboard import as_csv, as_json, as_markdown
    from ..leaderboard.agreement import as_markdown as orders_of

    board = board_of(plan)
    heading = f"# {one_line(plan.suite_id)}\n\n{one_line(plan.suite.summary)}\n\n"
    orders = "\n".join(map(orders_of, board.blocks))
    contents = {
        "README.md": f"{heading}{as_markdown(board)}\n## Do the judges agree?\n\n{orders}",
        "leaderboard.csv": as_csv(board),
        "leaderboard.json": as_json(board),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (out / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror or error}; name another --out DIR"
        ) from error
    return [out / name for name in contents]
