"""Packs the board as compact JSON for the page's scripts.

Scores are base64 of little-endian numbers: exact, and half as long as decimals. Values and means are
doubles. Half-widths of intervals and comparisons are single floats. Curves are only drawn, so they
have 16 bits between their lowest and highest point. What rows share is in a pool (pool.py).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ... import statistics
from ...board import agreement
from ...board.board import Block, Board, Column, Overall, Row, Score
from ...together import Paired
from .. import text as render
from .pool import Pool
from .published import on_data_of

POINTS = 96_000  # of all learning curves together; more are thinned out
MOST, FEWEST = 100, 6  # points of one curve
LEVELS = 65_534  # between a curve's lowest and highest point; one more means no value
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INERT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}  # json.dumps escapes the rest


def as_script(board: Board) -> str:
    """JSON that is safe inside an HTML script element."""
    text = json.dumps(payload(board), allow_nan=False, separators=(",", ":"))
    return text.translate(_INERT)


def payload(board: Board) -> dict[str, Any]:
    """The board as plain data."""
    pool = Pool()
    points = _points_each(board)
    blocks = [_block(block, board, pool, points) for block in board.blocks]
    return {
        "level": board.level,
        "blocks": blocks,
        "overall": [_overall(each) for each in board.overall],
        "pool": pool.parts,
    }


# ---- one table -------------------------------------------------------------------------------


def _block(block: Block, board: Board, pool: Pool, points: int) -> dict[str, Any]:
    seeds = sorted({seed for row in block.rows for seed in row.cells})
    ranking = [i for i, column in enumerate(block.columns) if column.ranks]
    held = [row.label for row in block.rows if row.baseline]
    return {
        "title": render.title(block.setting),
        "findings": block.findings,
        "dataset": block.setting.dataset,
        "backbone": block.setting.backbone,
        "seeds": seeds,
        "columns": [_column(column) for column in block.columns],
        "rows": _transposed([_row(row, seeds, pool, points) for row in block.rows]),
        "values": _values(block, seeds),
        "means": _packed("d", (score.mean for score in _scores(block))),
        "halves": _packed("f", (_half(score.interval) for score in _scores(block))),
        "ranks": {i: [_places(row.scores[i]) for row in block.rows] for i in ranking},
        "best": [
            [r for r, row in enumerate(block.rows) if row.scores[i].best]
            for i in range(len(block.columns))
        ],
        "gaps": _gaps(block, seeds),
        "behind": _pairs(row.scores[i].behind for i in ranking for row in block.rows),
        "against": {
            label: _pairs(row.scores[i].against.get(label) for i in ranking for row in block.rows)
            for label in held
        },
        "agreement": _agreement(block),
        "published": [dataclasses.asdict(group) for group in on_data_of(board, block)],
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "evaluator": column.evaluator,
        "protocol": column.protocol,
        "metric": column.metric,
        "label": render.metric_said(column),
        "unit": column.unit,
        "up": column.higher_is_better,
        "ranks": column.ranks,
        "narrow": column.narrow,
    }


def _scores(block: Block) -> Iterable[Score]:
    """All scores, by column and then by row."""
    return (row.scores[i] for i in range(len(block.columns)) for row in block.rows)


def _half(interval: statistics.Interval | None) -> float | None:
    return None if interval is None else (interval[1] - interval[0]) / 2


def _places(score: Score) -> tuple[int, int | None] | None:
    """From which place to which."""
    return None if score.rank is None else (score.rank, score.rank_to)


def _pairs(pairs: Iterable[Paired | None]) -> str:
    """Packs of each pair: mean difference, half of its interval, and p."""
    none = (None,) * 3
    found = (none if p is None else (p.mean, _half(p.interval), p.p) for p in pairs)
    return _packed("f", (x for each in found for x in each))


def _values(block: Block, seeds: Sequence[int]) -> str:
    return _packed("d", (score.values.get(seed) for score in _scores(block) for seed in seeds))


def _gaps(block: Block, seeds: Sequence[int]) -> dict[str, list[int]]:
    """State -> positions in the values; values never asked for are left out."""
    place = {seed: at for at, seed in enumerate(seeds)}
    found: dict[str, list[int]] = {}
    for at, score in enumerate(_scores(block)):
        for seed, gap in score.gaps.items():
            if gap.state != "absent":
                found.setdefault(render.state_said(gap), []).append(at * len(seeds) + place[seed])
    return found


def _agreement(block: Block) -> dict[str, Any]:
    pairs = agreement.between(block)
    names = [c.protocol for c in block.columns if c.ranks]
    held = {name for p in pairs for name in (p.one, p.other)}
    names = [name for name in dict.fromkeys(names) if name in held]
    place = {name: at for at, name in enumerate(names)}
    return {
        "names": names,
        "pairs": [
            [place[p.one], place[p.other], p.tau, p.interval, p.methods, p.seeds] for p in pairs
        ],
        "own": [
            [place[s.protocol], s.tau, s.methods, s.pairs]
            for s in agreement.steadiness(block)
            if s.protocol in place
        ],
    }


def _overall(each: Overall) -> dict[str, Any]:
    return {
        "title": f"{each.protocol} {each.metric} · {each.backbone}",
        "datasets": each.datasets,
        "standings": [[s.label, s.rank, s.interval] for s in each.standings],
        "lacking": each.lacking,
    }


# ---- rows ------------------------------------------------------------------------------------


def _transposed(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turns rows into columns: each key once, with the values of all rows."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


def _row(row: Row, seeds: Sequence[int], pool: Pool, points: int) -> dict[str, Any]:
    costs = row.costs
    return {
        "label": row.label,
        "method": row.method,
        "baseline": row.baseline,
        "n": row.n,
        "declared": len(row.cells),
        "cells": [_digest(row.cells.get(seed)) for seed in seeds],
        "verdicts": row.verdicts,
        "health": render.health_said(row),
        "remarks": list(render.remarks(row)),
        "measured": {name: _short(value) for name, value in row.health.items()},
        "costs": [
            _short(costs.seconds),
            _short(costs.images_per_second),
            _short(costs.parameters),
            _short(costs.flops),
            _short(costs.peak_memory_bytes),
            costs.trials,
        ],
        "stages": {name: _short(value) for name, value in costs.stages.items()},
        **_details(row, seeds, pool, points),
    }


def _digest(cell_id: str | None) -> str | list[str] | None:
    """A cell id in base64; in a list, unchanged, if it is not a sha256."""
    if cell_id is None or not _SHA256.fullmatch(cell_id):
        return cell_id and [cell_id]
    return base64.b64encode(bytes.fromhex(cell_id)).decode()


def _short(value: float | None) -> float | int | None:
    """Rounds to six digits; whole numbers stay whole."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _details(row: Row, seeds: Sequence[int], pool: Pool, points: int) -> dict[str, Any]:
    details = row.details
    if details is None:
        return {}
    known = {
        "Hyperparameters": details.hyperparameters,
        "Recipe": details.recipe,
        "Identity": details.identity,
        "Components": details.components,
        "Environment": details.environments,
    }
    curves = {name: _curves(found, seeds, pool, points) for name, found in details.curves.items()}
    return {
        "known": pool.add(known),
        "command": details.command,
        "conformance": details.conformance,
        "attested": details.attested,
        "curves": curves,
    }


def _points_each(board: Board) -> int:
    curves = sum(
        len(found)
        for block in board.blocks
        for row in block.rows
        if row.details
        for found in row.details.curves.values()
    )
    return max(FEWEST, min(MOST, POINTS // max(1, curves)))


def _curves(
    found: Mapping[int, Sequence[tuple[float, float]]],
    seeds: Sequence[int],
    pool: Pool,
    points: int,
) -> list[list[Any]]:
    """Packs a curve, seeds with the same epochs together.

    Each item is: seeds, epochs in the pool, lowest, highest, values.
    """
    alike: dict[tuple[float, ...], tuple[list[int], list[float]]] = {}
    for seed in seeds:
        if curve := _thinned(found.get(seed, ()), points):
            own, values = alike.setdefault(tuple(x for x, _ in curve), ([], []))
            own.append(seed)
            values += [y for _, y in curve]
    return [
        [own, pool.add([_short(x) for x in epochs]), *_quantised(values)]
        for epochs, (own, values) in alike.items()
    ]


def _thinned(curve: Sequence[tuple[float, float]], points: int) -> Sequence[tuple[float, float]]:
    """Thins a curve to evenly spaced points, with its first and last."""
    if len(curve) <= points:
        return curve
    step = (len(curve) - 1) / (points - 1)
    return [curve[round(i * step)] for i in range(points)]


def _quantised(values: Sequence[float]) -> tuple[float, float, str]:
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    scale = LEVELS / (high - low) if math.isfinite(high - low) and high > low else 0.0
    levels = [round((v - low) * scale) if math.isfinite(v) else LEVELS + 1 for v in values]
    packed = base64.b64encode(struct.pack(f"<{len(levels)}H", *levels)).decode()
    return float(f"{low:.6g}"), float(f"{high:.6g}"), packed


def _packed(code: str, values: Iterable[float | None]) -> str:
    """Numbers in base64; None, and what the type cannot hold, becomes NaN."""
    with np.errstate(over="ignore"):
        array = np.array(list(values), dtype=float).astype(f"<{code}")
    array[~np.isfinite(array)] = np.nan
    return base64.b64encode(array.tobytes()).decode()
