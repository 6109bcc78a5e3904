"""Completes names in the shell, after `eval "$(_SSLBENCH_COMPLETE=bash_source sslbench)"`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..disk import default_store
from ..plugins.sources import definition, remarks
from .app import State

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names(kind: str) -> Complete:
    """A completer of the last name in a comma list of this kind."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        done, comma, last = incomplete.rpartition(",")
        taken = done.split(",")
        if kind == "datasets" and ":" in last:
            return [CompletionItem(f"{done}{comma}{path}") for path in _folders(last)]
        return [
            CompletionItem(f"{done}{comma}{name}", help=summary)
            for name, summary in _known(ctx, kind)
            if name.startswith(last) and name not in taken
        ]

    return complete


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes METHOD.PARAMETER= of METHOD.PARAMETER=VALUE; sources are read, nothing is imported."""
    method, dot, _ = incomplete.partition(".")
    if not dot:
        found = {f"{name}.": summary for name, summary in _known(ctx, "methods")}
    else:
        found = {f"{method}.{key}=": what for key, what in _parameters(ctx, method).items()}
    return [CompletionItem(k, help=v) for k, v in found.items() if k.startswith(incomplete)]


def _parameters(ctx: click.Context, method: str) -> dict[str, str]:
    """Hyperparameters of a method, then fields of its recipe, each with what it is."""
    try:
        target = ctx.ensure_object(State).registry.find("methods", method).target
        found = definition(target if isinstance(target, str) else "")
        own = remarks(found.path, found.name) if found.path else {}
        recipe = definition("sslbench.api:Recipe")
        every = remarks(recipe.path, recipe.name) if recipe.path else {}
    except Exception:  # noqa: BLE001 - a line half typed is no place for errors
        return {}
    return {key: remark.what for key, remark in {**own, **every, **own}.items()}


def _folders(name: str) -> list[str]:
    """Folders that go on from the path behind the colon of a dataset's name."""
    kind, _, typed = name.partition(":")
    start = Path(typed).expanduser()
    parent, begun = (start, "") if typed.endswith("/") else (start.parent, start.name)
    kept = typed[: len(typed) - len(begun)]
    try:
        inside = sorted(path.name for path in parent.iterdir() if path.is_dir())
    except OSError:
        return []
    hidden = begun.startswith(".")
    found = (each for each in inside if each.startswith(begun) and each.startswith(".") <= hidden)
    return [f"{kind}:{kept}{each}" for each in found]


def cells(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes ids of cells in the store."""
    root = ctx.params.get("store") or default_store()
    paths = sorted((root / "cells").glob(f"??/{incomplete}*")) if incomplete.isalnum() else []
    if not incomplete:
        paths = sorted((root / "cells").glob("??/*"))
    return [CompletionItem(path.name[:12]) for path in paths if len(path.name) == 64]


def cells_and_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    found = cells(ctx, param, incomplete)
    for kind in ("methods", "datasets", "evaluators", "suites"):
        found += names(kind)(ctx, param, incomplete)
    return found


def _known(ctx: click.Context, kind: str) -> list[tuple[str, str]]:
    try:
        registry: Any = ctx.ensure_object(State).registry
    except Exception:  # noqa: BLE001 - a line half typed is no place for errors
        return []
    entries = registry.entries(kind).items()
    return [(name, entry.summary()) for name, entry in entries if not name.endswith("*")]
