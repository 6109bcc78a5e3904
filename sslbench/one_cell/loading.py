"""Loads a trained encoder from the store, for use in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..api import Place
from ..cells.rebuilt import cell_from
from ..data import default_roots
from ..disk import default_store
from ..errors import UserError
from ..plugins import Registry, registry
from ..store import CellFolder, Store
from ..train.state import restore
from .building import Builder
from .subject import encoder_of


def load(
    cell: str,
    store: str | Path | None = None,
    *,
    data: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
) -> nn.Module:
    """Loads the trained encoder of a cell: RGB in [0, 1], [B, 3, H, W] -> [B, D].

    It is on the CPU and in eval mode.

    Args:
        cell: its id, or the beginning of it
        store: its folder; by default SSLBENCH_STORE, or ./sslbench-store
        data: the folder with the dataset, which decides the network's size; by default SSLBENCH_DATA
        plugins: files of plugins that the cell needs

    Raises:
        UserError: there is no such cell, it is not trained, or its method or data is missing.
    """
    root = Path(store) if store else default_store()
    folder = Store(root).find(cell)
    found = registry(files=[Path(file) for file in plugins])
    return stored_encoder(folder, found, Place(default_roots(None if data is None else Path(data))))


def stored_encoder(folder: CellFolder, found: Registry, place: Place) -> nn.Module:
    """The trained encoder of a cell, from the file of its model, or else of its encoder.

    UserError where both are lost.
    """
    identity, record = folder.identity(), folder.trained()
    model = folder.weights("model")
    encoder = folder.weights("encoder") if model is None else None
    if identity is None or record is None or (model is None and encoder is None):
        raise UserError(folder.lost())
    # the dataset's path is neither in the identity nor in the record
    cell = replace(cell_from(identity, found), dataset=folder.place() or record.dataset)
    module, _ = Builder(found, place, torch.device("cpu")).build(cell)
    if model is not None:
        restore(module, model, what=f"the model of cell {folder.id[:12]}")
    result = encoder_of(module.eval()).eval()
    if encoder is not None:
        restore(result, encoder, what=f"the encoder of cell {folder.id[:12]}")
    return result
