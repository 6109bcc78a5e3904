"""Counts the memory of banks, queues and centres on ImageNet, and compares it with hand counts.

    python benchmarks/memory.py > benchmarks/results/memory.md

Modules are built with the papers' defaults on torch's meta device, which allocates nothing. All
buffers count, except those of norms and of the backbone. The hand counts are products of N, Q, K,
dimensions and bytes per number, as the papers give them. A test checks that both agree and that the
file is up to date.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from sslbench.api import Backbone, DataInfo, Method
from sslbench.cells.parameters import anatomy
from sslbench.plugins import registry

IMAGENET = DataInfo("imagenet", size=224, length=1_281_167, classes=1000)
N, FLOAT, LONG, BOOL = IMAGENET.length, 4, 8, 1  # images; bytes
SMALL = 4096  # bytes; counters and sums below that are no memory

BY_HAND = {  # method -> buffer -> factors
    "npid": {"bank": (N, 128, FLOAT)},
    "moco": {"queue": (65536, 128, FLOAT)},
    "swav-256": {"queue": (2, 3840, 128, FLOAT)},
    "dino": {"centre": (65536, FLOAT)},
    "deepcluster": {"cluster": (N, LONG)},
    "deepcluster-v2": {
        "bank": (2, N, 128, FLOAT),
        "prototypes": (3, 3000, 128, FLOAT),
        "cluster": (3, N, LONG),
    },
    "ruc": {"clean": (2, N, BOOL), "label": (2, N, LONG), "sure": (2, N, FLOAT)},
}


def built(name: str) -> Method:
    """The method with its defaults over a ResNet-50, without storage."""
    found = registry(installed=False)
    parts = anatomy(found.find("methods", name))
    with torch.device("meta"):
        backbone = found.find("backbones", "resnet50").load()("resnet50", size=IMAGENET.size)
        return parts.target(backbone, IMAGENET, **parts.defaults)


def kept(module: nn.Module, at: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """A module's buffers, without those of backbones and norms."""
    if isinstance(module, Backbone | nn.modules.batchnorm._NormBase):
        return
    for name, buffer in module.named_buffers(recurse=False):
        yield f"{at}{name}", buffer
    for name, child in module.named_children():
        yield from kept(child, f"{at}{name}.")


def sizes(name: str) -> dict[str, int]:
    """Bytes of each buffer of the built module, without small ones."""
    found = {key: buffer.numel() * buffer.element_size() for key, buffer in kept(built(name))}
    return {key: size for key, size in found.items() if size >= SMALL}


def table() -> str:
    lines = [
        "# Memory of banks, queues and centres",
        "",
        "Made by `python benchmarks/memory.py`: the papers' settings on ImageNet's 1,281,167 images,",
        "each method's buffers as built (on no device) and as counted by hand.",
        "",
        "| method | buffer | by hand | bytes by hand | bytes as built |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    for name, counts in BY_HAND.items():
        found = sizes(name)
        for buffer in {**counts, **found}:
            factors = counts.get(buffer, (0,))
            product = " x ".join(f"{factor:,}" for factor in factors)
            bytes_ = f"{math.prod(factors):,} | {found.get(buffer, 0):,}"
            lines.append(f"| {name} | {buffer} | {product} | {bytes_} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
