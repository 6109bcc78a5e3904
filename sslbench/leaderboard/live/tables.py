"""The board so far as plain data: its tables, its sentences and its verdicts, in their usual words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ..board.board import Block, Board, Row
from ..output import text as render


def tables(board: Board) -> list[dict[str, Any]]:
    return [
        {
            "title": render.title(block.setting),
            "heads": list(_heads(block)),
            "rows": [[row.label, *_texts(row, block)] for row in block.rows],
            "baselines": sum(row.baseline for row in block.rows),  # the last ones
            "findings": list(block.findings),
        }
        for block in board.blocks
    ]


def verdicts(board: Board) -> list[dict[str, Any]]:
    """What the reader of a row should know: verdicts on its training, failures, warnings."""
    found = []
    for block in board.blocks:
        of = f" · {block.setting.dataset} · {block.setting.backbone}" * (len(board.blocks) > 1)
        for row in block.rows:
            if lines := list(render.remarks(_begun(row))):
                said = {"label": f"{row.label}{of}", "codes": list(row.verdicts), "lines": lines}
                found.append(said)
    return sorted(found, key=lambda each: not each["codes"])  # of the training first


def _begun(row: Row) -> Row:
    """The row without what is only missing, which the matrix shows."""
    troubles = tuple(each for each in row.troubles if each.gap.state != "missing")
    return dataclasses.replace(row, troubles=troubles)


def _heads(block: Block) -> Iterator[str]:
    yield from ("method", "n")
    for column in block.columns:
        if column.narrow:
            yield f"{column.protocol} {render.metric_said(column)}".rstrip()
    yield "health"


def _texts(row: Row, block: Block) -> Iterator[str]:
    yield render.seeds_said(row)
    for column, score in zip(block.columns, row.scores, strict=True):
        if column.narrow:
            value = render.value_said(score, row, column.unit)
            yield f"{'*' if score.best else ''}{value} {render.rank_said(score)}".rstrip()
    yield render.health_said(row)
