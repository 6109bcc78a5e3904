"""Writes and reads the identity of a cell. No other module knows how it is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..names import parse as parse_name
from ..names import unplaced
from ..records import digest

if TYPE_CHECKING:
    from ..api import Labels

IDENTITY = 1  # raised when the scheme itself changes


@dataclass(frozen=True)
class Identity:
    """Everything that is meant to change a cell's numbers. The sha256 of `plain` is the cell's id.

    `written` makes one. Records may come from anybody, so that a part that is missing, or of
    another type, reads as None or as empty; `sound` says whether every part is there.
    """

    plain: Mapping[str, Any]

    @classmethod
    # a cell has that many parts
    def written(  # noqa: PLR0913
        cls,
        *,
        method: str,
        version: int,
        hyperparameters: Mapping[str, Any],
        recipe: Mapping[str, Any] | None,
        stages: Mapping[str, tuple[int, Mapping[str, Any]]],
        source: str | None,
        backbone: str,
        dataset: str,
        fingerprint: str,
        size: int,
        labels: Labels,
        budget: int | None,
        seed: int,
        precision: str,
    ) -> Identity:
        """Makes an identity of plain data; `recipe` is None where nothing is trained."""
        own: dict[str, Any] = {
            "name": method,
            "version": version,
            "hyperparameters": dict(hyperparameters),
        }
        if recipe is not None:
            own["recipe"] = dict(recipe)
        if stages:
            own["stages"] = {
                name: {"version": number, "recipe": dict(fields)}
                for name, (number, fields) in stages.items()
            }
        if source:
            own["source"] = source
        return cls(
            {
                "identity_version": IDENTITY,
                "method": own,
                "backbone": backbone,
                # without its path, since the same data may lie elsewhere
                "dataset": {"name": unplaced(dataset), "fingerprint": fingerprint, "size": size},
                "labels": labels if labels != "budget" else {"budget": budget},
                "seed": seed,
                "precision": precision,
            }
        )

    def _text(self, part: Mapping[str, Any], name: str) -> str | None:
        value = part.get(name)
        return value if isinstance(value, str) else None

    @property
    def id(self) -> str:
        return digest(self.plain)

    # ---- the method ----

    @property
    def method(self) -> str | None:
        return self._text(_mapping(self.plain, "method"), "name")

    @property
    def version(self) -> int | None:
        version = _mapping(self.plain, "method").get("version")
        return version if type(version) is int else None

    @property
    def source(self) -> str | None:
        """sha256 of a method that lives in a file."""
        return self._text(_mapping(self.plain, "method"), "source")

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The hyperparameters by name; one that is a pretext is given as its method's name."""
        return {name: spoken(value) for name, value in self._hyperparameters.items()}

    @property
    def pretexts(self) -> dict[str, str]:
        """Hyperparameter -> the id of the pretext's cell."""
        values = self._hyperparameters.items()
        return {name: value["cell"] for name, value in values if is_pretext(value)}

    @property
    def _hyperparameters(self) -> Mapping[str, Any]:
        return _mapping(_mapping(self.plain, "method"), "hyperparameters")

    @property
    def trained(self) -> bool:
        return "recipe" in _mapping(self.plain, "method")

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe's fields; {} where nothing is trained."""
        return _mapping(_mapping(self.plain, "method"), "recipe")

    @property
    def stages(self) -> dict[str, tuple[Any, Mapping[str, Any]]]:
        """Stage -> its version and recipe."""
        stages = _mapping(_mapping(self.plain, "method"), "stages")
        parts = ((name, _mapping(stages, name)) for name in stages)
        return {name: (part.get("version"), _mapping(part, "recipe")) for name, part in parts}

    @property
    def adopted(self) -> bool:
        """Whether its weights come from outside."""
        return self.method is not None and is_adopted(self.method)

    # ---- where ----

    @property
    def backbone(self) -> str | None:
        return self._text(self.plain, "backbone")

    @property
    def dataset(self) -> str | None:
        """The dataset's name, without its path."""
        return self._text(_mapping(self.plain, "dataset"), "name")

    @property
    def fingerprint(self) -> str | None:
        return self._text(_mapping(self.plain, "dataset"), "fingerprint")

    @property
    def size(self) -> int | None:
        """The side of the images in pixels."""
        size = _mapping(self.plain, "dataset").get("size")
        return size if type(size) is int else None

    @property
    def labels(self) -> Labels:
        said = self.plain.get("labels", "none")
        return "budget" if isinstance(said, Mapping) else said

    @property
    def budget(self) -> int | None:
        return _mapping(self.plain, "labels").get("budget")

    @property
    def seed(self) -> Any:
        return self.plain.get("seed")

    @property
    def precision(self) -> str | None:
        return self._text(self.plain, "precision")

    # ---- together ----

    @property
    def title(self) -> tuple[str, str, str]:
        """Method, backbone and dataset; a question mark for what is missing."""
        return self.method or "?", self.backbone or "?", self.dataset or "?"

    @property
    def sound(self) -> bool:
        """Whether it has every part that `written` gives it."""
        method = _mapping(self.plain, "method")
        texts = (self.method, self.dataset, self.fingerprint, self.backbone, self.precision)
        stages = method.get("stages", {})
        parts = [method.get(name, {}) for name in ("hyperparameters", "recipe")]
        parts += [stages, *(stages.values() if isinstance(stages, dict) else ())]
        return (
            None not in texts
            and all(isinstance(part, dict) for part in parts)
            and isinstance(self.plain.get("labels", "none"), str | dict)
            and self.size is not None
        )

    def without_seed(self) -> dict[str, Any]:
        """The identity without its seed, which all cells of a table's row share.

        Pretexts are given by name, since their cells differ from seed to seed.
        """
        plain = {key: value for key, value in self.plain.items() if key != "seed"}
        method = {**_mapping(self.plain, "method"), "hyperparameters": self.hyperparameters}
        return {**plain, "method": method}

    def settings(self) -> dict[str, Any]:
        """Hyperparameters, recipe fields and versions, by the names that `--set` uses."""
        found = {**self.hyperparameters, **self.recipe}
        for stage, (version, recipe) in self.stages.items():
            found[f"{stage}.version"] = version
            found |= {f"{stage}.{key}": value for key, value in recipe.items()}
        own = {"version": self.version, "source": self.source}
        return {**found, **{key: value for key, value in own.items() if value is not None}}


@dataclass(frozen=True)
class JudgedIdentity:
    """What is meant to change what an evaluator says of a cell: the cell, and the evaluator."""

    plain: Mapping[str, Any]

    @classmethod
    def written(cls, cell: str, evaluator: Mapping[str, Any]) -> JudgedIdentity:
        return cls({"cell": cell, "evaluator": dict(evaluator)})

    @property
    def cell(self) -> Any:
        return self.plain.get("cell")

    @property
    def evaluator(self) -> Mapping[str, Any]:
        """Its name, version, parameters, those it borrows from, and what else it looks at."""
        return _mapping(self.plain, "evaluator")

    @property
    def name(self) -> Any:
        return self.evaluator.get("name")

    @property
    def version(self) -> int | None:
        version = self.evaluator.get("version")
        return version if type(version) is int else None

    @property
    def protocol(self) -> str:
        """`knn-1[k=5]`, with the probes that it borrows and the split that it judges on."""
        return _protocol_of(self.evaluator)

    @property
    def sound(self) -> bool:
        return self.version is not None


def _protocol_of(evaluator: Mapping[str, Any]) -> str:
    own = parse_name(evaluator["name"]).base
    uses = ",".join(map(_protocol_of, evaluator.get("uses", ())))
    borrowed = f"({uses})" if uses else ""
    held = f"@{evaluator['on']}" if "on" in evaluator else ""
    return f"{own}-{evaluator['version']}{borrowed}{evaluator['name'].removeprefix(own)}{held}"


def _mapping(plain: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = plain.get(name)
    return value if isinstance(value, Mapping) else {}


def pretext_of(method: str, cell: str) -> dict[str, str]:
    """Writes a hyperparameter that names another cell as identities hold it."""
    return {"method": method, "cell": cell}


def is_pretext(value: Any) -> bool:
    """Whether a hyperparameter of an identity names another cell."""
    return isinstance(value, Mapping) and "cell" in value


def spoken(value: Any) -> Any:
    """A hyperparameter of an identity as people type it: of a pretext, its method's name."""
    return value["method"] if is_pretext(value) else value


def is_adopted(method: str) -> bool:
    """Whether a method's name carries the name of weights from outside: `external:NAME`."""
    try:
        return ":" in method and parse_name(method).argument is not None
    except UserError:  # a record may come from anybody
        return False
