"""The seven hooks of a plugin.

Each returns `{name: object}` or `{name: "module:attribute"}`; a string is imported when it is first
needed, so a plugin that returns strings costs nothing. Nothing is registered by importing.
"""

from __future__ import annotations

from collections.abc import Mapping

import pluggy

API_VERSION = (1, 1)  # (major, minor); a plugin declares what it needs as SSLBENCH_API

hookspec = pluggy.HookspecMarker("sslbench")
hookimpl = pluggy.HookimplMarker("sslbench")


@hookspec
def methods() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """Ways to pretrain: `Method` subclasses, partials of them, or functions (`Encoder`)."""


@hookspec
def backbones() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """Functions (name, *, size, **bracket) -> `Backbone`; `"family-*"` answers for a family."""


@hookspec
def datasets() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """`Dataset` subclasses; `"family-*"` answers for a family."""


@hookspec
def evaluators() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """`Evaluator` subclasses, or partials of them."""


@hookspec
def suites() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """YAML files: a `pathlib.Path`, or "package:file.yaml"."""


@hookspec
def commands() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """Commands of click."""


@hookspec
def trackers() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """`Tracker` subclasses, or partials of them. Since 1.1."""
