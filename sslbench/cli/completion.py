"""Completes names in the shell, after `eval "$(_SSLBENCH_COMPLETE=bash_source sslbench)"`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..disk import default_store
from .app import State

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names(kind: str) -> Complete:
    """A completer of the last name in a comma list of this kind."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        done, comma, last = incomplete.rpartition(",")
        taken = done.split(",")
        return [
            CompletionItem(f"{done}{comma}{name}", help=summary)
            for name, summary in _known(ctx, kind)
            if name.startswith(last) and name not in taken
        ]

    return complete


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the `METHOD.` of METHOD.PARAMETER=VALUE."""
    found = [f"{name}." for name, _ in _known(ctx, "methods")]
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


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
