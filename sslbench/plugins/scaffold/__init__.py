"""Writes the package of a new plugin, from templates in which only names are filled in.

Every file under `templates/every` and `templates/KIND` ends in ".in" and is a `string.Template`. It
is written to the same place in the package; the folder `package` takes the name of the module.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from ... import __version__
from ...errors import UserError
from ...hookspecs import API_VERSION

TEMPLATES = Path(__file__).parent / "templates"
THINGS = {  # kind -> what its module provides; "": a class, named after the plugin
    "method": "",
    "backbone": "create",
    "dataset": "",
    "evaluator": "",
    "command": "command",
}
PREFIX = "sslbench-"
LONGEST = 64  # characters of a name in the registry
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # of the packaging specifications
FOLDERS = ("build", "dist", "tests")  # that may stand beside the module
RUNS = {
    "method": "sslbench run --methods {key} --seeds 0",
    "backbone": "sslbench run --backbones {key} --seeds 0",
    "dataset": "sslbench run --datasets {key} --seeds 0",
    "evaluator": "sslbench run --evaluators {key} --seeds 0",
    "command": "sslbench {key} --help",
}


@dataclass(frozen=True)
class PackageNames:
    """The names of a new plugin: of its distribution, entry, module and class."""

    kind: str
    dist: str  # of the distribution, as asked for, and of the folder
    key: str  # what `sslbench list` shows
    module: str
    title: str  # of the class

    def fill(self, text: str) -> str:
        """Fills these names into a template, in place of $dist, $key ..."""
        return Template(text).substitute(
            vars(self), thing=THINGS[self.kind] or self.title, api=API_VERSION, version=__version__
        )


@dataclass(frozen=True)
class Written:
    names: PackageNames
    folder: Path
    files: tuple[str, ...]  # relative to the folder

    def commands(self) -> tuple[str, ...]:
        """The commands to type next."""
        return (
            f"cd {shlex.quote(str(self.folder))}",
            "pip install -e '.[test]'",
            "pytest",
            f"sslbench plugins check {self.names.dist}",
            RUNS[self.names.kind].format(key=self.names.key),
        )


def names_of(dist: str, kind: str, taken: Mapping[str, str]) -> PackageNames:
    """Derives all names from that of the distribution.

    taken: existing keys of this kind -> the distribution that provides each.

    Raises:
        UserError: it is not a name for a distribution, or a name derived from it cannot be used.
    """
    if not NAME.fullmatch(dist) or len(dist) > LONGEST:
        raise UserError(
            f"{dist!r} is not a name for a package: letters, digits, '-', '_' and '.', the first and "
            f"last a letter or digit, {LONGEST} at most; such as {PREFIX}{_slug(dist) or kind}"
        )
    plain = re.sub(r"[-_.]+", "-", dist).lower()
    key, module = plain.removeprefix(PREFIX), plain.replace("-", "_")
    title = "".join(part[0].upper() + part[1:] for part in key.split("-"))
    names = PackageNames(kind, dist, key, module, title)
    fault = _fault(names, taken)
    if fault:
        raise UserError(f"{dist!r} cannot be the name of a {kind}'s package: {fault}")
    return names


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:32]


def _fault(names: PackageNames, taken: Mapping[str, str]) -> str:
    key, module = names.key, names.module
    another = f"another name, such as {PREFIX}my-{key}, will do"
    if module == "sslbench":
        return f"it is sslbench's own; {PREFIX}my-{names.kind} will do"
    if not key[0].isalpha():
        return f"{key!r} begins with a digit, and a class cannot; {another}"
    if not module.isidentifier() or keyword.iskeyword(module) or module in FOLDERS:
        return f"{module!r} cannot be a module of it; {PREFIX}{key} will do"
    if owner := taken.get(key):
        return f"there is a {names.kind} {key!r} of {owner} already; {another}"
    spec = None if module in sys.stdlib_module_names else importlib.util.find_spec(module)
    if module in sys.stdlib_module_names or (spec and spec.origin):
        better = another if module.startswith("sslbench_") else f"{PREFIX}{key} will do"
        return f"there is a module {module!r} here already; {better}"
    if not THINGS[names.kind] and any(
        re.search(rf"\b{names.title}\b", path.read_text()) for path in _templates(names.kind)
    ):
        return f"its class would be {names.title}, which stands for something else; {another}"
    return ""


def write(names: PackageNames, out: Path) -> Written:
    """Writes the package as `out`/NAME, completely or not at all.

    Raises:
        UserError: something is there already, or the disk refuses.
    """
    folder = out / names.dist
    try:
        if folder.is_symlink() or (
            folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        ):
            raise UserError(
                f"{folder} is there already, and nothing is written over; another name or another "
                "--out DIR will do"
            )
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".sslbench-new-") as beside:
            made = Path(beside) / "package"
            files = tuple(_file(names, made, path) for path in _templates(names.kind))
            made.rename(folder)  # an empty folder gives way
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); --out DIR names another place"
        ) from error
    return Written(names, folder, tuple(sorted(files)))


def _templates(kind: str) -> list[Path]:
    return [path for part in ("every", kind) for path in sorted((TEMPLATES / part).rglob("*.in"))]


def _file(names: PackageNames, made: Path, template: Path) -> str:
    """Fills in one template; returns the path that it was written to."""
    _, *parts = template.relative_to(TEMPLATES).with_suffix("").parts
    place = Path(*(names.module if part == "package" else part for part in parts))
    path = made / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(names.fill(template.read_text(encoding="utf-8")), encoding="utf-8")
    return place.as_posix()
