"""Published numbers beside a leaderboard: never ranked, for other protocols made them.

references.yaml holds those that ship with sslbench. A file of somebody's own is written alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import UserError
from . import latex
from .board import Reference, printable
from .render import markdown_table, markdown_text

OURS = Path(__file__).with_name("references.yaml")
HEADING = "Published elsewhere: not ranked, other protocols"

Text = Annotated[str, MinLen(1)]
Percent = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    source: Text
    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    date: Text
    backbone: Text
    protocol: Text
    note: str = ""
    columns: list[Annotated[str, Field(pattern=r"^\S+ \S+$")]]  # dataset, metric
    rows: dict[str, list[Percent | None]]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1]
    sources: list[_Source]


def references(datasets: Collection[str]) -> tuple[Reference, ...]:
    """What is published on these data sets.

    A part of a data set is another one: `cifar10[train=1000]` has none of cifar10's.
    """
    return tuple(each for each in read(OURS) if each.dataset in datasets)


def read(path: Path) -> tuple[Reference, ...]:
    """The numbers of a file.

    Raises:
        UserError: it cannot be read, or says something that is none.
    """
    try:
        content = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"the references {path} are no readable YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"the references {path} are not of the form of sslbench's own references.yaml: "
            f"{where}: {first['msg']}"
        ) from error
    found = tuple(each for source in content.sources for each in _of(source, path))
    return _without_doubles(found, path)


def _of(source: _Source, path: Path) -> Iterable[Reference]:
    shared = {
        name: printable(getattr(source, name))
        for name in ("source", "url", "date", "backbone", "protocol", "note")
    }
    for method, values in source.rows.items():
        if len(values) != len(source.columns):
            raise UserError(
                f"the references {path} give {method!r} {len(values)} values under "
                f"{len(source.columns)} columns; write null where there is none"
            )
        for column, value in zip(source.columns, values, strict=True):
            if value is not None:
                dataset, metric = map(printable, column.split())
                yield Reference(
                    dataset=dataset,
                    metric=metric,
                    method=printable(method),
                    value=float(Decimal(repr(value)) / 100),  # as printed, not a bit beside it
                    **shared,
                )


def _without_doubles(found: tuple[Reference, ...], path: Path) -> tuple[Reference, ...]:
    seen: set[tuple[Any, ...]] = set()
    for each in found:
        key = tuple(value for name, value in vars(each).items() if name != "value")
        if key in seen:
            raise UserError(
                f"the references {path} give {each.method!r} on {each.dataset} two values of "
                f"{each.metric} under one protocol; keep one"
            )
        seen.add(key)
    return found


# ---- a table for each data set ---------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Of one data set: rows as texts, whose last one is the number of their source."""

    dataset: str
    heads: list[str]
    body: list[list[str]]
    sources: list[str]


def as_markdown(found: Sequence[Reference]) -> str:
    """A section; empty where there are none."""
    parts = [f"## {HEADING}"] if found else []
    for table in _tables(found):
        parts.append(f"### {markdown_text(table.dataset)}")
        rows = [list(map(markdown_text, row)) for row in table.body]
        parts.append(markdown_table(list(map(markdown_text, table.heads)), rows))
        # numbered as the rows say, and no list: a reader would number it anew
        lines = (f"- {markdown_text(source)}" for source in table.sources)
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n" * bool(parts)


def as_text(found: Sequence[Reference]) -> str:
    """For a terminal or a pipe; empty where there are none."""
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
    """Tables that stand after those of `latex.as_latex`, whose preamble they need."""
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
    """With the digits that were printed, and at least one."""
    text = f"{100 * value:.4g}"
    return text if "." in text else f"{text}.0"


def _row(each: Reference) -> tuple[str, str, str]:
    """Source in words, method, backbone."""
    note = f" ({each.note})" if each.note else ""
    words = f"{each.source}, {each.date}: {each.protocol}{note}; {each.url}"
    return words, each.method, each.backbone
