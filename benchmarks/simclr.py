"""Compares SimCLR training in speed: the harness against lightly with torch's data loader.

    pip install -e ".[bench]"
    python benchmarks/simclr.py [--data fashion-mnist[train=2560]] [--workers 0,1,2] [--rounds 5]

Both sides train timm's network of the same name with a head of the same widths, the same optimiser
and batch, on the same uint8 images in memory, one epoch a round: crops of area .2 to 1, flips,
jitter of strength .5, greyscale, no blur. lightly's side is written as its own example is: its
SimCLRTransform on PIL images in a torch DataLoader, the network as timm makes it, its projection
head and NT-Xent loss. Its workers stay alive between rounds, and it writes no log and no checkpoint.
Our side is the whole harness, which writes both. Besides its views, the harness is faster because it
lays networks out channels-last and keeps freed memory; `--favour` gives lightly's side both as well.

Every contestant has a process of its own and runs once per round, in turn, while the others wait.
The ratio of a round is against lightly with its best number of workers; the result is the median over
rounds. The bar is 3. Each contestant has the threads of OMP_NUM_THREADS, or all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightly
import timm
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sslbench.api import Place
from sslbench.cells.cell import Cell
from sslbench.cells.settings import Context, Settings, resolve
from sslbench.cells.suite import load_suite
from sslbench.data import default_roots, open_data
from sslbench.one_cell.building import Builder
from sslbench.one_cell.workbench import Workbench
from sslbench.plugins import registry
from sslbench.run.memory import keep_freed
from sslbench.store import Store
from sslbench.train.feed import Feed
from sslbench.train.loop import Session, fit_main
from sslbench.train.options import RunOptions

BAR = 3.0
DATA = "fashion-mnist[train=2560]"


class Pictures(Dataset):
    """A data set of PIL images, as lightly's transform needs."""

    def __init__(self, images: Tensor, transform: Callable[[Any], Any]) -> None:
        self.arrays = images.permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, 3]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.arrays[index]))


class Lightly:
    """One epoch of SimCLR as lightly's own example writes it."""

    def __init__(self, images: Tensor, cell: Cell, workers: int, *, favour: bool) -> None:
        recipe, asked = cell.recipe, cell.hyperparameters
        transform = SimCLRTransform(
            input_size=cell.size,
            cj_strength=asked["jitter"],
            min_scale=asked["crop"],
            gaussian_blur=0.0,
        )  # it normalises, which ours does in the backbone
        self.loader = DataLoader(
            Pictures(images, transform),
            batch_size=recipe.batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self.layout = torch.channels_last if favour else torch.contiguous_format
        backbone = timm.create_model(cell.backbone, num_classes=0).to(memory_format=self.layout)
        dim = backbone.num_features
        self.model = nn.Sequential(backbone, SimCLRProjectionHead(dim, dim, asked["dim"]))
        self.loss = NTXentLoss(temperature=asked["temperature"])
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )

    def train(self) -> None:
        for views in self.loader:
            one, other = (view.contiguous(memory_format=self.layout) for view in views)
            loss = self.loss(self.model(one), self.model(other))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


class Harness:
    """One epoch of the cell, as `sslbench run` trains it."""

    def __init__(self, images: Tensor, cell: Cell, bench: Workbench) -> None:
        self.cell, self.bench = cell, bench
        self.module, seen = bench.builder.build(cell)
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
    setting = Context(options.backbone, data.name, data.fingerprint, data.size, 0)
    same = {"simclr.optimizer": "sgd", "simclr.crop": 0.2, "simclr.jitter": 0.5, "simclr.blur": 0.0}
    layers = (({"epochs": 1, "batch": options.batch}, {**suite.set, **same}),)
    cell = resolve("simclr", found, setting, Settings(layers))
    return replace(cell, recipe=replace(cell.recipe, warmup=0.0))


def serve(connection: Any, name: str, options: argparse.Namespace) -> None:
    """Serves as a contestant: trains an epoch whenever asked, and sends back the seconds."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    ours = name == "harness"
    if ours or options.favour:
        keep_freed()  # as the processes of `sslbench run` do
    found, place = registry(), Place(roots=default_roots(None))
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(
            Builder(found, place, torch.device("cpu")), Store(Path(folder)), RunOptions()
        )
        cell = cell_of(options, found, place)
        images = bench.builder.data(cell.dataset).pretraining("none").images
        workers = int(name.split()[-1]) if not ours else 0
        contestant: Any = (
            Harness(images, cell, bench)
            if ours
            else Lightly(images, cell, workers, favour=options.favour)
        )
        contestant.train()  # to warm up, and to start the workers
        connection.send(len(images) // cell.recipe.batch * cell.recipe.batch)
        while connection.recv():
            start = time.perf_counter()
            contestant.train()
            connection.send(time.perf_counter() - start)


@contextmanager
def contestant(name: str, options: argparse.Namespace) -> Iterator[tuple[int, Callable[[], float]]]:
    """Starts a contestant in a process: its images per epoch, and a function that times an epoch."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=serve, args=(its, name, options))
    process.start()
    its.close()

    def train() -> float:
        mine.send(True)
        return float(mine.recv())

    try:
        yield mine.recv(), train
    finally:
        mine.send(False)
        process.join(20)
        process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", default="0,1,2", help="numbers of lightly's contestants")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--favour", action="store_true", help="lend lightly's side our layout")
    options = parser.parse_args()
    options.threads = torch.get_num_threads()
    print(
        f"{options.threads} threads, torch {torch.__version__}, "
        f"lightly {lightly.__version__}, {options.data}, batch {options.batch}"
    )
    names = [f"lightly, workers: {n}" for n in options.workers.split(",")] + ["harness"]
    with ExitStack() as stack:
        found = {name: stack.enter_context(contestant(name, options)) for name in names}
        rounds = []
        for i in range(options.rounds):
            order = names[:: 1 if i % 2 else -1]
            rounds.append({name: found[name][1]() for name in order})
            shown = "  ".join(f"{name} {s:.2f} s" for name, s in rounds[-1].items())
            print(f"round {i + 1}: {shown}", flush=True)
    for name in names:
        speed = found[name][0] / statistics.median(r[name] for r in rounds)
        print(f"{name:22s} {speed:7.0f} images/s")
    ratios = [min(s for n, s in r.items() if n != "harness") / r["harness"] for r in rounds]
    ratio = statistics.median(ratios)
    print(f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}): ", end="")
    print(f"{'PASS' if ratio >= BAR else 'FAIL'} ({BAR:g})")
    raise SystemExit(ratio < BAR)


if __name__ == "__main__":
    main()
