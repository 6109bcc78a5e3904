"""`sslbench corrupt`: writes a test split under common corruptions, as files or a picture."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EmptySelection, UnknownName, UserError
from . import completion
from .app import Command, State, quiet_libraries
from .options import (
    Names,
    data_option,
    device_option,
    download_option,
    json_option,
    names,
    png,
    split,
)
from .text import count, duration, one_line, say, say_json, size

if TYPE_CHECKING:
    import torch

    from ..data import Data
    from ..data.corrupted import Making, Step


def _severities(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    if value is None:
        return None
    items = split(value)
    if not items or any(item not in ("1", "2", "3", "4", "5") for item in items):
        raise click.BadParameter(f"{value!r}: severities are 1 to 5, such as 1,5")
    return tuple(sorted(map(int, items)))


@click.command(cls=Command)
@click.argument("dataset", shell_complete=completion.names("datasets"))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write DIR/NAME-regen-c in the published layout. Evaluators find it with --data DIR.",
)
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=png,
    metavar="FILE.png",
    help="Draw a picture of examples: rows are corruptions, columns severities.",
)
@click.option(
    "--corruptions",
    callback=names,
    metavar="A,B",
    help="Only these of the 19, such as fog,snow. Evaluators need all 19.",
)
@click.option(
    "--severities",
    callback=_severities,
    metavar="1,5",
    help="Severities on the sheet. Files always hold all five.",
)
@click.option(
    "--frost",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Folder of frost photographs, instead of made textures. Changes the set's name.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of random numbers. Another seed changes the set's name.",
)
@device_option
@data_option
@download_option
@json_option
@click.pass_context
def corrupt(ctx: click.Context, /, as_json: bool, **given: Any) -> None:
    """Corrupt a test split, as files or as a picture.

    DATASET's test images are corrupted in the 19 ways of CIFAR-10-C, each at five severities.
    Files that are there and whole are not made again. Ctrl-C leaves whole files; the same command
    goes on.
    """
    if given["out"] is None and given["sheet"] is None:
        raise click.UsageError(
            "nothing to make: give --out DIR for files, --sheet FILE.png for a picture, or both"
        )
    if given["sheet"] is None and given["severities"]:
        raise click.UsageError(
            "--severities are columns of a --sheet; files always hold all five severities"
        )
    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        chosen = _chosen(given["corruptions"])
        device, making = _device(given["device"]), _making(given["seed"], given["frost"])
        data = _data(state, given)
        summary: dict[str, Any] = {"dataset": data.name}
        if given["sheet"] is not None:
            summary |= _sheet(data, device, making, chosen=chosen, given=given)
            say(f"{summary['sheet']}: {summary['width']} x {summary['height']} pixels", err=as_json)
        if given["out"] is not None:
            written = _write(data, given["out"], device, making, chosen=chosen, err=as_json)
            summary |= written
            _say_written(written, err=as_json)
    if as_json:
        say_json(summary)


def _chosen(asked: Names) -> tuple[str, ...]:
    """The chosen corruptions, in the order of the papers."""
    from ..corruptions import ALL

    for name in asked or ():
        if name not in ALL:
            raise UnknownName("corruption", name, ALL)
    if asked == ():
        raise EmptySelection("the selection is empty: --corruptions names none")
    return tuple(name for name in ALL if asked is None or name in asked)


def _device(name: str) -> torch.device:
    from ..train.device import pick_device

    try:
        return pick_device(name)
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from error


def _making(seed: int, frost: Path | None) -> Making:
    from ..corruptions import frost_from
    from ..data.corrupted import Making

    return Making(seed, None if frost is None else frost_from(frost))


def _data(state: State, given: dict[str, Any]) -> Data:
    from ..api import Place
    from ..data import default_roots, open_data

    place = Place(default_roots(given["data"]), download=given["download"])
    return open_data(given["dataset"], state.registry, place)


# ---- files ---------------------------------------------------------------------------------


def _write(
    data: Data,
    out: Path,
    device: torch.device,
    making: Making,
    *,
    chosen: Sequence[str],
    err: bool,
) -> dict[str, Any]:
    from ..data.corrupted import set_name, write
    from ..data.manifest import read_manifest

    begun = time.monotonic()
    steps: dict[str, Step] = {}
    writing = write(data, out, device=device, corruptions=chosen, making=making)
    with contextlib.closing(writing), _shown(len(chosen), err=err) as show:
        for step in writing:
            show(step, time.monotonic())
            steps[step.name] = step
    folder = out / set_name(data.name, making)
    manifest = read_manifest(folder)
    return {
        "set": folder.name,
        "path": str(folder),
        "complete": bool(manifest and manifest["complete"]),
        "made": [step.name for step in steps.values() if step.state == "made"],
        "there": [step.name for step in steps.values() if step.state == "there"],
        "images": data.test.images.shape[0],
        "bytes": sum(step.bytes for step in steps.values()),
        "seconds": time.monotonic() - begun,
    }


def _say_written(written: dict[str, Any], *, err: bool) -> None:
    made, there = len(written["made"]), len(written["there"])
    say(
        f"{one_line(written['path'])}: {count(made, 'corruption')} made, {there} already there, "
        f"{size(written['bytes'])}, in {duration(written['seconds'])}",
        err=err,
    )
    if not written["complete"]:
        say(
            "not complete: evaluators refuse it until all 19 are there; the same command without "
            "--corruptions makes the rest",
            err=err,
            fg="yellow",
        )


Show = Callable[["Step", float], None]


@contextlib.contextmanager
def _shown(files: int, *, err: bool) -> Iterator[Show]:
    """Shows progress: a bar on a terminal, a line for each file elsewhere."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield _lines(files, lambda text: say(text, err=err))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    system: Any = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(stderr=err, highlight=False, markup=False, color_system=system)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as live:
        task = live.add_task("", total=files)
        lines = _lines(files, lambda text: live.print(text, soft_wrap=True))
        done: set[str] = set()

        def show(step: Step, now: float) -> None:
            lines(step, now)
            if step.state in ("there", "made"):
                done.add(step.name)
            part = 0.0 if step.name in done else step.images / step.of
            live.update(
                task,
                completed=len(done) + part,
                description=f"{len(done)}/{files} {step.name}",
            )

        yield show


def _lines(files: int, out: Callable[[str], None]) -> Show:
    begun: dict[str, float] = {}
    done: list[str] = []

    def show(step: Step, now: float) -> None:
        begun.setdefault(step.name, now)
        if step.state == "damaged":
            out(f"{step.name}: not what its manifest says; made again")
        if step.state in ("there", "made"):
            done.append(step.name)
            spent = duration(now - begun[step.name])
            how = "already there" if step.state == "there" else f"{size(step.bytes)} in {spent}"
            out(f"{step.name}: {how} ({len(done)}/{files})")

    return show


# ---- the sheet -----------------------------------------------------------------------------


def _sheet(
    data: Data,
    device: torch.device,
    making: Making,
    *,
    chosen: Sequence[str],
    given: dict[str, Any],
) -> dict[str, Any]:
    from ..data.corrupted import Rendered
    from .sheet import draw, saved

    path, severities = given["sheet"], given["severities"] or (1, 2, 3, 4, 5)
    rendered = Rendered(data, device, making=making)
    drawn = draw(data.test, rendered, corruptions=chosen, severities=severities)
    saved(drawn, path)
    return {"sheet": str(path), "width": drawn.width, "height": drawn.height}
