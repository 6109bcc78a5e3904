"""Reads the keyword-only parameters of methods and evaluators, and checks values for them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from ..api import Method, Pretext, Recipe, Weights
from ..errors import UserError, suggestion
from ..names import LONGEST, Name, plain_scalar
from .cell import FIELDS
from .yaml12 import written

if TYPE_CHECKING:
    from ..plugins import Entry


class Anatomy(typing.NamedTuple):
    """What a methods entry consists of."""

    target: Any  # Method class, or the function of an encoder
    bound: Mapping[str, Any]  # arguments of a partial, those of a stage as "agree.lr"
    hints: Mapping[str, Any]  # hyperparameter -> type
    defaults: Mapping[str, Any]
    recipe: Recipe | None


def anatomy(entry: Entry) -> Anatomy:
    """Imports a methods entry and finds its hyperparameters, defaults and recipe."""
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
            f"hyperparameter {clash[0]!r} of {entry.name!r} has the name of a recipe field; rename it"
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


def bracketed(asked: Name, hints: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in a name's bracket, as their types want them.

    Raises:
        UserError: one is unknown, or its value does not suit.
    """
    for key in asked.params:
        if key not in hints:
            raise UserError(f"{asked.base} has no parameter {key!r}{suggestion(key, hints)}")
    return {k: checked(v, hints[k], what=f"{asked.base}[{k}]") for k, v in asked.params.items()}


def checked(value: Any, kind: Any, *, what: str) -> Any:
    """Converts `value` to `kind`; UserError says what was expected.

    A list may become a tuple, 10 a number and 1e1 an integer. Text never becomes anything else.
    """
    if kind in (Pretext, Weights):
        kind = str
    adapter = _adapter(kind)
    if adapter is None:
        return value  # only its method understands this type

    def refusal() -> UserError:
        found = f"got {_shown(value)}{_quotes(value, kind)}"
        return UserError(f"{what} expects {described(kind)}, {found}")

    if isinstance(value, bool) and not _admits_bool(kind):
        raise refusal()
    try:
        found = adapter.validate_python(value)
    except ValidationError as error:
        raise refusal() from error
    if _endless(found) or _read_from_text(value, found):
        raise refusal()
    return found


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else written(value)


def _quotes(value: Any, kind: Any) -> str:
    """Suggests to add or to remove quotes, where that would help."""
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if isinstance(value, str) and kind in (int, float, bool) and len(value) <= LONGEST:
        fits = isinstance(plain_scalar(value), bool if kind is bool else int | float)
        return f"; write {value} without quotes" if fits else ""
    text = kind is str and isinstance(value, int | float)
    return f"; write '{written(value)}' in quotes" if text else ""


def _endless(value: Any) -> bool:
    """Whether it holds infinity or NaN, which JSON, and so an identity, cannot have."""
    values = value if isinstance(value, tuple | list) else (value,)
    return any(isinstance(each, float) and not math.isfinite(each) for each in values)


def _read_from_text(value: Any, found: Any) -> bool:
    """Whether pydantic converted text such as 'yes' or '3' to a truth value or a number."""
    if isinstance(value, str):
        return isinstance(found, bool | int | float)
    if isinstance(value, Mapping) and isinstance(found, Mapping):
        pairs = zip(value.values(), found.values(), strict=False)
    elif isinstance(value, list | tuple) and isinstance(found, list | tuple):
        pairs = zip(value, found, strict=False)
    else:
        return False
    return any(_read_from_text(*pair) for pair in pairs)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(kind)
    except PydanticUserError:
        return None


def _admits_bool(kind: Any) -> bool:
    return kind is bool or kind is Any or bool in typing.get_args(kind)


def described(kind: Any) -> str:
    """Describes a type in words."""
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
