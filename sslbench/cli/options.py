"""The options that several commands share, and the selection that they make."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ..cells.yaml12 import value as read_value
from ..cells.yaml12 import written
from ..disk import STORE, default_store
from ..errors import EmptySelection, UserError
from ..names import check_budget
from . import completion
from .app import HOW, OUTPUT, PROTOCOL, WHAT, WHERE, State

if TYPE_CHECKING:
    from ..plan.selection import Selection

MOST_SEEDS = 1000  # of one range
_DEVICES = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps", "apple": "mps", "none": "cpu"}
F = TypeVar("F", bound=Callable[..., Any])
Names = tuple[str, ...] | None
Seeds = tuple[int, ...] | None


def split(text: str) -> tuple[str, ...]:
    """Splits a comma list; commas inside brackets and quotes do not split."""
    items, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and depth:
            quote = character
        elif character in "[]":
            depth += 1 if character == "[" else -1
        elif character == "," and depth <= 0:
            items.append("")
            continue
        items[-1] += character
    return tuple(dict.fromkeys(item.strip() for item in items if item.strip()))


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> Names:
    """Names of a comma list: () if it is empty, None if the option was not given."""
    return None if value is None else split(value)


def seeds(ctx: click.Context, param: click.Parameter, value: str | None) -> Seeds:
    """Reads seeds such as `0,1,2` or `0-2`."""
    if value is None:
        return None
    found = [seed for item in split(value) for seed in _seeds(item)]
    return tuple(dict.fromkeys(found))


def _seeds(item: str) -> Sequence[int]:
    from ..cells.suite import LARGEST_SEED

    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", item)
    if match is None:
        raise UserError(f"--seeds: {item!r} is not a whole number; seeds look like 0,1,2 or 0-4")
    ends = match[1], match[2] or match[1]
    # more than 19 digits are too large anyway, and slow to read
    first, last = (int(end) if len(end) <= 19 else LARGEST_SEED + 1 for end in ends)
    if last > LARGEST_SEED:
        raise UserError(
            f"--seeds: {item[:20]}... has {len(item)} digits; the largest seed is {LARGEST_SEED}"
        )
    if last < first:
        raise UserError(f"--seeds: {item} runs backwards; write {last}-{first}")
    if last - first >= MOST_SEEDS:
        raise UserError(
            f"--seeds: {item} are {last - first + 1:,} seeds; a range holds {MOST_SEEDS:,} at most"
        )
    return range(first, last + 1)


def budget(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Reads a label budget such as 40 or 4/class; `labels_in` refuses 0 where there is no target."""
    return None if value is None else check_budget(value, or_none=True)


def device_named(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Checks the form of --device; whether it exists is checked once torch is imported."""
    if re.fullmatch(r"auto|(cpu|cuda|mps)(:[0-9]{1,4})?", value):
        return value
    meant = _DEVICES.get(value.partition(":")[0].lower())
    hint = f"did you mean {meant}?" if meant else "write auto, cpu, cuda, cuda:N or mps"
    raise UserError(f"--device {value!r} is not a device; {hint}")


def settings(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> dict[str, Any]:
    """Reads each --set NAME=VALUE; values mean what they mean in a suite's file."""
    found: dict[str, Any] = {}
    for item in value:
        name, sign, text = item.partition("=")
        key = name.strip()
        if not sign or not key:
            raise UserError(f"--set {item!r} is not METHOD.PARAMETER=VALUE")
        if key in found:
            raise UserError(f"--set {key} is given twice; keep one of the two")
        found[key] = read_value(text, f"--set {item}")
    return found


def several(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Joins options, in this order, into one decorator."""
    return lambda function: functools.reduce(lambda f, option: option(f), options[::-1], function)


def under(group: str, *options: Callable[[F], F]) -> Callable[[F], F]:
    """Joins options under a heading of the command's help, one of `app.GROUPS`."""

    def decorate(function: F) -> F:
        before = len(getattr(function, "__click_params__", ()))
        decorated = several(*options)(function)
        for param in decorated.__click_params__[before:]:  # type: ignore[attr-defined]  # click's
            param.group = group
        return decorated

    return decorate


def png(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() != ".png":
        raise click.UsageError(f"--sheet {value}: the sheet is a PNG; name it FILE.png")
    return value


store_option: Callable[[Any], Any] = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_store,
    show_default=f"SSLBENCH_STORE, or ./{STORE}",
    metavar="DIR",
    help="The store: the folder with cells and their records.",
)
data_option: Callable[[Any], Any] = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of datasets; searched before SSLBENCH_DATA.",
)
download_option: Callable[[Any], Any] = click.option(
    "--download", is_flag=True, help="Download data that is not there."
)
device_option: Callable[[Any], Any] = click.option(
    "--device",
    default="auto",
    callback=device_named,
    show_default=True,
    metavar="DEVICE",
    help="cpu, cuda, cuda:N or mps; auto takes a GPU if there is one.",
)
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print only JSON on standard output."
)


def _names(kind: str, help: str) -> Callable[[F], F]:
    return click.option(
        f"--{kind}",
        callback=names,
        metavar="A,B",
        help=help,
        shell_complete=completion.names(kind),
    )


_SUITE: Callable[[Any], Any] = click.option(
    "--suite",
    default="quick",
    show_default=True,
    metavar="NAME|PATH",
    help="The suite, by name or as a YAML file.",
    shell_complete=completion.names("suites"),
)
_cells = under(
    WHAT,
    _names("methods", "Methods, instead of the suite's; its baselines stay."),
    _names("backbones", "Backbones, instead of the suite's."),
    _names("datasets", "Datasets, such as digits,fashion-mnist[train=10000]."),
    _names("evaluators", "Evaluators, such as knn,linear; full: all of them."),
    click.option(
        "--transfer-to",
        callback=names,
        metavar="A,B",
        help="Judge the encoders on these datasets too.",
        shell_complete=completion.names("datasets"),
    ),
    click.option(
        "--layers",
        is_flag=True,
        help="Let linear judge the features of every stage of the backbone too.",
    ),
    click.option(
        "--seeds",
        callback=seeds,
        metavar="0,1,2",
        help="Seeds, instead of the suite's; 0-2 is a range.",
    ),
)
_changes = under(
    PROTOCOL,
    click.option(
        "--epochs",
        type=click.IntRange(min=0),
        metavar="N",
        help="Epochs of each stage of training.",
    ),
    click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Images per step."),
    click.option(
        "--precision", metavar="P", help="Precision of training: fp32, tf32, bf16 or fp16."
    ),
    click.option(
        "--labels",
        callback=budget,
        metavar="N",
        help="Labels that methods of few labels see: 40, 4/class, 10% or all.",
    ),
    click.option(
        "--set",
        "set_",
        multiple=True,
        callback=settings,
        metavar="METHOD.PARAM=VALUE",
        help="Set a hyperparameter or recipe field. Repeatable.",
        shell_complete=completion.settings,
    ),
)
_places = under(
    WHERE,
    store_option,
    data_option,
    download_option,
    click.option("--skip-broken", is_flag=True, help="Leave out broken images and count them."),
)
of_suite = several(_cells, _changes, _places)
KEPT = "suite methods backbones datasets evaluators seeds epochs batch precision labels set_ store data"
# options that a suggested next command needs again
SELECTION = frozenset([*KEPT.split(), "transfer_to", "layers", "skip_broken"])
selection = several(under(WHAT, _SUITE), of_suite)  # which cells
placed = under(
    HOW,
    device_option,
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        callback=lambda ctx, param, value: value or 0,
        metavar="N",
        help="Run N cells at once, each in a process.  [default: one per GPU, or one]",
    ),
    click.option(
        "--no-predictions",
        "predictions",
        flag_value=False,
        default=True,
        help="Keep neither predictions for each image nor sheets.",
    ),
)
track_option = under(
    OUTPUT,
    click.option(
        "--track",
        callback=names,
        metavar="A,B",
        help="Report to these trackers too, such as tensorboard[dir=runs].",
        shell_complete=completion.names("trackers"),
    ),
)
loudness = under(
    OUTPUT,
    click.option("-q", "--quiet", is_flag=True, help="Print only the table and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Print libraries' warnings too."),
)


def asked(state: State, given: dict[str, Any], **more: Any) -> Selection:
    """Makes the selection from these options; EmptySelection if one of them names nothing."""
    for name in ("backbones", "datasets", "evaluators", "transfer_to", "seeds"):
        if given[name] == ():
            flag = name.replace("_", "-")
            raise EmptySelection(f"the selection is empty: --{flag} names none")
    _check_names(state, given)
    from ..api import Place
    from ..data import default_roots
    from ..plan.selection import Selection

    roots = default_roots(given["data"])
    return Selection(
        suite=given["suite"],
        methods=given["methods"],
        backbones=given["backbones"] or (),
        datasets=given["datasets"] or (),
        evaluators=given["evaluators"] or (),
        transfer_to=given["transfer_to"] or (),
        layers=given["layers"],
        seeds=given["seeds"],
        epochs=given["epochs"],
        batch=given["batch"],
        precision=given["precision"],
        labels=given["labels"],
        set=given["set_"],
        store=given["store"],
        place=Place(roots, download=given["download"], skip_broken=given["skip_broken"]),
        plugins=state.files,
        block=state.block,
        installed=state.installed,
        **more,
    )


def _check_names(state: State, given: Mapping[str, Any]) -> None:
    """Checks all names before torch is imported, which takes seconds."""
    from ..plan.named import Named

    Named(
        suite=given["suite"],
        methods=given["methods"],
        backbones=given["backbones"] or (),
        datasets=given["datasets"] or (),
        evaluators=given["evaluators"] or (),
        transfer_to=given["transfer_to"] or (),
        set=given["set_"],
        watch=given.get("watch"),
        trackers=given.get("track") or (),
    ).check(state.registry)


def refuse_selection(ctx: click.Context, folder: Path) -> None:
    """UserError if options select cells of a leaderboard's folder, which is read whole."""
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name or "")
        if param.name in SELECTION | {"download"} and source is ParameterSource.COMMANDLINE:
            raise UserError(
                f"{folder} is a leaderboard, whose records say what is in it; "
                f"{max(param.opts, key=len)} is for a suite"
            )


def typed_again(state: State) -> str:
    """The command line as it was typed, ready for a shell."""
    return shlex.join(["sslbench", *state.args])


def typed(ctx: click.Context, *words: str, keep: frozenset[str] = SELECTION) -> str:
    """A command to type next: `words`, then the options given here that are in `keep`."""
    parts: list[str] = ["sslbench", *words]
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name or "")
        if param.name not in keep or source is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[param.name]
        flag = max(param.opts, key=len) if isinstance(param, click.Option) else f"--{param.name}"
        if isinstance(param, click.Option) and param.is_flag:
            parts.append(flag)
        elif isinstance(value, Mapping):
            parts += [text for k, v in value.items() for text in (flag, f"{k}={written(v)}")]
        else:
            parts += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join([*parts, *_plugin_options(ctx.ensure_object(State))])


def _plugin_options(state: State) -> Sequence[str]:
    files = [text for path in state.files for text in ("--plugin", str(path))]
    blocked = [text for name in state.block for text in ("--no-plugin", name)]
    return [*files, *blocked, *([] if state.installed else ["--no-plugins"])]
