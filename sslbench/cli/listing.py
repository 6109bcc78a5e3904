"""`sslbench list`: lists methods, datasets and so on by name, without importing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ..errors import UnknownName
from .app import Command, State
from .options import json_option
from .text import say, say_json, say_table, terminal_width

if TYPE_CHECKING:
    from ..plugins import Registry

KINDS = ("methods", "backbones", "datasets", "evaluators", "suites", "trackers")


def _kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(kind) for kind in KINDS if kind.startswith(incomplete)]


@click.command("list", cls=Command)
@click.argument("kind", metavar=f"[{'|'.join(KINDS)}]", shell_complete=_kinds)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Say where each comes from too; describe each evaluator in full.",
)
@json_option
@click.pass_context
def list_(ctx: click.Context, kind: str, verbose: bool, as_json: bool) -> None:
    """List methods, datasets, evaluators and so on, a line each."""
    if kind not in KINDS:
        raise UnknownName("list", kind, KINDS)
    state = ctx.ensure_object(State)
    entries = state.registry.entries(kind)
    if kind == "evaluators" and verbose:
        _pages(state.registry, as_json=as_json)
        return
    if as_json:
        say_json(
            [
                {
                    "name": name,
                    "summary": entry.summary(),
                    "plugin": entry.plugin,
                    "distribution": entry.dist,
                    "version": entry.version,
                }
                for name, entry in entries.items()
            ]
        )
        return
    rows = [
        (name, f"{entry.dist} {entry.version}", *([_target(entry)] * verbose), entry.summary())
        for name, entry in entries.items()
    ]
    say_table((kind, "from", *(["where"] * verbose), "what"), rows)
    if kind == "backbones":
        say('a name that ends in "*" answers for all that begin so; "*" for every name')
    for plugin in state.registry.plugins:
        if plugin.error:
            say(f"not loaded: {plugin.dist}: see `sslbench plugins list`", err=True)


def _pages(registry: Registry, *, as_json: bool) -> None:
    """Prints the card of every evaluator, which imports them all."""
    from .card import as_lines, evaluator

    cards = {name: evaluator(e, registry) for name, e in registry.entries("evaluators").items()}
    if as_json:
        say_json(cards)
        return
    for name, card in cards.items():
        first, *lines = as_lines(name, card, terminal_width() or 100)
        say(first, bold=True)
        for line in lines:
            say(line)
        say()


def _target(entry: object) -> str:
    target = getattr(entry, "target", "")
    return target if isinstance(target, str) else str(getattr(entry, "file", None) or "an object")
