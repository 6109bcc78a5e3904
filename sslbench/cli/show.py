"""`sslbench show`: prints all about one cell, method, dataset, evaluator or suite."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UnknownName, UserError
from . import completion
from .app import Command, State, quiet_libraries
from .card import as_lines, evaluator
from .describe import meaning, method, setting
from .options import data_option, download_option, json_option, png, store_option
from .show_cell import cell_plain, say_cell, section
from .text import one_line, say, say_json, say_table, terminal_width

if TYPE_CHECKING:
    from ..api import Place
    from ..plugins import Entry, Registry
    from ..store import CellFolder

KINDS = ("methods", "datasets", "evaluators", "suites")
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
        say_json(cell_plain(cell)) if as_json else say_cell(cell)
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
        section(title, described.get(title, {}).items())


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
