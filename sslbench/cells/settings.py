"""Checks the settings that suites and `--set` make, and resolves methods under them into cells."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..api import Labels, Pretext, Recipe
from ..errors import UserError, suggestion
from .cell import FIELDS, Cell, plain
from .identity import is_adopted
from .parameters import Anatomy, anatomy, checked
from .yaml12 import written

if TYPE_CHECKING:
    from ..plugins import Entry, Registry


# ---- methods ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """Overrides by a suite and by the command line, in layers of which later ones win."""

    # each layer: (epochs and batch for all methods, the rest by "moco.lr" or "scan.agree.lr")
    layers: tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...] = ()

    def of(self, *names: str, stage: str | None = None) -> dict[str, Any]:
        """The overrides for the method of these names, or for one stage of it."""
        found: dict[str, Any] = {}
        for for_all, dotted in self.layers:
            found.update(for_all)
            for name in names:
                prefix = f"{name}.{stage}." if stage else f"{name}."
                for key, value in dotted.items():
                    if key.startswith(prefix) and "." not in key[len(prefix) :]:
                        found[key[len(prefix) :]] = value
        return found

    def names(self) -> set[str]:
        return {key for _, dotted in self.layers for key in dotted}


@functools.cache
def _recipe_types() -> dict[str, Any]:
    return typing.get_type_hints(Recipe)


# fields of api.Recipe -> what must hold of their values, as a function and in words
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (lambda v: v >= 0, "0 or more"),
    "momentum": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "betas": (lambda v: all(0 <= each < 1 for each in v), "from 0 to below 1, each"),
    "weight_decay": (lambda v: v >= 0, "0 or more"),
    "weight_decay_end": (lambda v: v is None or v >= 0, "0 or more, or null"),
    "lr_end": (lambda v: v >= 0, "0 or more"),
    "warmup": (lambda v: v >= 0, "0 or more"),
    "clip": (lambda v: v is None or v > 0, "above 0, or null"),
}


def resolve_recipe(recipe: Recipe, overrides: Mapping[str, Any], *, what: str) -> Recipe:
    # defaults are converted too: 10 and 10.0 must not make two cells
    values = {name: overrides.get(name, getattr(recipe, name)) for name in FIELDS}
    resolved = Recipe(
        **{k: checked(v, _recipe_types()[k], what=f"{what}.{k}") for k, v in values.items()}
    )
    if resolved.epochs < 0 or resolved.batch < 1:
        raise UserError(
            f"{what} asks for {resolved.epochs} epochs of batch {resolved.batch}; epochs are 0 or "
            f"more, a batch is 1 or more"
        )
    for name, (holds, words) in _RANGES.items():
        if not holds(found := getattr(resolved, name)):
            raise UserError(f"{what}.{name} must be {words}, not {written(plain(found))}")
    if resolved.schedule == "arc" and resolved.lr_end > 1:
        raise UserError(f"{what}.lr_end must be at most 1 with the schedule arc, which only falls")
    return resolved


@dataclass(frozen=True)
class Context:
    """Everything that identifies a cell beside its method: backbone, data, seed and the like."""

    backbone: str
    dataset: str
    fingerprint: str
    size: int
    seed: int
    precision: str = "fp32"
    budget: int | None = None


def resolve(method: str, registry: Registry, setting: Context, settings: Settings) -> Cell:
    """Makes the cell of `method` in this context, and those of its pretexts."""
    return outline(method, registry, settings).at(setting)


@dataclass(frozen=True)
class Outline:
    """A cell without its context; the cells of many seeds and datasets share one."""

    fields: Mapping[str, Any]  # of Cell
    pretexts: Mapping[str, Outline]

    def at(self, setting: Context) -> Cell:
        pretexts = {name: pretext.at(setting) for name, pretext in self.pretexts.items()}
        return Cell(**self.fields, pretexts=pretexts, **vars(setting))


def recorded(method: str, registry: Registry) -> str:
    """The name of a method in identities and records; a plugin's begins with its distribution."""
    if is_adopted(method):
        return method
    entry = registry.find("methods", method)
    return entry.name if entry.builtin else entry.qualified


def outline(
    method: str, registry: Registry, settings: Settings, *, asking: tuple[str, ...] = ()
) -> Outline:
    """Resolves `method` under these settings. `asking`: the methods whose pretext it is."""
    if method in asking:
        raise UserError(f"{' -> '.join((*asking, method))}: a pretext cannot ask for itself")
    entry = registry.find("methods", method)
    parts = anatomy(entry)
    names = _spellings(entry, registry)
    asked = settings.of(*names)
    _known(method, asked, parts)
    values = {
        name: checked(asked.get(name, value), parts.hints[name], what=f"{method}.{name}")
        for name, value in parts.defaults.items()
    }
    recipe = None
    if parts.recipe is not None:
        of_recipe = {k: v for k, v in asked.items() if k in FIELDS}
        recipe = resolve_recipe(parts.recipe, of_recipe, what=method)
    pretexts = {
        value: outline(value, registry, settings, asking=(*asking, method))
        for name, value in values.items()
        if parts.hints[name] is Pretext
    }
    for name, pretext in pretexts.items():
        _no_more_labels(method, parts.target, name, pretext.fields["labels"])
    fields = {
        "method": recorded(method, registry),
        "version": getattr(parts.target, "version", 1),
        "labels": getattr(parts.target, "labels", "none"),
        "hyperparameters": values,
        "recipe": recipe,
        "stages": _stages(names, parts, settings),
        "left_out": tuple(
            k for k, v in getattr(parts.target, "added", {}).items() if values.get(k) == v
        ),
        "source": entry.source_sha256() if entry.file else None,
    }
    return Outline(fields, pretexts)


def _spellings(entry: Entry, registry: Registry) -> tuple[str, ...]:
    """The names by which settings may mean an entry: `dist/name`, and `name` where it owns that."""
    try:
        owner = registry.find("methods", entry.name)
    except UserError:  # two plugins provide it: the bare name is nobody's
        owner = None
    return (entry.name, entry.qualified) if owner is entry else (entry.qualified,)


def _stages(
    names: tuple[str, ...], parts: Anatomy, settings: Settings
) -> dict[str, tuple[int, Recipe]]:
    found = {}
    for name, stage in getattr(parts.target, "stages", {}).items():
        dot = f"{name}."
        own = {k.removeprefix(dot): v for k, v in parts.bound.items() if k.startswith(dot)}
        asked = {**own, **settings.of(*names, stage=name)}
        recipe = resolve_recipe(stage.recipe, asked, what=f"{names[0]}.{name}")
        found[name] = (stage.version, recipe)
    return found


def _known(method: str, asked: Mapping[str, Any], parts: Anatomy) -> None:
    known = set(parts.hints) | (set(FIELDS) if parts.recipe is not None else set())
    for name in asked:
        if name in known or (parts.recipe is None and name in ("epochs", "batch")):
            continue
        raise UserError(f"{method} has no setting {name!r}{suggestion(name, known)}")


def _no_more_labels(method: str, target: Any, name: str, sees: Labels) -> None:
    order = ("none", "budget", "all")
    own = getattr(target, "labels", "none")
    if order.index(sees) > order.index(own):
        raise UserError(
            f"{method} may see labels: {own}, but its pretext {name} sees: {sees}; "
            f"choose a pretext that sees no more"
        )


def check_settings(registry: Registry, settings: Settings, methods: set[str]) -> None:
    """Checks that every dotted name has a known method, stage and field, selected or not."""
    for key in sorted(settings.names()):
        method, _, rest = key.partition(".")
        entry = registry.find("methods", method)  # UnknownName with a suggestion
        if not rest:
            raise UserError(f"the setting {key!r} is not METHOD.PARAMETER")
        if method not in methods:
            continue  # resolved, and so checked, where it is used
        stage, _, leaf = rest.rpartition(".")
        stages = getattr(anatomy(entry).target, "stages", {})
        if stage and stage not in stages:
            raise UserError(f"{method} has no stage {stage!r}{suggestion(stage, stages)}")
        if stage and leaf not in FIELDS:
            raise UserError(f"{method}.{stage} has no setting {leaf!r}{suggestion(leaf, FIELDS)}")
