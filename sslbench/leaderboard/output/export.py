"""Renders a board as CSV and JSON, with everything on it at full precision."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ..board.board import Board, Column, Row, Score
from ..together import Paired
from .text import caption, conformance_said, remarks


def as_csv(board: Board) -> str:
    """CSV with one line for each row and metric, its values by seed among them.

    A field without a value is empty.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for number, record in enumerate(_flat(board)):
        if number == 0:
            writer.writerow(record)
        writer.writerow([_field(value) for value in record.values()])
    return file.getvalue()


def _flat(board: Board) -> Iterator[dict[str, Any]]:
    seeds = sorted({seed for block in board.blocks for row in block.rows for seed in row.cells})
    for block in board.blocks:
        for row in block.rows:
            for column, score in zip(block.columns, row.scores, strict=True):
                low, high = score.interval or (None, None)
                states = Counter(gap.state for gap in score.gaps.values())
                yield {
                    "suite": board.suite_id,
                    **vars(block.setting),
                    "row": row.label,
                    "method": row.method,
                    "baseline": row.baseline,
                    "anchor": row.anchor,
                    "trained": row.trained,
                    **{k: v for k, v in vars(column).items() if k != "narrow"},
                    "mean": score.mean,
                    "sd": score.sd,
                    "low": low,
                    "high": high,
                    "level": board.level,
                    "n": score.n,
                    "declared": len(row.cells),
                    "gaps": "; ".join(f"{n} {state}" for state, n in states.items()),
                    "rank": score.rank,
                    "rank_to": score.rank_to,
                    "best": score.best,
                    **{f"seed_{seed}": score.values.get(seed) for seed in seeds},
                    **{k: v for k, v in vars(row.costs).items() if k != "stages"},
                    "health": " ".join(row.verdicts),
                    "warnings": "; ".join(remarks(row)),
                    "conformance": conformance_said(row),
                    "attested": row.details.attested if row.details else "",
                }


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # spreadsheets run text with such a beginning as a formula
        return f"'{value}" if value[:1] in tuple("=+-@＝＋－＠") else value
    return repr(value)


def as_json(board: Board) -> str:
    """JSON of everything: values by seed, intervals, ranks, protocols, costs, warnings, cell ids.

    Each row is one line, so that a diff shows which rows changed.
    """
    plain = {"suite": board.suite_id, "statistics": caption(board, best="best")}
    plain |= {k: v for k, v in vars(board).items() if k not in ("suite_id", "blocks")}
    head = json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=False, default=_plain)
    tables = ",\n".join(
        f'{{"setting": {_line(block.setting)}, "findings": {_line(block.findings)}, '
        f'"columns": [\n{_lines_of(block.columns)}], '
        f'"rows": [\n{_lines_of([_row(row, block.columns) for row in block.rows])}]}}'
        for block in board.blocks
    )
    return f'{head.removesuffix("}").rstrip()},\n "tables": [{tables}]\n}}\n'


def _row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    """A row with the names of its columns beside its scores."""
    named = [
        {"protocol": column.protocol, "metric": column.metric, "split": column.split}
        | _plain(score)
        for column, score in zip(columns, row.scores, strict=True)
    ]
    return {**_plain(row), "scores": named}


def _lines_of(values: Sequence[Any]) -> str:
    return ",\n".join(map(_line, values))


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """A part of a board as plain data, with derived numbers."""
    plain = dict(vars(value))
    if isinstance(value, Row):
        plain |= {"n": value.n, "declared": len(value.cells), "verdicts": value.verdicts}
    elif isinstance(value, Score):
        plain["n"] = value.n
    elif isinstance(value, Paired):
        plain["n"] = len(plain.pop("differences"))  # they follow from the values
    return plain
