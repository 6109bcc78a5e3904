"""Says in a sentence what the numbers of a column show, by rules.

It names who may be first, how many pairs of methods separate and how close none does, who separates
from an untrained baseline, how many seeds would separate the first two, and whose values move far
more than those of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from ..together import Together
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
    """Methods under one column, the best places first."""

    def __init__(self, rows: Sequence[Row], index: int, column: Column, found: Together) -> None:
        self.rows, self.column, self.found = rows, column, found
        self.scores = [row.scores[index] for row in rows]
        sign = 1 if column.higher_is_better else -1
        self.better = sign * found.separated  # [k, k], 1: the row is better, -1: the other is
        scored = [at for at, row in enumerate(rows) if not row.baseline and self.scores[at].values]
        scored.sort(key=lambda at: (self._places(at), -sign * (self.scores[at].mean or 0.0)))
        self.ranked = [at for at in scored if self.scores[at].rank is not None]
        self.alone = [at for at in scored if self.scores[at].rank is None]

    def parts(self) -> Iterator[str]:
        if len(self.ranked) == 2:
            yield self._two()
        else:
            yield from self._many()
        for at, row in enumerate(self.rows):
            if row.baseline and not row.trained and np.isfinite(self.found.means[at]).any():
                yield self._against(at)
        if len(self.ranked) > 1 and not self.better[self.ranked[0], self.ranked[1]]:
            yield from self._needed()
        yield from self._restless()
        if self.alone:
            have = "has" if len(self.alone) == 1 else "have"
            yield f"{self._names(self.alone)} {have} one seed and no rank"

    def _places(self, at: int) -> tuple[int, int]:
        score = self.scores[at]
        return score.rank or 0, score.rank_to or 0

    def _names(self, which: Sequence[int]) -> str:
        labels = [self.rows[at].label for at in which]
        if len(labels) > NAMED:
            labels = [*labels[: NAMED - 1], f"{len(labels) - NAMED + 1} more"]
        return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"

    def _amount(self, value: float) -> str:
        if self.column.unit:
            return f"{value:.3g} {'' if self.column.unit == '1' else self.column.unit}".rstrip()
        points = 100 * value
        return f"{points:.1f} points" if points >= 0.1 else f"{points:.2g} points"

    def _two(self) -> str:
        one, other = self.ranked
        if self.better[one, other]:
            return f"{self._names([one])} is better than {self._names([other])}"
        least = self._least()
        takes = "" if least is None else f"; that takes {self._amount(least)} or more"
        return f"{self._names(self.ranked)} do not separate{takes}"

    def _many(self) -> Iterator[str]:
        first = [at for at in self.ranked if self.scores[at].rank == 1]
        if len(self.ranked) == 1:
            yield f"{self._names(first)} is the only method with two seeds or more"
            return
        if len(first) == 1 and self.scores[first[0]].rank_to == 1:
            yield f"{self._names(first)} is first"
        elif len(first) == len(self.ranked):
            yield f"these seeds tell none of {len(first)} methods from the first"
        elif first:
            yield f"the first place may be that of {self._names(first)}"
        count = len(self.ranked) * (len(self.ranked) - 1) // 2
        apart = int((self.better[np.ix_(self.ranked, self.ranked)] > 0).sum())
        said = f"{apart} of {count} pairs separate{'s' * (apart == 1)}"
        least = self._least()
        if self.found.uneven:
            said += ", each held against its own spread, for spreads differ"
        yield said if least is None else f"{said}, none closer than {self._amount(least)}"

    def _least(self) -> float | None:
        return self.found.least(max(self.scores[at].n for at in self.ranked))

    def _against(self, baseline: int) -> str:
        label = self.rows[baseline].label
        signs = {at: int(self.better[at, baseline]) for at in self.ranked}
        above = [at for at in self.ranked if signs[at] > 0]
        below = [at for at in self.ranked if signs[at] < 0]
        if len(above) == len(self.ranked):
            return f"{self._all()} better than {label}"
        if len(below) == len(self.ranked):
            return f"{self._all()} worse than {label}"
        rest = [at for at in self.ranked if not signs[at]]
        if above and len(rest) < len(above) and not below:
            return f"all but {self._names(rest)} are better than {label}"
        be = "is" if len(above) == 1 else "are"
        said = f"{self._names(above)} {be} better" if above else "none is better"
        return f"{said} than {label}" + (f", {self._names(below)} worse" if below else "")

    def _all(self) -> str:
        return {1: "it is", 2: "both are"}.get(len(self.ranked), "all are")

    def _needed(self) -> Iterator[str]:
        first, second = self.ranked[:2]
        both = self.scores[first].values.keys() & self.scores[second].values.keys()
        seeds = self.found.needed(first, second, len(both))
        if seeds is not None and seeds > len(both):
            yield f"about {seeds} seeds would separate {self._names((first, second))}"

    def _restless(self) -> Iterator[str]:
        spreads = {at: self.scores[at].sd or 0.0 for at in self.ranked}
        usual = median(spreads.values())
        if not self.found.uneven or not usual:
            return
        far = [at for at in self.ranked if spreads[at] > RESTLESS * usual]
        if far:
            have = "has" if len(far) == 1 else "have"
            most = self._amount(max(spreads[at] for at in far))
            yield (
                f"{self._names(far)} {have} a standard deviation of up to {most} over seeds, half "
                f"of the methods have at most {self._amount(usual)}"
            )
