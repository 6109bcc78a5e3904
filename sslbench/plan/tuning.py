"""Tuning with an equal budget: every method gets the same number of random trials.

A trial is a cell with few epochs and a seed that is not reported, judged on the held-out tenth of
train. The method's other cells in the suite take the settings of its best trial.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..cells.cell import Cell, derive
from ..cells.protocol import Judge, judged_identity
from ..cells.settings import Context, Settings, resolve
from ..cells.suite import Tuning
from ..errors import UserError
from ..plugins import Registry
from ..records import Record
from ..store import Store, newest


@dataclass(frozen=True)
class Draw:
    """One trial: a draw of a method's settings, and the cell under them."""

    cell: Cell
    number: int  # from 1
    drawn: Mapping[str, Any]  # METHOD.PARAM -> value

    @property
    def title(self) -> str:
        shown = ", ".join(f"{key.partition('.')[2]}={value}" for key, value in self.drawn.items())
        return f"trial {self.number} of {self.cell.method}: {shown or 'nothing to draw'}"


def trials(
    bases: Iterable[Cell], registry: Registry, setting: Context, settings: Settings, tuning: Tuning
) -> list[Draw]:
    """Draws every trial of the methods; `bases` are their cells under the suite's own settings."""
    found = []
    for base in bases:
        space = _space(base, tuning)
        for number in range(1, tuning.trials + 1):
            generator = random.Random(derive("tuning", tuning.seed, base.method, number))
            drawn = {key: _draw(generator, *choices) for key, choices in space.items()}
            layer = ({"epochs": tuning.epochs}, drawn)
            whole = Settings((*settings.layers, layer))
            found.append(Draw(resolve(base.method, registry, setting, whole), number, drawn))
    return found


def _space(base: Cell, tuning: Tuning) -> dict[str, tuple[Any, Any]]:
    """The settings of a method that are searched -> their choices, and the suite's own value."""
    own: dict[str, Any] = {**base.hyperparameters}
    if base.recipe is not None:
        own |= vars(base.recipe)
    for stage, (_, recipe) in base.stages.items():
        own |= {f"{stage}.{key}": value for key, value in vars(recipe).items()}
    found = {}
    for key, choices in tuning.space.items():
        method, _, name = key.partition(".")
        whole = f"{base.method}.{name}"
        bare = base.method.rpartition("/")[2]  # as a suite may name what a plugin provides
        settled = {whole, f"{bare}.{name}"} & tuning.settled
        if method in ("*", base.method, bare) and name in own and not settled:
            found[whole] = (choices, own[name])
    return found


def _draw(generator: random.Random, choices: Any, own: Any) -> Any:
    if isinstance(choices, list):
        return generator.choice(choices)
    low, high = (math.log(each) for each in choices["times"])
    return float(f"{own * math.exp(generator.uniform(low, high)):.3g}")


def verdict(trial: Draw, judge: Judge, store: Store) -> float | None:
    """A trial's score: -inf where it diverged or is unsupported, None while it is not known."""
    records = store.cell(trial.cell.id).records()
    record = newest(records, "evaluation", judged_identity(trial.cell, judge))
    if record is not None and record.status == "ok" and (first := record.metric()):
        return first.value if first.higher_is_better else -first.value
    if record is not None and record.status == "skipped":
        raise UserError(
            f"tuning is judged by {judge.protocol}, which cannot say anything here: "
            f"{record.sentence}; let the suite name another evaluator as tuning.judge"
        )
    train = newest(records, "train", trial.cell.identity())
    return -math.inf if train is not None and _hopeless(train) else None


def _hopeless(train: Record) -> bool:
    diverged = train.error is not None and train.error.kind == "nan"
    return train.status == "skipped" or (train.status == "failed" and diverged)


def choice(found: Sequence[tuple[Draw, float]]) -> dict[str, Any]:
    """The settings of each method's best trial, or of the earliest of equal ones."""
    best: dict[str, tuple[Draw, float]] = {}
    for trial, value in found:
        method = trial.cell.method
        if value > best.get(method, (None, -math.inf))[1]:
            best[method] = (trial, value)
    return {key: value for trial, _ in best.values() for key, value in trial.drawn.items()}
