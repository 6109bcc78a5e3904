"""What a cell is: one trained thing, its identity, its id, and the seeds that follow from them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..api import Labels, Recipe
from ..names import parse as parse_name
from ..names import unplaced
from ..records import canonical, digest

if TYPE_CHECKING:
    pass

IDENTITY = 1  # raised when the scheme itself changes


FIELDS = {f.name: f for f in dataclasses.fields(Recipe)}


PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Cell:
    """One trained thing: method x hyperparameters x recipe x backbone x dataset x seed x precision."""

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
    left_out: tuple[str, ...] = ()  # hyperparameters at the value that keeps old ids alive
    source: str | None = None  # sha256 of a method that lives in a file

    def identity(self) -> dict[str, Any]:
        """Exactly what is meant to change the number."""
        method: dict[str, Any] = {
            "name": self.method,
            "version": self.version,
            "hyperparameters": self._hyperparameters(),
        }
        if self.recipe:
            method["recipe"] = _plain_recipe(self.recipe)
        if self.stages:
            method["stages"] = {
                name: {"version": version, "recipe": _plain_recipe(recipe)}
                for name, (version, recipe) in self.stages.items()
            }
        if self.source:
            method["source"] = self.source
        return {
            "identity_version": IDENTITY,
            "method": method,
            "backbone": self.backbone,
            # a path says where, not what
            "dataset": {
                "name": unplaced(self.dataset),
                "fingerprint": self.fingerprint,
                "size": self.size,
            },
            "labels": self.labels if self.labels != "budget" else {"budget": self.budget},
            "seed": self.seed,
            "precision": self.precision,
        }

    def _hyperparameters(self) -> dict[str, Any]:
        return {
            name: {"method": value, "cell": self.pretexts[value].id}
            if isinstance(value, str) and value in self.pretexts
            else plain(value)
            for name, value in self.hyperparameters.items()
            if name not in self.left_out
        }

    @functools.cached_property
    def id(self) -> str:
        return digest(self.identity())

    @property
    def trained(self) -> bool:
        return self.recipe is not None

    @property
    def adopted(self) -> bool:
        """Whether its weights come from outside: the store has them, nothing else makes them."""
        return is_adopted(self.method)

    @property
    def title(self) -> str:
        return f"{self.method} · {self.backbone} · {self.dataset} · seed {self.seed}"

    def __hash__(self) -> int:
        return hash(self.id)


def is_adopted(method: str) -> bool:
    """Whether a method's name carries the name of weights from outside: `external:NAME`."""
    return ":" in method and parse_name(method).argument is not None


def _plain_recipe(recipe: Recipe) -> dict[str, Any]:
    fields = {name: plain(getattr(recipe, name)) for name in FIELDS}
    return {k: v for k, v in fields.items() if k not in recipe.added or v != recipe.added[k]}


def derive(*parts: Any) -> int:
    """A seed from what it belongs to: 63 bits of the sha256 of the parts."""
    return int.from_bytes(hashlib.sha256(canonical(parts).encode()).digest()[:8], "big") >> 1


def plain(value: Any) -> Any:
    """JSON's idea of a value; tuples become lists."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    raise ValueError(f"a hyperparameter must be plain data, {value!r} is a {type(value).__name__}")
