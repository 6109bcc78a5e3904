"""Reads published numbers that stand beside a leaderboard; they are never ranked.

references.yaml holds those that ship with sslbench. Your own file has the same form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...cells.yaml12 import read as read_yaml
from ...errors import UserError
from .board import Reference
from .printable import printable

OURS = Path(__file__).with_name("references.yaml")

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
    """Published numbers on these data sets.

    A part of a data set counts as another one: `cifar10[train=1000]` gets none of cifar10's.
    """
    return tuple(each for each in read(OURS) if each.dataset in datasets)


def read(path: Path) -> tuple[Reference, ...]:
    """Reads the published numbers of a file.

    Raises:
        UserError: the file cannot be read, or is not of the form of references.yaml.
    """
    try:
        content = _File.model_validate(read_yaml(path, f"the references {path}"))
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
                    value=float(Decimal(repr(value)) / 100),  # exactly as printed
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
