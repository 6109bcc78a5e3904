"""The house: who may import whom, and where a method's, dataset's or backbone's name may stand."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import sslbench
from sslbench.plugins import registry

ROOT = Path(sslbench.__file__).parent
LAYERS = [
    "api errors events hookspecs names sources",
    "nn cluster views corruptions optim arrays scores logistic measures layout",
    "methods evaluators datasets backbones suites",
    "plugins builtin train features store records data identity feed state execute "
    "environment health suite corrupted weights",
    "bench checks executors external leaderboard loading planning preflight scaffold selection "
    "testing timing tracking tuning",
    "cli __main__",
]
LAYER = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms.split()}
MAY = [{0}, {0}, {0, 1}, {0, 1, 3}, {0, 1, 3, 4}, {0, 1, 2, 3, 4, 5}]  # and its own room
OUTSIDE = {"pluggy": {"hookspecs", "plugins"}, "click": {"cli"}}  # who alone imports these
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
HOMES = {  # (kind, name) -> the module that provides it
    (kind, name): entry.target.partition(":")[0].removeprefix("sslbench.")
    for kind in ("methods", "datasets", "backbones", "evaluators")
    for name, entry in registry(installed=False).entries(kind).items()
}
HOMONYMS = {("backbones.timm", "pretrained")}  # there it is an argument of timm's


def imported(module: str) -> Iterator[str]:
    """Dotted names of all that a module imports, wherever it does; ours without "sslbench."."""
    path = FILES[module]
    home = ("sslbench", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("sslbench.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = home[: len(home) - node.level + 1] if node.level else ()
            source = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:  # an alias may be a module or something in one
                whole = f"{source}.{alias.name}".removeprefix("sslbench.")
                yield whole if whole in FILES else source.removeprefix("sslbench.")


@pytest.mark.parametrize("module", [module for module in FILES if module != "__init__"])
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    room = module.partition(".")[0]
    assert room in LAYER, f"give {room} a place in LAYERS"
    for other in imported(module):
        top = other.partition(".")[0]
        if top in LAYER:
            assert top == room or LAYER[top] in MAY[LAYER[room]], f"{module} imports {other}"
            assert other not in HOMES.values(), f"{module} imports {other}: compose by name"
        assert room in OUTSIDE.get(top, {room}), f"{module} imports {other}"
        if LAYER[room] == 0 and (room, top) not in {
            ("api", "torch"),
            ("api", "annotated_types"),
            ("hookspecs", "pluggy"),
        }:
            assert top in {*LAYER, *sys.stdlib_module_names, "sslbench"}, (
                f"{module} imports {other}"
            )


def literals(tree: ast.Module) -> Iterator[str]:
    """Strings of a module, but for documentation and the defaults of pretexts."""
    exempt: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            exempt.add(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            exempt.update(node.args if node.func.id == "Pretext" else ())
        if isinstance(node, ast.arguments):
            for given, default in zip(node.kwonlyargs, node.kw_defaults, strict=True):
                if isinstance(given.annotation, ast.Name) and given.annotation.id == "Pretext":
                    exempt.update(ast.walk(default) if default else ())
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in exempt:
            yield node.value


def backbones() -> set[str]:
    """Those that suites name: every name of timm is one, so there is no list."""
    suites = [yaml.safe_load(path.read_text()) for path in ROOT.glob("suites/*.yaml")]
    return {name.partition("[")[0] for suite in suites for name in suite.get("backbones", ())}


@pytest.mark.parametrize("module", [module for module in FILES if module != "builtin"])
def test_no_name_of_a_component_stands_outside_its_own_file(module: str) -> None:
    named = {
        name for (kind, name), home in HOMES.items() if kind != "evaluators" and home != module
    } - {"*"}
    if HOMES["backbones", "*"] != module:
        named |= backbones()
    said = {text.partition("[")[0] for text in literals(ast.parse(FILES[module].read_bytes()))}
    found = {name for name in said & named if (module, name) not in HOMONYMS}
    assert not found
