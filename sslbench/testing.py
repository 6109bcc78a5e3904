"""The conformance kit: what every method promises, as checks to run on one's own.

    @pytest.mark.parametrize("check", METHOD_CHECKS)
    def test_it_keeps_its_promises(check, tmp_path):
        check(Trial(registry(), "my-method", tmp_path))

A check returns nothing, or raises AssertionError with a sentence. Its docstring is the promise.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from .api import DataInfo, Method, Place, Split, Update, View
from .bench import load_suite
from .data import Data, open_data
from .events import CellDone
from .execute import Options, Workbench
from .features import encoder_of
from .feed import seed_all
from .identity import Anatomy, Cell, Setting, Settings, anatomy, resolve
from .names import parse
from .plugins import Registry
from .records import Record
from .state import restore, tensors_of
from .store import Store

CPU = torch.device("cpu")
MANY = 100_000  # images of a set on which every default fits
CITATION = re.compile(r"arXiv[: ]\s*(\d{4}\.\d{4,5}|[\w.-]+/\d{7})|\b10\.\d{4,9}/\S+")

Loss = tuple[str, float]  # the class whose step yielded it, and what


class Fit(NamedTuple):
    done: CellDone
    losses: list[Loss]
    record: Record | None  # of the training
    weights: dict[str, Tensor]  # none before it is done


@dataclass(eq=False)
class Trial:
    """A methods entry on small data: 96 images, batches of 32, two epochs, on one CPU."""

    registry: Registry
    name: str
    folder: Path  # for stores, one a fit
    settings: Mapping[str, Any] = field(default_factory=dict)  # as --set: {"moco.queue": 64}
    dataset: str = ""  # unless given, a part of the quick suite's
    backbone: str = ""  # unless given, the quick suite's

    def __post_init__(self) -> None:
        suite = load_suite("quick", self.registry)
        self.dataset = self.dataset or f"{suite.datasets[0]}[test=20,train=96]"
        self.backbone = self.backbone or suite.backbones[0]

    @cached_property
    def parts(self) -> Anatomy:
        return anatomy(self.registry.find("methods", self.name))

    @cached_property
    def data(self) -> Data:
        return open_data(self.dataset, self.registry, Place())

    @cached_property
    def fitted(self) -> Fit:
        """The fit that others are held against."""
        fit = self.fit("whole", self.cell())
        _require(fit.done.status == "ok", f"it did not train: {fit.done.sentence}")
        return fit

    @cached_property
    def module(self) -> nn.Module:
        """As built, and as trained where it is trained at all; in eval mode."""
        module, _ = self.bench("whole").build(self.cell())
        if isinstance(module, Method):
            restore(module, self.fitted.weights, what="the trained model")
        return module.eval()

    def cell(
        self, settings: Mapping[str, Any] | None = None, *, epochs: int = 2, precision: str = "fp32"
    ) -> Cell:
        """With `settings` laid over the trial's own."""
        of = self.data
        setting = Setting(self.backbone, of.name, of.fingerprint, of.size, 0, precision, budget=40)
        small: Mapping[str, Any] = {"epochs": epochs, "batch": 32}
        layers = ((small, self.settings), ({}, settings or {}))
        return resolve(self.name, self.registry, setting, Settings(layers))

    def bench(self, store: str, stop: Callable[[], bool] = lambda: False) -> Workbench:
        return Workbench(
            self.registry, Store(self.folder / store), Place(), Options(CPU), stop=stop
        )

    def fit(self, store: str, cell: Cell, *, steps: int = 0, data: Data | None = None) -> Fit:
        """Trains or continues; stopped after `steps` losses where that is not 0."""
        losses: list[Loss] = []
        bench = self.bench(store, stop=lambda: 0 < steps <= len(losses))
        with ExitStack() as patches:
            for kind in {self.parts.target, *self.parts.target.stages.values()}:
                patches.enter_context(patch.object(kind, "step", _noting(kind, losses)))
            if data is not None:
                patches.enter_context(patch.object(bench, "data", lambda name: data))
            done = bench.do(cell, [])
        folder = bench.store.cell(cell.id)
        state = folder.load("model")
        return Fit(
            done, losses, folder.current("train", cell.identity()), state[0] if state else {}
        )


def _noting(kind: type[Method], losses: list[Loss]) -> Callable[..., Any]:
    """The `step` of that class, each of its losses noted on the way."""
    whole = kind.step

    def relay(step: Generator[Any, Any, None]) -> Generator[Any, Any, None]:
        answer = None
        while True:
            try:
                update = step.send(answer)
            except StopIteration:
                return
            loss = update.loss if isinstance(update, Update) else update
            losses.append((kind.__name__, loss.tolist() if isinstance(loss, Tensor) else loss))
            answer = yield update

    def step(self: Method, batch: Any) -> Any:
        made = whole(self, batch)
        return relay(made) if inspect.isgenerator(made) else made

    return step


def _require(held: bool, sentence: str) -> None:
    if not held:
        raise AssertionError(sentence)


def _same(trial: Trial, fit: Fit, what: str) -> None:
    """As the whole fit, bit for bit."""
    whole = trial.fitted
    _require(fit.done.status == "ok", f"{what}, it failed: {fit.done.sentence}")
    pairs = enumerate(zip_longest(fit.losses, whole.losses))
    other = next((f"loss {i} is {one}, not {two}" for i, (one, two) in pairs if one != two), None)
    _require(other is None, f"{what}, it took another course: {other}")
    moved = [k for k, v in whole.weights.items() if not torch.equal(v, fit.weights[k])]
    _require(not moved, f"{what}, its losses were the same and its weights not: {moved[:3]}")


# ---- what everything in `methods` promises -------------------------------------------------------


def says_what_it_is(trial: Trial) -> None:
    """Its docstring has a line of idea, and a method's a citation and its departures."""
    _require(bool(trial.registry.find("methods", trial.name).summary()), "it has no docstring")
    if trial.parts.recipe is None:
        return
    for kind in (trial.parts.target, *trial.parts.target.stages.values()):
        text = kind.__dict__.get("__doc__") or ""
        cited = CITATION.search(text) is not None
        _require(cited, f"the docstring of {kind.__name__} has no arXiv id and no DOI")
        told = "Departures:" in text
        _require(
            told, f"the docstring of {kind.__name__} has no `Departures:` (`none known` will do)"
        )


def builds_from_backbone_and_data_alone(trial: Trial) -> None:
    """Its defaults build a module."""
    name, size = parse(trial.backbone), trial.data.size
    create = trial.registry.find("backbones", name.base).load()
    backbone = create(name.base, size=size, **name.params)
    info = DataInfo("many", size=size, length=MANY, classes=trial.data.classes)
    if trial.parts.recipe is not None:
        sentence = trial.parts.target.needs(backbone, info)
        _require(sentence is None, f"it does not take {trial.backbone}: {sentence}")
    module = trial.parts.target(backbone, info, **trial.parts.defaults)
    _require(isinstance(module, nn.Module), f"it made {type(module).__name__}, no nn.Module")
    encoder = encoder_of(module)
    _require(isinstance(encoder, nn.Module), f"its encoder is {encoder!r}, no nn.Module")


@torch.no_grad()
def encodes_each_image_alone(trial: Trial) -> None:
    """In eval mode the encoder gives [B, D], whatever stands beside an image, and stays as it is."""
    encoder = encoder_of(trial.module)
    images = trial.data.test.images[:5].float() / 255
    before = {k: v.clone() for k, v in tensors_of(trial.module).items()}
    with torch.random.fork_rng():
        together, again = encoder(images), encoder(images)
        _require(together.dim() == 2 and len(together) == 5, f"5 images gave {[*together.shape]}")
        alone = torch.cat([encoder(image[None]) for image in images])
    _require(bool(together.isfinite().all()), "features are not finite")
    _require(torch.equal(together, again), "the same images gave other features")
    gap = float((alone - together).abs().max() / together.abs().max().clamp_min(1))
    _require(gap <= 1e-5, f"alone an image has other features than in a batch, by {gap:.1e}")
    changed = [k for k, v in tensors_of(trial.module).items() if not torch.equal(v, before[k])]
    _require(not changed, f"encoding changed {changed[:3]}")
    left = [name for name, p in trial.module.named_parameters() if p.grad is not None]
    _require(not left, f"a gradient was left on {left[:3]}")


# ---- what a trained method promises beside that --------------------------------------------------


def views_serve_any_batch(trial: Trial) -> None:
    """Views take batches of 1 and 3, draw from torch's generators, and print no address."""
    assert isinstance(trial.module, Method)
    views = trial.module.views()
    named: Mapping[str, View] = views if isinstance(views, Mapping) else {"main": views}
    _require("main" in named, f"views() has {sorted(named)} and no 'main'")
    for name, view in named.items():
        _require(" at 0x" not in repr(view), f"view {name!r} prints an address: {view!r}")
        for size in (1, 3):
            _serves(view, trial.data.train.images[:size].clone(), f"view {name!r}")


def _serves(view: View, images: Tensor, what: str) -> None:
    before, made = images.clone(), []
    for _ in range(2):
        with torch.random.fork_rng():
            seed_all(0, CPU)
            made.append([*_leaves(view(images))])
    _require(torch.equal(images, before), f"{what} wrote on its images")
    for x, again in zip(*made, strict=True):
        right = len(x) == len(images) and x.is_floating_point()
        _require(right, f"{what} made {x.dtype} {[*x.shape]} of {len(images)} images")
        low, high = float(x.min()), float(x.max())
        _require(low >= -1e-6 and high <= 1 + 1e-6, f"{what} left [0, 1]: {low:.3g} to {high:.3g}")
        _require(torch.equal(x, again), f"{what} draws from a generator of its own")


def _leaves(views: Any) -> Iterator[Tensor]:
    if isinstance(views, Tensor):
        yield views
    else:
        for each in views.values() if isinstance(views, Mapping) else views:
            yield from _leaves(each)


def trains_all_it_has(trial: Trial) -> None:
    """Every loss is a finite scalar, and every trainable parameter gets a gradient."""
    fit = trial.fitted
    for kind in (trial.parts.target, *trial.parts.target.stages.values()):
        yielded = any(name == kind.__name__ for name, _ in fit.losses)
        _require(yielded, f"{kind.__name__} never yielded a loss")
    silent = [w.message for w in fit.record.warnings] if fit.record else []
    _require(not silent, f"some of its parameters {'; '.join(silent)}")


def trains_in_bf16(trial: Trial) -> None:
    """A step under bf16 autocast ends in a finite loss."""
    fit = trial.fit("bf16", trial.cell(precision="bf16"), steps=1)
    _require(bool(fit.losses) and fit.done.status != "failed", f"in bf16: {fit.done.sentence}")


def repeats_itself(trial: Trial) -> None:
    """The same seed gives the same losses and weights."""
    _same(trial, trial.fit("again", trial.cell()), "done a second time")


def resumes_exactly(trial: Trial) -> None:
    """Stopped after every second loss and continued, it ends where it would have."""
    losses: list[Loss] = []
    for _ in trial.fitted.losses:
        fit = trial.fit("resumed", trial.cell(), steps=2)
        losses += fit.losses
        if fit.done.status != "interrupted":
            break
    _same(trial, fit._replace(losses=losses), "stopped and continued")


def sees_no_hidden_label(trial: Trial) -> None:
    """With other labels where it may see none, nothing changes."""
    data, cell = trial.data, trial.cell()
    images, labels = data.train
    hidden = data.held_out if cell.labels != "none" else torch.ones_like(data.held_out)
    other = torch.where(hidden, (labels + 1) % data.classes, labels)
    fit = trial.fit("shuffled", cell, data=replace(data, train=Split(images, other)))
    _same(trial, fit, "with other hidden labels")


def learns(trial: Trial, settings: Mapping[str, Any] | None = None, *, epochs: int = 10) -> None:
    """The loss falls on a tiny set: its last quarter is below its first, stage by stage.

    `settings` make that plain: mild views, a bolder learning rate; one epoch where targets move.
    """
    fit = trial.fit("learns", trial.cell(settings, epochs=epochs))
    _require(fit.done.status == "ok", f"it did not train: {fit.done.sentence}")
    for kind in dict.fromkeys(name for name, _ in fit.losses):
        losses = [loss for name, loss in fit.losses if name == kind]
        quarter = -(-len(losses) // 4)
        first, last = mean(losses[:quarter]), mean(losses[-quarter:])
        _require(last < first, f"the loss of {kind} did not fall: {first:.4g} to {last:.4g}")


ENCODER_CHECKS = (
    says_what_it_is,
    builds_from_backbone_and_data_alone,
    encodes_each_image_alone,
)
METHOD_CHECKS = (
    *ENCODER_CHECKS,
    views_serve_any_batch,
    trains_all_it_has,
    trains_in_bf16,
    repeats_itself,
    resumes_exactly,
    sees_no_hidden_label,
    learns,
)
