"""Checks the names on a command line before torch is imported, so that a typo is reported at once.

Neither this module nor those it imports may import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cells.suite import Suite, load_suite
from ..cells.yaml12 import written
from ..errors import UnknownName, UserError
from ..names import parse
from ..plugins import Registry
from ..train.options import Watch

SETS = {  # names that stand for several evaluators
    "full": (
        "knn",
        "linear[layers=true]",
        "mlp",
        "clustering[over=true,stability=true]",
        "fewshot",
        "retrieval",
        "anomaly",
        "geometry",
        "calibration",
        "corruption",  # as published, where it is
        "corruption[set=regen]",
        "tent[set=regen]",
        "bn-adapt[set=regen]",
        "finetune",
        "cost",
    )
}
_TRACKERS = ("tensorboard", "wandb", "mlflow")  # those of sslbench-trackers
_FOR_ALL = ("epochs", "batch")  # these have options that set them for every method


def spelt_out(judges: Sequence[str]) -> tuple[str, ...]:
    """Replaces names that stand for several evaluators by those evaluators."""
    return tuple(dict.fromkeys(each for name in judges for each in SETS.get(name, (name,))))


@dataclass(frozen=True)
class Named:
    """The names on a command line. The suite's stand for those that are empty or None."""

    suite: str
    methods: tuple[str, ...] | None = None
    backbones: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    evaluators: tuple[str, ...] = ()
    transfer_to: tuple[str, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    watch: Watch | None = None
    trackers: tuple[str, ...] = ()

    def check(self, registry: Registry) -> None:
        """Checks that each name is known.

        Raises:
            UserError: a name is unknown or cannot be read; the message suggests another.
        """
        suite = load_suite(self.suite, registry)
        chosen = suite.methods if self.methods is None else self.methods
        for name in (*suite.baselines, *chosen):
            _find_method(name, registry)
        for name in self.backbones or suite.backbones:
            registry.find("backbones", parse(name).base)
        for name in (*(self.datasets or suite.datasets), *self.transfer_to):
            _find_dataset(name, registry)
        for name in spelt_out((*(self.evaluators or suite.evaluators), *self._more(suite))):
            registry.find("evaluators", parse(name).base)
        first = next(iter((*chosen, *suite.baselines)), "METHOD")
        _check_settings(suite.set, f"set of the suite {self.suite}:", first, registry)
        _check_settings(self.set, "--set", first, registry)
        for name in self.trackers:
            _find_tracker(name, registry)

    def _more(self, suite: Suite) -> tuple[str, ...]:
        """Evaluators that do not judge every cell."""
        watched = () if self.watch is None else (self.watch.evaluator,)
        tuned = (suite.tuning.judge,) if suite.tuning else ()
        return (*(() if self.evaluators else suite.once), *watched, *tuned)


def _find_method(text: str, registry: Registry) -> None:
    name = parse(text) if ":" in text else None
    registry.find("methods", text if name is None or name.argument is None else name.base)


def _find_dataset(text: str, registry: Registry) -> None:
    """Finds a dataset in the registry; suggests folder:PATH where the text is a path."""
    path = Path(text).expanduser()
    try:
        registry.find("datasets", parse(text).base)
    except UserError as error:
        if "\\" in text or text.startswith(("/", "~", ".")) or path.is_dir():
            raise UserError(
                f"{text!r} is a path, not the name of a dataset; did you mean folder:{text}?"
            ) from error
        raise


def _find_tracker(text: str, registry: Registry) -> None:
    base = parse(text).base
    try:
        registry.find("trackers", base)
    except UnknownName as error:
        if base not in _TRACKERS:
            raise
        raise UserError(
            f"--track {text} needs the plugin sslbench-trackers and {base}, which are not "
            f"installed: pip install 'sslbench-trackers[{base}]'"
        ) from error


def _check_settings(settings: Mapping[str, Any], what: str, first: str, registry: Registry) -> None:
    """Checks that each setting reads METHOD.PARAMETER, with a known method."""
    for key, value in settings.items():
        method, dot, parameter = key.partition(".")
        if dot and parameter:
            registry.find("methods", method)
            continue
        if not dot and _is_method(key, registry):
            raise UserError(
                f"{what} {key}={written(value)} names no parameter of {key}; "
                f"write {key}.PARAMETER={written(value)}"
            )
        for_all = f", or --{key} {written(value)} for all methods" if key in _FOR_ALL else ""
        raise UserError(
            f"{what} {key}={written(value)} names no method; "
            f"write {first}.{key.strip('.')}={written(value)}{for_all}"
        )


def _is_method(name: str, registry: Registry) -> bool:
    return name in registry.names("methods")
