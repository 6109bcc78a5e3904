"""What a cell is: names, versions, resolved hyperparameters; its identity, its id, its seeds."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from .api import Evaluator, Labels, Method, Pretext, Recipe, Weights
from .errors import UserError, suggestion
from .names import Name, unplaced
from .names import parse as parse_name
from .records import canonical, digest

if TYPE_CHECKING:
    from .plugins import Entry, Registry

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


@dataclass(frozen=True)
class Judge:
    """An evaluator with its parameters: a protocol."""

    name: str  # as asked for, canonical
    version: int
    params: Mapping[str, Any]  # resolved
    protocol: str  # "knn-1", "knn-1[k=5]" away from the defaults, "tent-1(linear-1)" with a probe
    held_out: bool = False  # judges on the held-out tenth of train
    uses: tuple[Judge, ...] = ()  # whose probe it borrows
    extra: Mapping[str, Any] = field(default_factory=dict)  # what else decides its numbers
    others: Mapping[str, str] = field(default_factory=dict)  # further datasets -> fingerprint

    @property
    def family(self) -> str:
        """The protocol without parameters: variants of a judge draw the same numbers."""
        base = parse_name(self.name).base
        borrowed = f"({','.join(used.family for used in self.uses)})" if self.uses else ""
        return f"{base}-{self.version}{borrowed}{'@held-out' if self.held_out else ''}"

    def identity(self) -> dict[str, Any]:
        own = {"name": self.name, "version": self.version, "params": plain(self.params)}
        if self.uses:
            own["uses"] = [used.identity() for used in self.uses]
        if self.extra:
            own["extra"] = plain(self.extra)
        if self.others:
            own["data"] = dict(self.others)
        return {**own, "on": "held-out"} if self.held_out else own


def judged_identity(cell: Cell, judge: Judge) -> dict[str, Any]:
    """That of the record of a judge on a cell."""
    return {"cell": cell.id, "evaluator": judge.identity()}


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


# ---- methods ---------------------------------------------------------------------------------


class Anatomy(typing.NamedTuple):
    """A methods entry taken apart."""

    target: Any  # Method class, or the function of an encoder
    bound: Mapping[str, Any]  # arguments of a partial; a stage's as "agree.lr"
    hints: Mapping[str, Any]  # hyperparameter -> type
    defaults: Mapping[str, Any]
    recipe: Recipe | None


def anatomy(entry: Entry) -> Anatomy:
    """Hyperparameters, defaults and recipe of a methods entry; imports it."""
    target = entry.load()
    bound: dict[str, Any] = {}
    while isinstance(target, functools.partial):
        bound = {**target.keywords, **bound}
        target = target.func
    is_method = inspect.isclass(target) and issubclass(target, Method)
    if not is_method and (inspect.isclass(target) or not callable(target)):
        raise UserError(
            f"method {entry.name!r} of {entry.dist} is {target!r}; it must be a subclass of "
            f"sslbench.api.Method, a partial of one, or a function from backbone and data to a module"
        )
    function = target.__init__ if is_method else target
    hints, defaults = signature(function, what=f"method {entry.name!r}")
    recipe = target.recipe if is_method else None
    if is_method and (clash := sorted(set(hints) & set(FIELDS))):
        raise UserError(
            f"hyperparameter {clash[0]!r} of {entry.name!r} takes a recipe field's name"
        )
    stages = getattr(target, "stages", {})
    for name in bound:
        stage, _, leaf = name.rpartition(".")
        known = leaf in FIELDS and (stage in stages if stage else is_method)
        if name not in hints and not known:
            raise UserError(f"the partial {entry.name!r} sets {name!r}, which it does not have")
    if recipe is not None:
        recipe = dataclasses.replace(recipe, **{k: v for k, v in bound.items() if k in FIELDS})
    defaults = {**defaults, **{k: v for k, v in bound.items() if k in hints}}
    return Anatomy(target, bound, hints, defaults, recipe)


def signature(function: Any, *, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Types and defaults of the keyword-only parameters."""
    known = _signature if isinstance(function, types.FunctionType) else _signature.__wrapped__
    types_, defaults = known(function, what)
    return dict(types_), dict(defaults)


@functools.lru_cache(maxsize=1024)  # reading hints takes a while, and partials share a function
def _signature(function: Any, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    hints = typing.get_type_hints(function, include_extras=True)
    types_: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.default is inspect.Parameter.empty:
            raise UserError(f"parameter {name!r} of {what} needs a default")
        types_[name] = hints.get(name, type(parameter.default))
        defaults[name] = parameter.default
    return types_, defaults


def checked(value: Any, kind: Any, *, what: str) -> Any:
    """`value` as `kind`, or a sentence that says what was expected."""
    if kind in (Pretext, Weights):
        kind = str
    adapter = _adapter(kind)
    if adapter is None:
        return value  # a type only its method understands
    tries = [value]
    if isinstance(value, str):
        tries = [_scalar(value), value]
    for each in tries:
        if isinstance(each, bool) and not _admits_bool(kind):
            continue
        try:
            found = adapter.validate_python(each)
        except ValidationError:
            continue
        if not _endless(found):
            return found
    raise UserError(f"{what} expects {described(kind)}, got {value!r}")


def _endless(value: Any) -> bool:
    """No JSON, and so no identity, has infinity or NaN."""
    values = value if isinstance(value, tuple | list) else (value,)
    return any(isinstance(each, float) and not math.isfinite(each) for each in values)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(kind)
    except PydanticUserError:
        return None


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _admits_bool(kind: Any) -> bool:
    return kind is bool or kind is Any or bool in typing.get_args(kind)


def described(kind: Any) -> str:
    """A type in words."""
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    if kind in words:
        return words[kind]
    if kind is Pretext:
        return "the name of a method"
    if kind is Weights:
        return "the sha256 of weights"
    if typing.get_origin(kind) is typing.Annotated:
        plain_kind, *limits = typing.get_args(kind)
        return " ".join([described(plain_kind), *map(_limit, limits)])
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        inner = [a for a in typing.get_args(kind) if a is not Ellipsis]
        return f"a list of {', '.join(map(described, inner))}"
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(
            "none" if a is type(None) else described(a) for a in typing.get_args(kind)
        )
    return str(kind).replace("typing.", "")


def _limit(limit: Any) -> str:
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}
    return " ".join(f"{word} {getattr(limit, k)}" for k, word in words.items() if hasattr(limit, k))


@dataclass(frozen=True)
class Settings:
    """What a suite and the command line override: later layers win."""

    layers: tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...] = ()
    # each (for all methods: epochs, batch; by dotted name: "moco.lr", "scan.agree.lr")

    def of(self, *names: str, stage: str | None = None) -> dict[str, Any]:
        """The overrides that concern the method of these names, or this stage of it."""
        found: dict[str, Any] = {}
        for for_all, dotted in self.layers:
            found.update(for_all)
            for name in names:
                prefix = f"{name}.{stage}." if stage else f"{name}."
                for key, value in dotted.items():
                    if key.startswith(prefix) and "." not in key[len(prefix) :]:
                        found[key[len(prefix) :]] = value
        return found

    def names(self) -> set[str]:
        return {key for _, dotted in self.layers for key in dotted}


@functools.cache
def _recipe_types() -> dict[str, Any]:
    return typing.get_type_hints(Recipe)


def resolve_recipe(recipe: Recipe, overrides: Mapping[str, Any], *, what: str) -> Recipe:
    # Defaults too: 10 and 10.0 must not be two cells.
    values = {name: overrides.get(name, getattr(recipe, name)) for name in FIELDS}
    resolved = Recipe(
        **{k: checked(v, _recipe_types()[k], what=f"{what}.{k}") for k, v in values.items()}
    )
    if resolved.epochs < 0 or resolved.batch < 1:
        raise UserError(f"{what} asks for {resolved.epochs} epochs of batch {resolved.batch}")
    return resolved


@dataclass(frozen=True)
class Setting:
    """What the cells of one row of a matrix share: everything but the method."""

    backbone: str
    dataset: str
    fingerprint: str
    size: int
    seed: int
    precision: str = "fp32"
    budget: int | None = None


def resolve(method: str, registry: Registry, setting: Setting, settings: Settings) -> Cell:
    """The cell of `method` in this setting, with those of the pretexts it names."""
    return outline(method, registry, settings).at(setting)


@dataclass(frozen=True)
class Outline:
    """A cell before its setting is known: many seeds and datasets share one."""

    fields: Mapping[str, Any]  # of Cell
    pretexts: Mapping[str, Outline]

    def at(self, setting: Setting) -> Cell:
        pretexts = {name: pretext.at(setting) for name, pretext in self.pretexts.items()}
        return Cell(**self.fields, pretexts=pretexts, **vars(setting))


def outline(
    method: str, registry: Registry, settings: Settings, *, asking: tuple[str, ...] = ()
) -> Outline:
    """`method` under these settings. `asking`: the methods whose pretext it is."""
    if method in asking:
        raise UserError(f"{' -> '.join((*asking, method))}: a pretext cannot ask for itself")
    entry = registry.find("methods", method)
    parts = anatomy(entry)
    own = entry.name if entry.builtin else entry.qualified
    names = _spellings(entry, registry)
    asked = settings.of(*names)
    _known(method, asked, parts)
    values = {
        name: checked(asked.get(name, value), parts.hints[name], what=f"{method}.{name}")
        for name, value in parts.defaults.items()
    }
    recipe = None
    if parts.recipe is not None:
        of_recipe = {k: v for k, v in asked.items() if k in FIELDS}
        recipe = resolve_recipe(parts.recipe, of_recipe, what=method)
    pretexts = {
        value: outline(value, registry, settings, asking=(*asking, method))
        for name, value in values.items()
        if parts.hints[name] is Pretext
    }
    for name, pretext in pretexts.items():
        _no_more_labels(method, parts.target, name, pretext.fields["labels"])
    fields = {
        "method": own,
        "version": getattr(parts.target, "version", 1),
        "labels": getattr(parts.target, "labels", "none"),
        "hyperparameters": values,
        "recipe": recipe,
        "stages": _stages(names, parts, settings),
        "left_out": tuple(
            k for k, v in getattr(parts.target, "added", {}).items() if values.get(k) == v
        ),
        "source": entry.source_sha256() if entry.file else None,
    }
    return Outline(fields, pretexts)


def _spellings(entry: Entry, registry: Registry) -> tuple[str, ...]:
    """The names under which settings mean this entry: bare, where it owns that, and as records say."""
    try:
        owner = registry.find("methods", entry.name)
    except UserError:  # two plugins provide it: the bare name is nobody's
        owner = None
    return (entry.name, entry.qualified) if owner is entry else (entry.qualified,)


def _stages(
    names: tuple[str, ...], parts: Anatomy, settings: Settings
) -> dict[str, tuple[int, Recipe]]:
    found = {}
    for name, stage in getattr(parts.target, "stages", {}).items():
        dot = f"{name}."
        own = {k.removeprefix(dot): v for k, v in parts.bound.items() if k.startswith(dot)}
        asked = {**own, **settings.of(*names, stage=name)}
        recipe = resolve_recipe(stage.recipe, asked, what=f"{names[0]}.{name}")
        found[name] = (stage.version, recipe)
    return found


def _known(method: str, asked: Mapping[str, Any], parts: Anatomy) -> None:
    known = set(parts.hints) | (set(FIELDS) if parts.recipe is not None else set())
    for name in asked:
        if name in known or (parts.recipe is None and name in ("epochs", "batch")):
            continue
        raise UserError(f"{method} has no setting {name!r}{suggestion(name, known)}")


def _no_more_labels(method: str, target: Any, name: str, sees: Labels) -> None:
    order = ("none", "budget", "all")
    own = getattr(target, "labels", "none")
    if order.index(sees) > order.index(own):
        raise UserError(
            f"{method} may see labels: {own}, but its pretext {name} sees: {sees}; "
            f"choose a pretext that sees no more"
        )


def check_settings(registry: Registry, settings: Settings, methods: set[str]) -> None:
    """Every dotted name belongs to a known method, stage and field, even outside the selection."""
    for key in sorted(settings.names()):
        method, _, rest = key.partition(".")
        entry = registry.find("methods", method)  # UnknownName with a suggestion
        if not rest:
            raise UserError(f"--set {key}=... lacks a parameter: METHOD.PARAMETER=VALUE")
        if method not in methods:
            continue  # resolved, and so checked, where it is used
        stage, _, leaf = rest.rpartition(".")
        stages = getattr(anatomy(entry).target, "stages", {})
        if stage and stage not in stages:
            raise UserError(f"{method} has no stage {stage!r}{suggestion(stage, stages)}")
        if stage and leaf not in FIELDS:
            raise UserError(f"{method}.{stage} has no setting {leaf!r}{suggestion(leaf, FIELDS)}")


# ---- evaluators ------------------------------------------------------------------------------


def resolve_judge(
    name: str, registry: Registry, *, held_out: bool = False
) -> tuple[Judge, Evaluator]:
    """The judge that `knn` or `knn[k=5]` names, and what runs it."""
    judge, cls, given = find_judge(name, registry, held_out=held_out)
    evaluator = cls(**given)
    return dataclasses.replace(judge, extra=evaluator.extra()), evaluator


def find_judge(
    name: str, registry: Registry, *, held_out: bool = False
) -> tuple[Judge, type[Evaluator], dict[str, Any]]:
    """The judge that a name names, its class, and what the name's bracket gives the constructor."""
    asked: Name = parse_name(name)
    entry = registry.find("evaluators", asked.base)
    cls = entry.load()
    if not (inspect.isclass(cls) and issubclass(cls, Evaluator)):
        raise UserError(f"evaluator {asked.base!r} of {entry.dist} is {cls!r}, not an Evaluator")
    hints, defaults = signature(cls.__init__, what=f"evaluator {asked.base!r}")
    for key in asked.params:
        if key not in hints:
            raise UserError(f"{asked.base} has no parameter {key!r}{suggestion(key, hints)}")
    given = {k: checked(v, hints[k], what=f"{asked.base}[{k}]") for k, v in asked.params.items()}
    given = {k: v for k, v in given.items() if v != defaults[k]}
    own = entry.name if entry.builtin else f"{entry.dist}/{entry.name}"
    bracket = str(Name(own, None, given)).removeprefix(own)
    uses = tuple(resolve_judge(used, registry)[0] for used in cls.uses)
    borrowed = f"({','.join(used.protocol for used in uses)})" if uses else ""
    protocol = f"{own}-{cls.version}{borrowed}{bracket}"
    protocol += "@held-out" if held_out else ""
    values = {**defaults, **given}
    params = {k: v for k, v in values.items() if k not in cls.added or v != cls.added[k]}
    judge = Judge(own + bracket, cls.version, params, protocol, held_out, uses)
    return judge, cls, given
