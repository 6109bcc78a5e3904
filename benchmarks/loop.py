"""Measures what the harness costs: its training against bare steps of the same modules.

    python benchmarks/loop.py [--suite fashion|quick] [--methods simclr,scan] [--images 4096]
                              [--views on|off|both] [--seconds 12] [--out speed.md]

It runs every trained method of the suite with the suite's settings on some of its images, and each
stage of a method with stages. The harness's side is what `sslbench run` does while it trains: the
loop, the log, progress, the checks of losses and of health. What it does once per training or once a
minute (first checks, checkpoints, verdicts) is not counted, since a round here has few steps to
spread it over. The bare side draws the same batches and drives the method's `step` by hand: views,
forward, backward, optimiser step and schedule, nothing else. It takes NCHW or channels-last,
whichever is faster at first. What a method does between epochs (k-means, neighbours, another
method's weights) is counted on neither side. With `--views off`, both sides reuse the first views,
the bare side in its own layout.

A round is a pass over the images, or as much of one as a tenth of `--seconds` allows, but at least
four steps. Both sides run in each round, in changing order, so that a busy machine slows both; the
ratio is the median over rounds. The bar is bare / harness >= 0.87: a step of the harness takes at
most as long as 1.15 bare ones. `--out` writes the table as Markdown. Threads are those of
OMP_NUM_THREADS, or all. `--clock cpu` counts processor time instead, for a first look on a shared
machine (with OMP_NUM_THREADS=1: waiting threads count too).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from sslbench.api import Batch, Method, Place, Recipe, Update
from sslbench.cells.cell import Cell
from sslbench.cells.parameters import anatomy
from sslbench.cells.settings import Context, Settings, resolve
from sslbench.cells.suite import load_suite
from sslbench.data import default_roots, open_data
from sslbench.errors import UserError
from sslbench.names import parse
from sslbench.one_cell.building import Builder, Unsupported
from sslbench.one_cell.environment import environment
from sslbench.one_cell.workbench import Workbench
from sslbench.plugins import Registry, registry
from sslbench.run.memory import keep_freed
from sslbench.store import Store
from sslbench.train import loop as train
from sslbench.train.feed import Feed, orders
from sslbench.train.loop import Loop, Session, fit_main
from sslbench.train.options import RunOptions

BAR = 1 / 1.15
# Short fits must do all the work of long ones: nothing rests, nothing is skipped as not sure.
OWN = {"freeze": 0, "confidence": 0.0}
CPU = torch.device("cpu")
WARM, LEAST = 2, 4  # steps of the first round, and of every other


class Ready:
    """A view whose outputs of the first round serve all later ones."""

    def __init__(self, view: Callable[[Tensor], Any], layout: torch.memory_format) -> None:
        self.view, self.layout = view, layout
        self.made: list[Any] = []
        self.at = 0

    @property
    def wants(self) -> bool:
        return self.at == len(self.made)

    def __call__(self, images: Tensor) -> Any:
        if self.wants:
            self.made.append(laid_out(self.view(images), self.layout))
        self.at += 1
        return self.made[self.at - 1]


def laid_out(made: Any, layout: torch.memory_format) -> Any:
    if isinstance(made, Tensor):
        return made.contiguous(memory_format=layout)
    return [laid_out(each, layout) for each in made]


@dataclass
class Timed(Session):
    """A session that knows how long each of its trainings took."""

    clock: Callable[[], float] = time.perf_counter
    layout: torch.memory_format | None = None  # of ready views; None: they are made in each step
    ready: dict[tuple[str, str], Ready] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)  # path of a fit -> steps of an epoch
    spent: dict[str, float] = field(default_factory=dict)  # seconds
    steps: dict[str, int] = field(default_factory=dict)
    images: dict[str, float] = field(default_factory=dict)  # a step, of all streams

    def watched(self, loop: Loop) -> None:
        """Begins a training."""
        self.spent[loop.path] = 0.0
        loop.steps = min(loop.steps, self.most.get(loop.path, WARM))
        self.steps[loop.path] = loop.recipe.epochs * loop.steps
        if self.layout is None:
            return
        for name, view in loop.views.items():
            made = self.ready.setdefault((loop.path, name), Ready(view, self.layout))
            loop.views[name], made.at = made, 0


class Harness(Loop):
    """The harness's loop, timed while an epoch trains."""

    session: Timed

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.session.watched(self)

    def _save(self) -> None:
        start = self.session.clock()
        super()._save()
        self.session.spent[self.path] -= self.session.clock() - start

    def _finish_epoch(self) -> None:
        start = self.session.clock()
        super()._finish_epoch()
        self.session.spent[self.path] += self.session.clock() - start
        self.session.images[self.path] = self.images / self.session.steps[self.path]


class Bare(Loop):
    """The loop with its epochs trained by hand, and nothing saved."""

    session: Timed

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.session.watched(self)

    def _save(self) -> None:
        return

    def _finish_epoch(self) -> None:
        start = self.session.clock()
        epoch, feed, total = self._at.epoch, self.session.feed, self.recipe.epochs * self.steps
        drawn = orders(
            epoch,
            len(feed),
            steps=self.steps,
            batch=self.recipe.batch,
            origin=self.session.origin,
        )
        groups = self.method.groups()
        for step in range(self.steps):
            seen = epoch.number * self.steps + step
            self.optimisation.set(seen)
            made = {
                name: self.made(name, order[step], epoch.number, seen / total)
                for name, order in drawn.items()
            }
            nothing = Batch(None, feed.labels[:0], feed.labels[:0], epoch.number, seen / total)
            main = made.pop("main", nothing)
            self.move(main._replace(also=made), groups)
        self.session.spent[self.path] += self.session.clock() - start

    def made(self, name: str, index: Tensor, epoch: int, progress: float) -> Batch:
        view, feed = self.views.get(name, self.views["main"]), self.session.feed
        made = isinstance(view, Ready) and not view.wants
        views = view(feed.images if made else feed.images[index])
        return Batch(views, index, feed.labels[index], epoch, progress)

    def move(self, batch: Batch, groups: Mapping[str, Any]) -> None:
        optimizer = self.optimisation.optimizer
        running, applied = self.method.step(batch), None
        while True:
            try:
                yielded = running.send(applied)
            except StopIteration:
                return
            update = yielded if isinstance(yielded, Update) else Update(yielded)
            if len(groups) == 1:
                parameters = None
            else:
                parameters = [p for p in self.method.groups()[update.group] if p.requires_grad]
            update.loss.backward(inputs=parameters)
            if self.recipe.clip is not None:
                self.optimisation.clip(p for p in self.method.parameters() if p.grad is not None)
            optimizer.step()
            optimizer.zero_grad()
            applied = True


@dataclass
class Side:
    """One contestant: modules of its own, and the loop that trains them."""

    loop: type[Loop]
    module: Method
    session: Timed

    def round(self) -> dict[str, float]:
        """Seconds that each training took."""
        session, folder = self.session, self.session.folder
        with folder.lock(), mock.patch.object(train, "Loop", self.loop):
            fit_main(session, self.module, session.cell.recipe)
            for path in ("main", *session.cell.stages):
                folder.remove(f"resume-{path}")
                folder.remove(f"stage-{path}")
        session.stages.clear()
        return dict(session.spent)


def in_layout(module: Method, layout: torch.memory_format) -> Method:
    """The module with its backbones in this layout."""
    for part in module.modules():
        if hasattr(part, "channels_last"):
            part.channels_last = layout is torch.channels_last
            part.net.to(memory_format=layout)
    return module


def sides(bench: Workbench, cell: Cell, *, with_views: bool, clock: Any) -> dict[str, Side]:
    """Makes every contestant, and trains what they start from."""
    for pretext in cell.pretexts.values():
        bench.pretext(pretext)
    found = {}
    for name, loop, layout in (
        ("harness", Harness, torch.contiguous_format),
        ("NCHW", Bare, torch.contiguous_format),
        ("channels-last", Bare, torch.channels_last),
    ):
        module, seen = bench.builder.build(cell)
        session = Timed(
            cell=cell,
            folder=bench.store.cell(cell.id),
            feed=Feed(seen.images, seen.labels, CPU, seen.clips, seen.domains),
            info=seen.info,
            device=CPU,
            pretrain=bench.pretext,
            clock=clock,
            layout=None if with_views else layout,
        )
        own = in_layout(module, layout) if loop is Bare else module
        found[name] = Side(loop, own, session)
    return found


@dataclass(frozen=True)
class Row:
    """The result of one training of one method."""

    fit: str
    views: str
    recipe: Recipe
    steps: int
    images: float  # a step
    layout: str
    harness: float  # seconds a step
    bare: float
    ratio: float  # of bare to harness, over rounds

    @property
    def texts(self) -> list[str]:
        speed = f"{self.images / self.harness:,.0f}"
        ms = (f"{1000 * self.bare:.1f}", f"{1000 * self.harness:.1f}")
        steps = f"{self.steps} x {self.recipe.batch}"
        return [self.fit, self.views, steps, self.layout, *ms, f"{self.ratio:.3f}", speed]


HEADS = ("fit", "views", "steps", "bare layout", "bare ms", "harness ms", "ratio", "images/s")


def compare(bench: Workbench, cell: Cell, asked: argparse.Namespace, views: str) -> list[Row]:
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[asked.clock]
    found = sides(bench, cell, with_views=views == "with", clock=clock)
    for side in found.values():  # to warm up, and to see how long a step takes
        side.round()
    for session in (side.session for side in found.values()):
        for path, seconds in found["NCHW"].session.spent.items():
            session.most[path] = max(LEAST, round(WARM * asked.seconds / 10 / seconds))
    looks = {name: sum(found[name].round().values()) for name in found if name != "harness"}
    bare = min(looks, key=looks.__getitem__)
    rounds: list[dict[str, dict[str, float]]] = []
    begun = time.perf_counter()
    while len(rounds) < 3 or (
        len(rounds) < asked.rounds and time.perf_counter() - begun < asked.seconds
    ):
        order = ["harness", bare][:: 1 if len(rounds) % 2 else -1]
        rounds.append({name: found[name].round() for name in order})
    rows = []
    for path in rounds[0][bare]:
        recipe = cell.recipe if path == "main" else cell.stages[path][1]
        steps = found[bare].session.steps[path]
        ours, theirs = ([each[n][path] / steps for each in rounds] for n in ("harness", bare))
        ratio = statistics.median(b / h for h, b in zip(ours, theirs, strict=True))
        fit = cell.method if path == "main" else f"{cell.method}.{path}"
        speeds = (statistics.median(ours), statistics.median(theirs))
        images = found["harness"].session.images[path]
        rows.append(Row(fit, views, recipe, steps, images, bare, *speeds, ratio))
    return rows


def cell_of(
    method: str, asked: argparse.Namespace, found: Registry, place: Place, names: list[str]
) -> Cell:
    """The suite's cell of a method, with fewer images and one epoch per training."""
    suite = load_suite(asked.suite, found)
    name = parse(asked.data or suite.datasets[0])
    most = min(asked.images, int(name.params.get("train", asked.images)))
    short = replace(name, params={**name.params, "train": most})
    data = open_data(str(short), found, place)
    own = {
        f"{other}.{key}": value
        for other in names
        for key, value in OWN.items()
        if key in anatomy(found.find("methods", other)).hints
    }
    for_all = {"epochs": suite.epochs, "batch": suite.batch}
    layers = ((for_all, suite.set), ({"epochs": 1}, own))
    layers += (({"batch": asked.batch}, {}),) if asked.batch else ()
    backbone = asked.backbone or suite.backbones[0]
    setting = Context(backbone, data.name, data.fingerprint, data.size, 0)
    return resolve(method, found, setting, Settings(layers))


def markdown(rows: list[Row], failed: dict[str, str]) -> str:
    here = environment(CPU)
    command = " ".join(["python benchmarks/loop.py", *sys.argv[1:]])
    lines = [
        "# Images a second, and the harness against bare steps",
        "",
        f"Measured by `{command}` (what is measured: its first lines) on",
        f"{here['cpu']}, {here['threads']} of {here['cores']} cores, torch {here['torch']}, timm",
        f"{here['timm']}. Ratio: bare / harness, median over rounds; the bar is {BAR:.2f}. Images are",
        "those drawn from the data, of every stream, however many views are made of each.",
        "",
        f"| {' | '.join(HEADS)} |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |",
        *(f"| {' | '.join(row.texts)} |" for row in rows),
    ]
    lines += [f"\n{method} was not measured: {why}" for method, why in failed.items()]
    return "\n".join(lines) + "\n"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", help="the suite's trained ones unless given")
    parser.add_argument("--suite", default="fashion", help="whose settings and data to take")
    parser.add_argument("--data", help="another dataset, such as digits")
    parser.add_argument("--images", type=int, default=4096, help="of it, at most: a round")
    parser.add_argument("--backbone")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--views", choices=("on", "off", "both"), default="on")
    parser.add_argument("--seconds", type=float, default=12, help="of rounds, at least 3 of them")
    parser.add_argument("--rounds", type=int, default=15, help="at most")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    return parser.parse_args()


def main() -> None:
    asked = options()
    keep_freed()  # as the processes of `sslbench run` do
    found, place = registry(), Place(roots=default_roots(None))
    suite = load_suite(asked.suite, found)
    every = asked.methods.split(",") if asked.methods else [*suite.methods, *suite.baselines]
    trained = [m for m in every if anatomy(found.find("methods", m)).recipe is not None]
    known = list(dict.fromkeys((*trained, *suite.methods)))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(("{:20} {:8}" + "{:>14}" * 6).format(*HEADS))
    rows: list[Row] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.create()
        bench = Workbench(Builder(found, place, CPU), store, RunOptions())
        for method in trained:
            try:
                cell = cell_of(method, asked, found, place, known)
                for views in {"on": ["with"], "off": ["without"]}.get(
                    asked.views, ["without", "with"]
                ):
                    rows += (new := compare(bench, cell, asked, views))
                    for row in new:
                        print(("{:20} {:8}" + "{:>14}" * 6).format(*row.texts), flush=True)
            except (UserError, ValueError, Unsupported) as error:
                failed[method] = str(error)
                print(f"{method:20} was not measured: {error}", flush=True)
    if asked.out:
        asked.out.write_text(markdown(rows, failed))
    least = min((row.ratio for row in rows), default=0.0)
    passed = least >= BAR and not failed
    print(f"smallest ratio {least:.3f}: {'PASS' if passed else 'FAIL'} ({BAR:.2f})")
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
