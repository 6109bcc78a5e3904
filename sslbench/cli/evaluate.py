"""`sslbench evaluate`: judges trained cells, or weights from elsewhere, and trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EmptySelection, UserError
from . import completion
from .app import ENCODER, OUTPUT, Command, State, quiet_libraries
from .options import asked, json_option, loudness, of_suite, placed, track_option, typed, under
from .run import check, doing, exit_code, made, perform
from .text import count, say

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..plan.selection import Selection
    from ..plugins import Registry

# of no use without --encoder
OF_ENCODER = ("backbone", "name", "keys", "mean", "std", "resize_positions")


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
@under(
    ENCODER,
    click.option(
        "--encoder",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="File of weights: .safetensors, or .pth or similar, of which only tensors are read.",
    ),
    click.option("--backbone", metavar="NAME", help="The network that the weights belong to."),
    click.option(
        "--name",
        metavar="NAME",
        help="Call the weights external:NAME in the table.  [default: the file's name]",
    ),
    click.option(
        "--keys",
        default="",
        metavar="OLD=NEW,...",
        help="Replace prefixes of tensors' names in the file; OLD=- leaves such tensors out.",
    ),
    click.option(
        "--resize-positions",
        is_flag=True,
        help="Resample a ViT's position embeddings to the images' side.",
    ),
    click.option(
        "--mean",
        callback=numbers,
        metavar="R,G,B",
        help="Mean that normalised the images when the weights were trained.",
    ),
    click.option(
        "--std",
        callback=numbers,
        metavar="R,G,B",
        help="Standard deviation that normalised them then.",
    ),
)
@placed
@track_option
@loudness
@under(OUTPUT, json_option)
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
    """Judge the trained cells of a suite; train nothing.

    With --encoder: judge weights from elsewhere on the suite's datasets.

    \b
    Examples:
      sslbench evaluate fashion --evaluators fewshot,retrieval
      sslbench evaluate quick --encoder resnet18.pth --backbone resnet18
    """
    state = ctx.ensure_object(State)
    state.verbose = state.verbose or verbose
    how = {name: value for name in OF_ENCODER if (value := given.pop(name))}
    with quiet_libraries(verbose=state.verbose):
        options = asked(
            state, given, how=doing(given, ("device", "jobs", "predictions"), train=False)
        )
        from ..plan.planning import make_plan

        check(options, state.registry)
        trackers = made(given["track"], state.registry)
        options, lines = _taken_in(encoder, how, options, state.registry)
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
) -> tuple[Selection, list[str]]:
    """Copies the weights into the store, and selects only them."""
    if encoder is None:
        if how:
            raise UserError(
                f"--{next(iter(how)).replace('_', '-')} goes with --encoder FILE: it says how to read one"
            )
        return options, []
    if "backbone" not in how:
        raise UserError("--encoder needs --backbone NAME: the network its weights are of")
    from ..run.external.adopting import adopt
    from ..run.external.fitting import WeightsRequest

    stranger = WeightsRequest(encoder, **how)
    lines = adopt(stranger, options, registry)
    alone = replace(options, only=(stranger.method,))
    return alone, [f"{stranger.method} is {encoder}: {lines[0]}", *lines[1:]]


def _begin(plan: Plan, to_train: str) -> Iterator[str]:
    """Lines on what will be judged, and what will not and why."""
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
