"""Builds the module of a cell before training, and bundles what running cells needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ..api import Method, Place
from ..cells.cell import Cell, derive
from ..cells.parameters import anatomy
from ..data import Data, Pretraining, open_data
from ..events import Listener
from ..names import parse as parse_name
from ..plugins import Registry
from ..store import Store
from ..train.feed import kept_generators, seed_all
from ..train.options import RunOptions
from .backbone import backbone_of, started


class Unsupported(Exception):
    """The method cannot use this backbone or data, and says why."""


class Faulty(Exception):
    """The code of a method raises where it must not, so that nothing can be built of it."""


class Builds(Protocol):
    """Makes modules for a workbench: a Builder, or something that holds one."""

    registry: Registry
    device: torch.device
    warnings: tuple[str, ...]  # what the record of a training must say of where it began

    def data(self, name: str) -> Data: ...
    def build(self, cell: Cell) -> tuple[nn.Module, Pretraining]: ...
    def begin(self, cell: Cell) -> tuple[nn.Module, Pretraining]: ...


class Builder:
    """Builds modules on one device, and keeps datasets open.

    `store` has the cells whose weights backbones start from.
    """

    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        registry: Registry,
        place: Place,
        device: torch.device,
        store: Store | None = None,
    ) -> None:
        self.registry, self.place, self.device, self.store = registry, place, device, store
        self._data: dict[str, Data] = {}

    def data(self, name: str) -> Data:
        """Opens a dataset, once."""
        if name not in self._data:
            self._data[name] = open_data(name, self.registry, self.place)
        return self._data[name]

    def begin(self, cell: Cell) -> tuple[nn.Module, Pretraining]:
        """Builds the module that training starts from.

        ValueError for weights from outside, which only the store could have.
        """
        if cell.adopted:
            raise ValueError(
                "its weights come from outside, and the store has lost them; `sslbench evaluate "
                "--encoder FILE` with the same file takes them in again"
            )
        return self._built(cell, start=True)

    def build(self, cell: Cell) -> tuple[nn.Module, Pretraining]:
        """Builds the module of a cell, to be filled; Unsupported when its method declines."""
        return self._built(cell, start=False)

    def _built(self, cell: Cell, *, start: bool) -> tuple[nn.Module, Pretraining]:
        data, device = self.data(cell.dataset), self.device
        if cell.labels != "none" and not bool((data.train.labels >= 0).any()):
            raise Unsupported("it needs labels, and the pictures to train on have none")
        pretraining = data.pretraining(cell.labels, budget=cell.budget, seed=cell.seed)
        entry = self.registry.find("methods", parse_name(cell.method))
        if cell.source and entry.source_sha256() != cell.source:
            raise ValueError(f"{entry.file} was edited after this run was planned; run it again")
        parts = anatomy(entry)
        with kept_generators(torch.device("cpu")):
            # all methods of a seed start from the same weights, those of `untrained`
            seed_all(derive("backbone", cell.backbone, cell.seed), torch.device("cpu"))
            backbone = backbone_of(cell.backbone, data.size, self.registry)
            if start:
                backbone = started(backbone, self.store)
            if cell.recipe is not None:
                if not data.classes and parts.target.predict is not Method.predict:
                    raise Unsupported("it sorts images into classes, and these pictures have none")
                try:
                    sentence = parts.target.needs(backbone, pretraining.info)
                except (Exception, SystemExit) as error:
                    raise Faulty(f"its `needs` raised {type(error).__name__}: {error}") from error
                if sentence:
                    raise Unsupported(sentence)
            seed_all(derive(cell.id, "method"), torch.device("cpu"))
            module = parts.target(backbone, pretraining.info, **cell.hyperparameters)
        return module.to(device), pretraining


@dataclass(frozen=True)
class Means:
    """What a process needs to run cells: the builder, the store, options and callbacks."""

    builder: Builds
    store: Store
    how: RunOptions
    suite: str = ""  # id, for the records
    listener: Listener = lambda event: None
    stop: Callable[[], bool] = lambda: False

    @property
    def device(self) -> torch.device:
        return self.builder.device
