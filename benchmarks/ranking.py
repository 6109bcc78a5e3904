"""Counts by simulation how often ranks err, and how many true differences they find.

    python benchmarks/ranking.py [--boards 2000]

A board is drawn as rows by seeds: a row's own mean, a seed's shift of all rows, and noise. Printed
are the share of boards with any false separation where all means are equal, that with any in the
wrong order where means differ (by a standard deviation of 1.5 times the noise), and the share of
true differences that separate; each for a paired t test of every pair under Holm's correction, and
for all rows together as `sslbench.leaderboard.together` compares them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from sslbench.leaderboard.statistics import Floats
from sslbench.leaderboard.together import together


class Case(NamedTuple):
    """How boards are drawn."""

    rows: int
    seeds: int
    spread: float = 0.0  # standard deviation of the rows' log-variances
    heavy: int | None = None  # degrees of freedom of noise after Student's t; None: normal
    last: float = 1.0  # times as noisy as the others is the last row
    baseline: bool = False  # whether the last row is one


CASES = (
    Case(18, 3),
    Case(18, 3, 0.7),
    Case(18, 3, 1.4),
    Case(18, 3, last=10),
    Case(18, 3, heavy=4),
    Case(4, 3),
    Case(4, 3, 1.4),
    Case(10, 5),
    Case(10, 5, 0.7),
    Case(10, 5, last=10),
    Case(2, 3),
    Case(18, 2),
    Case(18, 2, 0.7),
    Case(19, 3, last=3, baseline=True),
    Case(5, 3, last=3, baseline=True),
)


@dataclass(frozen=True)
class Found:
    """What a way to compare rows made of many boards, as shares of them."""

    false: float  # any separation where means are equal
    wrong: float  # any separation in the wrong order where they are not
    power: float  # of true differences, those that separate


def boards(case: Case, count: int, effect: float) -> tuple[Floats, Floats]:
    """Values [boards, rows, seeds] and true means [boards, rows]."""
    draw = np.random.default_rng(0)
    shape = (count, case.rows, case.seeds)
    scale = np.exp(case.spread * draw.standard_normal((*shape[:2], 1)) / 2)
    scale[:, -1] *= case.last
    noise = draw.standard_normal(shape)
    if case.heavy:
        noise = draw.standard_t(case.heavy, shape) / np.sqrt(case.heavy / (case.heavy - 2))
    means = effect * draw.standard_normal(shape[:2])
    return means[..., None] + draw.standard_normal((count, 1, case.seeds)) + scale * noise, means


def each_pair(values: Floats, baselines: list[bool]) -> tuple[Floats, Floats]:
    differences = values[:, None] - values[None]  # [rows, rows, seeds]
    means = differences.mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.abs(means) / differences.std(-1, ddof=1) * np.sqrt(values.shape[1])
    upper = np.triu_indices(len(values), 1)
    ps = 2 * stats.t.sf(far[upper], values.shape[1] - 1)
    order = np.argsort(ps)
    holm = np.maximum.accumulate(ps[order] * np.arange(len(ps), 0, -1))
    found = np.ones_like(means)
    found[upper[0][order], upper[1][order]] = np.minimum(holm, 1)
    return means, found


def all_rows(values: Floats, baselines: list[bool]) -> tuple[Floats, Floats]:
    found = together([dict(enumerate(row)) for row in values.tolist()], baselines)
    return found.means, found.ps


def tried(
    compare: Callable[[Floats, list[bool]], tuple[Floats, Floats]], case: Case, count: int
) -> Found:
    baselines = [False] * (case.rows - 1) + [case.baseline]
    equal, _ = boards(case, count, 0.0)
    false = sum(bool((compare(each, baselines)[1] < 0.05).any()) for each in equal)
    apart, true = boards(case, count, 1.5)
    wrong = found = 0.0
    for values, means in zip(apart, true, strict=True):
        differences, ps = compare(values, baselines)
        upper = np.triu_indices(len(means), 1)
        separated = (ps < 0.05)[upper]
        right = np.sign(differences[upper]) == np.sign(np.subtract.outer(means, means)[upper])
        wrong += bool((separated & ~right).any())
        found += float((separated & right).mean())
    return Found(false / count, wrong / count, found / count)


def said(case: Case) -> str:
    what = [f"{case.rows - case.baseline} x {case.seeds}"]
    if case.spread:
        what.append(f"log-variances differ by {case.spread:g}")
    if case.heavy:
        what.append(f"noise of t with {case.heavy} degrees")
    if case.last != 1:
        whose = "a baseline" if case.baseline else "one row"
        what.append(f"{whose} {case.last:g} times as noisy")
    return ", ".join(what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", type=int, default=2000)
    count = parser.parse_args().boards
    heads = ("rows x seeds", "pairs: false", "wrong", "found", "together: false", "wrong", "found")
    print(f"| {' | '.join(heads)} |\n|---|{'---:|' * 6}")
    for case in CASES:
        shares = [tried(way, case, count) for way in (each_pair, all_rows)]
        numbers = [f"{x:.3f}" for each in shares for x in (each.false, each.wrong, each.power)]
        print(f"| {said(case)} | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    main()
