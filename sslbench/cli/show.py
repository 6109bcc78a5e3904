"""`sslbench show`: prints all about one cell, method, dataset, evaluator or suite."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UnknownName, UserError
from . import completion
from .app import Command, State, quiet_libraries
from .card import as_lines, evaluator
from .describe import meaning, method, setting
from .options import data_option, download_option, json_option, png, store_option
from .text import duration, one_line, say, say_json, say_table, size, terminal_width

if TYPE_CHECKING:
    from ..api import Place
    from ..plugins import Entry, Registry
    from ..records import Record
    from ..store import Answers, CellFolder

KINDS = ("methods", "datasets", "evaluators", "suites")
LOG = 20  # lines of the log that are printed
SAID = 12  # metrics of a record that are printed
CLASSES = 1000  # of a table of who is taken for whom, at most
WIDE = 24  # characters of a value that a table shows


@click.command(cls=Command)
@click.argument("what", metavar="CELL|NAME", shell_complete=completion.cells_and_names)
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=png,
    metavar="FILE.png",
    help="Draw a picture: images of each class of a dataset, or a method's views of some images.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=completion.names("datasets"),
    help="Whose images a method's views are drawn of.  [default: the suite's]",
)
@click.option(
    "--suite", default="quick", show_default=True, help="By whose settings views are drawn."
)
@data_option
@download_option
@store_option
@json_option
@click.pass_context
def show(ctx: click.Context, /, what: str, store: Path, as_json: bool, **given: Any) -> None:
    """Show one cell, or one method, dataset, evaluator or suite.

    A cell is named by the beginning of its id. A dataset with a bracket or a path is opened and
    counted: its classes, the smallest of them, chance, and pictures that are there twice.

    \b
    Examples:
      sslbench show moco
      sslbench show folder:photos --sheet photos.png
      sslbench show moco --dataset folder:photos --sheet views.png
    """
    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        entry = _named(what, state.registry)
        if dataset := _to_open(what, entry, state.registry, given["sheet"]):
            _show_data(state, dataset, given, as_json=as_json)
            return
        if given["sheet"] is not None:
            _show_views(state, what, entry, store, given, as_json=as_json)
            return
        if entry is not None:
            described = _described(entry, state.registry)
            say_json(described) if as_json else _say_entry(entry, described)
            return
        cell = _cell(what, store, state.registry)
        say_json(_cell_plain(cell)) if as_json else _say_cell(cell)
        for notice in cell.notices:
            say(f"notice: {one_line(notice)}", err=True)


def _named(what: str, registry: Registry) -> Entry | None:
    for kind in KINDS:
        try:
            return registry.find(kind, what)
        except UnknownName:
            continue
    return None


# ---- pictures --------------------------------------------------------------------------------


def _to_open(what: str, entry: Entry | None, registry: Registry, sheet: Path | None) -> str:
    """The name of the dataset that is to be opened; "": none is."""
    from ..names import parse

    if entry is not None:
        return what if entry.kind == "datasets" and sheet is not None else ""
    if not (":" in what or "[" in what):
        return ""
    registry.find("datasets", parse(what).base)  # UnknownName says which there are
    return what


def _place(given: Mapping[str, Any]) -> Place:
    from ..api import Place
    from ..data import default_roots

    return Place(default_roots(given["data"]), download=given["download"])


def _show_data(state: State, name: str, given: Mapping[str, Any], *, as_json: bool) -> None:
    from ..data import open_data
    from .examples import counted, lines_of, of_dataset
    from .sheet import saved

    data = open_data(name, state.registry, _place(given))
    found = counted(data)
    if given["sheet"] is not None:
        saved(of_dataset(data), given["sheet"])
        found["sheet"] = str(given["sheet"])
    if as_json:
        say_json(found)
        return
    say(data.name, bold=True)
    for line in lines_of(found):
        say(line)
    for note in data.notes:
        say(f"note: {one_line(note)}")
    rows = [(one_line(k), v["train"], v["test"]) for k, v in found["classes"].items()]
    if rows:
        say()
        say_table(("class", "train", "test"), rows)
    if given["sheet"] is not None:
        say(f"drawn: {given['sheet']}")


def _show_views(
    state: State,
    what: str,
    entry: Entry | None,
    store: Path,
    given: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    if entry is None or entry.kind != "methods":
        raise UserError(
            f"--sheet draws a dataset or a method, and {what} is neither; the sheets of a cell are "
            "at the paths that `sslbench show CELL` prints"
        )
    from .examples import of_views, views_of
    from .sheet import saved

    data, views = views_of(
        what, given["dataset"], state.registry, _place(given), store, suite=given["suite"]
    )
    saved(of_views(what, data, views), given["sheet"])
    if as_json:
        say_json({"method": what, "dataset": data.name, "sheet": str(given["sheet"])})
    else:
        say(f"drawn: {given['sheet']}, views of {data.name} by the settings of {given['suite']}")


def _cell(what: str, root: Path, registry: Registry) -> CellFolder:
    from ..store import Store

    if re.fullmatch(r"[0-9a-f]{4,64}", what):
        return Store(root).find(what)
    known = [name for kind in KINDS for name in registry.names(kind)]
    raise UnknownName("cell or name", what, known)


# ---- a cell ----------------------------------------------------------------------------------


def _say_cell(cell: CellFolder) -> None:
    identity, records = cell.identity(), cell.records()
    plain = identity.plain if identity else {}
    train = _last(r for r in records if r.kind == "train")
    say(cell.id, bold=True)
    if identity:
        say(f"{' · '.join(map(one_line, identity.title))} · seed {identity.seed}")
    say(f"{train.status if train else 'not trained'}; {cell.path}")
    _section("identity", _flat({k: v for k, v in plain.items() if k != "method"}))
    if train:
        method = plain.get("method", {})
        _section("method", [(k, v) for k, v in method.items() if isinstance(v, str | int)])
        _section("hyperparameters", _flat(train.hyperparameters))
        _section("recipe", _flat(train.recipe))
        _say_costs(train)
        _section("health", [(k, f"{v:.4g}") for k, v in train.health.items()])
        _section("environment", _flat(train.environment))
    _say_records(records)
    for protocol, answers in _answers(cell, records).items():
        say(f"{one_line(protocol)}: {_confused(answers)}")
    for protocol, path in _sheets(cell, records).items():
        say(f"sheet of {one_line(protocol)}: {path}")
    for record in records:
        for warning in record.warnings:
            say(f"warning: {one_line(warning.code)}: {one_line(warning.message)}", fg="yellow")
    _say_errors(records)
    _say_log(cell)


def _section(title: str, rows: Iterable[tuple[str, object]]) -> None:
    rows = list(rows)
    if not rows:
        return
    say()
    say(title, bold=True)
    width = max(len(one_line(name)) for name, _ in rows)
    for name, value in rows:
        say(f"  {one_line(name):<{width}}  {one_line(value)}".rstrip())


def _flat(values: Mapping[str, Any], at: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{at}{key}.")
        else:
            found.append((f"{at}{key}", value))
    return found


def _say_costs(train: Record) -> None:
    costs = train.costs
    if costs is None:
        return
    rows: list[tuple[str, object]] = [("seconds", f"{costs.seconds:.1f}")]
    rows.append(("images seen", f"{costs.images_seen:,}"))
    if costs.images_per_second is not None:
        rows.append(("images/s", f"{costs.images_per_second:,.0f}"))
    if costs.parameters is not None:
        rows.append(("parameters", f"{costs.parameters:,}"))
    if costs.flops is not None:
        rows.append(("FLOPs/image", f"{costs.flops:,.0f}"))
    if costs.peak_memory_bytes is not None:
        rows.append(("peak memory", size(costs.peak_memory_bytes)))
    for stage in costs.stages:
        loaded = ", loaded" if stage.reused else ""
        what = f"{duration(stage.seconds)}, {stage.images_seen:,} images{loaded}"
        rows.append((f"stage {stage.name}", what))
    _section("costs", rows)


def _say_records(records: list[Record]) -> None:
    say()
    say("records", bold=True)
    if not records:
        say("  none")
        return
    rows = [
        (
            r.protocol or "train",
            r.status,
            r.attempt,
            r.finished,
            f"{r.costs.seconds:.1f}" if r.costs else "",
            r.record_id[:12],
            _said(r),
        )
        for r in records
    ]
    say_table(("what", "status", "attempt", "finished", "seconds", "record", "says"), rows)


def _sheets(cell: CellFolder, records: list[Record]) -> dict[str, Path]:
    """The newest sheet of each protocol."""
    found = {record.protocol or "": cell.sheet(record) for record in records}
    return {protocol: path for protocol, path in found.items() if path is not None}


def _answers(cell: CellFolder, records: list[Record]) -> dict[str, Answers]:
    """The newest predictions of each protocol, where a table of CLASSES can hold them."""
    found = {record.protocol or "": cell.predictions(record) for record in records}
    return {
        protocol: answers
        for protocol, answers in found.items()
        if answers and len(answers.truth) and max(map(max, answers)) < CLASSES
    }


def _confused(answers: Answers) -> str:
    """Balanced accuracy, the weakest class, and which class is taken for which most often."""
    import numpy as np

    counts = answers.confusion()
    there = counts.sum(1) > 0
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    right = np.where(there, shares.diagonal(), np.inf)
    weakest = int(right.argmin())
    said = (
        f"balanced accuracy {100 * right[there].mean():.1f} %, "
        f"weakest class {weakest} ({100 * right[weakest]:.1f} %)"
    )
    np.fill_diagonal(shares, 0)
    truth, other = np.unravel_index(shares.argmax(), shares.shape)
    if shares[truth, other]:
        said += f", most often {truth} is taken for {other} ({100 * shares[truth, other]:.1f} %)"
    return said


def _said(record: Record) -> str:
    if record.status != "ok":
        return record.sentence
    metrics = [
        f"{m.name} {m.value:.{4 if abs(m.value) < 100 else 0}f}"
        + (f" ± {m.stderr:.4f}" if m.stderr is not None else "")
        for m in record.metrics[:SAID]
    ]
    if more := len(record.metrics) - SAID:
        metrics += [f"and {more} more metrics (--json)"] if more > 0 else []
    chosen = [f"chose {key} {value}" for key, value in record.chosen.items()]
    return ", ".join([*metrics, *chosen])


def _say_errors(records: list[Record]) -> None:
    """Prints the error of training and of each protocol, unless a later attempt succeeded."""
    last: dict[str, Record] = {}
    for record in records:
        last[record.protocol or "train"] = record
    for what, record in last.items():
        if record.error is None:
            continue
        error = record.error
        place = [("stage", error.stage), ("epoch", error.epoch), ("step", error.step)]
        where = ", ".join(f"{name} {value}" for name, value in place if value not in (None, ""))
        say()
        say(
            f"error of {one_line(what)} ({one_line(error.kind)}){where and f' at {where}'}",
            bold=True,
        )
        say(f"  {one_line(error.type)}: {one_line(error.message)}", fg="red")
        for line in error.traceback.rstrip().splitlines():
            say(f"  {line}")


def _log(cell: CellFolder) -> list[str]:
    path = cell.path / "log.txt"
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG:]


def _say_log(cell: CellFolder) -> None:
    if lines := _log(cell):
        say()
        say(f"the end of {cell.path / 'log.txt'}", bold=True)
        for line in lines:
            say(f"  {one_line(line)}")


def _last(records: Iterable[Record]) -> Record | None:
    found = None
    for found in records:  # noqa: B007 - the last one is wanted
        pass
    return found


def _cell_plain(cell: CellFolder) -> dict[str, Any]:
    return {
        "id": cell.id,
        "path": str(cell.path),
        "identity": identity.plain if (identity := cell.identity()) else None,
        "records": [r.model_dump(mode="json", by_alias=True) for r in cell.records()],
        "confusion": {
            k: found.confusion().tolist() for k, found in _answers(cell, cell.records()).items()
        },
        "sheets": {k: str(path) for k, path in _sheets(cell, cell.records()).items()},
        "files": {p.name: p.stat().st_size for p in sorted(cell.path.iterdir()) if p.is_file()},
        "log": _log(cell),
    }


# ---- what has a name -------------------------------------------------------------------------


def _described(entry: Entry, registry: Registry) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": entry.name,
        "kind": entry.kind,
        "distribution": entry.dist,
        "version_of_distribution": entry.version,
    }
    if entry.kind == "suites":
        return found | {"file": str(entry.load())}
    if entry.kind == "methods":
        return found | method(entry, registry)
    return found | (evaluator(entry, registry) if entry.kind == "evaluators" else _dataset(entry))


def _say_entry(entry: Entry, described: dict[str, Any]) -> None:
    say(f"{entry.name}: one of the {entry.kind} of {entry.dist} {entry.version}", bold=True)
    if entry.kind == "suites":
        say(Path(described["file"]).read_text(encoding="utf-8"))
        return
    if entry.kind == "methods":
        _say_method(described)
        return
    if entry.kind == "evaluators":
        for line in as_lines(entry.name, described, terminal_width() or 100):
            say(line)
        return
    if described["documentation"]:
        say()
        say(described["documentation"])
    for title in ("parameters", "card"):
        _section(title, described.get(title, {}).items())


def _say_method(described: dict[str, Any]) -> None:
    texts = [described["idea"], described["citation"] or "No citation is given."]
    if "recipe" in described:
        texts.append(f"Departures: {described['departures'] or 'it does not say.'}")
    if described["variant_of"]:
        texts.append(f"{described['variant_of']} with another {', '.join(described['sets'])}.")
    for text in texts:
        say()
        say("\n".join(textwrap.wrap(text, terminal_width() or 100)))
    suites = described["suites"]
    _say_defaults("hyperparameters", described["hyperparameters"], suites)
    _say_defaults("recipe", described.get("recipe", {}), suites)
    for name, stage in described.get("stages", {}).items():
        of_stage = {
            suite: {key.removeprefix(f"{name}."): v for key, v in values.items() if "." in key}
            for suite, values in suites.items()
        }
        _say_defaults(f"recipe of stage {name}", stage["recipe"], of_stage)
    say()
    say(f"labels it may see: {described['labels']}; version {described['version']}")


def _say_defaults(
    title: str, rows: Mapping[str, Mapping[str, Any]], suites: Mapping[str, Mapping[str, Any]]
) -> None:
    """Prints defaults with their sources and what each suite sets; long values below the table."""
    if not rows:
        return
    suites = {suite: values for suite, values in suites.items() if set(values) & set(rows)}
    long: list[str] = []

    def short(text: str, name: str, where: str) -> str:
        if len(text) <= WIDE:
            return text
        long.append(f"  {name} ({where}): {text}")
        return "..."

    def cells(name: str, row: Mapping[str, Any]) -> Iterator[str]:
        yield name
        yield short(setting(row["default"]), name, "default")
        for suite, values in suites.items():
            yield short(setting(values[name]), name, suite) if name in values else ""
        yield row["source"]
        yield meaning(row)

    say()
    say(title, bold=True)
    heads = ("name", "default", *suites, "source", "what it is")
    say_table(heads, [tuple(cells(name, row)) for name, row in rows.items()])
    for line in long:
        say(line)


def _dataset(entry: Entry) -> dict[str, Any]:
    import dataclasses

    target = entry.load()
    card = getattr(target, "card", None)
    return {
        "documentation": _documentation(target),
        "parameters": _parameters(target),
        "card": {k: v for k, v in dataclasses.asdict(card).items() if v is not None}
        if dataclasses.is_dataclass(card) and not isinstance(card, type)
        else {},
    }


def _parameters(target: Any) -> dict[str, str]:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError) as error:
        raise UserError(f"{target!r} cannot be looked into: {error}") from error
    return {
        p.name: "" if p.default is p.empty else repr(p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }


def _documentation(target: Any) -> str:
    return inspect.cleandoc(target.__doc__ or "")
