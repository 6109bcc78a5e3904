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
from ..plugins import registry
from ..store import Store
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
    identity = folder.identity()
    state = folder.load("model")
    if identity is None or state is None:
        why = "; ".join(folder.notices) or "it is not trained"
        raise UserError(f"cell {folder.id[:12]} cannot be loaded: {why}; `sslbench run` trains it")
    found = registry(files=[Path(file) for file in plugins])
    rebuilt = cell_from(identity, found)
    # the dataset's path is not in the identity, but in the record of the training
    records = [r for r in folder.records() if r.kind == "train"]
    rebuilt = replace(rebuilt, dataset=records[-1].dataset) if records else rebuilt
    place = Place(default_roots(None if data is None else Path(data)))
    module, _ = Builder(found, place, torch.device("cpu")).build(rebuilt)
    restore(module, state[0], what=f"the model of cell {folder.id[:12]}")
    return encoder_of(module.eval()).eval()
