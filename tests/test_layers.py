"""The house: who may import whom, and where a method's, dataset's or backbone's name may stand."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import house
import pytest
import yaml

import sslbench
from sslbench.plugins import registry

ROOT = Path(sslbench.__file__).parent
PAGE = Path(__file__).parents[1] / "docs/architecture.md"
OUTSIDE = {"pluggy": {"hookspecs", "plugins"}, "click": {"cli"}}  # who alone imports these
FILES = house.modules(ROOT)
LAYERS = house.layers(PAGE)
ORDER = [room for layer in LAYERS for room in layer]
INSIDE = [layer[0] for layer in house.layers(PAGE, "leaderboard")]
THINGS = next(layer for layer in LAYERS if "methods" in layer)
CONTRACT = LAYERS[-1]
FOREIGN = {
    ("api", "torch"),
    ("api", "annotated_types"),
    ("hookspecs", "pluggy"),
    ("records", "pydantic"),
}
HOMES = {  # (kind, name) -> the module that provides it
    (kind, name): entry.target.partition(":")[0].removeprefix("sslbench.")
    for kind in ("methods", "datasets", "backbones", "evaluators")
    for name, entry in registry(installed=False).entries(kind).items()
}
HOMONYMS = {("backbones.building", "pretrained")}  # there it is an argument of timm's


@pytest.mark.parametrize("module", [m for m in FILES if m not in ("__init__", "__main__")])
def test_a_module_imports_only_what_stands_below_it(module: str) -> None:
    room = module.partition(".")[0]
    assert room in ORDER, f"give {room} a place in {PAGE.name}"
    for other in house.imported(module, FILES, ROOT):
        top = other.partition(".")[0]
        if top in ORDER:
            _check(module, other, ORDER, "sslbench")
            assert other not in HOMES.values(), f"{module} imports {other}: compose by name"
            assert top == room or not {room, top} <= set(THINGS), (
                f"{module} imports {other}: a thing imports parts and the contract alone"
            )
        assert room in OUTSIDE.get(top, {room}), f"{module} imports {other}"
        if room in CONTRACT and (room, top) not in FOREIGN:
            assert top in {*ORDER, *sys.stdlib_module_names, "sslbench"}, (
                f"{module} imports {other}: the contract leans on nothing"
            )


@pytest.mark.parametrize("module", [m for m in FILES if m.startswith("leaderboard.")])
def test_rooms_of_the_leaderboard_import_downwards_too(module: str) -> None:
    for other in house.imported(module, FILES, ROOT):
        if other.startswith("leaderboard."):
            _check(*(each.removeprefix("leaderboard.") for each in (module, other)), INSIDE, "it")


def _check(module: str, other: str, order: list[str], what: str) -> None:
    room, top = (each.partition(".")[0] for each in (module, other))
    assert order.index(room) <= order.index(top), (
        f"{module} imports {other}, and {room} stands below {top} in the list of {PAGE.name}: "
        f"a room of {what} imports only what stands below it"
    )


def test_files_do_not_import_one_another_in_circles() -> None:
    assert house.circles(house.arrows(FILES, ROOT)) == []


def test_the_house_has_few_entries_and_each_folder_says_what_is_in_it() -> None:
    entries = [p for p in ROOT.iterdir() if p.name not in ("__pycache__", "py.typed")]
    assert len(entries) <= 35
    assert {p.stem for p in entries} - {"__init__", "__main__"} == set(ORDER)
    folders = {path.parent for path in ROOT.rglob("*.py")} - {ROOT}
    for folder in folders:
        face = folder / "__init__.py"
        assert face.is_file(), folder
        assert ast.get_docstring(ast.parse(face.read_bytes())), face


def test_an_import_that_runs_up_is_refused_with_both_names_and_the_rule() -> None:
    with pytest.raises(
        AssertionError, match=r"nn imports train.loop, and nn stands below train .*"
    ):
        _check("nn", "train.loop", ORDER, "sslbench")
    _check("train.loop", "nn", ORDER, "sslbench")


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


@cache
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
        named = named | backbones()
    said = {text.partition("[")[0] for text in literals(ast.parse(FILES[module].read_bytes()))}
    found = {name for name in said & named if (module, name) not in HOMONYMS}
    assert not found
