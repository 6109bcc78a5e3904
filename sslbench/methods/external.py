"""Weights that were trained elsewhere."""

from __future__ import annotations

from torch import nn

from ..api import Backbone, DataInfo, Weights


def external(
    backbone: Backbone,
    data: DataInfo,
    *,
    sha256: Weights = Weights(""),  # of the tensors that were taken in; ours
) -> nn.Module:
    """Weights from outside, judged and not trained: `sslbench evaluate --encoder FILE` takes them in."""
    return backbone
