"""Trains or loads the module of a cell, and records its training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..api import Method
from ..cells.cell import Cell
from ..data import Pretraining
from ..disk import DiskError
from ..errors import Interrupted
from ..names import parse as parse_name
from ..records import Record, Shown, Stage, Warned, digest, now, thinned
from ..store import CellFolder
from ..store.tensors import digest_of
from ..train.device import compiled
from ..train.feed import Feed
from ..train.health import Checkup
from ..train.loop import Session, fit_main
from ..train.state import restore, tensors_of
from .backbone import start_of
from .building import Means, Unsupported
from .environment import reset_peak_memory
from .judging import watching
from .provenance import costs, failure, keep, next_attempt, provenance, without_paths
from .subject import encoder_of

Pretext = Callable[[Cell], tuple[Method, list[Stage]]]


class CellFailed(Exception):
    """The cell failed, and the record of that is written."""


def trained(
    means: Means, cell: Cell, folder: CellFolder, pretext: Pretext
) -> tuple[nn.Module, list[Stage]]:
    """Trains or loads the module of a cell whose lock is held; returns it with its costs.

    `pretext` trains or loads another cell that this one starts from.

    Raises:
        Unsupported, Interrupted, CellFailed: there is no module; a record says why.
    """
    found = folder.current("train", cell.identity())
    if found and found.status == "ok":
        state = folder.weights("model")
        if state is not None:
            module, _ = means.builder.build(cell)
            restore(module, state, what="the saved model")
            if folder.weights("encoder") is None:
                save_encoder(folder, module)
            return module.eval(), list(found.costs.stages if found.costs else ())
    if not means.how.train and not cell.adopted:
        raise CellFailed(f"nothing is trained here: {folder.lost()}")
    folder.write_identity(cell.identity())
    folder.write_place(cell.dataset)
    started = now()
    attempt = next_attempt(r for r in folder.records() if r.kind == "train")
    common = {**provenance(means, cell), "kind": "train", "identity": cell.identity()}
    common |= {"started": started, "attempt": attempt}
    session: list[Session] = []
    try:
        return _train(means, cell, folder, common, session, pretext)
    except Unsupported as error:
        if not (
            found and found.status == "skipped" and found.sentence == without_paths(str(error))
        ):
            keep(folder, Record(**common, status="skipped", sentence=str(error), finished=now()))
        raise
    except Interrupted as error:
        keep(folder, Record(**common, status="interrupted", sentence=str(error), finished=now()))
        raise
    except DiskError:
        raise  # no record could be written either
    except (Exception, SystemExit) as error:
        wrong = failure(error, cell, session[0].where if session else None)
        record = Record(
            **common, status="failed", sentence=wrong.message, error=wrong, finished=now()
        )
        keep(folder, record)
        raise CellFailed(wrong.message) from error


def _train(
    means: Means,
    cell: Cell,
    folder: CellFolder,
    common: dict[str, Any],
    sessions: list[Session],
    pretext: Pretext,
) -> tuple[nn.Module, list[Stage]]:
    reset_peak_memory(means.device)
    module, pretraining = means.builder.begin(cell)
    feed = Feed(
        pretraining.images,
        pretraining.labels,
        means.device,
        pretraining.clips,
        pretraining.domains,
    )
    checkup = Checkup(module, encoder_of(module), feed, pretraining.info.classes)
    stages: list[Stage] = []
    warnings: list[Warned] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    health: dict[str, float] = {}
    steps = 0
    if cell.recipe is not None:
        assert isinstance(module, Method)
        health = checkup.start()
        session = _session(means, cell, folder, feed, pretraining, pretext)
        sessions.append(session)
        with compiled(module, means.how.compile):
            fit_main(session, module, cell.recipe)
        stages, curves, warnings = session.stages, session.curves, session.warnings
        steps = cell.recipe.epochs * (len(feed) // cell.recipe.batch)
    module.eval()
    health, verdicts = checkup.end(health, steps)
    model, encoder = tensors_of(module), tensors_of(encoder_of(module))
    folder.save("model", model, {})
    folder.save("encoder", encoder, {})
    record = Record(
        **common,
        status="ok",
        weights={"model": digest_of(model), "encoder": digest_of(encoder)},
        labels=_shown(pretraining.labels) if cell.labels == "budget" else None,
        costs=costs(means, module, stages, cell),
        curves={name: thinned(points) for name, points in curves.items()},
        health=health,
        warnings=(*warnings, *verdicts, *_of_data(means, cell), *_of_start(means, cell)),
        finished=now(),
    )
    keep(folder, record)
    for path in folder.path.glob("resume-*.safetensors"):
        path.unlink()
    for path in folder.path.glob("stage-*.safetensors"):
        path.unlink()
    return module, stages


def save_encoder(folder: CellFolder, module: nn.Module) -> None:
    """Saves the encoder of a module as the cell's, where its file was lost."""
    folder.save("encoder", tensors_of(encoder_of(module)), {})


def _session(
    means: Means,
    cell: Cell,
    folder: CellFolder,
    feed: Feed,
    pretraining: Pretraining,
    pretext: Pretext,
) -> Session:
    return Session(
        cell=cell,
        folder=folder,
        feed=feed,
        info=pretraining.info,
        hidden=None if pretraining.hidden is None else pretraining.hidden.to(means.device),
        device=means.device,
        pretrain=pretext,
        listener=means.listener,
        stop=means.stop,
        watch=watching(means, means.builder.data(cell.dataset), cell.seed)
        if means.how.watch
        else None,
        how=means.how,
    )


def _shown(labels: Tensor) -> Shown:
    rows = torch.nonzero(labels >= 0)[:, 0].tolist()
    return Shown(count=len(rows), digest=digest(rows))


def _of_data(means: Means, cell: Cell) -> list[Warned]:
    """Warns of what the data make of every number of the row."""
    notes = means.builder.data(cell.dataset).notes
    return [Warned(code="data", message=f"the data: {note}") for note in notes]


def _of_start(means: Means, cell: Cell) -> list[Warned]:
    """Warns of weights that were not trained here, or that training began with."""
    if not cell.adopted:
        start = start_of(cell.backbone)
        return [Warned(code="start", message=start)] if start else []
    said = "weights from outside: what they were trained on is not known here"
    return [
        Warned(code=parse_name(cell.method).base, message=each)
        for each in (said, *means.builder.warnings)
    ]
