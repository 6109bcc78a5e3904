"""Rebuilds a cell from its stored identity."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast, get_type_hints

from ..api import Pretext, Recipe
from ..errors import UserError
from ..names import parse as parse_name
from ..plugins import Registry
from ..records import canonical
from .cell import Cell, plain
from .identity import Identity
from .parameters import Anatomy, anatomy, checked


def cell_from(identity: Identity, found: Registry) -> Cell:
    """Rebuilds the cell of an identity. Its pretexts have an id and nothing else.

    Raises:
        UserError: its method is not installed, or has changed since.
    """
    name = identity.method or ""
    entry = found.find("methods", parse_name(name))
    parts = anatomy(entry)
    version = getattr(parts.target, "version", 1)
    if version != identity.version:
        raise UserError(
            f"the cell was trained with version {identity.version} of {name}, "
            f"{entry.dist} {entry.version} has version {version}; install the one it was made with"
        )
    values, pretexts = _values(identity, parts)
    cell = Cell(
        method=name,
        version=version,
        backbone=identity.backbone or "",
        dataset=identity.dataset or "",
        fingerprint=identity.fingerprint or "",
        size=identity.size or 0,
        seed=identity.seed,
        precision=identity.precision or "",
        labels=identity.labels,
        budget=identity.budget,
        hyperparameters=values,
        recipe=_recipe(identity.recipe) if identity.trained else None,
        stages={
            stage: (number, _recipe(recipe)) for stage, (number, recipe) in identity.stages.items()
        },
        pretexts=pretexts,
        left_out=tuple(key for key in values if key not in identity.hyperparameters),
        source=identity.source,
    )
    if cell.id != identity.id:
        raise UserError(
            f"{name} of {entry.dist} {entry.version} is not the one that the cell was trained "
            f"with: its hyperparameters differ; install that version"
        )
    return cell


def _recipe(saved: Mapping[str, Any]) -> Recipe:
    hints = get_type_hints(Recipe)
    return Recipe(**{name: _value(value, hints[name], name) for name, value in saved.items()})


def _value(saved: Any, kind: Any, name: str) -> Any:
    """Converts a value to its type, unless its JSON would change: 10 and 10.0 hash differently."""
    value = checked(saved, kind, what=name)
    return value if canonical(plain(value)) == canonical(saved) else _tupled(saved)


def _tupled(saved: Any) -> Any:
    return tuple(map(_tupled, saved)) if isinstance(saved, list) else saved


def _values(identity: Identity, parts: Anatomy) -> tuple[dict[str, Any], dict[str, Cell]]:
    """Hyperparameters as the constructor takes them, and the pretexts they name."""
    values: dict[str, Any] = {}
    pretexts: dict[str, Cell] = {}
    added = getattr(parts.target, "added", {})
    saved = identity.hyperparameters
    for name, kind in parts.hints.items():
        if name not in saved:
            if name not in added:
                raise UserError(f"the cell knows no hyperparameter {name!r} of its method")
            values[name] = added[name]
        elif kind is Pretext:
            values[name] = saved[name]
            # an identity needs only the id of a pretext
            pretexts[saved[name]] = cast(Cell, SimpleNamespace(id=identity.pretexts[name]))
        else:
            values[name] = _value(saved[name], kind, name)
    return values, pretexts
