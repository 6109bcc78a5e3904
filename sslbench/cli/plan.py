"""`sslbench plan`: prints every cell of a selection, its state in the store, and its cost."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from .app import HOW, OUTPUT, Command, State, quiet_libraries
from .options import asked, device_option, json_option, selection, typed, under
from .text import ID, count, duration, one_line, say, say_json, say_table

if TYPE_CHECKING:
    from ..cells.cell import Cell
    from ..leaderboard.board.power import Detectable
    from ..plan.plan import Plan, Planned
    from ..plan.timing import Estimate
    from ..plugins import Registry

STATES = ("done", "missing", "stale", "evaluate", "failed", "unsupported")


@click.command(cls=Command)
@selection
@under(
    OUTPUT,
    click.option(
        "--time", is_flag=True, help="Estimate the time left: run a few real steps, and add up."
    ),
    click.option(
        "--mde",
        is_flag=True,
        help="Say how large a difference between methods must be for these seeds to show it.",
    ),
)
@under(HOW, device_option)
@under(OUTPUT, json_option)
@click.pass_context
def plan(
    ctx: click.Context, /, time: bool, mde: bool, device: str, as_json: bool, **given: Any
) -> None:
    """Print every cell and its state. Nothing is trained, nothing is written.

    \b
    done         trained and judged
    missing      not in the store
    stale        the store has a similar cell; the field that differs is named
    evaluate     trained, still to be judged
    failed       tried, and failed
    unsupported  the method does not support these settings; the reason is given

    \b
    Examples:
      sslbench plan --suite fashion --time
      sslbench plan --suite quick --methods moco,swav --mde
    """
    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        options = asked(state, given)
        from ..plan.planning import make_plan

        made = make_plan(options, state.registry)
        estimates = _estimates(made, state.registry, device) if time else []
        found = _detectable(made, state.registry) if mde else []
    for notice in made.store.notices:
        say(f"notice: {one_line(notice)}", err=True)
    changed = list(_changed(made, state.registry))
    if as_json:
        more = {"detectable": [dataclasses.asdict(each) for each in found]} if mde else {}
        say_json({**_plain(made, estimates, changed), **more})
        return
    _say_cells(made)
    _say_recipes(made)
    _say_budgets(made)
    for sentence in changed:
        say(f"warning: {sentence}", fg="yellow")
    if time:
        _say_times(estimates)
    if mde:
        _say_detectable(found)
    if made.open:
        say(f"to do them: {typed(ctx, 'run')}")


def _say_cells(made: Plan) -> None:
    say(f"suite {made.suite_id}: {one_line(made.suite.summary)}")
    rows = [
        (
            p.cell.id[:ID],
            p.cell.method,
            p.cell.backbone,
            p.cell.dataset,
            p.cell.seed,
            p.state,
            _why(p),
        )
        for p in made.cells
    ]
    say_table(("cell", "method", "backbone", "dataset", "seed", "state", "why"), rows)
    counts = Counter(p.state for p in made.cells)
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    say(f"{count(len(made.cells), 'cell')}: {', '.join(parts)}; store {made.store.root}")
    if made.waiting:
        say(f"and {count(made.waiting, 'cell')} whose settings these trials choose")


def _why(planned: Planned) -> str:
    notes = [planned.why]
    if planned.trial:
        notes.append(planned.trial[1])
    if planned.needed_by:
        notes.append(f"needed by {planned.needed_by}")
    elif planned.baseline:
        notes.append("baseline")
    return "; ".join(note for note in notes if note)


# ---- recipes ---------------------------------------------------------------------------------


def _recipes(made: Plan) -> dict[str, str]:
    """The recipe of each method and stage in a line, with the lr after scaling."""
    found: dict[str, str] = {}
    for planned in made.cells:
        cell = planned.cell
        if cell.recipe is None or planned.trial:
            continue
        stages = {name: recipe for name, (_, recipe) in cell.stages.items()}
        for name, recipe in {"": cell.recipe, **stages}.items():
            if (key := f"{cell.method}.{name}".rstrip(".")) not in found:
                found[key] = _recipe(recipe)
    return found


def _recipe(recipe: Any) -> str:
    from ..train.optim import scaled_lr

    lr = f"lr {scaled_lr(recipe):.4g}"
    if recipe.lr_scaling != "none":
        lr += f" ({recipe.lr:.4g} at 256, {recipe.lr_scaling} scaling)"
    return f"{count(recipe.epochs, 'epoch')}, batch {recipe.batch}, {recipe.optimizer}, {lr}"


def _say_budgets(made: Plan) -> None:
    """Says which cells are shown how many labels."""
    budgets: dict[tuple[str, int], dict[str, None]] = {}
    for cell in (p.cell for p in made.cells if p.cell.labels == "budget"):
        assert cell.budget is not None
        budgets.setdefault((cell.dataset, cell.budget), {})[cell.method] = None
    for (dataset, labels), methods in budgets.items():
        target = dataset in made.targets
        drawn = ", spread evenly over its classes and drawn anew for each seed," if labels else ""
        say()
        say(
            f"{count(labels, 'label')} of {'the target of ' if target else ''}{dataset}{drawn} are "
            f"shown to {', '.join(methods)}" + ", beside those of its source" * target
        )


def _say_recipes(made: Plan) -> None:
    if recipes := _recipes(made):
        say()
        say_table(("method", "recipe"), recipes.items())
        say()


# ---- code that changed -----------------------------------------------------------------------


def _changed(made: Plan, registry: Registry) -> Iterable[str]:
    """Warnings about code that changed since its records were made, under the same version."""
    stale: Counter[tuple[str, str]] = Counter()

    @functools.cache
    def now(kind: str, name: str) -> str:
        return registry.find(kind, name).source_sha256()

    for planned in made.cells:
        records = [planned.train, *(judge.record for judge in planned.judges)]
        for record in records:
            for kind, name, then in _sources(planned.cell, record):
                if then and then != now(kind, name):
                    stale[kind.removesuffix("s"), name] += 1
    for (kind, name), number in sorted(stale.items()):
        yield (
            f"the code of {kind} {name} changed since {count(number, 'record')} of this plan "
            f"{'was' if number == 1 else 'were'} made, its version did not: raise it if the "
            f"numbers can change"
        )


def _sources(cell: Cell, record: Any) -> Iterable[tuple[str, str, str]]:
    """Kind, name and source hash of the components that made a record."""
    if record is None or record.status != "ok":
        return
    from ..names import parse

    part, name = ("method", parse(cell.method).base)
    if record.kind == "evaluation":
        part, name = ("evaluator", parse(record.evaluator).base)
    yield f"{part}s", name, record.components.get(part, {}).get("source_sha256", "")


# ---- time ------------------------------------------------------------------------------------


def _estimates(made: Plan, registry: Registry, device: str) -> list[Estimate]:
    from ..plan.timing import estimate

    return estimate(made, registry, device)


def _say_times(estimates: list[Estimate]) -> None:
    rows = [
        (
            f"{each.method}.{each.stage}" if each.stage != "main" else each.method,
            each.backbone,
            each.dataset,
            f"{1000 * each.step:.1f} ms",
            f"{each.images / each.step:,.0f}",
            f"{each.steps:,}",
            each.cells,
            duration(each.seconds),
        )
        for each in estimates
    ]
    heads = ("method", "backbone", "dataset", "step", "images/s", "steps", "cells", "time")
    say_table(heads, rows)
    total = duration(sum(each.seconds for each in estimates))
    say(f"about {total} of training, one cell after the other: an estimate from a few steps each,")
    say("without what methods do between epochs and without judging")


# ---- what the seeds can show -----------------------------------------------------------------


def _detectable(made: Plan, registry: Registry) -> list[Detectable]:
    """Detectable differences between the chosen methods; the suite's others help with the spread."""
    from ..leaderboard.board.power import detectable
    from ..plan.planning import make_plan
    from .leaderboard.show import board_of

    chosen = {p.cell.method for p in made.cells if not (p.baseline or p.needed_by or p.trial)}
    whole = made
    if asked_for := made.options.methods:
        every = tuple(dict.fromkeys((*asked_for, *made.suite.methods)))
        options = dataclasses.replace(made.options, methods=every)
        whole = make_plan(options, registry, preflight=False)
    protocols = {j.judge.name: j.judge.protocol for p in made.cells for j in p.judges}
    return [
        # before anything is judged, the board has the name that was asked for, not the protocol
        dataclasses.replace(each, protocol=protocols.get(each.protocol, each.protocol))
        for each in detectable(board_of(whole, registry), chosen)
    ]


def _say_detectable(found: Sequence[Detectable]) -> None:
    if not found:
        say("no difference can be looked for: no cell's settings are known yet")
        return
    heads = ("dataset", "backbone", "evaluator", "methods", "seeds", "noise", "detected", "needed")
    say_table(heads, [_row(each) for each in found])
    say(
        "detected: smallest true difference between two of the methods that the table finds 4 times "
        "in 5, all compared together"
    )
    say(
        "noise: SD of what is left of a score after its method and its seed, from the methods in the "
        "store; where it has none, differences are in SDs"
    )
    if any(each.seeds < 2 for each in found):
        say("with fewer than two seeds no difference can be detected: give more, --seeds 0,1,2")


def _row(each: Detectable) -> tuple[object, ...]:
    from ..leaderboard.chance import MOST

    aim = "half an SD" if each.noise is None else _difference(each.aim, each)
    needed = f"more than {MOST}" if each.needed is None else str(each.needed)
    return (
        each.dataset,
        each.backbone,
        f"{each.protocol} {each.metric}".rstrip(),
        each.methods,
        each.seeds,
        "unknown" if each.noise is None else _difference(each.noise, each),
        _difference(each.least, each),
        f"{needed} seeds for {aim}" if each.methods > 1 else "two methods",
    )


def _difference(value: float | None, each: Detectable) -> str:
    if value is None:
        return "none"
    if each.in_points:
        return f"{100 * value:.2f} points"
    return f"{value:.3g} {each.unit}" if each.noise is not None else f"{value:.1f} SDs"


# ---- JSON ------------------------------------------------------------------------------------


def _plain(made: Plan, estimates: list[Estimate], changed: list[str]) -> dict[str, Any]:
    return {
        "suite": made.suite_id,
        "store": str(made.store.root),
        "waiting": made.waiting,
        "counts": dict(Counter(p.state for p in made.cells)),
        "cells": [
            {
                "id": p.cell.id,
                "method": p.cell.method,
                "backbone": p.cell.backbone,
                "dataset": p.cell.dataset,
                "seed": p.cell.seed,
                "precision": p.cell.precision,
                "labels": p.cell.budget if p.cell.labels == "budget" else p.cell.labels,
                "state": p.state,
                "why": p.why,
                "baseline": p.baseline,
                "needed_by": p.needed_by,
                "trial": p.trial and p.trial[0],
                "judges": {judge.judge.protocol: judge.state for judge in p.judges},
            }
            for p in made.cells
        ],
        "recipes": _recipes(made),
        "warnings": changed,
        "estimates": [{**dataclasses.asdict(e), "seconds": e.seconds} for e in estimates],
    }
