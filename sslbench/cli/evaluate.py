"""`sslbench evaluate`: judges what is trained, or a stranger's weights, and trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EmptySelection, UserError
from . import completion
from .app import Command, State, quiet_libraries
from .options import asked, json_option, of_suite, typed
from .run import check, exit_code, loudness, made, perform, placed, track_option
from .text import count, say

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..plan.selection import Selection
    from ..plugins import Registry

OF_ENCODER = ("backbone", "name", "keys", "mean", "std")  # say nothing without --encoder


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    if value is None:
        return ()
    try:
        found = tuple(map(float, value.split(",")))
    except ValueError:
        found = ()
    positive = param.name != "std" or min(found, default=0) > 0
    if len(found) != 3 or not all(abs(v) < float("inf") for v in found) or not positive:
        raise click.BadParameter(f"{value!r} is not three numbers, of red, green and blue")
    return found


@click.command(cls=Command)
@click.argument(
    "suite", default="quick", metavar="[SUITE]", shell_complete=completion.names("suites")
)
@of_suite
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights from outside: .safetensors, or .pth and its like if they hold tensors alone.",
)
@click.option("--backbone", metavar="NAME", help="The network that --encoder's weights are of.")
@click.option(
    "--name", metavar="NAME", help="They enter the table as external:NAME.  [default: the file's]"
)
@click.option(
    "--keys",
    default="",
    metavar="OLD=NEW,...",
    help="Beginnings of names in the file to replace; OLD=- leaves tensors out.",
)
@click.option("--mean", callback=numbers, metavar="R,G,B", help="That they were trained with.")
@click.option("--std", callback=numbers, metavar="R,G,B", help="Likewise.")
@placed
@track_option
@loudness
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    encoder: Path | None,
    **given: Any,
) -> None:
    """Judge what a suite has finished; train nothing.

    With --encoder: judge weights from outside on the suite's datasets.
    """
    state = ctx.ensure_object(State)
    state.verbose = state.verbose or verbose
    how = {name: value for name in OF_ENCODER if (value := given.pop(name))}
    with quiet_libraries(verbose=state.verbose):
        options = asked(state, given, train=False, jobs=given["jobs"] or 0, device=given["device"])
        from ..plan.planning import make_plan

        check(options, state.registry)
        trackers = made(given["track"], state.registry)
        lines = _taken_in(encoder, how, options, state.registry)
        plan = make_plan(options, state.registry)
        to_train = typed(ctx, "run")
        if not plan.within:
            raise EmptySelection(
                f"no cell of suite {plan.suite_id} is trained in the store {plan.store.root}: "
                f"there is nothing to judge; to train them: {to_train}"
            )
        for line in [] if quiet else [*lines, *_begin(plan, to_train)]:
            say(line, err=as_json)
        outcome = perform(ctx, plan, trackers, quiet=quiet, as_json=as_json)
    ctx.exit(exit_code(outcome))


def _taken_in(
    encoder: Path | None, how: dict[str, Any], options: Selection, registry: Registry
) -> list[str]:
    """Takes the weights into the store; from then on the options are about them alone."""
    if encoder is None:
        if how:
            raise UserError(
                f"--{next(iter(how))} goes with --encoder FILE: it says how to read one"
            )
        return []
    if "backbone" not in how:
        raise UserError("--encoder needs --backbone NAME: the network its weights are of")
    from ..run.adopting import adopt
    from ..run.weights import WeightsRequest

    stranger = WeightsRequest(encoder, **how)
    lines = adopt(stranger, options, registry)
    options.only = (stranger.method,)
    return [f"{stranger.method} is {encoder}: {lines[0]}", *lines[1:]]


def _begin(plan: Plan, to_train: str) -> Iterator[str]:
    """What will be done, what is left alone, and why."""
    cells, todo = count(len(plan.within), "trained cell"), len(plan.open)
    yield f"suite {plan.suite_id}: {cells}, {todo} to judge; store {plan.store.root}"
    left = [p for p in plan.cells if not p.finished and p.state != "unsupported"]
    if plan.options.only or not (left or plan.waiting):
        return
    parts = [f"{n} {state}" for state, n in Counter(p.state for p in left).items()]
    parts += [f"{plan.waiting} whose settings are not yet chosen"] * (plan.waiting > 0)
    yield (
        f"not trained, so not judged: {count(len(left) + plan.waiting, 'cell')} "
        f"({', '.join(parts)}); to train them: {to_train}"
    )
