"""`sslbench leaderboard agreement`: prints how far evaluators agree on the order of methods."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ..app import OUTPUT, Command, State, quiet_libraries
from ..options import asked, json_option, refuse_selection, selection, under
from ..text import echo, say, say_json
from .show import board_of, of_folder, published


@click.command(cls=Command)
@of_folder
@selection
@under(OUTPUT, json_option)
@click.pass_context
def agreement(ctx: click.Context, /, board: Path | None, as_json: bool, **given: Any) -> None:
    """Print how far evaluators agree on the order of the methods.

    The measure is Kendall's tau, for the leaderboard in DIR or for a suite's records in the store.
    """
    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        if board is not None:
            refuse_selection(ctx, board)
            found = published(board)
        else:
            options = asked(state, given)
            from ...plan.planning import make_plan

            plan = make_plan(options, state.registry, preflight=False)
            found = board_of(plan, state.registry)
    from ...leaderboard.board.agreement import as_markdown, between, steadiness
    from ...leaderboard.output.text import title

    if as_json:
        say_json(
            [
                {
                    "setting": dataclasses.asdict(block.setting),
                    "between": [dataclasses.asdict(each) for each in between(block)],
                    "from seed to seed": [dataclasses.asdict(each) for each in steadiness(block)],
                }
                for block in found.blocks
            ]
        )
        return
    for block in found.blocks:
        say(title(block.setting), bold=True)
        echo(as_markdown(block), nl=False)
