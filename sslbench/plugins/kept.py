"""Restores the global functions, generators and settings that importing a plugin changed."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

FIRST = frozenset(["numpy", "numpy.random", "torch"])  # their state is noted once they are imported
_MODULES = "random numpy numpy.random torch torch.random torch.nn.functional torch.nn.init"
WATCHED = tuple(_MODULES.split())
DRAWN = 5000  # numbers of 32 bits that an import may draw without counting as seeding
_SWITCHES = {  # torch's getters -> their setters
    "get_default_dtype": "set_default_dtype",
    "get_num_threads": "set_num_threads",
    "is_grad_enabled": "set_grad_enabled",
    "are_deterministic_algorithms_enabled": "use_deterministic_algorithms",
}


class _Value(NamedTuple):
    """A global value: how to read it, to set it, and to tell whether a change must be reported."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]
    matters: Callable[[Any, Any], bool]  # of its values before and now


class Kept:
    """Restores functions, generators and settings of random, numpy and torch after the body.

    A library that the body imports for the first time is noted as soon as it is imported. `changes`
    names what was replaced or seeded, but not generators from which numbers were only drawn, since
    libraries draw some when they are imported.
    """

    def __init__(self) -> None:
        self.changes: list[str] = []
        self._functions: dict[str, dict[str, Any]] = {}  # module -> name -> object
        self._values: dict[str, Any] = {}

    def __enter__(self) -> Kept:
        self._look()
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *error: object) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name, functions in self._functions.items():
            self._restore(name, functions)
        for what, value in self._known().items():
            before, now = self._values.get(what), value.get()
            if what in self._values and not _equal(before, now):
                value.set(before)
                if value.matters(before, now):
                    self.changes.append(what)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Imports the modules of FIRST as Python would, and notes their state once they are there."""
        spec = PathFinder.find_spec(name, path) if name in FIRST else None
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        whole = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            loader.exec_module = whole
            whole(module)
            self._look(name)

        loader.exec_module = exec_module
        return spec

    def _look(self, imported: str = "") -> None:
        """Notes the state of the modules that are imported and not noted yet."""
        for name in WATCHED:
            module = sys.modules.get(name)
            spec = getattr(module, "__spec__", None)
            whole = name == imported or not getattr(spec, "_initializing", False)
            if module is not None and whole and name not in self._functions:
                self._functions[name] = {k: v for k, v in vars(module).items() if _kept(k, v)}
        for what, value in self._known().items():
            if what not in self._values:
                self._values[what] = value.get()

    def _known(self) -> dict[str, _Value]:
        """The global values of the modules noted, with the functions that they had then."""
        ours = self._functions
        found: dict[str, _Value] = {}
        if "random" in ours:
            get, set_ = (ours["random"][name] for name in ("getstate", "setstate"))
            found["random's generator"] = _Value(get, set_, _seeded)
        if "numpy.random" in ours:
            get, set_ = (ours["numpy.random"][name] for name in ("get_state", "set_state"))
            found["numpy's generator"] = _Value(get, set_, _seeded_numpy)
        if "torch" in ours:
            generator: Any = sys.modules["torch._C"].default_generator
            found["torch's generator"] = _Value(
                generator.get_state, generator.set_state, _seeded_torch
            )
            for get, set_ in _SWITCHES.items():
                found[f"torch.{get}()"] = _Value(
                    ours["torch"][get], ours["torch"][set_], lambda before, now: True
                )
        return found

    def _restore(self, name: str, functions: dict[str, Any]) -> None:
        module = sys.modules.get(name)
        for key, function in functions.items() if module is not None else ():
            now = vars(module).get(key)
            of = getattr(now, "__globals__", {}).get("__name__", "")
            if now is function or of.partition(".")[0] == name.partition(".")[0]:
                continue  # libraries replace functions of their own
            setattr(module, key, function)
            self.changes.append(f"{name}.{key}")


def _kept(name: str, value: Any) -> bool:
    """Whether to note it: functions, but not classes such as torch.Storage, which settings change."""
    return callable(value) and (not isinstance(value, type) or name in _SWITCHES.values())


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool((one == other).all()) if hasattr(one, "shape") else bool(one == other)


def _seeded(before: Any, now: Any) -> bool:
    generator = random.Random()
    generator.setstate(before)
    for _ in range(DRAWN):
        if generator.getstate()[1] == now[1]:
            return False
        generator.getrandbits(32)
    return True


def _seeded_numpy(before: Any, now: Any) -> bool:
    generator = sys.modules["numpy.random"].RandomState()
    generator.set_state(before)
    for _ in range(DRAWN):
        if _equal(generator.get_state()[1:3], now[1:3]):
            return False
        generator.bytes(4)
    return True


def _seeded_torch(before: Any, now: Any) -> bool:
    generators = [sys.modules["torch"].Generator() for _ in range(2)]
    for generator, state in zip(generators, (before, now), strict=True):
        generator.set_state(state)
    one, other = (generator.initial_seed() for generator in generators)
    return bool(one != other)
