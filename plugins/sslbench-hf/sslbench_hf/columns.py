"""Which column holds the pictures, which the labels, and what the classes are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sslbench.errors import UserError

IMAGES = ("image", "img", "picture", "pixel_values")
LABELS = ("label", "labels", "class", "target")


def image_column(name: str, features: Mapping[str, Any], asked: str) -> str:
    """The one that was asked for, or the only one with pictures, or that with a usual name."""
    known = [column for column, feature in features.items() if _pictures(feature)]
    return _chosen(name, "image", asked, known, IMAGES, features)


def label_column(name: str, features: Mapping[str, Any], asked: str) -> str:
    """Likewise; columns that declare their classes go before numbers and words."""
    from datasets import ClassLabel

    declared = [c for c, feature in features.items() if isinstance(feature, ClassLabel)]
    plain = [c for c, feature in features.items() if _plain(feature)]
    if asked in plain:
        return asked
    usual = [column for column in plain if column in LABELS]
    return _chosen(name, "label", asked, declared or usual, LABELS, features)


def _chosen(
    name: str,
    what: str,
    asked: str,
    known: Sequence[str],
    usual: Sequence[str],
    features: Mapping[str, Any],
) -> str:
    if asked in known:
        return asked
    columns = ", ".join(f"{column} ({_described(f)})" for column, f in features.items())
    if asked:
        raise UserError(f"{name} has no {what} column {asked!r}; its columns are {columns}")
    named = [column for column in usual if column in known]
    for candidates in (known, named):
        if len(candidates) == 1:
            return candidates[0]
    many = f"{len(known)} columns that may be the {what}" if known else f"no {what} column"
    raise UserError(f"{name} has {many}; say [{what}=COLUMN]; its columns are {columns}")


def classes_and_labels(
    name: str, column: str, train: Any, test: Any
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names of the classes and int64 [N] of both splits, -1 where there is none."""
    from datasets import ClassLabel

    feature = train.features[column]
    if isinstance(feature, ClassLabel):
        if getattr(test.features[column], "names", None) != feature.names:
            raise UserError(f"{name}: {column!r} has other classes in the test split than in train")
        own = [np.array([-1 if v is None else v for v in s[column]]) for s in (train, test)]
        return tuple(map(str, feature.names)), own[0].astype(np.int64), own[1].astype(np.int64)
    given = [list(split[column]) for split in (train, test)]
    known = sorted({value for value in given[0] if not _hidden(value)})
    if foreign := [v for v in given[1] if not _hidden(v) and v not in set(known)]:
        raise UserError(f"{name}: the class {foreign[0]!r} is in the test split alone")
    number = {value: position for position, value in enumerate(known)}
    found = [np.array([number.get(value, -1) for value in values], np.int64) for values in given]
    return tuple(map(str, known)), found[0], found[1]


def _hidden(value: Any) -> bool:
    return value is None or value == -1


def _pictures(feature: Any) -> bool:
    """Of the kind Image, or as files without the kind's mark hold it."""
    from datasets import Image

    return isinstance(feature, Image) or (
        isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    )


def _plain(feature: Any) -> bool:
    dtype = str(getattr(feature, "dtype", ""))
    return type(feature).__name__ == "Value" and dtype.lstrip("u").startswith(
        ("int", "string", "bool", "large_string")
    )


def _described(feature: Any) -> str:
    names = getattr(feature, "names", None)
    if names is not None:
        return f"{len(names)} classes"
    if _pictures(feature):
        return "pictures"
    return str(getattr(feature, "dtype", type(feature).__name__))[:40]
