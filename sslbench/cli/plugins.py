"""`sslbench plugins`: what was found, what it provides, what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .app import Commands, State
from .options import json_option
from .text import one_line, say, say_json, say_table

if TYPE_CHECKING:
    from ..plugins import PluginInfo


@click.group(cls=Commands)
def plugins() -> None:
    """Plugins."""


@plugins.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List plugins, what they provide, and their errors."""
    found = ctx.ensure_object(State).registry.plugins
    if as_json:
        say_json([_plain(plugin) for plugin in found])
        return
    rows = [(p.name, p.dist, p.version, _api(p), _state(p), _provided(p)) for p in found]
    say_table(("plugin", "distribution", "version", "API", "state", "provides"), rows)
    for plugin in found:
        if plugin.error:
            say(f"error: {one_line(plugin.dist)}: {one_line(plugin.error)}", fg="red")
        for note in plugin.notes:
            say(f"note: {one_line(plugin.dist)}: {one_line(note)}")


def _api(plugin: PluginInfo) -> str:
    return ".".join(map(str, plugin.api)) if plugin.api else "-"


def _state(plugin: PluginInfo) -> str:
    if plugin.error:
        return "ERROR"
    return "blocked" if "blocked" in plugin.notes else "ok"


def _provided(plugin: PluginInfo) -> str:
    parts = [f"{kind}: {', '.join(names)}" for kind, names in plugin.provides.items() if names]
    return "; ".join(parts) or "nothing"


def _plain(plugin: PluginInfo) -> dict[str, object]:
    return {
        "name": plugin.name,
        "distribution": plugin.dist,
        "version": plugin.version,
        "api": list(plugin.api) if plugin.api else None,
        "state": _state(plugin).lower(),
        "provides": {kind: list(names) for kind, names in plugin.provides.items()},
        "error": plugin.error,
        "notes": list(plugin.notes),
        "file": str(plugin.file) if plugin.file else None,
    }
