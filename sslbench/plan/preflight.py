"""What cannot serve is known before anything trains."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ..api import Backbone, Method
from ..cells.cell import Cell, plain
from ..cells.parameters import anatomy
from ..errors import UserError
from ..plugins import Registry
from ..records import digest

if TYPE_CHECKING:
    from ..data import Data
    from ..one_cell.building import Builder
    from .plan import Plan


def build_each(plan: Plan, registry: Registry) -> None:
    """Builds each open combination once: what cannot serve is known before anything trains."""
    import torch

    from ..one_cell.building import Builder, Unsupported

    builder = Builder(registry, plan.options.place, torch.device("cpu"))
    seen: dict[str, str | None] = {}
    keys: dict[tuple[int, int, str, str], str] = {}
    for i, planned in enumerate(plan.cells):
        if not planned.open or planned.state == "evaluate":
            continue
        cell = planned.cell
        # seeds share their outline's settings
        alike = (id(cell.hyperparameters), id(cell.recipe), cell.backbone, cell.dataset)
        if alike not in keys:
            keys[alike] = _built_from(cell, registry)
        key = keys[alike]
        if key not in seen:
            try:
                module, _ = builder.build(planned.cell)
                _check_queues(planned.cell, module)
                _check_pretexts(planned.cell, module, builder)
                seen[key] = None
            except Unsupported as error:
                seen[key] = str(error)
            except ValueError as error:
                raise UserError(f"{planned.cell.method}: {error}") from error
        if sentence := seen[key]:
            plan.cells[i] = dataclasses.replace(planned, state="unsupported", why=sentence)


def _built_from(cell: Cell, registry: Registry) -> str:
    """All that building and its checks look at: an lr is none of it."""
    of = cell.identity()
    pretexts = [_built_from(pretext, registry) for pretext in cell.pretexts.values()]
    return digest(
        {
            "target": id(anatomy(registry.find("methods", cell.method)).target),
            "source": cell.source,
            "hyperparameters": plain(cell.hyperparameters),
            "batch": cell.recipe.batch if cell.recipe else None,
            "pretexts": pretexts,
            **{key: of[key] for key in ("backbone", "dataset", "labels")},
        }
    )


def check_size(cell: Cell, data: Data, registry: Registry) -> None:
    """A batch that the data can fill, and that is enough for the method's loss and norms."""
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
                f"its {name} of {rows} is no multiple of the batch of {batch}: keys would be "
                f"split; set one of {rows - rows % batch or batch}, or another batch"
            )


def _check_pretexts(cell: Cell, module: Any, builder: Builder) -> None:
    """That the methods which this one starts from have what it asks of them."""
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
                f"the encoder of its {name} {pretext.method} is no bare backbone, its weights fit "
                f"nowhere else; choose a method whose encoder is its backbone"
            )
