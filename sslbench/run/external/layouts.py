"""How other tools name a network's tensors: data, from which `fitting` finds timm's names.

A layout is known by one name that only it has. The first group of `mark` is what stands before the
network's own names, such as `state_dict.backbone.`; `names` replaces the beginning of what follows,
by the first pattern that fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

COMPILED = "_orig_mod."  # torch.compile puts it before a module's names, wherever that stands


class Layout(NamedTuple):
    """Names of one kind of network in one kind of file."""

    what: str
    mark: str = ""
    names: tuple[tuple[str, str], ...] = ()

    def renamed(self, whole: Iterable[str]) -> dict[str, str]:
        """Names as timm has them, by the names in the file; those of another part stay."""
        whole = list(whole)
        before = {found[1] for name in whole if (found := re.fullmatch(self.mark, name))}
        return {name: self._one(name, before) for name in whole} if before else {}

    def _one(self, name: str, before: set[str]) -> str:
        fits = [start for start in before if name.startswith(start)]
        if not fits:
            return name
        start = max(fits, key=len)
        rest = name[len(start) :]
        for old, new in self.names:
            if re.match(old, rest):
                return start + re.sub(old, new, rest, count=1)
        return name


_START = r"((?:.*\.)?)"
_STAGES = "layer1", "layer2", "layer3", "layer4"
_CONV = ((r"0\.", "conv1."), (r"1\.", "bn1."))
LAYOUTS = (
    Layout(
        "a ResNet as nn.Sequential of its children, as in lightly's examples",
        _START + r"7\.0\.conv1\.weight",
        (*_CONV, *((rf"{i}\.", f"{name}.") for i, name in enumerate(_STAGES, 4))),
    ),
    Layout(
        "a ResNet without a max-pool as nn.Sequential of its children",
        _START + r"3\.0\.conv1\.weight",
        (*_CONV, *((rf"{i}\.", f"{name}.") for i, name in enumerate(_STAGES, 3))),
    ),
    Layout(
        "a ViT in chunks of blocks, as DINOv2 trains it",
        _START + r"blocks\.\d+\.\d+\.norm1\.weight",
        ((r"blocks\.\d+\.(\d+)\.", r"blocks.\1."), (r"register_tokens$", "reg_token")),
    ),
    Layout(
        "a ViT of mmpretrain",
        _START + r"layers\.0\.ffn\.layers\.0\.0\.weight",
        (
            (r"patch_embed\.projection\.", "patch_embed.proj."),
            (r"layers\.(\d+)\.ln(\d)\.", r"blocks.\1.norm\2."),
            (r"layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
            (r"layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
            (r"layers\.(\d+)\.", r"blocks.\1."),
            (r"ln1\.", "norm."),
        ),
    ),
    Layout(
        "a ViT of torchvision",
        _START + r"encoder\.layers\.encoder_layer_0\.ln_1\.weight",
        (
            (r"class_token$", "cls_token"),
            (r"conv_proj\.", "patch_embed.proj."),
            (r"encoder\.pos_embedding$", "pos_embed"),
            (r"encoder\.ln\.", "norm."),
            (r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.", r"blocks.\1.norm\2."),
            (
                r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_",
                r"blocks.\1.attn.qkv.",
            ),
            (
                r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.",
                r"blocks.\1.attn.proj.",
            ),
            (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.", r"blocks.\1.mlp.fc1."),
            (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.", r"blocks.\1.mlp.fc2."),
        ),
    ),
)
