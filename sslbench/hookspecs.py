"""The seven hooks of a plugin.

Each returns `{name: object}` or `{name: "module:attribute"}`. A string is imported only when it is
first needed, so that a plugin that returns strings loads fast.
"""

from __future__ import annotations

from collections.abc import Mapping

import pluggy

API_VERSION = (1, 2)  # (major, minor); a plugin declares what it needs as SSLBENCH_API

hookspec = pluggy.HookspecMarker("sslbench")
hookimpl = pluggy.HookimplMarker("sslbench")


@hookspec
def methods() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """Methods of pretraining: `Method` subclasses, partials of them, or `Encoder` functions."""


@hookspec
def backbones() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """Functions (name, *, size, **bracket) -> `Backbone`; `"family-*"` matches many names."""


@hookspec
def datasets() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """`Dataset` subclasses; `"family-*"` matches many names."""


@hookspec
def evaluators() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """`Evaluator` subclasses, or partials of them."""


@hookspec
def suites() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """YAML files of suites: a `pathlib.Path`, or "package:file.yaml"."""


@hookspec
def commands() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """click commands, which become subcommands of sslbench."""


@hookspec
def trackers() -> Mapping[str, object]:  # type: ignore[empty-body]  # a specification has none
    """`Tracker` subclasses, or partials of them. Since 1.1."""
