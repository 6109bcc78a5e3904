"""Checks of what every evaluator promises, on made-up images.

The class of an image is the place of a bright bar in it.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..api import Evaluator, Judgement, Metric
from ..cells.protocol import resolve_judge
from ..errors import Unsuited
from ..plugins import Registry
from ..store import answers
from ..train.feed import kept_generators, seed_all
from ..train.state import tensors_of
from .made_up import MadeUp, answering, corrupted, noisy, pictured, uneven
from .pretend_cuda import CUDA, CannotPretend, pretend_cuda
from .promise import require
from .trial import CPU

CLOCKS = re.compile(r"\b(s|ms|us|ns|min|h)\b|/s\b")  # units of times, which differ between runs
NEAR = 0.05  # of a score on a GPU: sums in another order end k-means elsewhere
BY_LOT = 0.7  # the share of its score on honest labels that it may reach on random labels


@dataclass(eq=False)
class JudgeTrial:
    """An evaluators entry to be checked; `world` makes the encoder and data of each judgement."""

    registry: Registry
    name: str  # with its bracket
    world: Callable[[], MadeUp] | None = None

    def judge(self) -> Evaluator:
        return resolve_judge(self.name, self.registry)[1]

    def subject(self) -> MadeUp:
        return self.world() if self.world else self._made_up()

    def judged(self, subject: MadeUp, seed: int = 0) -> Judgement:
        judge = self.judge()
        with kept_generators(CPU):
            seed_all(seed, CPU)
            try:
                return subject.judged_by(judge, seed)
            except Unsuited as error:
                raise AssertionError(f"it can say nothing of made-up images: {error}") from error

    @cached_property
    def honest(self) -> Judgement:
        return self.judged(self.subject())

    def _made_up(self) -> MadeUp:
        """Makes an encoder and data for the evaluator.

        There are more features than test images, so that learning from test gives every label.
        """
        judge = self.judge()
        made, *others = (
            uneven(pictured(240, 160, classes=8, noise=60, dim=256, seed=seed))
            for seed, _ in enumerate((self.name, *judge.datasets()))
        )
        answering(made)
        for which in ("official", "regen"):
            corrupted(made, noisy, which)
        made.others = dict(zip(judge.datasets(), others, strict=True))
        for name, other in made.others.items():
            other.name = name
        for each in (made, *others):
            features = {"train": each.train, "test": each.test}
            each.levels = {k: [v[:, :64], v[:, 64:]] for k, v in features.items()}
            each.rebuilt = {k: v.float() / 300 for k, v in each.pictures.items()}
            each.lenders = {n: resolve_judge(n, self.registry)[1] for n in judge.uses}
        return made


def says_what_it_measures(trial: JudgeTrial) -> None:
    """It has a docstring, metrics with different names, and a version from 1."""
    judge = trial.judge()
    require(bool((type(judge).__doc__ or "").strip()), "it has no docstring")
    metrics = judge.metrics
    sound = isinstance(metrics, tuple) and all(isinstance(m, Metric) for m in metrics)
    require(sound and bool(metrics), f"metrics is {metrics!r}, not a tuple of api.Metric")
    names = [metric.name for metric in metrics]
    require(len({*names}) == len(names), f"two of its metrics have one name: {names}")
    version: Any = judge.version
    require(
        type(version) is int and version > 0, f"version is {version!r}, not a whole number from 1"
    )


def gives_what_it_declares(trial: JudgeTrial, *, beside: str = "$") -> None:
    """Each metric that it returns is declared and finite; fractions lie in [-1, 1].

    The first declared one is returned. A metric may be named after another dataset; `beside` is a
    pattern of further such names.
    """
    judge = trial.judge()
    known = {metric.name: metric for metric in judge.metrics}
    first, found = next(iter(known)), trial.honest.metrics
    require(first in found, f"its first metric {first!r} is not among {[*found][:9]}")
    for name, value in found.items():
        require(
            name in known or name in judge.datasets() or bool(re.fullmatch(beside, name)),
            f"metric {name!r} is not declared in `metrics`",
        )
        number: Any = value.value
        sound = isinstance(number, int | float) and math.isfinite(number)
        require(sound, f"{name} is {number!r}, not a finite number")
        if name in known and not known[name].unit:
            require(
                -1 <= number <= 1,
                f"{name} is {number:.6g}, not a fraction: give a unit in its Metric ('1' for none)",
            )


def predicts_each_image(trial: JudgeTrial) -> None:
    """Its predictions, if it gives any, are a class of each labelled image of test, in order."""
    found, subject = trial.honest.predictions, trial.subject()
    if found is None:
        return
    try:
        predicted, truth = answers(found)
    except ValueError as error:
        raise AssertionError(str(error)) from error
    labels = subject.labels("test")
    own = labels[labels >= 0].numpy()
    require(
        len(truth) == len(own) and bool((truth == own).all()),
        f"the truth in its predictions is not the {len(own)} labels of test, in their order",
    )
    highest = int(predicted.max(initial=0))
    require(
        highest < subject.classes,
        f"it predicted class {highest}; there are {subject.classes}, counted from 0",
    )


def repeats_itself_and_changes_nothing(trial: JudgeTrial) -> None:
    """The same seed gives the same numbers, and it changes neither the encoder nor the data."""
    honest, subject = trial.honest, trial.subject()
    before = _all_of(subject)
    again = trial.judged(subject)
    clocks = {m.name for m in trial.judge().metrics if CLOCKS.search(m.unit)}
    moved = [
        f"{name} is {again.metrics[name].value:.9g}, and was {value.value:.9g}"
        for name, value in honest.metrics.items()
        if name not in clocks and again.metrics.get(name) != value
    ]
    require(not moved, f"judging again gave other numbers: {'; '.join(moved[:3])}")
    require(again.chosen == honest.chosen, f"it chose {again.chosen}, and before {honest.chosen}")
    for (what, one), other in zip(before.items(), _all_of(subject).values(), strict=True):
        require(one.shape == other.shape and bool(torch.equal(one, other)), f"it changed {what}")
    if subject.encoder is not None:
        require(not subject.encoder.training, "it left the encoder in training mode")


def _all_of(subject: MadeUp) -> dict[str, torch.Tensor]:
    found = {"the features of train": subject.train, "the features of test": subject.test}
    found |= {f"the labels of {k}": v for k, v in subject.truth.items()}
    found |= {f"the images of {k}": v for k, v in subject.pictures.items()}
    if subject.encoder is not None:
        weights = tensors_of(subject.encoder)
        found |= {f"the encoder's {k}": v for k, v in weights.items()}
    return copy.deepcopy(found)


def chooses_nothing_on_test(trial: JudgeTrial) -> None:
    """It chooses the same whatever the labels of test are."""
    subject = trial.subject()
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(subject.truth["test"]), generator=generator)
    subject.truth["test"] = subject.truth["test"][order]
    chosen, before = trial.judged(subject).chosen, trial.honest.chosen
    require(chosen == before, f"with other labels of test it chose {chosen}, and before {before}")


def learns_nothing_from_test(trial: JudgeTrial) -> None:
    """It scores far lower on randomly permuted labels than on honest ones.

    This is checked of evaluators that read labels of test and rank by a fraction of which more is
    better.
    """
    first = trial.judge().metrics[0]
    if first.unit or not first.higher_is_better:
        return
    subject, read = trial.subject(), set[str]()
    generator = torch.Generator().manual_seed(3)
    for each in (subject, *subject.others.values()):
        for split, labels in each.truth.items():
            each.truth[split] = labels[torch.randperm(len(labels), generator=generator)]
        each.labels = _noting(each.labels, read)  # type: ignore[method-assign, assignment]  # of this one
    lot = trial.judged(subject).metrics[first.name].value
    told = trial.honest.metrics[first.name].value
    require(
        "test" not in read or lot <= BY_LOT * told,
        f"its {first.name} is {lot:.3g} on random labels, and {told:.3g} on honest ones: it learns "
        "from the labels of test, or does not use the features",
    )


def _noting(labels: Callable[[str], Any], read: set[str]) -> Callable[[str], Any]:
    """Wraps `labels` so that it notes the splits that are read."""

    def noted(split: str) -> Any:
        read.add(split)
        return labels(split)

    return noted


def judges_alike_on_a_gpu(trial: JudgeTrial) -> str | None:
    """On a pretended GPU it mixes no devices, and measures what it measures on a CPU."""
    measured = {metric.name for metric in trial.judge().metrics if metric.unit}  # times, bytes
    try:
        with pretend_cuda() as gpu, gpu.watched() as seen:
            there = trial.judged(trial.subject().on(CUDA)).metrics
    except CannotPretend as error:
        return f"not checked: {error}"
    require(not seen.mixed, f"it mixes devices: {list(seen.mixed)[:3]}")
    for name, value in trial.honest.metrics.items():
        if name in measured:
            continue
        require(name in there, f"{name} is measured on a CPU alone")
        here, found = float(value.value), float(there[name].value)
        near = math.isclose(here, found, rel_tol=NEAR, abs_tol=NEAR)
        require(near, f"{name} is {found:.6g} on a GPU, {here:.6g} on a CPU")
    return None


EVALUATOR_CHECKS = (
    says_what_it_measures,
    gives_what_it_declares,
    predicts_each_image,
    repeats_itself_and_changes_nothing,
    chooses_nothing_on_test,
    learns_nothing_from_test,
    judges_alike_on_a_gpu,
)
