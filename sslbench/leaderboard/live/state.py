"""The state of a plan as plain data for the page: matrix, cells at work, curves, table, verdicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ...names import published
from ...plan.plan import Plan, Planned
from ..board.board import Board
from ..board.printable import printable
from ..output import text as render
from .cells import Seen
from .log import Curve
from .pace import own_left, to_go
from .tables import tables, verdicts

POINTS = 60  # of a curve
Column = tuple[str, str]  # title of its group, own head


def state_of(plan: Plan, cells: Sequence[Seen], board: Board | None) -> dict[str, Any]:
    """The whole state; without a board it has no table."""
    return {
        "suite": plan.suite_id,
        "summary": printable(plan.suite.summary),
        "store": printable(str(plan.store.root)),
        "counts": Counter(each.state for each in cells),
        "total": len(cells) + plan.waiting,
        "waiting": plan.waiting,
        "at_work": sum(each.at_work for each in cells),
        "to_go": _short(to_go(cells)),
        "matrix": _matrix(cells),
        "now": [_working(each) for each in cells if each.at_work],
        "curves": _curves(cells),
        "trouble": [printable(notice) for notice in plan.store.notices],
        "failed": [
            {"title": _title(each), "why": printable(each.planned.why)}
            for each in cells
            if each.state in ("failed", "skipped")
        ],
        "tables": tables(board) if board else [],
        "verdicts": verdicts(board) if board else [],
        "caption": render.caption(board, best="*") if board else "",
    }


# ---- the matrix ------------------------------------------------------------------------------


def _matrix(cells: Sequence[Seen]) -> dict[str, Any]:
    """Rows of methods, and columns of a dataset, backbone and seed each. A slot may hold several."""
    columns = {column: None for each in cells for column in [_column(each.planned)]}
    groups: dict[str, list[str]] = {}
    for group, head in columns:
        groups.setdefault(group, []).append(head)
    order: list[Column] = [(group, head) for group, heads in groups.items() for head in heads]
    rows: dict[str, dict[Column, list[dict[str, Any]]]] = {}
    for each in sorted(cells, key=lambda seen: seen.planned.baseline):
        slots = rows.setdefault(_row(each.planned), {})
        slots.setdefault(_column(each.planned), []).append(_slot(each))
    return {
        "groups": [[group, heads] for group, heads in groups.items()],
        "rows": [[label, [slots.get(key, []) for key in order]] for label, slots in rows.items()],
    }


def _row(planned: Planned) -> str:
    return planned.cell.method + (f", for {planned.needed_by}" if planned.needed_by else "")


def _column(planned: Planned) -> Column:
    cell = planned.cell
    group = f"{published(cell.dataset)} · {cell.backbone}"
    if planned.trial:
        return f"{group} · trials", str(planned.trial[0])
    return group, f"seed {cell.seed}"


def _slot(seen: Seen) -> dict[str, Any]:
    why = [_title(seen), printable(seen.planned.why)]
    return {
        "state": seen.state,
        "share": _short(seen.share),
        "said": _said(seen),
        "title": ": ".join(part for part in why if part),
    }


def _said(seen: Seen) -> str:
    """What stands in the slot of a cell."""
    if seen.at_work and seen.planned.finished:
        return "judging"
    if seen.state in ("running", "perhaps", "stopped") and seen.epochs:
        done = sum(seen.training.done.values()) if seen.training else 0
        return f"{done}/{seen.epochs}"
    return seen.state


# ---- cells at work, and curves ---------------------------------------------------------------


def _working(seen: Seen) -> dict[str, Any]:
    training = seen.training
    loss = training.curves.get(_named("loss", training.stage)) if training else None
    judges = [each.judge.protocol for each in seen.planned.judges if each.state != "done"]
    judging = seen.planned.finished
    return {
        "title": _title(seen),
        "state": seen.state,
        "share": _short(seen.share),
        "doing": f"to judge: {', '.join(judges)}" if judging else _stage(seen),
        "speed": _short(training.speed) if training and not judging else None,
        "loss": _short(loss[-1][1]) if loss and not judging else None,
        "left": _short(own_left(seen)),
        "age": _short(seen.age),
    }


def _stage(seen: Seen) -> str:
    if seen.training is None:
        return f"epoch 0 of {seen.epochs}" if seen.epochs else "starting"
    stage = "" if seen.training.stage == "main" else f"{seen.training.stage}, "
    return f"{stage}epoch {seen.training.epoch} of {seen.training.epochs}"


def _named(name: str, stage: str) -> str:
    return name if stage == "main" else f"{stage}.{name}"


def _curves(cells: Sequence[Seen]) -> list[dict[str, Any]]:
    """Curves by row and group of columns: of cells that are done, at work or stopped."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in cells:
        if each.curves and (each.at_work or not each.planned.trial):
            group, head = _column(each.planned)
            own = {name: _thinned(points) for name, points in each.curves.items()}
            line = {"head": head, "at_work": each.at_work, "points": own}
            found.setdefault((_row(each.planned), group), []).append(line)
    return [{"label": row, "group": group, "lines": found[row, group]} for row, group in found]


def _thinned(curve: Curve) -> list[tuple[float | None, float | None]]:
    """A curve of at most POINTS points, evenly taken from it, with the first and the last."""
    last = len(curve) - 1
    kept: Iterable[int] = range(len(curve))
    if last >= POINTS:
        kept = (i * last // (POINTS - 1) for i in range(POINTS))
    return [(_short(curve[i][0]), _short(curve[i][1])) for i in kept]


def _short(value: float | None) -> float | None:
    """A number with few digits, since it is only shown; JSON has none that are not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _title(seen: Seen) -> str:
    drawn = f" · {seen.planned.trial[1]}" if seen.planned.trial else ""
    return seen.planned.cell.title + drawn
