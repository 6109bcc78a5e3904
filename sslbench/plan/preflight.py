"""Finds cells that cannot work, before anything trains."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from .. import arrays
from ..api import Backbone, Method
from ..cells.cell import Cell, plain
from ..cells.identity import Identity
from ..cells.parameters import anatomy
from ..errors import UserError
from ..one_cell.building import Builder, Unsupported
from ..plugins import Registry
from ..records import digest

if TYPE_CHECKING:
    from ..data import Data
    from .plan import Plan


TO_TRAIN = 4  # copies of a weight: itself, its gradient, its momentum, its average
MOST_TENSORS = 20_000  # that one method may make


def build_each(plan: Plan, registry: Registry) -> None:
    """Builds each kind of open cell once, and marks cells that their method does not support.

    Raises:
        UserError: a cell cannot be built.
    """
    builder = Builder(registry, plan.options.place, torch.device("cpu"), plan.store)
    seen: dict[str, str | None] = {}
    keys: dict[tuple[int, int, str, str], str] = {}
    for i, planned in enumerate(plan.cells):
        if not planned.open or planned.state == "evaluate":
            continue
        cell = planned.cell
        # cells of different seeds share these objects
        alike = (id(cell.hyperparameters), id(cell.recipe), cell.backbone, cell.dataset)
        if alike not in keys:
            keys[alike] = _built_from(cell, registry)
        key = keys[alike]
        if key not in seen:
            try:
                with _Bounded(planned.cell), _kept_surroundings():
                    module, _ = builder.begin(planned.cell)
                _check_queues(planned.cell, module)
                _check_pretexts(planned.cell, module, builder)
                seen[key] = None
            except Unsupported as error:
                seen[key] = str(error)
            except ValueError as error:
                raise UserError(f"{planned.cell.method}: {error}") from error
            except UserError:
                raise
            except (Exception, SystemExit):  # noqa: BLE001 - it fails where it runs, and is recorded
                seen[key] = None
        if sentence := seen[key]:
            plan.cells[i] = dataclasses.replace(planned, state="unsupported", why=sentence)


@contextlib.contextmanager
def _kept_surroundings() -> Iterator[None]:
    """Puts back the environment and the working directory, which worker processes inherit."""
    environment, folder = dict(os.environ), Path.cwd()
    try:
        yield
    finally:
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        os.chdir(folder)


class _Bounded(TorchFunctionMode):
    """Refuses tensors too large to train on this machine, before they are allocated."""

    makers = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full)

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell, self.made = cell, 0

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if function in self.makers:
            asked = given.get("size", args[:1] if function is torch.full else args)
            shape = [n for each in asked for n in (each if isinstance(each, Sequence) else [each])]
            self._check([n for n in shape if isinstance(n, int)])
        return function(*args, **given)

    def _check(self, shape: Sequence[int]) -> None:
        self.made += 1
        size = 4 * math.prod(shape)
        if TO_TRAIN * size <= arrays.memory() and self.made <= MOST_TENSORS:
            return
        values = self.cell.hyperparameters.items()
        large = [f"{k}={v}" for k, v in values if type(v) is int and v in shape and v == max(shape)]
        what = f"{self.cell.method}: {large[0] if large else 'what is set'} asks for"
        if self.made > MOST_TENSORS:
            raise UserError(f"{what} more than {MOST_TENSORS:,} tensors; set less")
        sides = " x ".join(f"{n:,}" for n in shape)
        raise UserError(
            f"{what} a tensor of {sides} numbers, {size / 1e9:,.0f} GB, which takes {TO_TRAIN} "
            f"times as much to train; this machine has {arrays.memory() / 1e9:,.0f} GB; set less"
        )


def _built_from(cell: Cell, registry: Registry) -> str:
    """A key of everything that building a cell depends on; the learning rate, say, is not in it."""
    identity = Identity(cell.identity())
    pretexts = [_built_from(pretext, registry) for pretext in cell.pretexts.values()]
    return digest(
        {
            "target": id(anatomy(registry.find("methods", cell.method)).target),
            "source": cell.source,
            "hyperparameters": plain(cell.hyperparameters),
            "batch": cell.recipe.batch if cell.recipe else None,
            "pretexts": pretexts,
            "backbone": identity.backbone,
            "data": [identity.dataset, identity.fingerprint, identity.size],
            "labels": [identity.labels, identity.budget],
        }
    )


def check_size(cell: Cell, data: Data, registry: Registry) -> None:
    """Checks that a batch is neither larger than the data nor too small for the method."""
    if cell.recipe is None:
        return
    split = data.unlabelled if cell.labels == "none" and data.unlabelled else data.train
    length = len(split.images)
    target = anatomy(registry.find("methods", cell.method)).target
    kinds = {"": target, **target.stages}
    for stage, recipe in {"": cell.recipe, **{s: r for s, (_, r) in cell.stages.items()}}.items():
        where = f"{cell.method}.{stage}".rstrip(".")
        if recipe.batch > length and recipe.epochs:
            raise UserError(
                f"{where}: a batch of {recipe.batch} is larger than the {length} images of "
                f"{data.name}; try --batch N or --set {where}.batch=N with at most {length}"
            )
        if recipe.batch < (least := kinds[stage].least):
            raise UserError(
                f"{where}: a batch of {recipe.batch} is too small for its loss and norms; "
                f"try --batch N or --set {where}.batch=N with at least {least}"
            )


def _check_queues(cell: Cell, module: Any) -> None:
    for name in getattr(module, "queues", ()):
        rows, batch = getattr(module, name).shape[-2], cell.recipe.batch if cell.recipe else 1
        if rows % batch:
            raise ValueError(
                f"its {name} of {rows} is not a multiple of the batch of {batch}: keys would be "
                f"split; set one of {rows - rows % batch or batch}, or another batch"
            )


def _check_pretexts(cell: Cell, module: Any, builder: Builder) -> None:
    """Checks that the pretexts of a method have what it asks of them."""
    for name, asked in getattr(module, "asks", {}).items():
        pretext = cell.pretexts[cell.hyperparameters[name]]
        other, _ = builder.build(pretext)
        if not isinstance(other, Method):
            raise ValueError(f"its {name} {pretext.method} is never trained; choose another")
        if "predict" in asked and type(other).predict is Method.predict:
            raise ValueError(
                f"its {name} {pretext.method} predicts no class of an image; choose a method that "
                f"sorts images into the classes"
            )
        if "backbone" in asked and not isinstance(other.encoder(), Backbone):
            raise ValueError(
                f"the encoder of its {name} {pretext.method} is not a bare backbone, its weights fit "
                f"nowhere else; choose a method whose encoder is its backbone"
            )
