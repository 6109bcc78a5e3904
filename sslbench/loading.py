"""An encoder out of the store, for use in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_type_hints

import torch
from torch import nn

from .api import Place, Pretext, Recipe
from .data import default_roots
from .errors import UserError
from .execute import Options, Workbench
from .features import encoder_of
from .identity import Anatomy, Cell, anatomy, checked, plain
from .names import parse as parse_name
from .plugins import Registry, registry
from .records import canonical, digest
from .state import restore
from .store import Store


def load(
    cell: str,
    store: str | Path | None = None,
    *,
    data: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
) -> nn.Module:
    """The trained encoder of a cell: RGB in [0, 1], [B, 3, H, W] -> [B, D].

    It is on the CPU and in eval mode.

    Args:
        cell: its id, or the beginning of it
        store: its folder; SSLBENCH_STORE, or ./sslbench-store
        data: where the dataset lies, which says how large the network is; SSLBENCH_DATA
        plugins: files of plugins that the cell needs

    Raises:
        UserError: there is no such cell, it is not trained, or its method or data is not here.
    """
    root = Path(store or os.environ.get("SSLBENCH_STORE") or "sslbench-store")
    folder = Store(root).find(cell)
    identity = folder.identity()
    state = folder.load("model")
    if identity is None or state is None:
        why = "; ".join(folder.notices) or "it is not trained"
        raise UserError(f"cell {folder.id[:12]} cannot be loaded: {why}; `sslbench run` trains it")
    found = registry(files=[Path(file) for file in plugins])
    rebuilt = cell_from_identity(identity, found)
    # an identity says what was learnt from; where that lies, the record of the training knows
    records = [r for r in folder.records() if r.kind == "train"]
    rebuilt = replace(rebuilt, dataset=records[-1].dataset) if records else rebuilt
    place = Place(default_roots(None if data is None else Path(data)))
    bench = Workbench(found, Store(root), place, Options(device=torch.device("cpu")))
    module, _ = bench.build(rebuilt)
    restore(module, state[0], what=f"the model of cell {folder.id[:12]}")
    return encoder_of(module.eval()).eval()


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
