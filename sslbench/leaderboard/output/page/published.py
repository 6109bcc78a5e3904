"""Groups published numbers for a table: those measured alike come under one heading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...board.board import Block, Board, Reference
from .markup import is_web


@dataclass(frozen=True)
class PublishedGroup:
    """Published numbers of one source and protocol."""

    source: str
    url: str  # "" if it is not http or https
    said: str  # date, protocol, backbone, note
    rows: tuple[tuple[str, str], ...]  # method, numbers


def on_data_of(board: Board, block: Block) -> list[PublishedGroup]:
    """Published numbers on a table's data set, or on the whole of which it is a part."""
    name = block.setting.dataset
    names = (name, name.partition("[")[0])
    return _grouped(each for each in board.references if each.dataset in names)


def elsewhere(board: Board) -> list[tuple[str, list[PublishedGroup]]]:
    """Published numbers on data sets without a table, by data set."""
    names = {block.setting.dataset for block in board.blocks}
    names |= {name.partition("[")[0] for name in names}
    others = [each for each in board.references if each.dataset not in names]
    datasets = dict.fromkeys(each.dataset for each in others)
    return [(name, _grouped(e for e in others if e.dataset == name)) for name in datasets]


def _grouped(references: Iterable[Reference]) -> list[PublishedGroup]:
    found: dict[tuple[str, ...], list[Reference]] = {}
    for each in references:
        key = (each.source, each.url, each.date, each.protocol, each.backbone, each.note)
        found.setdefault(key, []).append(each)
    return [_group(alike) for alike in found.values()]


def _group(alike: Sequence[Reference]) -> PublishedGroup:
    first = alike[0]
    numbers: dict[str, list[str]] = {}
    for each in alike:
        numbers.setdefault(each.method, []).append(
            f"{round(100 * each.value, 2):g} % {each.metric}"
        )
    said = " · ".join(filter(None, (first.date, first.protocol, first.backbone, first.note)))
    rows = tuple((method, ", ".join(texts)) for method, texts in numbers.items())
    return PublishedGroup(first.source, first.url if is_web(first.url) else "", said, rows)
