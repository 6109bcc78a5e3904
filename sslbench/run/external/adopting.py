"""Takes weights from outside into the store as finished cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ...api import Backbone
from ...cells.cell import Cell
from ...cells.protocol import resolve_judge
from ...data import open_data
from ...errors import UserError
from ...names import parse as parse_name
from ...one_cell.backbone import backbone_of
from ...one_cell.building import Builder
from ...one_cell.workbench import Workbench
from ...plan.selection import Selection, suite_of
from ...store import Store
from ...train.device import pick_device
from ...train.feed import kept_generators
from .fitting import Fitted, WeightsRequest, fit
from .reading import listed, read

if TYPE_CHECKING:
    from ...data import Pretraining
    from ...plugins import Registry


def adopt(asked: WeightsRequest, options: Selection, registry: Registry) -> list[str]:
    """Takes weights into the store, as a finished cell for each dataset of the suite.

    Returns lines that say what was done. Weights already in the store stay as they are.

    Raises:
        UserError: the file cannot be read or does not fit, or the name is taken by other weights.
    """
    suite, suite_id = suite_of(options, registry)
    for judge in suite.evaluators:
        resolve_judge(judge, registry)  # a mistyped name is found before anything is written
    method, saved = asked.method, read(asked.file)
    builder = Builder(registry, options.place, pick_device(options.how.device))
    store = Store(options.store)
    lines: list[str] = []
    found = []
    for dataset in suite.datasets:
        data = open_data(dataset, registry, options.place)
        backbone = _built(asked.backbone, data.size, registry)
        fitted = fit(saved.tensors, backbone, asked)
        cell = Cell(
            method=method,
            version=1,
            backbone=str(parse_name(asked.backbone)),
            dataset=data.name,
            fingerprint=data.fingerprint,
            size=data.size,
            seed=0,
            precision=suite.precision,
            labels="none",
            budget=None,
            hyperparameters={"sha256": fitted.sha256},
            recipe=None,
        )
        _check_name(cell, store)
        lines += [line for line in fitted.lines if line not in lines]
        found.append((cell, fitted))
    if saved.not_made:
        lines.append(f"left out unmade: {listed(saved.not_made)}")
    store.create()
    for cell, fitted in found:
        done = Workbench(_Adopted(builder, fitted), store, options.how, suite=suite_id).do(cell, [])
        if done.status != "ok":
            raise UserError(f"{cell.title}: {done.sentence}")
    return lines


class _Adopted:
    """Builds modules like its builder, but begins a cell with the given weights."""

    def __init__(self, builder: Builder, fitted: Fitted) -> None:
        self.builder, self.fitted = builder, fitted
        self.registry, self.device = builder.registry, builder.device
        self.data, self.build = builder.data, builder.build
        self.warnings = fitted.warnings

    def begin(self, cell: Cell) -> tuple[nn.Module, Pretraining]:
        module, pretraining = self.build(cell)
        module.load_state_dict(self.fitted.state)
        return module, pretraining


def _built(name: str, size: int, registry: Registry) -> Backbone:
    with kept_generators(torch.device("cpu")):
        return backbone_of(name, size, registry).eval()


def _check_name(cell: Cell, store: Store) -> None:
    """Checks that no other weights of the backbone have this name: a table has one row a name."""
    for folder in store.cells():
        other = folder.identity()
        if other is None or other.method != cell.method:
            continue
        held = other.hyperparameters["sha256"]
        if other.backbone == cell.backbone and held != cell.hyperparameters["sha256"]:
            raise UserError(
                f"the store {store.root} already has other weights of {cell.backbone} as "
                f"{cell.method} (cell {folder.id[:12]}), or these with another mean and "
                f"deviation: give these another --name, or remove "
                f"those with `sslbench store rm {folder.id[:12]}`"
            )
