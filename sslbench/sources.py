"""Python sources, read without importing anything: where code lives and what it says of itself."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from pathlib import Path
from typing import Any, NamedTuple


class Place(NamedTuple):
    path: Path | None  # of the module's source
    folders: list[Path]  # of its submodules


class Definition(NamedTuple):
    path: Path | None
    documentation: str | None


def place(module: str) -> Place:
    """Where a module lives. `find_spec` imports parents, so only the top package is asked for."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return Place(None, [])
    path = Path(spec.origin) if spec.origin and spec.has_location else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for part in parts:
        inside = [folder / part for folder in folders]
        files = (file for at in inside for file in (at / "__init__.py", Path(f"{at}.py")))
        path = next((file for file in files if file.is_file()), None)
        folders = [at for at in inside if at.is_dir()]
    return Place(path, folders)


def definition(target: str, hops: int = 4) -> Definition:
    """Where "module:attribute" is defined, and its documentation; follows re-exports."""
    module, _, attribute = target.partition(":")
    path = place(module).path
    if path is None:
        return Definition(None, None)
    first, *rest = attribute.split(".")
    statement, after = _binding(ast.parse(path.read_bytes()).body, first)
    if isinstance(statement, ast.ImportFrom) and hops:
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        home = importlib.util.resolve_name(
            "." * statement.level + (statement.module or ""), package
        )
        origin = next(a.name for a in statement.names if (a.asname or a.name) == first)
        return definition(f"{home}:{'.'.join([origin, *rest])}", hops - 1)
    for part in rest:
        statement, after = _binding(getattr(statement, "body", []), part)
    return Definition(path, _text(statement, after))


def constant(path: Path, name: str) -> Any:
    """The literal that a module assigns to a name at its top level; None where it assigns none."""
    statement, _ = _binding(ast.parse(path.read_bytes()).body, name)
    return ast.literal_eval(statement.value) if isinstance(statement, ast.Assign) else None


def _binding(body: list[ast.stmt], name: str) -> tuple[ast.stmt | None, ast.stmt | None]:
    """The last statement that binds a name, and the statement that follows it."""
    for statement, after in reversed([*zip(body, [*body[1:], None], strict=True)]):
        if name in _bound(statement):
            return statement, after
    return None, None


def _bound(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [statement.name]
    if isinstance(statement, ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _text(statement: ast.stmt | None, after: ast.stmt | None) -> str | None:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return ast.get_docstring(statement)
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        return inspect.cleandoc(str(after.value.value))
    return None
