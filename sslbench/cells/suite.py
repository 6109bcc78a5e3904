"""Reads suites from YAML and checks them. A suite says what a table compares, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Strict, TypeAdapter
from pydantic import ValidationError as Invalid

from ..errors import UnknownName, UserError, suggestion
from ..names import FORMS, check_budget
from ..plugins import Registry
from . import yaml12
from .yaml12 import written

NEEDED = ("summary", "datasets", "backbones", "methods", "baselines", "evaluators", "seeds")
ENDINGS = (".yaml", ".yml")  # of a suite's file, in capitals too
LARGEST_SEED = 2**63 - 1


def _whole(value: Any) -> Any:
    """Turns a whole float into an integer: 1e1 is ten."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _budget(budget: Any) -> int | str:
    budget = _whole(budget)
    if not isinstance(budget, int | str):
        raise ValueError(FORMS)
    try:
        return check_budget(budget, or_none=True)
    except UserError as error:
        raise ValueError(FORMS) from error


def _choices(choices: Any) -> Any:
    if isinstance(choices, list) and choices:
        return choices
    if isinstance(choices, Mapping) and set(choices) == {"times"}:
        ends = choices["times"]
        numbers = isinstance(ends, list) and all(type(end) in (int, float) for end in ends)
        if numbers and len(ends) == 2 and 0 < ends[0] < ends[1]:
            return choices
    raise ValueError("a list of values, or {times: [low, high]} with 0 < low < high")


Whole = Annotated[int, Strict(), BeforeValidator(_whole)]
Seed = Annotated[Whole, Ge(0), Le(LARGEST_SEED)]
Texts = tuple[str, ...]
Budget = Annotated[Any, AfterValidator(_budget)]
Choices = Annotated[Any, AfterValidator(_choices)]


@dataclass(frozen=True)
class Tuning:
    """How a suite tunes its methods: by the same number of random trials for each."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    trials: Annotated[Whole, Ge(1)]
    epochs: Annotated[Whole, Ge(1)]  # of a trial, a stage
    judge: str  # evaluator whose first metric on the held-out tenth of train chooses
    seed: Seed  # of the trials' cells, and of the draws; must not be one of the suite's
    space: Mapping[str, Choices]  # METHOD.PARAM or *.PARAM -> a list, or {times: [low, high]}
    settled: frozenset[str] = frozenset()  # METHOD.PARAM that are set by hand: not searched


@dataclass(frozen=True)
class Suite:
    """The datasets, backbones, methods, budget, seeds and evaluators of a table."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    summary: str
    datasets: Texts
    backbones: Texts
    methods: Texts  # unless others are asked for
    baselines: Texts
    evaluators: Texts
    seeds: tuple[Seed, ...]
    once: Texts = ()  # evaluators that judge only the first seed
    epochs: Annotated[Whole, Ge(0)] | None = None  # a stage, for all methods; None: each recipe's
    batch: Annotated[Whole, Ge(1)] | None = None
    precision: str = "fp32"
    labels: Budget | None = None  # of methods that may see some: 40, 4/class, 10% or all
    floor: str | None = None  # the baseline that a trained method should beat
    normaliser: str | None = None  # errors under corruption are divided by those of this method
    requires: Texts = ()  # distributions that must be installed
    set: Mapping[str, Any] = field(default_factory=dict)  # METHOD.PARAM -> value
    tuning: Tuning | None = None
    notes: Texts = ()  # what a reader of its tables must know
    title: str = ""  # of its leaderboards; "": its name
    authors: Texts = ()  # of its leaderboards

    def as_yaml(self) -> str:
        """Writes a complete suite file, which extends no other."""
        fields = dataclasses.asdict(self).items()
        plain = {k: v for k, v in fields if k in NEEDED or v not in (None, (), {}, "")}
        if self.tuning:
            settled = plain["tuning"].pop("settled")
            plain["tuning"] |= {"settled": sorted(settled)} if settled else {}
        return yaml12.dump(_listed(plain))


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


def load_suite(name: str, registry: Registry) -> Suite:
    """Loads a suite by its name, or from the path of a YAML file."""
    by_path = name.lower().endswith(ENDINGS)
    path = Path(name) if by_path else _home(name, registry)
    return _suite(path.stem if by_path else name, _content(path, registry), path)


def read_suite(path: Path) -> Suite:
    """Reads a suite from a file that extends no other."""
    return _suite(path.stem, _content(path, None), path)


def _home(name: str, registry: Registry) -> Path:
    try:
        return Path(str(registry.find("suites", name).load()))
    except UnknownName as error:
        if not Path(name).is_file():
            raise
        raise UserError(f"{error}; a suite's file ends in .yaml, {name} does not") from error


def _content(
    path: Path, registry: Registry | None, asking: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """Reads a file's fields and those of the suite that it extends, which it overrides.

    In `set` each setting is overridden by itself.
    """
    if not path.is_file():
        raise UserError(
            f"there is no suite file {path}; `sslbench list suites` has names of suites"
        )
    if path in asking:
        raise UserError(f"the suite {path} extends itself")
    content = yaml12.read(path, f"the suite {path}")
    if not isinstance(content, Mapping):
        raise UserError(f"the suite {path} must be a mapping of fields, such as summary: TEXT")
    own = dict(content)
    if "extends" not in own:
        return own
    if registry is None:
        raise UserError(
            f"the suite {path} extends {own['extends']!r}, but must have all fields itself here"
        )
    whole = _content(_home(str(own.pop("extends")), registry), registry, (*asking, path))
    if isinstance(own.get("set"), Mapping) and isinstance(whole.get("set"), Mapping):
        own["set"] = {**whole["set"], **own["set"]}
    whole.pop("name", None)
    return {**whole, **own}


def _suite(name: str, content: Mapping[str, Any], path: Path) -> Suite:
    try:
        suite = _SUITE.validate_python({"name": name, **content})
    except Invalid as error:
        raise UserError(_sentence(error, path)) from error
    seeds = suite.seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(
            f"seeds of the suite {path} must be whole numbers, each once, not {list(seeds)}"
        )
    _check_named(suite, path)
    if suite.tuning:
        _check_tuning(suite.tuning, seeds, path)
    return suite


_SUITE = TypeAdapter(Suite)
_WANTED = {  # pydantic's word for what went wrong -> what would work
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "mapping_type": "a mapping of METHOD.PARAMETER to values",
    "dict_type": "a mapping of METHOD.PARAMETER to values",
    "dataclass_type": "a mapping of fields",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "value_error": "{error}",
}


def _sentence(error: Invalid, path: Path) -> str:
    """Describes the first fault: which field, what was found, what would work."""
    faults = error.errors()
    for fault in faults:
        if fault["type"] == "unexpected_keyword_argument":
            return _unknown(fault["loc"], path)
    lacking = [".".join(map(str, f["loc"])) for f in faults if f["type"] == "missing"]
    if lacking:
        return f"the suite {path} lacks {', '.join(lacking)}"
    fault = faults[0]
    at, found = fault["loc"], fault["input"]
    wanted = _WANTED.get(fault["type"], fault["msg"]).format(**fault.get("ctx", {}))
    if at[0] in _LISTS and len(at) == 2:  # one of a list
        return (
            f"{at[0]} of the suite {path} must be a list of texts, not of {_shown(found)}; "
            f"write {_as_text(found)} in quotes"
        )
    where = f"{at[0] if at[0] == 'seeds' else '.'.join(map(str, at[:2]))} of the suite {path}"
    if at[:2] == ("tuning", "space") and len(at) > 2:
        where += f": {at[2]}"
    hint = f"; write {_as_text(found)} in quotes" if wanted == "text" and found is not None else ""
    return f"{where} must be {wanted}, not {_shown(found)}{hint}"


_LISTS = frozenset(f.name for f in dataclasses.fields(Suite) if f.type == "Texts")


def _unknown(at: Sequence[int | str], path: Path) -> str:
    kind = Tuning if at[0] == "tuning" else Suite
    near = suggestion(str(at[-1]), [f.name for f in dataclasses.fields(kind)])
    return f"the suite {path} has no field {'.'.join(map(str, at))!r}{near}"


def _shown(value: Any) -> str:
    said = repr(value) if isinstance(value, str) else written(value)
    return said if len(said) <= 80 else f"{said[:77]}..."


def _as_text(value: Any) -> str:
    """Quotes a value as text; `[folder: /x]`, which YAML reads as a mapping, becomes folder:/x."""
    if isinstance(value, Mapping) and len(value) == 1:
        return repr(":".join(map(str, *value.items())))
    return f"'{_shown(value)}'"


def _check_named(suite: Suite, path: Path) -> None:
    methods = (*suite.methods, *suite.baselines)
    for key in ("floor", "normaliser"):
        named = getattr(suite, key)
        if named is not None and named not in methods:
            raise UserError(
                f"{key} {named!r} of the suite {path} is none of its methods"
                f"{suggestion(named, methods)}"
            )


def _check_tuning(tuning: Tuning, seeds: tuple[int, ...], path: Path) -> None:
    if tuning.seed in seeds:
        raise UserError(
            f"tuning.seed of the suite {path} is {tuning.seed}, one of its seeds {list(seeds)}: "
            f"what is chosen on a seed must not be reported on it; set another"
        )
    if not tuning.space:
        raise UserError(f"tuning.space of the suite {path} must map METHOD.PARAMETER to choices")
