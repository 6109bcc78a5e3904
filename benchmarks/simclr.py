"""SimCLR from images to step: the harness against lightly's transform and torch's data loader.

    pip install -e ".[bench]"
    python benchmarks/simclr.py [--data fashion-mnist[train=2560]] [--workers 0,1,2] [--rounds 5]

Both sides train the same backbone (channels-last, our own class), a head of the same widths, the
same optimiser and batch, on the same uint8 images in memory, through one epoch a round: crops of
area .2 to 1, flips, jitter of strength .5, greyscale, no blur. lightly's side is its SimCLRTransform
on PIL images in a torch DataLoader, its projection head and its NT-Xent loss; its workers outlive
the rounds and it keeps no log and no checkpoint. Ours is the whole harness, both included.

In each round every contestant runs once, in turn; the ratio of a round is against its best number of
workers, and the median over rounds is what counts. The bar is 3. Threads are those of
OMP_NUM_THREADS, or all.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightly
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sslbench.api import Place
from sslbench.backbones.timm import create
from sslbench.bench import load_suite
from sslbench.data import default_roots, open_data
from sslbench.execute import Options, Workbench
from sslbench.executors.memory import keep_freed
from sslbench.feed import Feed
from sslbench.identity import Cell, Setting, Settings, resolve
from sslbench.plugins import registry
from sslbench.store import Store
from sslbench.train import Session, fit_main

BAR = 3.0
DATA = "fashion-mnist[train=2560]"


class Pictures(Dataset):
    """PIL images, as lightly's transform takes them."""

    def __init__(self, images: Tensor, transform: Callable[[Any], Any]) -> None:
        self.arrays = images.permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, 3]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.arrays[index]))


class Lightly:
    """One epoch of SimCLR as lightly's own example writes it."""

    def __init__(self, images: Tensor, cell: Cell, workers: int) -> None:
        recipe, asked = cell.recipe, cell.hyperparameters
        transform = SimCLRTransform(
            input_size=cell.size,
            cj_strength=asked["jitter"],
            min_scale=asked["crop"],
            gaussian_blur=0.0,
            normalize=None,  # the backbone normalises, here as there
        )
        self.loader = DataLoader(
            Pictures(images, transform),
            batch_size=recipe.batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        backbone = create(cell.backbone, size=cell.size)
        head = SimCLRProjectionHead(backbone.dim, backbone.dim, asked["dim"])
        self.model = nn.Sequential(backbone, head)
        self.loss = NTXentLoss(temperature=asked["temperature"])
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )

    def train(self) -> None:
        for one, other in self.loader:
            loss = self.loss(self.model(one), self.model(other))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


class Harness:
    """One epoch of the cell, as `sslbench run` trains it."""

    def __init__(self, images: Tensor, cell: Cell, bench: Workbench) -> None:
        self.cell, self.bench = cell, bench
        self.module, seen = bench.build(cell)
        self.session = lambda: Session(
            cell=cell,
            folder=bench.store.cell(cell.id),
            feed=Feed(images, seen.labels, torch.device("cpu")),
            info=seen.info,
            device=torch.device("cpu"),
            pretrain=bench.pretext,
        )

    def train(self) -> None:
        session = self.session()
        with session.folder.lock():
            fit_main(session, self.module, self.cell.recipe)
            session.folder.remove("resume-main")


def cell_of(options: argparse.Namespace, found: Any, place: Place) -> Cell:
    """The suite `fashion`'s cell of SimCLR, with one epoch."""
    suite = load_suite("fashion", found)
    data = open_data(options.data, found, place)
    setting = Setting(options.backbone, data.name, data.fingerprint, data.size, 0)
    same = {"simclr.optimizer": "sgd", "simclr.crop": 0.2, "simclr.jitter": 0.5, "simclr.blur": 0.0}
    layers = (({"epochs": 1, "batch": options.batch}, {**suite.set, **same}),)
    cell = resolve("simclr", found, setting, Settings(layers))
    return replace(cell, recipe=replace(cell.recipe, warmup=0.0))


def seconds(contestant: Any) -> float:
    start = time.perf_counter()
    contestant.train()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", default="0,1,2", help="numbers of lightly's contestants")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed()  # as the processes of `sslbench run` do; lightly's side profits alike
    found, place = registry(), Place(roots=default_roots(None))
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"lightly {lightly.__version__}, {options.data}, batch {options.batch}"
    )
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(found, Store(Path(folder)), place, Options(device=torch.device("cpu")))
        cell = cell_of(options, found, place)
        images = bench.data(cell.dataset).pretraining("none").images
        contestants: dict[str, Any] = {
            f"lightly, {n} workers": Lightly(images, cell, int(n))
            for n in options.workers.split(",")
        }
        contestants["harness"] = Harness(images, cell, bench)
        for contestant in contestants.values():
            contestant.train()  # to warm up, and to start the workers
        rounds = []
        for i in range(options.rounds):
            order = list(contestants)[:: 1 if i % 2 else -1]
            rounds.append({name: seconds(contestants[name]) for name in order})
            print(f"round {i + 1}: " + "  ".join(f"{n} {s:.2f} s" for n, s in rounds[-1].items()))
    count = len(images) // cell.recipe.batch * cell.recipe.batch
    for name in contestants:
        print(f"{name:20s} {count / statistics.median(r[name] for r in rounds):7.0f} images/s")
    ratios = [min(s for n, s in r.items() if n != "harness") / r["harness"] for r in rounds]
    ratio = statistics.median(ratios)
    print(f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}): ", end="")
    print(f"{'PASS' if ratio >= BAR else 'FAIL'} ({BAR:g})")
    raise SystemExit(ratio < BAR)


if __name__ == "__main__":
    main()
