"""Published weights, judged and not trained."""

from __future__ import annotations

from torch import nn

from ..api import Backbone, DataInfo


def pretrained(
    backbone: Backbone,
    data: DataInfo,
    *,
    tag: str = "",  # of the weights, "": timm's default for the network; ours
) -> nn.Module:
    """Published timm weights, judged and not trained; `tag` as in timm's names, "" for its default."""
    return backbone.pretrained(tag)
