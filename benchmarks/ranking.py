"""Counts by simulation how often ranks err, and how many true differences they find.

    python benchmarks/ranking.py [--boards 2000]

A board is drawn as rows by seeds: a row's own mean, a seed's shift of all rows, and noise, whose
log-variance differs from row to row by a standard deviation. Printed are the share of boards with
any false separation where all means are equal, that with any in the wrong order where means differ
(by a standard deviation of 1.5 times the noise), and the share of true differences that separate;
each for a paired t test of every pair under Holm's correction, and for all rows together as
`sslbench.leaderboard.together` compares them. The last rows have a baseline, three times as noisy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sslbench.leaderboard.statistics import Floats
from sslbench.leaderboard.together import together

CASES = (
    # rows, seeds, sd of log-variances, degrees of freedom of t noise, whether the last is a baseline
    (18, 3, 0.0, None, False),
    (18, 3, 0.7, None, False),
    (18, 3, 1.4, None, False),
    (18, 3, 0.0, 4, False),
    (4, 3, 0.0, None, False),
    (4, 3, 1.4, None, False),
    (10, 5, 0.0, None, False),
    (10, 5, 0.7, None, False),
    (2, 3, 0.0, None, False),
    (19, 3, 0.0, None, True),
    (5, 3, 0.0, None, True),
)


@dataclass(frozen=True)
class Found:
    """What a way to compare rows made of many boards, as shares of them."""

    false: float  # any separation where means are equal
    wrong: float  # any separation in the wrong order where they are not
    power: float  # of true differences, those that separate


def boards(
    rows: int, seeds: int, spread: float, heavy: int | None, noisy: bool, count: int, effect: float
) -> tuple[Floats, Floats]:
    """Values [boards, rows, seeds] and true means [boards, rows]."""
    draw = np.random.default_rng(0)
    scale = np.exp(spread * draw.standard_normal((count, rows, 1)) / 2)
    if noisy:
        scale[:, -1] *= 3
    shape = (count, rows, seeds)
    noise = draw.standard_normal(shape)
    if heavy:
        noise = draw.standard_t(heavy, shape) / np.sqrt(heavy / (heavy - 2))
    means = effect * draw.standard_normal((count, rows))
    return means[..., None] + draw.standard_normal((count, 1, seeds)) + scale * noise, means


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
    compare: Callable[[Floats, list[bool]], tuple[Floats, Floats]],
    case: tuple[int, int, float, int | None, bool],
    count: int,
) -> Found:
    baselines = [False] * (case[0] - 1) + [case[4]]
    equal, _ = boards(*case, count, 0.0)
    false = sum(bool((compare(each, baselines)[1] < 0.05).any()) for each in equal)
    apart, true = boards(*case, count, 1.5)
    wrong = found = 0
    for values, means in zip(apart, true, strict=True):
        differences, ps = compare(values, baselines)
        upper = np.triu_indices(len(means), 1)
        separated = (ps < 0.05)[upper]
        right = np.sign(differences[upper]) == np.sign(np.subtract.outer(means, means)[upper])
        wrong += bool((separated & ~right).any())
        found += float((separated & right).mean())
    return Found(false / count, wrong / count, found / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", type=int, default=2000)
    count = parser.parse_args().boards
    heads = ("rows x seeds", "log-variance sd", "noise", "pairs: false", "wrong", "found")
    print(f"| {' | '.join((*heads, 'together: false', 'wrong', 'found'))} |")
    print(f"|{'---|' * 3}{'---:|' * 6}")
    for case in CASES:
        rows, seeds, spread, heavy, noisy = case
        size = f"{rows - noisy} x {seeds}" + (", a noisy baseline" if noisy else "")
        kind = f"t, {heavy} degrees" if heavy else "normal"
        shares = [tried(way, case, count) for way in (each_pair, all_rows)]
        said = [f"{x:.3f}" for each in shares for x in (each.false, each.wrong, each.power)]
        print(f"| {size} | {spread:g} | {kind} | {' | '.join(said)} |", flush=True)


if __name__ == "__main__":
    main()
