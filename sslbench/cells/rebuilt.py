"""From an identity back to the cell."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast, get_type_hints

from ..api import Pretext, Recipe
from ..errors import UserError
from ..names import parse as parse_name
from ..plugins import Registry
from ..records import canonical, digest
from .cell import Cell, plain
from .parameters import Anatomy, anatomy, checked


def cell_from_identity(identity: Mapping[str, Any], found: Registry) -> Cell:
    """The cell whose identity this is; its pretexts are known by their ids alone.

    Raises:
        UserError: its method is not here, or is another by now.
    """
    method = identity["method"]
    entry = found.find("methods", parse_name(method["name"]))
    parts = anatomy(entry)
    version = getattr(parts.target, "version", 1)
    if version != method["version"]:
        raise UserError(
            f"the cell was trained with version {method['version']} of {method['name']}, "
            f"{entry.dist} {entry.version} has version {version}; install the one it was made with"
        )
    labels = identity["labels"]
    values, pretexts = _values(method["hyperparameters"], parts)
    cell = Cell(
        method=method["name"],
        version=version,
        backbone=identity["backbone"],
        dataset=identity["dataset"]["name"],
        fingerprint=identity["dataset"]["fingerprint"],
        size=identity["dataset"]["size"],
        seed=identity["seed"],
        precision=identity["precision"],
        labels="budget" if isinstance(labels, Mapping) else labels,
        budget=labels["budget"] if isinstance(labels, Mapping) else None,
        hyperparameters=values,
        recipe=_recipe(method["recipe"]) if "recipe" in method else None,
        stages={
            name: (stage["version"], _recipe(stage["recipe"]))
            for name, stage in method.get("stages", {}).items()
        },
        pretexts=pretexts,
        left_out=tuple(name for name in values if name not in method["hyperparameters"]),
        source=method.get("source"),
    )
    if cell.id != digest(identity):
        raise UserError(
            f"{method['name']} of {entry.dist} {entry.version} is not the one that the cell was "
            f"trained with: its hyperparameters differ; install that version"
        )
    return cell


def _recipe(saved: Mapping[str, Any]) -> Recipe:
    hints = get_type_hints(Recipe)
    return Recipe(**{name: _value(value, hints[name], name) for name, value in saved.items()})


def _value(saved: Any, kind: Any, name: str) -> Any:
    """As its type wants it, unless that changes how it is written: 10 and 10.0 hash differently."""
    value = checked(saved, kind, what=name)
    return value if canonical(plain(value)) == canonical(saved) else _tupled(saved)


def _tupled(saved: Any) -> Any:
    return tuple(map(_tupled, saved)) if isinstance(saved, list) else saved


def _values(saved: Mapping[str, Any], parts: Anatomy) -> tuple[dict[str, Any], dict[str, Cell]]:
    """Hyperparameters as the constructor takes them, and the pretexts they name."""
    values: dict[str, Any] = {}
    pretexts: dict[str, Cell] = {}
    added = getattr(parts.target, "added", {})
    for name, kind in parts.hints.items():
        if name not in saved:
            if name not in added:
                raise UserError(f"the cell knows no hyperparameter {name!r} of its method")
            values[name] = added[name]
        elif kind is Pretext:
            values[name] = saved[name]["method"]
            # all that an identity asks of a pretext
            pretexts[values[name]] = cast(Cell, SimpleNamespace(id=saved[name]["cell"]))
        else:
            values[name] = _value(saved[name], kind, name)
    return values, pretexts
