"""Renders published numbers as Markdown, text and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ..board.board import Reference
from . import latex
from .markdown import markdown_table, markdown_text

HEADING = "Published elsewhere: not ranked, other protocols"


@dataclass(frozen=True)
class _Table:
    """Published numbers on one data set; the last text of a row is the number of its source."""

    dataset: str
    heads: list[str]
    body: list[list[str]]
    sources: list[str]


def as_markdown(found: Sequence[Reference]) -> str:
    """A Markdown section; empty if there are no numbers."""
    parts = [f"## {HEADING}"] if found else []
    for table in _tables(found):
        parts.append(f"### {markdown_text(table.dataset)}")
        rows = [list(map(markdown_text, row)) for row in table.body]
        parts.append(markdown_table(list(map(markdown_text, table.heads)), rows))
        # not a numbered list: Markdown would number it anew
        lines = (f"- {markdown_text(source)}" for source in table.sources)
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n" * bool(parts)


def as_text(found: Sequence[Reference]) -> str:
    """Plain text for a terminal or a pipe; empty if there are no numbers."""
    lines = [HEADING] if found else []
    for table in _tables(found):
        widths = [max(map(len, column)) for column in zip(table.heads, *table.body, strict=True)]
        lines += ["", table.dataset]
        for row in (table.heads, *table.body):
            padded = (text.ljust(width) for text, width in zip(row, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
        lines += table.sources
    return "\n".join(lines) + "\n" * bool(lines)


def as_latex(found: Sequence[Reference]) -> str:
    """LaTeX tables to follow those of `latex.as_latex`, whose preamble they need."""
    parts = []
    for number, table in enumerate(_tables(found), start=1):
        body = [latex.line(list(map(latex.escaped, row))) for row in table.body]
        align = "ll" + "r" * (len(table.heads) - 3) + "l"
        words = ". ".join([f"{table.dataset}. {HEADING} (percent)", *table.sources])
        head = [latex.line(list(map(latex.escaped, table.heads)))]
        for start in range(0, len(body), latex.TALL):
            caption = words if start == 0 else f"{table.dataset}. {HEADING}, continued"
            parts.append(
                latex.table(
                    (head, body[start : start + latex.TALL], align),
                    caption=latex.escaped(f"{caption}."),
                    label=f"tab:sslbench-published-{number}" + (f"-{start}" if start else ""),
                )
            )
    return "\n".join(parts)


def _tables(found: Sequence[Reference]) -> list[_Table]:
    datasets = dict.fromkeys(each.dataset for each in found)
    return [
        _table(dataset, [each for each in found if each.dataset == dataset]) for dataset in datasets
    ]


def _table(dataset: str, found: Sequence[Reference]) -> _Table:
    metrics = list(dict.fromkeys(each.metric for each in found))
    numbers: dict[str, int] = {}
    body = []
    for (source, method, backbone), group in groupby(found, key=_row):
        values = {each.metric: _percent(each.value) for each in group}
        number = numbers.setdefault(source, len(numbers) + 1)
        shown = [values.get(metric, "-") for metric in metrics]
        body.append([method, backbone, *shown, f"({number})"])
    sources = [f"({number}) {source}" for source, number in numbers.items()]
    return _Table(dataset, ["method", "backbone", *metrics, "source"], body, sources)


def _percent(value: float) -> str:
    """Percent with the digits that were published, at least one decimal."""
    text = f"{100 * value:.4g}"
    return text if "." in text else f"{text}.0"


def _row(each: Reference) -> tuple[str, str, str]:
    """What numbers of one row share: source in words, method, backbone."""
    note = f" ({each.note})" if each.note else ""
    words = f"{each.source}, {each.date}: {each.protocol}{note}; {each.url}"
    return words, each.method, each.backbone
