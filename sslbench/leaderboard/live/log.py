"""Reads a cell's log: how far its training is, how fast it goes, and its curves so far."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

SPEED = "images/s"
LAST = 20  # epochs from which the pace is taken
_LINE = re.compile(r"(\S+) (\S+) epoch (\d+)/(\d+) ?(.*)")
_VALUE = re.compile(r"(\S.*?) (-?(?:[\d.]+(?:e[+-]?\d+)?|nan|inf))(?: |$)")

Curve = list[tuple[float, float]]  # epoch, value


@dataclass(frozen=True)
class Training:
    """What a log says of one training; a cell that began again is known by its latest lines."""

    stage: str  # "main" for the method itself
    epoch: int  # how many of this stage are done
    epochs: int
    speed: float | None = None  # images a second
    pace: float | None = None  # seconds an epoch; None: too few to tell
    done: dict[str, int] = field(default_factory=dict)  # epochs of each stage
    curves: dict[str, Curve] = field(default_factory=dict)  # by the names that records give them


@dataclass(frozen=True)
class _Epoch:
    at: float  # seconds since 1970, in whatever time zone it was written
    stage: str
    number: int
    of: int
    values: dict[str, float]


def read_log(text: str) -> Training | None:
    """What a log says; None where no epoch has ended. A line that is still written is left out."""
    epochs: list[_Epoch] = []
    for epoch in _epochs(text):
        while epochs and epochs[-1].stage == epoch.stage and epochs[-1].number >= epoch.number:
            epochs.pop()  # it was stopped, and these came again
        epochs.append(epoch)
    if not epochs:
        return None
    last = epochs[-1]
    return Training(
        stage=last.stage,
        epoch=last.number,
        epochs=last.of,
        speed=last.values.get(SPEED),
        pace=_pace(epochs),
        done={each.stage: each.number for each in epochs},
        curves=_curves(epochs),
    )


def _epochs(text: str) -> Iterator[_Epoch]:
    for line in text.split("\n")[:-1]:
        if found := _LINE.fullmatch(line):
            at, stage, number, of, rest = found.groups()
            try:
                seconds = datetime.fromisoformat(at).timestamp()
            except ValueError:
                continue
            values = {name: float(value) for name, value in _VALUE.findall(rest)}
            yield _Epoch(seconds, stage, int(number), int(of), values)


def _pace(epochs: Sequence[_Epoch]) -> float | None:
    """The mean seconds between epochs of the present stage, without the pauses of what was stopped."""
    own = [each for each in epochs if each.stage == epochs[-1].stage][-LAST:]
    gaps = sorted(b.at - a.at for a, b in pairwise(own) if b.at >= a.at)
    kept = [gap for gap in gaps if gap <= 10 * gaps[len(gaps) // 2] + 2]  # lines tell whole seconds
    return sum(kept) / len(kept) if kept else None


def _curves(epochs: Sequence[_Epoch]) -> dict[str, Curve]:
    found: dict[str, Curve] = {}
    for each in epochs:
        prefix = "" if each.stage == "main" else f"{each.stage}."
        for name, value in each.values.items():
            if name != SPEED and math.isfinite(value):
                found.setdefault(prefix + name, []).append((float(each.number), value))
    return found
