"""Measures the structure of the package. `python tests/house.py [FOLDER]` prints the figures.

A room is an entry at the top of the package. An arrow is one room that imports another. Floors are
the rooms on the longest way down the arrows. A circle is a set of files that import each other.
Imports are read from the sources; nothing is run.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def modules(root: Path) -> dict[str, Path]:
    """Files of the package by dotted name; an `__init__.py` has the name of its folder."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(root.rglob("*.py"))
    }


def imported(module: str, files: Mapping[str, Path], root: Path) -> Iterator[str]:
    """Dotted names of all that a module imports anywhere; ours without the package's name."""
    home = (root.name, *files[module].relative_to(root).parts[:-1])
    prefix = f"{root.name}."
    for node in ast.walk(ast.parse(files[module].read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix(prefix) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = home[: len(home) - node.level + 1] if node.level else ()
            source = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:  # an alias may be a module or something in one
                whole = f"{source}.{alias.name}".removeprefix(prefix)
                yield whole if whole in files else source.removeprefix(prefix)


def arrows(files: Mapping[str, Path], root: Path) -> dict[str, set[str]]:
    """For each file, the other files of the package that it imports."""
    return {
        module: {other for other in imported(module, files, root) if other in files} - {module}
        for module in files
        if module not in ("__init__", "__main__")
    }


def layers(page: Path, block: str = "layers") -> list[list[str]]:
    """The rooms in a block of `docs/architecture.md`, layer by layer from the top."""
    found = re.search(rf"```{block}\n(.*?)```", page.read_text(), re.DOTALL)
    assert found, f"{page} has no block {block}"
    return [line.split("#")[0].split() for line in found[1].splitlines() if line.split("#")[0]]


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of files that all import each other, directly or not."""
    reached = {start: _reached(start, graph) for start in graph}
    found = []
    for start in graph:
        loop = {other for other in reached[start] if start in reached.get(other, ())}
        if loop and loop not in found:
            found.append(loop)
    return found


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for other in graph.get(todo.pop(), ()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def rooms(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Arrows between rooms, from arrows between files."""
    found: dict[str, set[str]] = {}
    for module, others in graph.items():
        top = module.partition(".")[0]
        found.setdefault(top, set()).update(o.partition(".")[0] for o in others)
    return {top: others - {top} for top, others in found.items()}


def floors(between: Mapping[str, set[str]]) -> int:
    """Number of rooms on the longest way down; rooms in a circle count as one."""
    of = {room: f"circle {i}" for i, loop in enumerate(circles(between)) for room in loop}
    below: dict[str, set[str]] = {}
    for room, others in between.items():
        below.setdefault(of.get(room, room), set()).update(of.get(other, other) for other in others)

    @cache
    def depth(room: str) -> int:
        return 1 + max((depth(other) for other in below.get(room, set()) - {room}), default=0)

    return max(map(depth, below))


def upward(between: Mapping[str, set[str]], order: Iterable[str]) -> list[tuple[str, str]]:
    """Arrows from a room to one that comes before it in the list."""
    place = {room: at for at, room in enumerate(order)}
    return [(a, b) for a, others in between.items() for b in others if place[a] > place[b]]


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "sslbench").resolve()
    files = modules(root)
    graph = arrows(files, root)
    between = rooms(graph)
    entries = [p for p in root.iterdir() if p.name not in ("__pycache__", "py.typed")]
    lines = sum(len(path.read_bytes().splitlines()) for path in files.values())
    figures = {
        "entries at the top": len(entries),
        "files": len(files),
        "lines": lines,
        "arrows between rooms": sum(map(len, between.values())),
        "arrows between files": sum(map(len, graph.values())),
        "floors": floors(between),
        "circles of rooms": len(circles(between)),
        "circles of files": len(circles(graph)),
    }
    for what, figure in figures.items():
        print(f"{figure:7,}  {what}")
    for loop in circles(graph):
        print("circle:", ", ".join(sorted(loop)))


if __name__ == "__main__":
    main()
