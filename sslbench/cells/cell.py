"""Defines the cell, the unit of training, with its id and the seeds that follow from it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api import Labels, Recipe
from ..names import published
from ..records import canonical, digest
from .identity import Identity, is_adopted, pretext_of

FIELDS = {f.name: f for f in dataclasses.fields(Recipe)}
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


@dataclass(frozen=True)
class Cell:
    """One training: method, hyperparameters, recipe, backbone, dataset, seed and precision."""

    method: str
    version: int
    backbone: str
    dataset: str
    fingerprint: str
    size: int  # pixels
    seed: int
    precision: str
    labels: Labels
    budget: int | None  # labels, for methods that may see some
    hyperparameters: Mapping[str, Any]
    recipe: Recipe | None  # None: judged, never trained
    stages: Mapping[str, tuple[int, Recipe]] = field(default_factory=dict)  # version, recipe
    pretexts: Mapping[str, Cell] = field(default_factory=dict)  # by method name
    left_out: tuple[str, ...] = ()  # later hyperparameters with the old behaviour: not hashed
    source: str | None = None  # sha256 of a method that lives in a file

    def identity(self) -> dict[str, Any]:
        """Everything that is meant to change the cell's numbers, as plain data."""
        written = Identity.written(
            method=self.method,
            version=self.version,
            hyperparameters={
                name: pretext_of(value, self.pretexts[value].id)
                if isinstance(value, str) and value in self.pretexts
                else plain(value)
                for name, value in self.hyperparameters.items()
                if name not in self.left_out
            },
            recipe=_plain_recipe(self.recipe) if self.recipe else None,
            stages={
                name: (version, _plain_recipe(recipe))
                for name, (version, recipe) in self.stages.items()
            },
            source=self.source,
            backbone=self.backbone,
            dataset=self.dataset,
            fingerprint=self.fingerprint,
            size=self.size,
            labels=self.labels,
            budget=self.budget,
            seed=self.seed,
            precision=self.precision,
        )
        return dict(written.plain)

    @functools.cached_property
    def id(self) -> str:
        return digest(self.identity())

    @property
    def trained(self) -> bool:
        return self.recipe is not None

    @property
    def adopted(self) -> bool:
        """Whether its weights were taken in from outside, so that they cannot be trained here."""
        return is_adopted(self.method)

    @property
    def title(self) -> str:
        return f"{self.method} · {self.backbone} · {published(self.dataset)} · seed {self.seed}"

    def __hash__(self) -> int:
        return hash(self.id)


def _plain_recipe(recipe: Recipe) -> dict[str, Any]:
    fields = {name: plain(getattr(recipe, name)) for name in FIELDS}
    return {k: v for k, v in fields.items() if k not in recipe.added or v != recipe.added[k]}


def derive(*parts: Any) -> int:
    """Derives a seed from the parts: 63 bits of their sha256."""
    return int.from_bytes(hashlib.sha256(canonical(parts).encode()).digest()[:8], "big") >> 1


def plain(value: Any) -> Any:
    """Converts a value to what JSON can hold; tuples become lists."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    raise ValueError(f"a hyperparameter must be plain data, {value!r} is a {type(value).__name__}")
