"""Runs all checks of a plugin, so that a failure in one does not affect the others."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from ..api import Place
from ..errors import UnknownName, UserError
from ..names import parse
from ..plugins import OURS, Entry, PluginInfo, Registry, canonical, registry
from ..plugins.contained import attempt, limit, said
from ..plugins.kept import Kept
from .backbones import BACKBONE_CHECKS, BackboneTrial
from .datasets import DATASET_CHECKS, DatasetTrial
from .evaluators import EVALUATOR_CHECKS, JudgeTrial
from .methods import checks as method_checks
from .promise import require
from .trackers import TRACKER_CHECKS, TrackerTrial
from .trial import Trial
from .whole import COMMAND_CHECKS, PLUGIN_CHECKS, SUITE_CHECKS, NameTrial, PluginTrial

SECONDS = 120  # that one check may take


@dataclass(frozen=True)
class Check:
    of: str  # "plugin", or "method rotnet"
    name: str  # of the check
    run: Callable[[], str | None] = field(repr=False)


@dataclass(frozen=True)
class Result:
    check: Check
    sentence: str  # "" where it passed
    note: str  # a remark, though it passed
    seconds: float


@dataclass(eq=False)
class Kit:
    """The conformance kit for everything that one distribution or file provides."""

    registry: Registry
    plugins: Sequence[PluginInfo]
    folder: Path  # for what the checks write
    place: Place = field(default_factory=Place)
    examples: tuple[str, ...] = ()  # names by which to check families, and datasets with a path
    # on which to check methods, in this order, where they take them; "": the quick suite's
    backbones: tuple[str, ...] = ("",)
    datasets: tuple[str, ...] = ("",)

    @property
    def dist(self) -> str:
        return self.plugins[0].dist

    @property
    def version(self) -> str:
        return self.plugins[0].version

    @property
    def provided(self) -> Mapping[str, Entry]:
        """All entries, by `methods/NAME`."""
        return {k: e for plugin in self.plugins for k, e in self.registry.of(plugin).items()}

    def checks(self) -> Iterator[Check]:
        """Yields the checks of the plugin as a whole, then those of each thing it provides."""
        trial = PluginTrial(self.registry, self.plugins, self._apart("plugin"))
        for check in PLUGIN_CHECKS:
            yield Check("plugin", check.__name__, partial(check, trial))
        for key, entry in self.provided.items():
            of = f"{entry.kind.removesuffix('s')} {entry.name}"
            made, fault = attempt(self._trial, entry, self._apart(key))
            if made is None:
                yield Check(of, "can_be_checked", partial(_raise, fault))
                continue
            one, functions = made
            for each in functions:
                yield Check(of, each.__name__, partial(each, one))

    def run(self, check: Check) -> Result:
        """Runs a check; whatever goes wrong in it becomes the sentence of the result."""
        begun = time.monotonic()
        with Kept() as kept:
            note, fault = attempt(_within, check.run)
        sentence = ""
        left = [each for each in kept.changes if not each.endswith(" generator")]
        if fault is not None:
            sentence = str(fault) if isinstance(fault, AssertionError) else said(fault)
        if left:
            changed = f"it left {', '.join(left[:5])} changed for everybody"
            sentence = f"{sentence}; {changed}" if sentence else changed
        shown = " ".join(sentence.split())[:1000] or ("it failed" if fault is not None else "")
        return Result(check, shown, note or "", time.monotonic() - begun)

    def _trial(self, entry: Entry, folder: Path) -> tuple[Any, Sequence[Callable[..., Any]]]:
        """The object that the checks of an entry take, and those checks."""
        name, found = self._instance(entry), self.registry
        entry.load()
        match entry.kind:
            case "methods":
                trial = self._accepted(name, folder)
                return trial, method_checks(trial)
            case "backbones":
                return BackboneTrial(found, name), BACKBONE_CHECKS
            case "datasets":
                files = (entry.file,) if entry.file else ()
                return DatasetTrial(found, name, self.place, files), DATASET_CHECKS
            case "evaluators":
                JudgeTrial(found, name).judge()
                return JudgeTrial(found, name), EVALUATOR_CHECKS
            case "trackers":
                return TrackerTrial(found, name, folder / "tracked"), TRACKER_CHECKS
            case "suites":
                return NameTrial(found, name), SUITE_CHECKS
        return NameTrial(found, name, entry.file), COMMAND_CHECKS

    def _accepted(self, name: str, folder: Path) -> Trial:
        """A trial of a method on the first backbone and dataset that it takes."""
        reasons = []
        for dataset, backbone in product(self.datasets, self.backbones):
            trial = Trial(self.registry, name, folder, {}, dataset, backbone, self.place)
            try:
                reason = trial.declined()
            except UnknownName:
                raise
            except UserError as error:  # such as images smaller than a patch
                reason = str(error)
            if reason is None:
                return trial
            reasons.append(f"it does not take {trial.backbone} on {trial.dataset}: {reason}")
        raise UserError(
            f"{'; '.join(reasons)}; name what it takes with --backbone NAME and --dataset NAME"
        )

    def _instance(self, entry: Entry) -> str:
        """The name by which to check an entry: an example where one was given, else its own."""
        for example in self.examples:
            found, _ = attempt(self.registry.find, entry.kind, parse(example).base)
            if found == entry:
                return example
        what = f"--example NAME, such as {entry.name.rstrip('*')}"
        if entry.name.endswith("*"):
            raise UserError(f"it is a family: name one of it to be checked with {what}NAME")
        if entry.kind == "datasets" and "path" in inspect.signature(entry.load()).parameters:
            raise UserError(f"it wants a path: name one with {what}:PATH")
        names = self.registry.entries(entry.kind)
        return next(name for name, each in names.items() if each == entry)

    def _apart(self, key: str) -> Path:
        folder = self.folder / re.sub(r"[^a-z0-9]+", "-", key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def open_kit(
    asked: str,
    folder: Path,
    *,
    found: Registry | None = None,
    examples: Sequence[str] = (),
    backbones: Sequence[str] = (),
    datasets: Sequence[str] = (),
    place: Place | None = None,
) -> Kit:
    """Makes the kit for an installed distribution, or for a plugin that is a file.

    backbones, datasets: on which to check methods. Each is checked on the first that it takes, or
        else on the quick suite's.

    Raises:
        UserError: there is no such plugin, or it is not loaded.
    """
    file = Path(asked).expanduser().resolve() if asked.endswith(".py") else None
    if found is None:
        found = registry(installed=file is None, files=[file] if file else [])
    plugins = [
        p
        for p in found.plugins
        if (p.file == file if file else canonical(p.dist) == canonical(asked))
    ]
    others = {p.dist for p in found.plugins if p.dist != OURS}
    if not plugins:
        raise UnknownName("plugin", asked, others, "a plugin that is a file ends in .py")
    if plugins[0].dist == OURS:
        raise UserError("the built-in plugin is checked by sslbench's own tests; name another")
    if any("blocked" in plugin.notes for plugin in plugins):
        raise UserError(f"{plugins[0].dist} cannot be checked, since --no-plugin leaves it out")
    on = (*backbones, ""), (*datasets, "")
    return Kit(found, plugins, folder, place or Place(), tuple(examples), *on)


def _within(run: Callable[[], str | None]) -> str | None:
    with limit(SECONDS):
        return run()


def _raise(fault: BaseException | None) -> None:
    require(fault is None, said(fault) if fault else "")
