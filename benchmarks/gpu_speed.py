"""Sections of gpu.py that time: training beside a bare loop, views alone, and the feed."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from gpu_rows import Bench, first_line, seconds, traced
from torch import Tensor

from sslbench import views
from sslbench.api import Batch, DataInfo, Method, Update
from sslbench.cells.parameters import anatomy
from sslbench.cells.settings import Context, Settings, resolve
from sslbench.one_cell.building import backbone_of
from sslbench.plugins import registry
from sslbench.store import Store
from sslbench.train import feed as feeding
from sslbench.train.device import give_back
from sslbench.train.feed import Feed, seed_all
from sslbench.train.loop import HALF, Loop, Session, _views, fit_main
from sslbench.train.optim import Optimisation

BAR = 0.95  # bare / harness


# ---- speed -----------------------------------------------------------------------------------


class Setting(NamedTuple):
    backbone: str
    size: int  # pixels
    batch: int
    steps: int  # an epoch
    rounds: int

    def __str__(self) -> str:
        return f"{self.backbone}, {self.size} px x {self.batch}"


WHOLE = (Setting("resnet18-small", 32, 512, 20, 3), Setting("resnet50", 224, 256, 10, 2))
SMALL = (Setting("test_resnet", 32, 16, 3, 2),)


@dataclass
class Fit:
    """One method on made-up pictures, to be trained by the harness or by hand."""

    bench: Bench
    name: str
    setting: Setting
    precision: str = "bf16"

    def __post_init__(self) -> None:
        at, device, self.found = self.setting, self.bench.device, registry()
        count = at.batch * at.steps
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(count, 3, 8, 8, generator=generator)
        images = torch.cat(  # in parts, for pictures of 224 px as float take much memory
            [
                torch.nn.functional.interpolate(part, at.size).mul(255).to(torch.uint8)
                for part in coarse.split(256)
            ]
        )
        self.info = DataInfo("made-up", at.size, count, 10)
        self.feed = Feed(images, torch.full((count,), -1), device)
        context = Context(at.backbone, "made-up", "made-up", at.size, 0, self.precision)
        layers = (({"epochs": at.rounds + 2, "batch": at.batch}, {}),)
        self.cell = resolve(self.name, self.found, context, Settings(layers))
        assert self.cell.recipe is not None
        self.recipe = self.cell.recipe

    def module(self) -> Method:
        """The module at its start; each call makes another, all alike."""
        seed_all(0, self.bench.device)
        at = self.setting
        backbone = backbone_of(at.backbone, at.size, self.found)
        target = anatomy(self.found.find("methods", self.name)).target
        made: Method = target(backbone, self.info, **self.cell.hyperparameters)
        return made.to(self.bench.device).train()

    def train(self, epoch: Callable[[int, Callable[[], None]], None]) -> None:
        """Trains by the harness, without its checkpoints.

        `epoch` is called with the number of each epoch and a function that trains it.
        """
        whole, number = Loop._finish_epoch, itertools.count()
        folder = Store(self.bench.scratch / "speed").cell(self.cell.id)
        session = Session(
            cell=self.cell,
            folder=folder,
            feed=self.feed,
            info=self.info,
            device=self.bench.device,
            pretrain=_no_pretext,
        )
        with (
            folder.lock(),
            patch.object(
                Loop, "_finish_epoch", lambda loop: epoch(next(number), lambda: whole(loop))
            ),
            patch.object(Loop, "_save", lambda loop: None),
        ):
            fit_main(session, self.module(), self.recipe)


def _no_pretext(cell: Any) -> Any:
    raise ValueError("these methods start from nothing")


class Bare:
    """The same training by hand: views, forward, backward, optimiser and schedule, nothing else."""

    def __init__(self, fit: Fit) -> None:
        self.fit, self.method = fit, fit.module()
        self.optimisation = Optimisation(self.method, fit.recipe, steps_per_epoch=fit.setting.steps)
        self.view = _views(self.method)["main"]
        self.parameters = list(self.method.parameters())

    def epoch(self) -> None:
        at, feed = self.fit.setting, self.fit.feed
        order = torch.randperm(len(feed)).view(at.steps, at.batch).to(feed.device)
        for step in range(at.steps):
            self.optimisation.set(step)
            index = order[step]
            with torch.no_grad():
                made = self.view(feed.images.index_select(0, index))
            self.step(Batch(made, index, feed.labels.index_select(0, index), 0, 0.0))

    def step(self, batch: Batch) -> None:
        kind, dtype = self.fit.bench.device.type, HALF.get(self.fit.precision)
        running, optimizer = self.method.step(batch), self.optimisation.optimizer
        with torch.autocast(kind, dtype=dtype, enabled=dtype is not None):
            yielded = next(running)
        (yielded.loss if isinstance(yielded, Update) else yielded).backward()
        if self.fit.recipe.clip is not None:
            self.optimisation.clip(self.parameters)
        optimizer.step()
        optimizer.zero_grad()
        with (
            contextlib.suppress(StopIteration),
            torch.autocast(kind, dtype=dtype, enabled=dtype is not None),
        ):
            running.send(True)


def speed(bench: Bench) -> None:
    """The harness is as fast as a bare loop, and keeps the device busy."""
    for setting in bench.sized(WHOLE, SMALL):
        for name in bench.sized(("simclr", "moco", "swav", "dino"), ("simclr", "swav")):
            try:
                _beside_bare(bench, name, setting)
            except (RuntimeError, ValueError) as error:
                bench.tell(f"{name}, {setting}", first_line(error), False)
            give_back(bench.device)


def _beside_bare(bench: Bench, name: str, setting: Setting) -> None:
    fit, device = Fit(bench, name, setting), bench.device
    bare = Bare(fit)
    times: list[tuple[float, float]] = []  # of epochs: the harness's, the bare one's
    busy = (math.nan, math.nan)

    def epoch(number: int, harness: Callable[[], None]) -> None:
        nonlocal busy
        if number <= setting.rounds:
            times.append((seconds(device, harness), seconds(device, bare.epoch)))
        elif bench.gpu:
            busy = (_busy(device, harness), _busy(device, bare.epoch))

    fit.train(epoch)
    times = times[1:]  # the first warmed up
    ratio = statistics.median(b / h for h, b in times)
    ms, bare_ms = (
        1000 * statistics.median(each) / setting.steps for each in zip(*times, strict=True)
    )
    rate = 1000 * setting.batch / ms
    bench.tell(
        f"{name}, {setting}",
        f"{ms:.1f} ms a step, bare {bare_ms:.1f}, ratio {ratio:.3f}; {rate:,.0f} images/s; "
        f"busy {busy[0]:.0%}, bare {busy[1]:.0%}",
        None if bench.small else ratio >= BAR,
        ratio=ratio,
        ms=ms,
        bare_ms=bare_ms,
        images_per_second=rate,
        busy=busy[0],
        bare_busy=busy[1],
    )


def _busy(device: torch.device, act: Callable[[], None]) -> float:
    """The share of time in which something ran on a GPU."""
    took: list[float] = []
    seen = traced(device, lambda: took.append(seconds(device, act)), calls=False)
    return seen.busy / took[0]


# ---- views -----------------------------------------------------------------------------------


def _by_torchvision(size: int) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2

    made: Callable[[Tensor], Tensor] = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomResizedCrop(size, (0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(views.blur_kernel(size), (0.1, 2.0))], 0.5),
        ]
    )
    return made


def _by_kornia(size: int) -> Callable[[Tensor], Tensor]:
    from kornia import augmentation as K

    kernel = views.blur_kernel(size)
    chain = torch.nn.Sequential(
        K.RandomResizedCrop((size, size), (0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        K.RandomGrayscale(0.2),
        K.RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=0.5),
    )
    return lambda images: chain(images.float() / 255)


def views_alone(bench: Bench) -> None:
    """What SimCLR's view costs. torchvision draws once for a batch, where others do for each image."""
    makers = {
        "ours": views.contrastive,
        "torchvision v2": _by_torchvision,
        "kornia": _by_kornia,
    }
    for size, batch in bench.sized(((32, 512), (224, 256)), ((32, 16),)):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (batch, 3, size, size), generator=generator).byte()
        images = images.to(bench.device)
        for name, make in makers.items():
            try:
                view = make(size)
            except ImportError:
                bench.tell(f"{name}, {size} px x {batch}", "skipped: not installed")
                continue
            _one_view(bench, f"{name}, {size} px x {batch}", view, images)


def _one_view(
    bench: Bench, what: str, view: Callable[[Tensor], Any], images: Tensor, times: int = 10
) -> None:
    def several() -> None:
        for _ in range(times):
            view(images)

    with torch.no_grad():
        several()
        each = seconds(bench.device, several) / times
        kernels = traced(bench.device, several).kernels / times if bench.gpu else math.nan
    bench.tell(
        what,
        f"{1000 * each:.2f} ms a view, {kernels:.0f} kernels, {len(images) / each:,.0f} images/s",
        ms=1000 * each,
        kernels=kernels,
    )


# ---- feed ------------------------------------------------------------------------------------


def feed(bench: Bench) -> None:
    """How fast simclr trains on images that lie on the device, and on those of the host."""
    bench.need_gpu()
    for setting in bench.sized(WHOLE, SMALL):
        rates: dict[str, float] = {}
        for where, share in (("device", feeding.SHARE), ("host", 0.0)):
            with patch.object(feeding, "SHARE", share):
                fit = Fit(bench, "simclr", setting)
            if fit.feed.resident != (where == "device"):
                bench.tell(f"{where}, {setting}", "the images lie elsewhere", False)
                continue
            rates[where] = _rate(fit)
        if len(rates) == 2:
            bench.tell(
                f"simclr, {setting}",
                f"{rates['device']:,.0f} images/s from the device, {rates['host']:,.0f} from the "
                f"host ({rates['host'] / rates['device']:.0%})",
                **rates,
            )


def _rate(fit: Fit) -> float:
    """Images a second, of every epoch after the first."""
    times: list[float] = []
    fit.train(lambda number, epoch: times.append(seconds(fit.bench.device, epoch)))
    return fit.setting.batch * fit.setting.steps / statistics.median(times[1:])
