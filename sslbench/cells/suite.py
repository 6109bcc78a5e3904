"""Suites: named protocols, read from YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, suggestion
from ..plugins import Registry

NEEDED = ("summary", "datasets", "backbones", "methods", "baselines", "evaluators", "seeds")


@dataclass(frozen=True)
class Tuning:
    """How a suite finds each method's recipe: the same number of random trials for all."""

    trials: int
    epochs: int  # of a trial, a stage
    judge: str  # its first metric on the held-out tenth of train chooses
    seed: int  # of the trials' cells, and of the draws; none of the suite's own
    space: Mapping[str, Any]  # METHOD.PARAM or *.PARAM -> a list of values, or {times: [low, high]}
    settled: frozenset[str] = frozenset()  # METHOD.PARAM that are set by hand: not searched


@dataclass(frozen=True)
class Suite:
    """A named protocol."""

    name: str
    summary: str
    datasets: tuple[str, ...]
    backbones: tuple[str, ...]
    methods: tuple[str, ...]  # unless others are asked for
    baselines: tuple[str, ...]
    evaluators: tuple[str, ...]
    seeds: tuple[int, ...]
    once: tuple[str, ...] = ()  # evaluators that judge the first seed alone
    epochs: int | None = None  # a stage, for all methods; None: each recipe's own
    batch: int | None = None
    precision: str = "fp32"
    labels: int | None = None  # the budget of methods that may see some
    floor: str | None = None  # the baseline that a trained method should beat
    normaliser: str | None = None  # the method by whose errors those under corruption are divided
    requires: tuple[str, ...] = ()  # distributions
    set: Mapping[str, Any] = field(default_factory=dict)  # METHOD.PARAM -> value
    tuning: Tuning | None = None
    notes: tuple[str, ...] = ()  # what a reader of its tables must know

    def as_yaml(self) -> str:
        """A suite file that says all of it, and extends none."""
        fields = dataclasses.asdict(self).items()
        plain = {k: v for k, v in fields if k in NEEDED or v not in (None, (), {})}
        if self.tuning:
            settled = plain["tuning"].pop("settled")
            plain["tuning"] |= {"settled": sorted(settled)} if settled else {}
        return yaml.safe_dump(_listed(plain), sort_keys=False, allow_unicode=True, width=100)


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


def load_suite(name: str, registry: Registry) -> Suite:
    """A suite by name, or from a YAML file's path, which may say its name."""
    by_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if by_path else _home(name, registry)
    return _suite(path.stem if by_path else name, _content(path, registry), path)


def read_suite(path: Path) -> Suite:
    """A suite from a file that extends none."""
    return _suite(path.stem, _content(path, None), path)


def _home(name: str, registry: Registry) -> Path:
    return Path(str(registry.find("suites", name).load()))


def _content(
    path: Path, registry: Registry | None, asking: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """A file's fields over those of the suite it extends; of `set`, each setting by itself."""
    if not path.is_file():
        raise UserError(f"no suite file {path}")
    if path in asking:
        raise UserError(f"the suite {path} extends itself")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise UserError(f"the suite {path} is no readable YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"the suite {path} must be a mapping of fields")
    own = dict(content)
    if "extends" not in own:
        return own
    if registry is None:
        raise UserError(f"the suite {path} must be whole, and extends {own['extends']!r}")
    whole = _content(_home(str(own.pop("extends")), registry), registry, (*asking, path))
    if isinstance(own.get("set"), Mapping):
        own["set"] = {**whole.get("set", {}), **own["set"]}
    whole.pop("name", None)
    return {**whole, **own}


def _suite(name: str, content: Mapping[str, Any], path: Path) -> Suite:
    known = {f.name: f for f in dataclasses.fields(Suite)}
    for key in content:
        if key not in known:
            raise UserError(f"the suite {path} has no field {key!r}{suggestion(str(key), known)}")
    if lacking := [key for key in NEEDED if key not in content]:
        raise UserError(f"the suite {path} lacks {', '.join(lacking)}")
    values: dict[str, Any] = {}
    for key, value in content.items():
        if str(known[key].type).startswith("tuple"):
            if not isinstance(value, list):
                raise UserError(f"{key} of the suite {path} must be a list, not {value!r}")
            value = tuple(value if key == "seeds" else map(str, value))
        values[key] = value
    seeds = values["seeds"]
    sound = all(type(seed) is int and seed >= 0 for seed in seeds)
    if not sound or not seeds or len(set(seeds)) < len(seeds):
        raise UserError(
            f"seeds of the suite {path} must be whole numbers, each once, not {list(seeds)}"
        )
    settings = values.get("set", {})
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise UserError(f"set of the suite {path} must map METHOD.PARAMETER to values")
    _check_kinds(values, path)
    _check_named(values, path)
    if "tuning" in values:
        values["tuning"] = _tuning(values["tuning"], values["seeds"], path)
    values["name"] = str(values.get("name", name))
    return Suite(**values)


def _check_kinds(values: Mapping[str, Any], path: Path) -> None:
    kinds = {
        "a text": (str, ("name", "summary", "precision", "floor", "normaliser")),
        "a whole number": (int, ("epochs", "batch", "labels")),
    }
    for what, (kind, keys) in kinds.items():
        for key in keys:
            value = values.get(key)
            if value is not None and type(value) is not kind:
                raise UserError(f"{key} of the suite {path} must be {what}, not {value!r}")


def _check_named(values: Mapping[str, Any], path: Path) -> None:
    methods = (*values["methods"], *values["baselines"])
    for key in ("floor", "normaliser"):
        named = values.get(key)
        if named is not None and named not in methods:
            raise UserError(
                f"{key} {named!r} of the suite {path} is none of its methods"
                f"{suggestion(str(named), methods)}"
            )


def _tuning(content: Any, seeds: tuple[int, ...], path: Path) -> Tuning:
    fields = [f.name for f in dataclasses.fields(Tuning) if f.default is dataclasses.MISSING]
    if not isinstance(content, Mapping) or set(content) - {"settled"} != set(fields):
        raise UserError(f"tuning of the suite {path} must map {', '.join(fields)}")
    settled = content.get("settled", [])
    if not isinstance(settled, list):
        raise UserError(f"tuning.settled of the suite {path} must be a list, not {settled!r}")
    tuning = Tuning(**{**content, "settled": frozenset(map(str, settled))})
    for what, number in (("trials", tuning.trials), ("epochs", tuning.epochs)):
        if not isinstance(number, int) or number < 1:
            raise UserError(f"tuning.{what} of the suite {path} must be 1 or more, not {number!r}")
    if tuning.seed in seeds:
        raise UserError(
            f"tuning.seed of the suite {path} is {tuning.seed}, one of its seeds {list(seeds)}: "
            f"what is chosen on a seed must not be reported on it; set another"
        )
    if not isinstance(tuning.space, Mapping) or not tuning.space:
        raise UserError(f"tuning.space of the suite {path} must map METHOD.PARAMETER to choices")
    for key, choices in tuning.space.items():
        _check_choices(key, choices, path)
    return tuning


def _check_choices(key: str, choices: Any, path: Path) -> None:
    if isinstance(choices, list) and choices:
        return
    if isinstance(choices, Mapping) and set(choices) == {"times"}:
        ends = choices["times"]
        numbers = isinstance(ends, list) and all(isinstance(end, int | float) for end in ends)
        if numbers and len(ends) == 2 and 0 < ends[0] < ends[1]:
            return
    raise UserError(
        f"tuning.space of the suite {path}: {key} must be a list of values, or "
        f"{{times: [low, high]}} with 0 < low < high, not {choices!r}"
    )
