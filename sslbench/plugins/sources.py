"""Reads Python sources without importing them: where code is, its docstrings and its comments."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class ModuleFiles(NamedTuple):
    path: Path | None  # of the module's source
    folders: list[Path]  # of its submodules


class Definition(NamedTuple):
    path: Path | None
    documentation: str | None
    name: str  # in that file: a re-export may have another


class Remark(NamedTuple):
    """The comment behind a default, which reads "what it is; source", or either of them alone."""

    what: str  # "" where nothing is said
    source: str  # "paper ...", "code ..." or "ours ..."; "" where none is given


def place(module: str) -> ModuleFiles:
    """Finds the files of a module.

    It asks `find_spec` for the top package only, since that would import parent packages.
    """
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return ModuleFiles(None, [])
    path = Path(spec.origin) if spec.origin and spec.has_location else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for part in parts:
        inside = [folder / part for folder in folders]
        files = (file for at in inside for file in (at / "__init__.py", Path(f"{at}.py")))
        path = next((file for file in files if file.is_file()), None)
        folders = [at for at in inside if at.is_dir()]
    return ModuleFiles(path, folders)


def definition(target: str, hops: int = 4) -> Definition:
    """Finds where "module:attribute" is defined, and its documentation; follows re-exports."""
    module, _, attribute = target.partition(":")
    path = place(module).path
    if path is None:
        return Definition(None, None, attribute)
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
    return Definition(path, _text(statement, after), attribute)


def constant(path: Path, name: str) -> Any:
    """The literal that a module assigns to a name at its top level; None where it assigns none."""
    statement, _ = _binding(ast.parse(path.read_bytes()).body, name)
    return ast.literal_eval(statement.value) if isinstance(statement, ast.Assign) else None


def remarks(path: Path, name: str) -> dict[str, Remark]:
    """Reads the comments behind the defaults of a class, a function or a partial.

    Of a class it reads fields, the keywords of `recipe = Recipe(...)` and the keyword-only
    parameters of `__init__`; of a function the keyword-only parameters; of a `partial` its keywords,
    added to those of what it is made from. A default without a comment has an empty remark.
    """
    text = path.read_bytes()
    comments = {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokenize.tokenize(io.BytesIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    return _remarks(ast.parse(text).body, name, comments)


def above(below: Mapping[str, Remark], own: Mapping[str, Remark]) -> dict[str, Remark]:
    """Merges remarks on defaults with those on defaults that override them.

    An overriding default keeps the description of the other, but not its source.
    """
    nothing = Remark("", "")
    kept = {k: Remark(r.what or below.get(k, nothing).what, r.source) for k, r in own.items()}
    return {**below, **kept}


def headings(path: Path, function: str) -> dict[str, str]:
    """Keys of the dictionary literal in a function -> the last comment line above each."""
    text = path.read_text(encoding="utf-8")
    statement, _ = _binding(ast.parse(text).body, function)
    found, heading = {}, ""
    for line in text.splitlines()[statement.lineno : statement.end_lineno] if statement else ():
        if comment := re.match(r"\s*#\s*(.*)", line):
            heading = comment[1]
        elif key := re.match(r'\s*"([^"]+)":', line):
            found[key[1]] = heading
    return found


def _remarks(body: list[ast.stmt], name: str, comments: Mapping[int, str]) -> dict[str, Remark]:
    below: dict[str, Remark] = {}
    first, *rest = name.split(".")
    statement, _ = _binding(body, first)
    for part in rest:
        statement, _ = _binding(getattr(statement, "body", []), part)
    if statement is None:
        return below
    if isinstance(call := getattr(statement, "value", None), ast.Call) and call.args:
        made_of = call.args[0]
        if isinstance(made_of, ast.Name) and made_of.id != name:
            below = _remarks(body, made_of.id, comments)
    own = {}
    for key, start, end in _defaults(statement):
        text = " ".join(comments[line] for line in range(start, end + 1) if line in comments)
        own[key] = _remark(text)
    return above(below, own)


def _defaults(statement: ast.stmt) -> Iterator[tuple[str, int, int]]:
    """Yields each default in a statement, with its first and last line."""
    call = getattr(statement, "value", None)
    if isinstance(statement, ast.ClassDef):
        for part in statement.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                yield part.target.id, *_lines(part, part)
            if {"recipe", "__init__"} & set(_bound(part)):
                yield from _defaults(part)
    elif isinstance(statement, ast.FunctionDef):
        arguments = statement.args
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            yield argument.arg, *_lines(argument, default or argument)
    elif isinstance(call, ast.Call):
        for keyword in call.keywords:
            yield from _keywords(keyword)


def _keywords(keyword: ast.keyword) -> Iterator[tuple[str, int, int]]:
    if keyword.arg:
        yield keyword.arg, *_lines(keyword, keyword)
    elif isinstance(keyword.value, ast.Dict):  # **{"stage.lr": 0.1}
        for key, value in zip(keyword.value.keys, keyword.value.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), *_lines(key, value)


def _lines(first: ast.AST, last: ast.AST) -> tuple[int, int]:
    start: int = getattr(first, "lineno", 0)
    return start, getattr(last, "end_lineno", None) or start


def _remark(comment: str) -> Remark:
    what, _, source = comment.rpartition(";")
    if re.match(r"(paper|code|ours)\b", source.strip()):
        return Remark(what.strip(), source.strip())
    return Remark(comment, "")


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
