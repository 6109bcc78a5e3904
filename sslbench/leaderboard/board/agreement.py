"""How far evaluators agree on the order of methods: Kendall's tau between ranking columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import statistics
from .board import Block, Row, Score

FEWEST = 5  # methods; the order of fewer says nothing
NONE = f"No two protocols order {FEWEST} methods or more; the order of fewer says nothing of agreement."
NORMAL = 1.959964  # two-sided 95 %


@dataclass(frozen=True)
class Agreement:
    """How far two protocols agree, over the methods and seeds that both have judged."""

    one: str
    other: str
    tau: float  # tau-b: 1 the same order, 0 none in common, -1 the opposite
    interval: statistics.Interval | None  # 95 %; None: tau is 1 or -1
    methods: int
    seeds: int  # most that any method was compared on


@dataclass(frozen=True)
class Steadiness:
    """How far a protocol agrees with itself on another seed: others can hardly agree more."""

    protocol: str
    tau: float  # mean over pairs of seeds
    methods: int
    pairs: int


def between(block: Block) -> list[Agreement]:
    """Agreement of each pair of ranking columns, highest tau first; baselines are left out.

    A pair that orders fewer than FEWEST methods is left out.
    tau-b (Kendall 1945), with the interval of its Fisher transform, whose variance is near
    .437 / (n - 4) for n methods (Fieller, Hartley and Pearson, Biometrika 1957). The interval treats
    the methods as a sample of many; it does not include the scatter of seeds.
    """
    found = []
    for (one, a), (other, b) in itertools.combinations(_columns(block), 2):
        pairs = [pair for label in a if label in b if (pair := _common(a[label], b[label]))]
        tau = _tau([x for x, _, _ in pairs], [y for _, y, _ in pairs])
        if tau is not None and len(pairs) >= FEWEST:
            seeds = max(n for _, _, n in pairs)
            found.append(Agreement(one, other, tau, _interval(tau, len(pairs)), len(pairs), seeds))
    return sorted(found, key=lambda each: -each.tau)


def steadiness(block: Block) -> list[Steadiness]:
    """Agreement of each ranking column with itself from seed to seed, if it has two seeds."""
    found = []
    for protocol, scores in _columns(block):
        seeds = sorted({seed for score in scores.values() for seed in score})
        taus = []
        for s, t in itertools.combinations(seeds, 2):
            both = [score for score in scores.values() if s in score and t in score]
            tau = _tau([score[s] for score in both], [score[t] for score in both])
            taus += [] if tau is None or len(both) < FEWEST else [tau]
        if taus:
            found.append(Steadiness(protocol, statistics.mean(taus), len(scores), len(taus)))
    return found


def _columns(block: Block) -> Iterator[tuple[str, dict[str, Mapping[int, float]]]]:
    """Values of each ranking column by row and seed, signed so that more is better."""
    for index, column in enumerate(block.columns):
        # a ranking column that is not narrow repeats one that is
        if not column.ranks or not column.metric or not column.narrow:
            continue
        shown = [score.mean for _, score in _scores(block.rows, index)]
        if 2 * len(set(shown)) < len(shown):
            continue  # most are equal, such as the FLOPs of one network: they order no methods
        sign = 1 if column.higher_is_better else -1
        yield (
            column.protocol,
            {
                row.label: {seed: sign * value for seed, value in score.values.items()}
                for row, score in _scores(block.rows, index)
            },
        )


def _scores(rows: Sequence[Row], index: int) -> Iterator[tuple[Row, Score]]:
    for row in rows:
        if not row.baseline and row.scores[index].values:
            yield row, row.scores[index]


def _common(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float, int] | None:
    """Both means over the common seeds, and the number of those; None if there are none."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    means = [statistics.mean([values[seed] for seed in seeds]) for values in (a, b)]
    return means[0], means[1], len(seeds)


def _tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b; None if all values of one side are equal."""
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    x, y = (np.sign(np.subtract.outer(v, v)) for v in (np.asarray(a), np.asarray(b)))
    return statistics.steady(float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())))


def _interval(tau: float, n: int) -> statistics.Interval | None:
    if abs(tau) >= 1:  # at 1 the transform is infinite
        return None
    half = NORMAL * math.sqrt(0.437 / (n - 4))
    centre = math.atanh(tau)
    return statistics.steady(math.tanh(centre - half)), statistics.steady(math.tanh(centre + half))


def as_markdown(block: Block) -> str:
    """Markdown: a matrix of taus, a table of pairs with intervals, and self-agreement."""
    pairs = between(block)
    if not pairs:
        return f"{NONE}\n"
    names = list(dict.fromkeys(name for name, _ in _columns(block)))
    taus = {frozenset((p.one, p.other)): p.tau for p in pairs}
    lines = [_line(["tau", *map(_code, names)]), _line(["---", *["---:"] * len(names)])]
    for one in names:
        row = [
            "" if one == other else _number(taus.get(frozenset((one, other)))) for other in names
        ]
        lines.append(_line([_code(one), *row]))
    lines += ["", _line(["protocol", "protocol", "tau", "95 %", "methods", "seeds"])]
    lines.append(_line(["---", "---", "---:", "---:", "---:", "---:"]))
    for p in pairs:
        between_ = "-" if p.interval is None else f"{p.interval[0]:.2f} to {p.interval[1]:.2f}"
        cells = [_code(p.one), _code(p.other), _number(p.tau), between_]
        lines.append(_line([*cells, str(p.methods), str(p.seeds)]))
    if steady := steadiness(block):
        own = ", ".join(f"{_code(s.protocol)} {s.tau:.2f}" for s in steady)
        lines += ["", f"A protocol against itself on another seed: {own}."]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    return f"`{text.replace('`', '').replace('|', '')}`"


def _number(tau: float | None) -> str:
    return "-" if tau is None else f"{tau:.2f}"
