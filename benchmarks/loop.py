"""Training through the harness against the bare steps of the same modules, in one run.

    python benchmarks/loop.py [--methods simclr,moco,swav,supervised] [--suite quick|fashion]
                              [--views on|off|both] [--steps 40] [--rounds 5]

The harness's side is all that `sslbench run` does while it trains: the loop, the log, progress,
the check of each loss, checkpoints at the default interval and the one at the end of the fit. The
bare side drives the method's `step` by hand: forward, backward, optimiser step, nothing else; in
NCHW and in channels-last, of which the one that is faster at first goes on. Without views, both
sides are fed tensors that were made before the clock started, the bare side's in its own layout;
with views, both sides make them from uint8 images.

Each round takes about `--steps` steps on every side, in turn, in an order that changes, so that a
busy machine slows all; the ratio is the median over rounds. The bar is 0.90. Threads are those of
OMP_NUM_THREADS, or all. `--clock cpu` counts processor time instead, for a first look on a machine
that others use (with OMP_NUM_THREADS=1: threads that wait count too).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslbench.api import Batch, Method, Place
from sslbench.bench import load_suite
from sslbench.data import default_roots, open_data
from sslbench.execute import Options, Workbench
from sslbench.executors.memory import keep_freed
from sslbench.feed import Feed
from sslbench.identity import Cell, Setting, Settings, resolve
from sslbench.optim import Optimisation
from sslbench.plugins import registry
from sslbench.store import Store
from sslbench.train import Session, fit_main

BAR = 0.90
OWN = {"swav.freeze": 0}  # its prototypes rest in the first epoch, and a round has few


@dataclass
class Side:
    """The modules of one contestant, and how it trains them."""

    module: Method
    feed: Feed
    cell: Cell
    ready: list[Any] | None = None  # views made beforehand, or None to make them

    @property
    def steps(self) -> int:
        assert self.cell.recipe is not None
        return self.cell.recipe.epochs * (len(self.feed) // self.cell.recipe.batch)


class Ready:
    """A view that hands out what was made beforehand."""

    def __init__(self, made: list[Any]) -> None:
        self.made = itertools.cycle(made)

    def __call__(self, images: Tensor) -> Any:
        return next(self.made)


class Harness(Side):
    def train(self, bench: Workbench) -> None:
        if self.ready is not None:
            view = Ready(self.ready)
            self.module.views = lambda: view
        folder = bench.store.cell(self.cell.id)
        session = Session(
            cell=self.cell,
            folder=folder,
            feed=self.feed,
            info=bench.data(self.cell.dataset).pretraining("none").info,
            device=torch.device("cpu"),
            pretrain=bench.pretext,
        )
        with folder.lock():
            fit_main(session, self.module, self.cell.recipe)
            folder.remove("resume-main")


class Bare(Side):
    def train(self, bench: Workbench) -> None:
        recipe = self.cell.recipe
        optimizer = Optimisation(self.module, recipe, steps_per_epoch=self.steps).optimizer
        view = self.module.views() if self.ready is None else Ready(self.ready)
        self.module.train()
        for batch in self.batches(view, recipe.batch):
            for loss in self.module.step(batch):
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    def batches(self, view: Callable[[Tensor], Any], size: int) -> Iterator[Batch]:
        for _ in range(self.cell.recipe.epochs):
            for index in torch.randperm(len(self.feed)).split(size):
                if len(index) == size:
                    images = self.feed.images[index] if self.ready is None else self.feed.images
                    yield Batch(view(images), index, self.feed.labels[index], 0, 0.0)


def laid_out(made: Any, layout: torch.memory_format) -> Any:
    if isinstance(made, Tensor):
        return made.contiguous(memory_format=layout)
    return [laid_out(each, layout) for each in made]


def in_layout(module: Method, layout: torch.memory_format) -> Method:
    """The module with its backbones in this layout."""
    for part in module.modules():
        if hasattr(part, "channels_last"):
            part.channels_last = layout is torch.channels_last
            part.net.to(memory_format=layout)
    return module


def sides(bench: Workbench, cell: Cell, with_views: bool) -> dict[str, Any]:
    """Every contestant with modules of its own."""

    def parts() -> tuple[Method, Feed]:
        module, seen = bench.build(cell)
        assert isinstance(module, Method)
        return module, Feed(seen.images, seen.labels, torch.device("cpu"))

    module, feed = parts()
    made = None
    if not with_views:
        view, size = module.views(), cell.recipe.batch
        made = [view(feed.images[i : i + size]) for i in range(0, len(feed) - size + 1, size)]
    found: dict[str, Any] = {"harness": Harness(module, feed, cell, made)}
    for name, layout in (
        ("bare, NCHW", torch.contiguous_format),
        ("bare, channels-last", torch.channels_last),
    ):
        module, feed = parts()
        mine = None if made is None else [laid_out(each, layout) for each in made]
        found[name] = Bare(in_layout(module, layout), feed, cell, mine)
    return found


def compare(bench: Workbench, cell: Cell, options: argparse.Namespace, with_views: bool) -> float:
    contestants = sides(bench, cell, with_views)

    def seconds(name: str) -> float:
        clock = time.process_time if options.clock == "cpu" else time.perf_counter
        start = clock()
        contestants[name].train(bench)
        return clock() - start

    first = [{name: seconds(name) for name in contestants} for _ in range(2)]  # one to warm up
    bare = min((n for n in contestants if n != "harness"), key=first[1].__getitem__)
    rounds = []
    for i in range(options.rounds):
        order = ["harness", bare][:: 1 if i % 2 else -1]
        rounds.append({name: seconds(name) for name in order})
    ratio = statistics.median(each[bare] / each["harness"] for each in rounds)
    steps = contestants["harness"].steps
    ms = {n: 1000 / steps * statistics.median(e[n] for e in rounds) for n in ("harness", bare)}
    print(
        f"{cell.method:10s} {'with' if with_views else 'without':7s} views: {ratio:.3f} of bare  "
        f"({steps} steps; ms a step: harness {ms['harness']:.1f}, {bare} {ms[bare]:.1f})",
        flush=True,
    )
    return ratio


def cell_of(method: str, options: argparse.Namespace, found: Any, place: Place) -> Cell:
    """The suite's cell of a method, with as many epochs as make up a round."""
    suite = load_suite(options.suite, found)
    data = open_data(options.data or suite.datasets[0], found, place)
    batch = options.batch or suite.batch
    epochs = max(1, round(options.steps / (len(data.train.images) // batch)))
    layers = (({"epochs": epochs, "batch": batch}, {**suite.set, **OWN}),)
    setting = Setting(options.backbone, data.name, data.fingerprint, data.size, 0)
    cell = resolve(method, found, setting, Settings(layers))
    return replace(cell, recipe=replace(cell.recipe, epochs=epochs))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default="simclr,moco,swav,supervised")
    parser.add_argument("--suite", default="quick", help="whose settings and data to take")
    parser.add_argument("--data", help="another dataset, such as fashion-mnist[train=5120]")
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--views", choices=("on", "off", "both"), default="both")
    parser.add_argument("--steps", type=int, default=40, help="of a round, about")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    keep_freed()  # as the processes of `sslbench run` do
    found, place = registry(), Place(roots=default_roots(None))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        bench = Workbench(found, store, place, Options(device=torch.device("cpu")))
        for method in options.methods.split(","):
            cell = cell_of(method, options, found, place)
            for with_views in {"on": [True], "off": [False], "both": [False, True]}[options.views]:
                ratios.append(compare(bench, cell, options, with_views))
    print(f"smallest ratio {min(ratios):.3f}: {'PASS' if min(ratios) >= BAR else 'FAIL'} ({BAR})")
    raise SystemExit(min(ratios) < BAR)


if __name__ == "__main__":
    main()
