"""`sslbench leaderboard agreement`: prints how far evaluators agree on the order of methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..app import OUTPUT, Command, State, quiet_libraries
from ..options import asked, json_option, refuse_selection, selection, under
from ..text import echo, say, say_json, say_table
from .show import board_of, of_folder, published

if TYPE_CHECKING:
    from ...leaderboard.board.agreement import Agreement, Steadiness


@click.command(cls=Command)
@of_folder
@selection
@under(
    OUTPUT,
    json_option,
    click.option("--markdown", is_flag=True, help="Print Markdown, as a README has it."),
)
@click.pass_context
def agreement(
    ctx: click.Context, /, board: Path | None, as_json: bool, markdown: bool, **given: Any
) -> None:
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
        if markdown:
            echo(as_markdown(block), nl=False)
        else:
            _say(between(block), steadiness(block))


def _say(pairs: Sequence[Agreement], own: Sequence[Steadiness]) -> None:
    from ...leaderboard.board.agreement import NONE

    if not pairs:
        say(NONE)
        return
    lines = [
        (
            *(p.one, p.other, f"{p.tau:.2f}"),
            "-" if p.interval is None else f"{p.interval[0]:.2f} to {p.interval[1]:.2f}",
            *(str(p.methods), str(p.seeds)),
        )
        for p in pairs
    ]
    say_table(("protocol", "and", "tau", "95 %", "methods", "seeds"), lines)
    if own:
        steady = ", ".join(f"{each.protocol} {each.tau:.2f}" for each in own)
        say(f"a protocol with itself on another seed: {steady}")
