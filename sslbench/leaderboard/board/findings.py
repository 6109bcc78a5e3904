"""Says in a sentence what the numbers of a column show, by rules.

It names who leads, how many pairs of methods separate and from which difference on, who separates
from an untrained baseline, how many seeds would separate the first two, and whose values move far
more than those of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from ..together import MOST, Together
from .board import Column, Row

NAMED = 4  # rows that are named; of more, the number is said
RESTLESS = 2.5  # times the median spread, from which on a row is named


def findings(
    rows: Sequence[Row], columns: Sequence[Column], found: Sequence[Together | None]
) -> Iterator[str]:
    """A sentence for each ranking column of a narrow table, and one for those of one seed."""
    lone = []
    for index, (column, together) in enumerate(zip(columns, found, strict=True)):
        if together is None or not column.narrow or not column.metric:
            continue
        own = _Column(rows, index, column, together)
        if own.ranked:
            yield f"{column.protocol} {column.metric}: {'; '.join(own.parts())}."
        elif own.alone:
            lone.append(column.protocol)
    if lone:
        yield f"One seed says nothing of noise, so no ranks under {', '.join(lone)}."


class _Column:
    """Methods under one column, the best mean first."""

    def __init__(self, rows: Sequence[Row], index: int, column: Column, found: Together) -> None:
        self.rows, self.column, self.found = rows, column, found
        self.scores = [row.scores[index] for row in rows]
        self.sign = 1 if column.higher_is_better else -1
        self.separated = self.sign * found.separated  # [k, k], 1: the row is better
        scored = [at for at, row in enumerate(rows) if not row.baseline and self.scores[at].values]
        scored.sort(key=lambda at: -self.sign * self._mean(at))
        self.ranked = [at for at in scored if self.scores[at].rank is not None]
        self.alone = [at for at in scored if self.scores[at].rank is None]

    def parts(self) -> Iterator[str]:
        if len(self.ranked) == 2:
            yield self._two()
        else:
            yield from self._many()
        for at, row in enumerate(self.rows):
            if row.baseline and not row.trained and self.scores[at].n > 1:
                yield self._against(at)
        if len(self.ranked) > 1 and not self.separated[self.ranked[0], self.ranked[1]]:
            yield from self._needed()
        yield from self._restless()
        if self.alone:
            have = "has" if len(self.alone) == 1 else "have"
            yield f"{self._names(self.alone)} {have} one seed and no rank"

    def _mean(self, at: int) -> float:
        return self.scores[at].mean or 0.0

    def _names(self, which: Sequence[int]) -> str:
        labels = [self.rows[at].label for at in which]
        if len(labels) > NAMED:
            labels = [*labels[: NAMED - 1], f"{len(labels) - NAMED + 1} more"]
        return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"

    def _amount(self, value: float) -> str:
        return (
            f"{value:.3g} {self.column.unit}" if self.column.unit else f"{100 * value:.1f} points"
        )

    def _two(self) -> str:
        if self.separated[self.ranked[0], self.ranked[1]]:
            return f"{self._names(self.ranked[:1])} is above {self._names(self.ranked[1:])}"
        least = self._least()
        takes = "" if least is None else f", which takes {self._amount(least)}"
        return f"{self._names(self.ranked)} do not separate{takes}"

    def _many(self) -> Iterator[str]:
        first = [at for at in self.ranked if self.scores[at].rank == 1]
        if len(self.ranked) == 1:
            yield f"{self._names(first)} is the only method with two seeds"
            return
        if len(first) == 1:
            yield f"{self._names(first)} is first"
        elif len(first) == len(self.ranked):
            yield f"these seeds tell none of {len(first)} methods from the first"
        else:
            yield f"{self._names(first)} share the first place"
        count = len(self.ranked) * (len(self.ranked) - 1) // 2
        apart = sum(int((self.separated[at, self.ranked] > 0).sum()) for at in self.ranked)
        said = f"{apart} of {count} pairs separate{'s' * (apart == 1)}"
        least = self._least()
        if self.found.uneven:
            said += ", each held against its own spread, for spreads differ"
        yield said if least is None else f"{said}, from {self._amount(least)} on"

    def _least(self) -> float | None:
        return self.found.least(max(self.scores[at].n for at in self.ranked))

    def _against(self, baseline: int) -> str:
        label = self.rows[baseline].label
        signs = {at: int(self.separated[at, baseline]) for at in self.ranked}
        above = [at for at in self.ranked if signs[at] > 0]
        below = [at for at in self.ranked if signs[at] < 0]
        if len(above) == len(self.ranked):
            return f"{self._all()} above {label}"
        if len(below) == len(self.ranked):
            return f"{self._all()} below {label}"
        rest = [at for at in self.ranked if not signs[at]]
        if above and len(rest) < len(above) and not below:
            return f"all but {self._names(rest)} are above {label}"
        be = "is" if len(above) == 1 else "are"
        said = f"{self._names(above)} {be} above {label}" if above else f"none is above {label}"
        return f"{said}, {self._names(below)} below" if below else said

    def _all(self) -> str:
        return {1: "it is", 2: "both are"}.get(len(self.ranked), "all are")

    def _needed(self) -> Iterator[str]:
        first, second = self.ranked[:2]
        apart = abs(self._mean(first) - self._mean(second))
        if self.found.noise is None or not apart:
            return
        seeds = self.found.needed(apart)
        many = f"more than {MOST}" if seeds is None else f"about {seeds}"
        yield f"{many} seeds would separate the first two, {self._names((first, second))}"

    def _restless(self) -> Iterator[str]:
        spreads = {at: self.scores[at].sd or 0.0 for at in self.ranked}
        usual = median(spreads.values())
        if not self.found.uneven or not usual:
            return
        far = [at for at in self.ranked if spreads[at] > RESTLESS * usual]
        if far:
            most = max(spreads[at] for at in far)
            yield (
                f"{self._names(far)} move{'s' * (len(far) == 1)} from seed to seed by up to "
                f"{self._amount(most)}, half of the methods by at most {self._amount(usual)}"
            )
