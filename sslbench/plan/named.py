"""The names that a command line gives, looked up before torch is imported: a slip is told at once.

It imports no torch, nor do the modules that it imports.
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

SETS = {  # names that stand for several judges
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
_FOR_ALL = ("epochs", "batch")  # options of their own, for every method


def spelt_out(judges: Sequence[str]) -> tuple[str, ...]:
    """Without names that stand for several."""
    return tuple(dict.fromkeys(each for name in judges for each in SETS.get(name, (name,))))


@dataclass(frozen=True)
class Named:
    """What is named; what is empty or None is the suite's."""

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
        """That somebody provides each.

        Raises:
            UserError: nobody does, or a name is not one; the sentence says what was meant.
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
        """Judges beside those of every cell."""
        watched = () if self.watch is None else (self.watch.evaluator,)
        tuned = (suite.tuning.judge,) if suite.tuning else ()
        return (*(() if self.evaluators else suite.once), *watched, *tuned)


def _find_method(text: str, registry: Registry) -> None:
    name = parse(text) if ":" in text else None
    registry.find("methods", text if name is None or name.argument is None else name.base)


def _find_dataset(text: str, registry: Registry) -> None:
    """As the registry does; a path is told from a name."""
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
    """That each names a method, as METHOD.PARAMETER."""
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
