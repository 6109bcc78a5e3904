"""The options of the command line, and the suite that results from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..api import Place
from ..cells.cell import PRECISIONS
from ..cells.settings import Settings
from ..cells.suite import Suite, Tuning, load_suite
from ..cells.yaml12 import written
from ..disk import STORE
from ..errors import UserError
from ..names import Name, published
from ..names import parse as parse_name
from ..plugins import Registry
from ..records import digest
from ..train.options import RunOptions
from .named import spelt_out

# options that change a suite's protocol
CHANGES = ("datasets", "backbones", "evaluators", "seeds", "epochs", "batch", "precision", "labels")


@dataclass(frozen=True)
class Selection:
    """The options of the command line that select and run cells."""

    suite: str = "quick"
    methods: tuple[str, ...] | None = None  # None: the suite's; (): its baselines alone
    backbones: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    evaluators: tuple[str, ...] = ()
    transfer_to: tuple[str, ...] = ()  # datasets of the evaluator `transfer`, which is then added
    layers: bool = False  # of the evaluator `linear`, which is then added
    seeds: tuple[int, ...] | None = None
    epochs: int | None = None
    batch: int | None = None
    precision: str | None = None
    labels: int | str | None = None  # the budget of methods that may see some
    set: Mapping[str, Any] = field(default_factory=dict)  # METHOD.PARAM -> value
    store: Path = Path(STORE)
    place: Place = field(default_factory=Place)
    how: RunOptions = field(default_factory=RunOptions)
    skip_failed: bool = False
    only: tuple[str, ...] = ()  # methods to run; (): all. The others are shown and left alone
    plugins: tuple[Path, ...] = ()  # --plugin files, for the worker processes
    block: tuple[str, ...] = ()
    installed: bool = True  # whether installed plugins are looked for

    def __post_init__(self) -> None:
        place = dataclasses.replace(self.place, scratch=self.store / "scratch")
        object.__setattr__(self, "place", place)


def suite_of(options: Selection, registry: Registry) -> tuple[Suite, str]:
    """Applies the options to the suite; returns it with its id."""
    suite = load_suite(options.suite, registry)
    _check_requirements(suite)
    suite, changed = _overridden(suite, options)
    return suite, suite.name + (f"+{digest(changed)[:8]}" if changed else "")


def _check_requirements(suite: Suite) -> None:
    from importlib import metadata

    from packaging.requirements import InvalidRequirement, Requirement

    for text in suite.requires:
        try:
            wanted = Requirement(text)
        except InvalidRequirement as error:
            raise UserError(
                f"suite {suite.name} requires {text!r}, which is not a requirement such as "
                f"'sslbench-x>=0.3'"
            ) from error
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None or version not in wanted.specifier:
            found = f"found {version}" if version else "not installed"
            raise UserError(f"suite {suite.name} requires {text} ({found}): pip install '{text}'")


def _overridden(suite: Suite, options: Selection) -> tuple[Suite, dict[str, Any]]:
    """Applies the options to the suite; returns it with those that change its protocol."""
    changed: dict[str, Any] = {}
    suite = dataclasses.replace(
        suite,
        evaluators=_with_budget(suite.evaluators, suite, options),
        once=_with_budget(suite.once, suite, options),
    )
    judges = _judges(suite, options)
    for key in CHANGES:
        value: Any = judges if key == "evaluators" else getattr(options, key)
        # an option also overrides what the suite sets for single methods
        own = any(name.endswith(f".{key}") for name in suite.set)
        if value in (None, ()) or (value == getattr(suite, key) and not own):
            continue
        changed[key] = list(value) if isinstance(value, tuple) else value
        suite = dataclasses.replace(suite, **{key: value})
    if options.evaluators and suite.once:
        changed["once"] = []
        suite = dataclasses.replace(suite, once=())
    if suite.precision not in PRECISIONS:
        raise UserError(f"precision {suite.precision!r} is not one of {', '.join(PRECISIONS)}")
    if options.set:
        changed["set"] = sorted(spelt(options.set))
    return suite, changed


def _judges(suite: Suite, options: Selection) -> tuple[str, ...]:
    judges = spelt_out(options.evaluators) or suite.evaluators
    if options.layers:
        judges = _with(judges, "linear", layers=True)
    if options.transfer_to:
        judges = _with(judges, "transfer", to="+".join(sorted(options.transfer_to)))
    return judges


def _with_budget(judges: Sequence[str], suite: Suite, options: Selection) -> tuple[str, ...]:
    """Gives evaluators that see as many labels as the suite's methods the budget of `--labels`."""
    judges = spelt_out(judges)
    if options.labels is None or suite.labels is None:
        return judges
    named = [parse_name(name) for name in judges]
    return tuple(
        str(dataclasses.replace(each, params={**each.params, "labels": options.labels}))
        if each.params.get("labels") == suite.labels
        else name
        for name, each in zip(judges, named, strict=True)
    )


def _with(judges: Sequence[str], base: str, **params: Any) -> tuple[str, ...]:
    """Gives every evaluator `base` these parameters, and adds one where there is none."""
    named = [parse_name(name) for name in judges]
    if base not in (each.base for each in named):
        named.append(Name(base))
    changed = (
        dataclasses.replace(each, params={**each.params, **params}) if each.base == base else each
        for each in named
    )
    return tuple(dict.fromkeys(map(str, changed)))


def spelt(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Writes settings as `--set` takes them, each value in its canonical spelling."""
    return tuple(f"{key}={written(value)}" for key, value in settings.items())


def settings_of(suite: Suite, options: Selection) -> Settings:
    """The suite's settings, overridden by the command line's."""
    from_options = {"epochs": options.epochs, "batch": options.batch}
    from_suite = {"epochs": suite.epochs, "batch": suite.batch}

    def given(values: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in values.items() if v is not None}

    return Settings(((given(from_suite), suite.set), (given(from_options), options.set)))


def whole_suite(suite: Suite, suite_id: str, options: Selection) -> Suite:
    """Makes a suite of everything that was asked for, to be written to a file."""
    settings = dict(suite.set)
    for key in ("epochs", "batch"):
        if getattr(options, key) is not None:  # an option for all overrides those of one method
            settings = {k: v for k, v in settings.items() if not k.endswith(f".{key}")}
    named = options.methods
    summary = suite.summary
    if suite_id != suite.name:
        summary = f"{suite.name}, changed by {_changes(options)}"
        if not options.datasets:  # what it says of its own data is of no others
            summary += f"; its own summary: {suite.summary}"
    return dataclasses.replace(
        suite,
        name=suite_id,
        summary=summary,
        methods=suite.methods if named is None else named,
        set={**settings, **options.set},
        tuning=suite.tuning and shortened(suite.tuning, options),
    )


def _changes(options: Selection) -> str:
    """The options beside methods, as they are typed."""
    names = (*CHANGES, "set")
    given = {name: getattr(options, name) for name in (*names, "transfer_to", "layers")}
    given["set"] = spelt(options.set)
    given["datasets"] = tuple(map(published, options.datasets))
    return " ".join(
        f"--{name.replace('_', '-')}"
        + (
            ""
            if value is True
            else " " + (_listed(value) if isinstance(value, tuple) else f"{value}")
        )
        for name, value in given.items()
        if value not in (None, (), False)
    )


def _listed(values: tuple[Any, ...]) -> str:
    return ",".join(map(str, values))


def shortened(tuning: Tuning, options: Selection) -> Tuning:
    """Adapts the tuning: settings of the command line are not searched, trials not longer than fits."""
    epochs = min(tuning.epochs, options.epochs or tuning.epochs)
    return dataclasses.replace(tuning, epochs=epochs, settled=tuning.settled | {*options.set})
