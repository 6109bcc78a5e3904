"""Verifies a bundle: judges some of its cells again, from their weights.

The cells are drawn at random, so that whoever made the bundle cannot foresee them.
"""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ... import __version__
from ...api import Place
from ...cells.protocol import Judge
from ...disk import sha256_of
from ...one_cell.environment import environment
from ...plan.plan import Planned
from ...records import Record, now
from ..folder.attestation import ACCEPTED, REFUSED, sealed
from .noise import LEVEL, Joint, joint
from .opening import Opened, cells_of, check_data, open_bundle
from .rejudging import Bench, Rejudgement, Rejudging
from .retraining import Again, retrain

if TYPE_CHECKING:
    from ...plugins import Registry

Row = tuple[str, str, str]  # method, dataset, backbone
Say = Callable[[str], None]
ALL = -1  # draw all cells


@dataclass(frozen=True)
class VerificationRequest:
    """What is to be verified, and how."""

    bundle: Path
    cells: int = 0  # how many to draw, one of each row first; 0: only those
    retrain: bool = False
    place: Place = Place()  # noqa: RUF009 - it is frozen
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - likewise


@dataclass(frozen=True)
class CellVerdict:
    """What was found for one drawn cell."""

    planned: Planned
    found: tuple[Rejudgement, ...]
    again: tuple[Again, ...] = ()  # after training from scratch

    @property
    def inside(self) -> bool:
        return all(f.inside for f in self.found) and all(a.inside for a in self.again)


@dataclass(frozen=True)
class Verdict:
    """What was found for a bundle."""

    bundle: str  # sha256
    cells: tuple[CellVerdict, ...]
    rows: Mapping[Row, Joint]
    attestation: Mapping[str, Any]

    @property
    def accepted(self) -> bool:
        return bool(self.attestation["verdict"] == ACCEPTED)


def verify(asked: VerificationRequest, registry: Registry, say: Say = lambda line: None) -> Verdict:
    """Judges cells of a bundle again, and tells whether its numbers are those of its weights.

    Raises:
        CheckFailed: the bundle was refused before anything was judged.
        UserError: data or a plugin that it needs is missing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        opened = open_bundle(asked.bundle, Path(scratch))
        place = replace(asked.place, scratch=Path(scratch) / "scratch")
        bench = Bench(registry, place, asked.device)
        names = {r.dataset for r in opened.folder.records}
        check_data(opened, {name: bench.data(name).fingerprint for name in names})
        cells = cells_of(opened, registry, place)
        return _Verification(asked, opened, bench, say).verdict(cells)


def row_of(planned: Planned) -> Row:
    return planned.cell.method, planned.cell.dataset, planned.cell.backbone


def draw(cells: Sequence[Planned], count: int) -> list[Planned]:
    """Draws `count` cells, one of each row first; 0: one of each row, ALL: all cells."""
    shuffled = random.SystemRandom().sample(cells, len(cells))
    first = {row_of(planned): planned.cell.id for planned in shuffled}
    ordered = sorted(shuffled, key=lambda p: first[row_of(p)] != p.cell.id)
    wanted = {0: len(first), ALL: len(cells)}.get(count, count)
    ids = {planned.cell.id for planned in ordered[:wanted]}
    return [planned for planned in cells if planned.cell.id in ids]


@dataclass
class _Rejudged:
    planned: Planned
    again: Rejudging
    found: list[Rejudgement]


class _Verification:
    def __init__(self, asked: VerificationRequest, opened: Opened, bench: Bench, say: Say) -> None:
        self.asked, self.opened, self.bench, self.say = asked, opened, bench, say

    def verdict(self, cells: Sequence[Planned]) -> Verdict:
        drawn = draw([p for p in cells if _judges(p)], self.asked.cells)
        if not drawn:
            raise self.opened.refusal("it has no finished cell that was judged")
        titles = ", ".join(f"{p.cell.method} seed {p.cell.seed}" for p in drawn)
        self.say(f"drew {len(drawn)} of {len(cells)} cells: {titles}")
        level = LEVEL / sum(len(_judges(p)) for p in drawn)
        judged = [self._judged(planned, level) for planned in drawn]
        rows = self._rows(judged, level)
        verdicts = []
        for each in judged:
            again = self._again(each.planned, cells) if self._trains(each.planned) else ()
            verdicts.append(CellVerdict(each.planned, tuple(each.found), again))
        sha256 = sha256_of(self.asked.bundle)
        content = self._attestation(cells, verdicts, rows)
        return Verdict(sha256, tuple(verdicts), rows, sealed({"bundle": sha256, **content}))

    def _judged(self, planned: Planned, level: float) -> _Rejudged:
        assert planned.train is not None
        weights = self.opened.weights(planned.train)
        try:
            again = Rejudging(planned.cell, planned.train, weights, self.bench)
        except ValueError as error:
            raise self.opened.refusal(str(error)) from error
        judges = _judges(planned)
        names = ", ".join(judge.protocol for judge, _ in judges)
        self.say(f"judging {planned.cell.title} by {names}")
        found = again.judge(judges, level)
        return _Rejudged(planned, again, found)

    def _rows(self, judged: Sequence[_Rejudged], level: float) -> dict[Row, Joint]:
        """Tests all evaluators on all drawn cells of a row together."""
        rows: dict[Row, list[_Rejudged]] = defaultdict(list)
        for each in judged:
            rows[row_of(each.planned)].append(each)
        found = {}
        for row, cells in rows.items():
            found[row] = _joint(cells, LEVEL / len(rows))
            if not found[row].inside:  # only MANY runs may refuse a row
                for each in cells:
                    each.found = each.again.again(_judges(each.planned), each.found, level)
                found[row] = _joint(cells, LEVEL / len(rows))
        return found

    def _trains(self, planned: Planned) -> bool:
        return self.asked.retrain and not planned.cell.adopted

    def _again(self, planned: Planned, cells: Sequence[Planned]) -> tuple[Again, ...]:
        self.say(f"training {planned.cell.title} again")
        row = [p for p in cells if row_of(p) == row_of(planned)]
        place = self.bench.place
        return retrain(planned, row, self.bench.registry, place, self.asked.device)

    # ---- what is attested ----

    def _attestation(
        self, cells: Sequence[Planned], verdicts: Sequence[CellVerdict], rows: Mapping[Row, Joint]
    ) -> dict[str, Any]:
        inside = all(v.inside for v in verdicts) and all(j.inside for j in rows.values())
        return {
            "verdict": ACCEPTED if inside else REFUSED,
            "when": now(),
            "suite": self.opened.folder.suite.name,
            "by": {"sslbench": __version__, "environment": environment(self.asked.device)},
            "rows": [self._row(row, cells, verdicts, rows[row]) for row in rows],
        }

    def _row(
        self, row: Row, cells: Sequence[Planned], verdicts: Sequence[CellVerdict], whole: Joint
    ) -> dict[str, Any]:
        own = [p for p in cells if row_of(p) == row]
        ids = {p.cell.id for p in own}
        records: dict[str, list[str]] = {cell: [] for cell in sorted(ids)}
        for record in self.opened.folder.records:
            if record.cell_id in ids:
                records[record.cell_id].append(record.record_id)
        return {
            **dict(zip(("method", "dataset", "backbone"), row, strict=True)),
            "level": "retrained" if all(map(self._trains, own)) else "re-judged",
            "records": records,
            "shift": whole.shift,
            "critical": whole.critical,
            "drawn": [_plain(v) for v in verdicts if row_of(v.planned) == row],
        }


def _judges(planned: Planned) -> list[tuple[Judge, Record]]:
    """Evaluators of a cell with a record that can be compared."""
    found = ((each.judge, each.record) for each in planned.judges)
    return [(j, r) for j, r in found if r is not None and r.status in ("ok", "skipped")]


def _joint(cells: Sequence[_Rejudged], level: float) -> Joint:
    shifts = (found.shift for each in cells for found in each.found)
    return joint([shift for shift in shifts if shift is not None], level)


def _plain(verdict: CellVerdict) -> dict[str, Any]:
    return {
        "cell": verdict.planned.cell.id,
        "seed": verdict.planned.cell.seed,
        "judges": [_judge(found) for found in verdict.found],
        "trained": [
            {
                "protocol": each.protocol,
                "metric": each.metric,
                "reported": each.reported,
                "found": each.found,
                "interval": each.interval and list(each.interval),
            }
            for each in verdict.again
        ],
    }


def _judge(found: Rejudgement) -> dict[str, Any]:
    return {
        "record": found.record.record_id,
        "protocol": found.record.protocol,
        "status": found.status,
        "compared": found.compared,
        "left": list(found.left),
        "exact": found.status == "ok" and not found.metrics,
        "metrics": [
            {
                "name": name,
                "split": split,
                "reported": seen.reported,
                "found": seen.found,
                "tolerance": seen.tolerance,
                "inside": seen.inside,
            }
            for (name, split), seen in found.metrics.items()
        ],
    }
