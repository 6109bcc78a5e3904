"""Makes the backbone of a name, and loads the weights that its bracket says it starts from."""

from __future__ import annotations

import re
from typing import Any

from ..api import Backbone
from ..errors import UserError
from ..names import parse as parse_name
from ..plugins import Registry
from ..store import Store
from ..train.state import restore

WEIGHTS = "weights"  # in the bracket
DIGITS = 12  # of a cell's id, as every command shows it


def backbone_of(name: str, size: int, registry: Registry) -> Backbone:
    """Makes the backbone of a name, for images with sides of `size` pixels, with random weights."""
    asked = parse_name(name)
    params: dict[str, Any] = {k: v for k, v in asked.params.items() if k != WEIGHTS}
    create = registry.find("backbones", asked.base).load()
    backbone: Backbone = create(asked.base, size=size, **params)
    if WEIGHTS in asked.params:
        backbone.name = str(asked)
    return backbone


def started(backbone: Backbone, store: Store | None) -> Backbone:
    """The backbone with the weights that the bracket of its name says it starts from.

    `resnet18[weights=tv_in1k]` starts from published weights, `resnet18[weights=0123456789ab]` from
    those of a finished cell of the store.

    Raises:
        UserError: there are no such weights, or they do not fit.
    """
    name = backbone.name
    weights = parse_name(name).params.get(WEIGHTS)
    if weights is None:
        return backbone
    if cell := cell_of(name):
        _start_from(backbone, cell, store)
    else:
        backbone = backbone.pretrained(str(weights))
        backbone.name = name
    return backbone


def cell_of(name: str) -> str | None:
    """The first digits of the id of the cell whose weights this backbone starts from."""
    weights = parse_name(name).params.get(WEIGHTS)
    if isinstance(weights, int) and not isinstance(weights, bool):
        weights = str(weights)  # an id may have no letter
    if not isinstance(weights, str) or not re.fullmatch(f"[0-9a-f]{{{DIGITS},64}}", weights):
        return None
    if len(weights) > DIGITS:
        raise UserError(f"{name}: write the first {DIGITS} digits of a cell: {weights[:DIGITS]}")
    return weights


def start_of(name: str) -> str:
    """A sentence on the weights that a backbone starts from; "" where they are random."""
    weights = parse_name(name).params.get(WEIGHTS)
    if weights is None:
        return ""
    if cell := cell_of(name):
        return f"it starts from the weights of cell {cell}, and so from all that these have seen"
    return f"it starts from the published weights {weights}, and so from all that these have seen"


def _start_from(backbone: Backbone, cell: str, store: Store | None) -> None:
    if store is None:
        raise UserError(f"{backbone.name} starts from the weights of cell {cell}, of another store")
    folder = store.find(cell)
    weights = folder.weights("encoder")
    if weights is None:
        raise UserError(f"{backbone.name} cannot start from it: {folder.lost()}")
    try:
        restore(backbone, weights, what=f"the encoder of cell {cell}")
    except ValueError as error:
        raise UserError(f"{backbone.name} cannot start from it: {error}") from error
