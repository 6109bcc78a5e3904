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
from pathlib import Path
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
    _require(fit.done.status == "ok", f"{what}, it failed: {fit.done.sentence}")
    first = next((i for i, (a, b) in enumerate(zip(trial.fitted.losses, fit.losses, strict=False)) if a != b), None)
    _require(
        fit.losses == trial.fitted.losses,
        f"{what}, it took another course: {len(fit.losses)} losses for {len(trial.fitted.losses)}"
        + ("" if first is None else f", the first to differ is {fit.losses[first]} at {first} for {trial.fitted.losses[first]}"),
    )
    other = [k for k, v in trial.fitted.weights.items() if not torch.equal(v, fit.weights[k])]
    _require(not other, f"{what}, its losses were the same and its weights not: {other[:3]}")


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
        _require(told, f"the docstring of {kind.__name__} has no `Departures:` (`none known` will do)")


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
    """Views take batches of 1 and 3, draw from torch's generators, and print the same every time."""
    module = trial.module
    assert isinstance(module, Method)
    views = module.views()
    named: Mapping[str, View] = views if isinstance(views, Mapping) else {"main": views}
    _require("main" in named, f"views() has {sorted(named)} and no 'main'")
    for name, view in named.items():
        shown = repr(view)
        _require(" at 0x" not in shown, f"view {name!r} prints an address: {shown[:90]}")
        for size in (1, 3):
            images = trial.data.train.images[:size].clone()
            pair = []
            for _ in range(2):
                with torch.random.fork_rng():
                    seed_all(size, CPU)
                    pair.append([*_leaves(view(images))])
            _require(torch.equal(images, trial.data.train.images[:size]), f"view {name!r} wrote on its images")
            for x, again in zip(*pair, strict=True):
                _require(len(x) == size and x.is_floating_point(), f"view {name!r} made {x.dtype} {[*x.shape]} of {size} images")
                inside = bool(((x >= -1e-6) & (x <= 1 + 1e-6)).all())
                _require(inside, f"view {name!r} left [0, 1]: {float(x.min()):.3g} to {float(x.max()):.3g}")
                _require(torch.equal(x, again), f"view {name!r} differs at the same seed: it draws from a generator of its own")


def _leaves(views: Any) -> Iterator[Tensor]:
    if isinstance(views, Tensor):
        yield views
    else:
        for each in views.values() if isinstance(views, Mapping) else views:
            yield from _leaves(each)
