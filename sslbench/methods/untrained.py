"""The backbone as it starts: the floor under every method."""

from __future__ import annotations

from torch import nn

from ..api import Backbone, DataInfo


def untrained(backbone: Backbone, data: DataInfo) -> nn.Module:
    """The backbone's first weights, the same that every method of that seed starts from."""
    return backbone
