"""`sslbench plugins`: lists plugins, checks them, and writes new ones to start from."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CheckFailed
from .app import Commands, State
from .options import data_option, json_option, store_option
from .plugins_new import new
from .text import count, duration, one_line, say, say_json

if TYPE_CHECKING:
    from ..plugins import PluginInfo, Registry
    from ..testing import Kit, Result

WIDTH = 100


@click.group(cls=Commands)
def plugins() -> None:
    """List plugins, check them, and write new ones."""


plugins.add_command(new)


# ---- list ------------------------------------------------------------------------------------


@plugins.command("list")
@store_option
@json_option
@click.pass_context
def list_(ctx: click.Context, store: Path, as_json: bool) -> None:
    """List plugins and what they provide.

    Also say whether they passed the conformance kit, and why any failed to load.
    """
    registry = ctx.ensure_object(State).registry
    found = [(plugin, _conformance(plugin, registry, store)) for plugin in registry.plugins]
    if as_json:
        say_json([{**_plain(plugin), "conformance": kit} for plugin, kit in found])
        return
    for plugin, kit in found:
        api = ".".join(map(str, plugin.api)) if plugin.api else "-"
        name = f" ({plugin.name})" if plugin.name not in (plugin.dist, plugin.dist[5:]) else ""
        head = f"{plugin.dist} {plugin.version}{name} · API {api} · {kit or _unchecked(plugin)}"
        say(one_line(head), bold=True)
        for line in _details(plugin):
            say(line, fg="red" if line.startswith("  ERROR") else None)


def _details(plugin: PluginInfo) -> Iterator[str]:
    for kind, names in plugin.provides.items():
        yield from _folded(f"{kind}: {', '.join(names)}")
    if not any(plugin.provides.values()) and not plugin.error:
        yield "  provides nothing"
    if plugin.error:
        yield from _folded(f"ERROR: {one_line(plugin.error)}")
    for note in plugin.notes:
        yield from _folded(f"note: {one_line(note)}")


def _folded(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="      ",
        break_on_hyphens=False,
    )


def _unchecked(plugin: PluginInfo) -> str:
    return "blocked" if "blocked" in plugin.notes else "not checked"


def _conformance(plugin: PluginInfo, registry: Registry, store: Path) -> str:
    """How a plugin was checked: "built in"; "kit 1", if all that it provides passed kit 1; or ""."""
    from ..plugins.passed import kit_passed

    entries = registry.of(plugin).values()
    if all(entry.builtin for entry in entries) and entries:
        return "built in"
    kits = [kit_passed(store, entry) for entry in entries]
    passed = [kit for kit in kits if kit is not None]
    whole = passed and len(passed) == len(kits) and not plugin.error
    return f"kit {min(passed)}" if whole else ""


def _plain(plugin: PluginInfo) -> dict[str, object]:
    return {
        "name": plugin.name,
        "distribution": plugin.dist,
        "version": plugin.version,
        "api": list(plugin.api) if plugin.api else None,
        "state": _state(plugin),
        "provides": {kind: list(names) for kind, names in plugin.provides.items()},
        "error": plugin.error,
        "notes": list(plugin.notes),
        "file": str(plugin.file) if plugin.file else None,
    }


def _state(plugin: PluginInfo) -> str:
    if plugin.error:
        return "error"
    return "blocked" if "blocked" in plugin.notes else "ok"


# ---- check -----------------------------------------------------------------------------------


@plugins.command("check")
@click.argument("plugin", metavar="DIST|FILE.py")
@click.option(
    "--example",
    "examples",
    multiple=True,
    metavar="NAME",
    help="A name to check for a family, or for a dataset that needs a path. Repeatable.",
)
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NAME",
    help="Check methods on this backbone, or on the next that they take. Repeatable.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME",
    help="Likewise a dataset, such as photo-crops, of which a part is used. Repeatable.",
)
@data_option
@store_option
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    plugin: str,
    examples: tuple[str, ...],
    backbones: tuple[str, ...],
    datasets: tuple[str, ...],
    data: Path | None,
    store: Path,
    as_json: bool,
) -> None:
    """Check a plugin with the conformance kit.

    A pass is noted in the store, and in later records. DIST is an installed distribution, FILE.py a
    plugin in one file. Exits with 5 if a check fails.
    """
    import tempfile

    from ..api import Place
    from ..data import default_roots
    from ..plugins.passed import KIT, write_pass
    from ..store import Store
    from ..testing import open_kit
    from .app import quiet_libraries

    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose), tempfile.TemporaryDirectory() as folder:
        kit = open_kit(
            plugin,
            Path(folder),
            found=_with_file(plugin, state),
            examples=examples,
            backbones=backbones,
            datasets=datasets,
            place=Place(default_roots(data)),
        )
        results = list(_checked(kit, aloud=not as_json))
    failed = [each for each in results if each.sentence]
    if not failed:
        Store(store).create()
        write_pass(store, kit.plugins[0], kit.provided)
    seconds = sum(each.seconds for each in results)
    if as_json:
        say_json(_report(kit, results, KIT))
    checks = count(len(results), "check")
    named = f"{one_line(kit.dist)} {one_line(kit.version)}"
    if failed:
        causes = len({_cause(each) for each in failed})
        why = f", {'all for one cause' if causes == 1 else f'for {causes} causes'}"
        raise CheckFailed(
            f"{len(failed)} of {checks} of {named} failed in {duration(seconds)}"
            + (why if causes < len(failed) else "")
        )
    if not as_json:
        say(f"{checks} of {named} passed in {duration(seconds)}; noted as kit {KIT} in {store}")


def _with_file(plugin: str, state: State) -> Registry:
    """The registry, with the plugin's file if it is one."""
    from ..plugins import registry

    files = [*state.files, Path(plugin)] if plugin.endswith(".py") else state.files
    return registry(installed=state.installed, files=files, block=state.block)


def _cause(result: Result) -> str:
    """What failures of one cause share: the error, without the numbers that a check brings in."""
    error = re.search(r"\b\w*(?:Error|Exception|Interrupt)\b.*", result.sentence, re.DOTALL)
    return f"{result.check.of} " + re.sub(r"\d+", "#", error[0] if error else result.sentence)


def _checked(kit: Kit, *, aloud: bool) -> Iterator[Result]:
    """Runs the checks and prints each result at once; what failed for the same cause, in short."""
    known: dict[str, str] = {}  # cause -> check that failed of it first
    for check in kit.checks():
        result = kit.run(check)
        if aloud:
            mark, text = "FAILED" if result.sentence else "ok", result.sentence
            text = text or (result.note and f"note: {result.note}")
            if result.sentence:
                first = known.setdefault(_cause(result), check.name)
                text = text if first == check.name else f"as {first}"
            line = f"{result.check.of}: {result.check.name}{text and f': {text}'}"
            say(f"{mark:6}  {one_line(line)}", fg="red" if result.sentence else None)
        yield result


def _report(kit: Kit, results: list[Result], number: int) -> Mapping[str, Any]:
    return {
        "distribution": kit.dist,
        "version": kit.version,
        "kit": number,
        "passed": not any(each.sentence for each in results),
        "checks": [
            {
                "of": each.check.of,
                "name": each.check.name,
                "passed": not each.sentence,
                "sentence": each.sentence,
                "note": each.note,
                "seconds": round(each.seconds, 3),
            }
            for each in results
        ],
    }
