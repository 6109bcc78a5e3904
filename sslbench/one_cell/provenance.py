"""Fills in the parts of a cell's records beside the numbers: components, costs, failures."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from ..cells.cell import Cell, plain
from ..errors import UserError
from ..measures import flops
from ..names import parse as parse_name
from ..names import published
from ..records import Costs, Failure, Record, Stage, now, wrong_field
from ..store import Answers, CellFolder
from ..train.optim import scaled_lr
from ..train.tally import Diverged
from .building import Means
from .environment import component, environment, peak_memory
from .subject import encoder_of

# The folders of an absolute path; not those of an address, as in https://
ABSOLUTE = re.compile(r"(?<![\w./\\-])(?:~?/|[A-Za-z]:\\)(?:[^/\\\s'\"`:,;()<>|]+[/\\])+")
# what libraries say of memory: CUDA's and MPS's allocators, cuBLAS, cuDNN, and a CPU's
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_device_allocation_failed",
    "cusolver_status_alloc_failed",
    "cudaerrormemoryallocation",
)
NOT_DETERMINISTIC = "does not have a deterministic implementation"


def provenance(means: Means, cell: Cell) -> dict[str, Any]:
    """The fields that all records of a cell share."""
    registry = means.builder.registry
    method = registry.find("methods", parse_name(cell.method))
    backbone = registry.find("backbones", parse_name(cell.backbone).base)
    dataset = registry.find("datasets", parse_name(cell.dataset).base)
    data = means.builder.data(cell.dataset)
    of = functools.partial(component, store=means.store.root)
    return {
        "cell_id": cell.id,
        "method": cell.method,
        "backbone": cell.backbone,
        "dataset": published(cell.dataset),
        "seed": cell.seed,
        "suite": means.suite,
        "hyperparameters": plain(cell.hyperparameters),
        "recipe": resolved_recipe(cell),
        "components": {
            "method": of(method, cell.version),
            "backbone": {**of(backbone, 1), "timm": metadata.version("timm")},
            "dataset": {**of(dataset, data.version), "skipped": len(data.skipped)},
        },
        "environment": environment(means.device, means.how),
    }


def costs(means: Means, module: nn.Module, stages: list[Stage], cell: Cell) -> Costs:
    """The costs of training, with every stage, and of the encoder."""
    encoder = encoder_of(module)
    one = torch.zeros(1, 3, cell.size, cell.size, device=means.device)
    seconds = sum(s.seconds for s in stages)
    images = sum(s.images_seen for s in stages)
    return Costs(
        seconds=seconds,
        images_seen=images,
        images_per_second=images / seconds if seconds > 0 and images else None,
        parameters=sum(p.numel() for p in encoder.parameters()),
        flops=flops(encoder, one) or None,
        peak_memory_bytes=peak_memory(means.device),
        stages=tuple(stages),
    )


def resolved_recipe(cell: Cell) -> dict[str, Any]:
    """Every field of the recipe and of those of its stages, with the scaled learning rate."""
    if cell.recipe is None:
        return {}
    found = {**plain(dataclasses.asdict(cell.recipe)), "lr_scaled": scaled_lr(cell.recipe)}
    for name, (_, recipe) in cell.stages.items():
        found[name] = {**plain(dataclasses.asdict(recipe)), "lr_scaled": scaled_lr(recipe)}
    return found


def next_attempt(before: Iterable[Record]) -> int:
    """The number of the next attempt; some of those before may have been deleted."""
    return 1 + max((record.attempt for record in before), default=0)


def keep(
    folder: CellFolder, record: Record, found: Answers | None = None, sheet: bytes = b""
) -> Record:
    """Adds a record to a cell, without paths of this machine in its texts: it may be published."""
    error = record.error
    changed: dict[str, Any] = {
        "sentence": without_paths(record.sentence),
        "warnings": tuple(
            warned.model_copy(update={"message": without_paths(warned.message)})
            for warned in record.warnings
        ),
    }
    if error is not None:
        texts = {key: without_paths(getattr(error, key)) for key in ("message", "traceback")}
        changed["error"] = error.model_copy(update=texts)
    return folder.add(record.model_copy(update=changed), found, sheet)


def without_paths(text: str) -> str:
    """A text in which each absolute path is its last part, or what follows an installed package's."""
    for start, instead in (("file://", ""), *_places()):
        text = text.replace(start, instead)
    return ABSOLUTE.sub("", text)


@functools.cache
def _places() -> list[tuple[str, str]]:
    """Where packages and homes lie here, the longest first, and what stands for each."""
    package = Path(__file__).parents[2]
    installed = {package, *(Path(sysconfig.get_path(key)) for key in ("purelib", "platlib"))}
    found = {f"{path}{os.sep}": "" for path in installed}
    found[f"{Path(sysconfig.get_path('stdlib')).parent}{os.sep}"] = ""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home raises where there is none
    if len(home.parts) > 1:
        found[f"{home}{os.sep}"] = "~/"
    return sorted(found.items(), key=lambda pair: -len(pair[0]))


def add_failure(folder: CellFolder, cell: Cell, wrong: Failure, *, suite: str) -> None:
    """Records that a cell failed, where no more than the failure is known of it."""
    record = Record(
        kind="train",
        cell_id=cell.id,
        identity=cell.identity(),
        status="failed",
        sentence=wrong.message,
        method=cell.method,
        backbone=cell.backbone,
        dataset=published(cell.dataset),
        seed=cell.seed,
        suite=suite,
        error=wrong,
        attempt=next_attempt(r for r in folder.records() if r.kind == "train"),
        finished=now(),
    )
    folder.write_identity(cell.identity())
    keep(folder, record)


def _out_of_memory(cell: Cell, where: tuple[str, int, int] | None, judge: str) -> str:
    """The sentence for memory that did not suffice, by what was running."""
    if judge:
        return (
            f"out of memory while {judge} judged it; its training is kept. Judge it where more is "
            "free: with fewer --jobs, with no other process on the device, or with --device cpu"
        )
    if cell.recipe is None or where is None:
        return "out of memory before a step was taken; run fewer --jobs, or take a smaller backbone"
    name = cell.method.rpartition("/")[2]
    return (
        f"out of memory in training with batch {cell.recipe.batch}; try --set {name}.batch=N with a "
        "smaller N, or --batch N"
    )


def failure(
    error: BaseException,
    cell: Cell,
    where: tuple[str, int, int] | None,
    *,
    judge: str = "",
) -> Failure:
    """Describes an exception for a record, with what would help where that is known.

    `judge` is the protocol of the evaluator that was running, if one was.
    """
    ours = isinstance(error, ValueError | UserError)  # whose text is a sentence
    message = str(error) if ours else f"{type(error).__name__}: {error}"
    if isinstance(error, ValidationError):  # of a record's field, such as a metric that is NaN
        message = wrong_field(error)
    kind = "other"
    if isinstance(error, Diverged):
        kind = "nan"
    elif isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in OUT_OF_MEMORY
    ):
        kind = "oom"
        message = _out_of_memory(cell, where, judge)
    elif NOT_DETERMINISTIC in str(error):
        operation = str(error).partition(NOT_DETERMINISTIC)[0].strip()
        message = (
            f"{operation} cannot repeat itself to the bit on this device; run it without "
            "--deterministic, or with --device cpu"
        )
    stage, epoch, step = where or (None, None, None)
    trace = "".join(traceback.format_exception(error))[-8000:]
    return Failure(
        kind=kind,
        type=type(error).__name__,
        message=message[:2000],
        traceback=trace,
        stage=stage,
        epoch=epoch,
        step=step,
    )
