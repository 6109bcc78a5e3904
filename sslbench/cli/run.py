"""`sslbench run`: trains and judges what is missing, and always ends with the table."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from ..train.options import RunOptions, Watch
from .app import HOW, INTERRUPTED, OUTPUT, Command, State, quiet_libraries
from .leaderboard.show import say_board
from .options import (
    SELECTION,
    asked,
    json_option,
    loudness,
    placed,
    selection,
    track_option,
    typed,
    typed_again,
    under,
)
from .progress import Reporter, Stop, reporter
from .text import ID, OutputLost, count, let_go, one_line, say

if TYPE_CHECKING:
    from ..plan.plan import Plan, Planned
    from ..plan.selection import Selection
    from ..plugins import Registry
    from ..run.local import Spare
    from ..run.matrix import Outcome
    from ..run.tracking import NamedTracker

FAILED = 3
LISTED = 10  # failed cells named at the end


def watch(ctx: click.Context, param: click.Parameter, value: str | None) -> Watch | None:
    """Reads EVALUATOR:EPOCHS; without a number, every epoch."""
    if value is None:
        return None
    evaluator, _, text = value.partition(":")
    every = text or "1"
    if not (every.isascii() and every.isdigit()) or int(every[:9]) == 0:
        raise UserError(f"--watch {value!r} is not EVALUATOR:EPOCHS, such as knn:5")
    return Watch(evaluator, int(every[:9]))


def doing(given: Mapping[str, Any], names: Sequence[str], **more: Any) -> RunOptions:
    """The run options among the given ones."""
    return RunOptions(**{name: given[name] for name in names}, **more)


@click.command(cls=Command)
@selection
@placed
@under(
    HOW,
    click.option(
        "--watch",
        callback=watch,
        metavar="EVALUATOR:EPOCHS",
        help="Judge on the held-out tenth of the training images every so many epochs, such as knn:5.",
    ),
    click.option(
        "--compile", is_flag=True, help="Compile backbones and, on a GPU, views with torch.compile."
    ),
    click.option(
        "--deterministic",
        is_flag=True,
        help="Let a GPU repeat itself to the bit, which is slower. A CPU always does.",
    ),
    click.option(
        "--checkpoint-seconds",
        type=click.FloatRange(min=0),
        default=60.0,
        show_default=True,
        metavar="S",
        help="Save a running cell every S seconds.",
    ),
    click.option("--skip-failed", is_flag=True, help="Do not try failed cells again."),
)
@track_option
@loudness
@under(OUTPUT, json_option)
@click.pass_context
def run(ctx: click.Context, /, quiet: bool, verbose: bool, as_json: bool, **given: Any) -> None:
    """Run what is missing and print the leaderboard.

    Finished cells are never computed again. Ctrl-C saves and stops; the same command goes on.

    \b
    Examples:
      sslbench run --methods moco,swav
      sslbench run --suite cifar --methods simclr --seeds 0 --data ~/data --download
    """
    state = ctx.ensure_object(State)
    state.verbose = state.verbose or verbose
    with quiet_libraries(verbose=state.verbose):
        how = doing(
            given,
            (
                "device",
                "jobs",
                "watch",
                "compile",
                "deterministic",
                "checkpoint_seconds",
                "predictions",
            ),
        )
        options = asked(state, given, how=how, skip_failed=given["skip_failed"])
        check(options, state.registry)
        trackers = made(given["track"], state.registry)
        from ..run.local import Spare

        with Spare(options) as spare:
            plan = _planned(options, state.registry, loud=not quiet, err=as_json)
            outcome = perform(ctx, plan, trackers, spare, quiet=quiet, as_json=as_json)
    ctx.exit(exit_code(outcome))


def perform(
    ctx: click.Context,
    plan: Plan,
    trackers: Sequence[NamedTracker],
    spare: Spare | None = None,
    *,
    quiet: bool,
    as_json: bool,
) -> Outcome:
    """Runs what is missing, and prints the table whatever happens."""
    state = ctx.ensure_object(State)
    table = typed(ctx, "leaderboard", "show")
    named = ("leaderboard", "build", plan.options.suite, "--out", "DIR")
    page = typed(ctx, *named, keep=SELECTION - {"suite"})
    ending = _Ending(typed_again(state), table, page, as_json, _set_aside(plan))
    try:
        cells, stop = len(plan.open) + plan.waiting, Stop()
        progress = reporter(cells, quiet=quiet, err=as_json, lost=stop.event.set)
        outcome = _run(plan, state.registry, progress, trackers, stop, spare)
    except BaseException:
        with contextlib.suppress(UserError, OutputLost):  # the error above is the one to report
            _end(_as_it_stands(plan, state.registry), state.registry, None, ending)
        raise
    try:
        _end(plan, state.registry, outcome, ending)
    except OutputLost as error:
        if not outcome.interrupted:
            raise
        let_go()
        say(f"{error}; saved and stopped. To continue: {ending.again}", err=True)
    return outcome


def exit_code(outcome: Outcome) -> int:
    return INTERRUPTED if outcome.interrupted else FAILED if outcome.failed else 0


def check(options: Selection, registry: Registry) -> None:
    """Checks --device and --watch once, before worker processes would all fail on them."""
    if options.how.device != "auto":
        from ..train.device import pick_device

        try:
            pick_device(options.how.device)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"--device: {one_line(error).partition('.')[0]}") from error
    if options.how.watch is not None:
        from ..cells.protocol import resolve_judge

        resolve_judge(options.how.watch.evaluator, registry)


def made(names: tuple[str, ...] | None, registry: Registry) -> list[NamedTracker]:
    """Makes the trackers of `--track`, before anything runs."""
    from ..run.tracking import make_trackers

    return make_trackers(names or (), registry)


def _planned(options: Selection, registry: Registry, *, loud: bool, err: bool) -> Plan:
    from ..plan.planning import make_plan

    plan = make_plan(options, registry)
    todo = len(plan.open)
    if todo:
        _check_device(plan, err=err)
    if loud and todo:
        cells = count(len(plan.cells), "cell")
        then = f", then {plan.waiting} whose settings they choose" if plan.waiting else ""
        say(f"suite {plan.suite_id}: {cells}, {todo} to do{then}; store {plan.store.root}", err=err)
    return plan


def _check_device(plan: Plan, *, err: bool) -> None:
    """Refuses what the device cannot do, as far as that is known before a cell runs."""
    from ..train.device import idle_gpu, pick_device, unfit

    device = pick_device(plan.options.how.device)
    if device.type != "cuda" and (why := unfit(device, plan.suite.precision)):
        raise UserError(f"--precision: {why}")
    if plan.options.how.device == "auto" and (unused := idle_gpu()):
        say(f"note: {unused}", err=err)


def _run(
    plan: Plan,
    registry: Registry,
    progress: Reporter,
    trackers: Sequence[NamedTracker],
    stop: Stop,
    spare: Spare | None,
) -> Outcome:
    from ..run import matrix as bench
    from ..run.tracking import tracked

    def complain(text: str) -> None:
        say(one_line(text), err=True)

    # handled until the trackers are closed: a second Ctrl-C ends even one that hangs
    with (
        progress,
        stop.listening(progress.say) as stopped,
        tracked(trackers, plan, progress, complain) as listener,
    ):
        return bench.run(plan, registry, listener, stopped, spare)


def _as_it_stands(plan: Plan, registry: Registry) -> Plan:
    """A new plan, with what the run had done when it broke off."""
    from ..plan.planning import make_plan

    after = make_plan(plan.options, registry, preflight=False)
    after.store.notices[:0] = plan.store.notices
    return after


@dataclass(frozen=True)
class _Ending:
    again: str  # the command that goes on
    table: str  # the command that shows the table
    page: str  # the command that writes a leaderboard of it
    as_json: bool
    before: set[Path]  # what was set aside before the run


def _end(plan: Plan, registry: Registry, outcome: Outcome | None, ending: _Ending) -> None:
    """Prints the table, where the store is, and what to type next."""
    say_board(plan, registry, "json" if ending.as_json else "text")
    for notice in _notices(plan, ending.before):
        say(f"notice: {one_line(notice)}", err=True)
    failed = [cell for cell in plan.within if cell.state == "failed"]
    lines = [_did(outcome), f"store: {plan.store.root.resolve()}", *_failures(failed)]
    if outcome is None or outcome.interrupted:
        lines.append(f"to continue: {ending.again}")
    elif failed:
        lines.append(f"to try them again: {ending.again}")
    else:
        lines += [f"to see the table again: {ending.table}", f"to publish it: {ending.page}"]
    for line in lines:
        say(line, err=ending.as_json)


def _notices(plan: Plan, before: set[Path]) -> list[str]:
    """Sentences about damaged files that were not used, here or in worker processes."""
    notices = list(plan.store.notices)
    for path in sorted(_set_aside(plan) - before):
        whole = path.with_name(path.name.partition(".damaged-")[0])
        if not any(str(whole) in notice for notice in notices):
            notices.append(f"damaged, not used: {whole} (kept as {path.name})")
    return notices


def _set_aside(plan: Plan) -> set[Path]:
    """Damaged files that were renamed in the store."""
    cells = plan.store.root / "cells"
    return {*cells.glob("??/*/*.damaged-*"), *cells.glob("??/*/records/*.damaged-*")}


def _did(outcome: Outcome | None) -> str:
    if outcome is None:
        return "broken off"
    parts = [
        f"trained {count(outcome.trained, 'cell')}",
        f"made {count(outcome.evaluated, 'evaluation')}",
    ]
    if outcome.failed:
        parts.append(f"{outcome.failed} failed")
    if outcome.skipped:
        parts.append(f"{outcome.skipped} skipped")
    return ("interrupted: " if outcome.interrupted else "") + ", ".join(parts)


def _failures(failed: list[Planned]) -> list[str]:
    lines = []
    for planned in failed[:LISTED]:
        lines.append(f"failed: {planned.cell.title}: {one_line(planned.why)}")
        lines.append(f"  sslbench show {planned.cell.id[:ID]}")
    if len(failed) > LISTED:
        lines.append(f"and {len(failed) - LISTED} more: sslbench plan lists them")
    return lines
