"""Asks whether what a method rebuilds badly is unusual: planted outliers against images of test.

    python benchmarks/outliers.py STORE [--data DIR] [--seed 0] [--images 1000]

For each trained method of the store that rebuilds images it prints the AUROC of the mean squared
error for telling planted images from those of test: 1 if all of them are rebuilt worse than any
image of test, 0.5 by chance, 0 if better. Planted are images of one grey, of a slope of grey, of
noise, and the images of test themselves dimmed to a third of their contrast, turned upside down,
or with their two halves exchanged.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from sslbench.api import Method, Place
from sslbench.cells.rebuilt import cell_from
from sslbench.data import default_roots
from sslbench.one_cell.building import Builder
from sslbench.plugins import registry
from sslbench.store import CellFolder, Store
from sslbench.train.state import restore


def planted(images: Tensor) -> dict[str, Tensor]:
    """Outliers by name, float [N, 3, H, W] each, made of images in [0, 1]."""
    draw = torch.Generator().manual_seed(0)
    count, side = len(images), images.shape[-1]
    grey = torch.rand(count, 1, 1, 1, generator=draw)
    slope = torch.linspace(-0.5, 0.5, side).expand(side, side) * (1 - (2 * grey - 1).abs())
    mean = images.mean((1, 2, 3), keepdim=True)
    return {
        "one grey": grey.expand_as(images),
        "a slope": (grey + slope).clamp(0, 1).expand_as(images),
        "noise": torch.rand(images.shape, generator=draw),
        "dimmed": mean + (images - mean) / 3,
        "upside down": images.flip(2),
        "halves exchanged": images.roll(side // 2, 3),
    }


def errors(method: Method, images: Tensor) -> Tensor:
    """Mean squared error of each image, [N]."""
    with torch.no_grad():
        parts = [method.reconstruct(part) - part for part in images.split(256)]
    return torch.cat(parts).square().mean((1, 2, 3))


def rebuilder(folder: CellFolder, builder: Builder) -> tuple[Method, Tensor] | None:
    """A cell's method with its weights, and the images of its test split; None if it rebuilds nothing."""
    identity, record, model = folder.identity(), folder.trained(), folder.weights("model")
    if identity is None or record is None or model is None:
        return None
    cell = replace(cell_from(identity, builder.registry), dataset=folder.place() or record.dataset)
    module, _ = builder.build(cell)
    if not isinstance(module, Method) or type(module).reconstruct is Method.reconstruct:
        return None
    restore(module, model, what=f"the model of cell {folder.id[:12]}")
    return module.eval(), builder.data(cell.dataset).test.images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=1000)
    asked = parser.parse_args()
    builder = Builder(registry(), Place(default_roots(asked.data)), torch.device("cpu"))
    begun = False
    for folder in Store(asked.store).cells():
        trained = folder.trained()
        if trained is None or trained.seed != asked.seed:
            continue
        if (found := rebuilder(folder, builder)) is None:
            continue
        method, test = found
        images = test[:: max(1, len(test) // asked.images)].float() / 255
        own, outliers = errors(method, images), planted(images)
        if not begun:
            print(f"| method | {' | '.join(outliers)} |\n|---|{'---:|' * len(outliers)}")
            begun = True
        truth = torch.cat([torch.zeros(len(own)), torch.ones(len(own))])
        told = [
            roc_auc_score(truth, torch.cat([own, errors(method, each)]))
            for each in outliers.values()
        ]
        print(f"| {trained.method} | {' | '.join(f'{each:.2f}' for each in told)} |", flush=True)


if __name__ == "__main__":
    main()
