"""Describes a method: its idea, its defaults and their sources, and what suites override."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..plugins.sources import Remark, above, definition, headings, remarks

if TYPE_CHECKING:
    from ..api import Method, Recipe
    from ..cells.parameters import Anatomy
    from ..plugins import Entry, Registry

HARNESS = "default of the harness"
UNKNOWN = "unknown"
NOTHING = Remark("", "")


def method(entry: Entry, registry: Registry) -> dict[str, Any]:
    """Describes a method as plain data; imports it, and reads comments in its source."""
    from ..cells.parameters import anatomy, described

    parts = anatomy(entry)
    said = _said(entry, parts)
    own = definition(entry.target).documentation if isinstance(entry.target, str) else None
    found: dict[str, Any] = {
        **_prose(own or "", _documentation(parts.target)),
        "version": getattr(parts.target, "version", 1),
        "labels": getattr(parts.target, "labels", "none"),
        "variant_of": _class(parts, registry) if parts.bound else None,
        "sets": list(parts.bound),  # a variant: what it sets
        "hyperparameters": {
            name: {
                "default": _jsonable(parts.defaults[name]),
                "what": said.get(name, NOTHING).what,
                "range": described(kind),
                "source": said.get(name, NOTHING).source or UNKNOWN,
            }
            for name, kind in parts.hints.items()
        },
    }
    if parts.recipe is not None:
        found["recipe"] = _recipe(parts.recipe, said)
        found["stages"] = {
            name: {**_prose(_documentation(stage)), "recipe": _of_stage(name, stage, parts, said)}
            for name, stage in getattr(parts.target, "stages", {}).items()
        }
    found["suites"] = dict(_suites(entry, parts, registry))
    return found


def _class(parts: Anatomy, registry: Registry) -> str:
    """The registered name of a variant's class."""
    where = f"{parts.target.__module__}:{parts.target.__qualname__}"
    entries = registry.entries("methods").items()
    return next((n for n, e in entries if e.target in (where, parts.target)), where)


def _said(entry: Entry, parts: Anatomy) -> dict[str, Remark]:
    """Remarks on the settings; for those that a partial sets, the partial's remarks."""
    said = above(_of(parts.target), dict.fromkeys(parts.bound, NOTHING))
    if isinstance(entry.target, str):
        path, _, name = definition(entry.target)
        return above(said, remarks(path, name)) if path else said
    return said


def _of(target: Any) -> dict[str, Remark]:
    """Remarks in the source of a class or function; empty if there is no source."""
    try:
        return remarks(Path(inspect.getsourcefile(target) or ""), target.__qualname__)
    except (OSError, TypeError, SyntaxError, UnicodeDecodeError):
        return {}


def _recipe(recipe: Recipe, said: Mapping[str, Remark]) -> dict[str, dict[str, Any]]:
    from ..api import Recipe as Plain

    plain, general = Plain(), _of(Plain)
    found = {}
    for field in dataclasses.fields(recipe):
        value, here = getattr(recipe, field.name), said.get(field.name)
        by_method = here is not None or value != getattr(plain, field.name)
        here = above(general, {field.name: here or NOTHING})[field.name]
        source = here.source or UNKNOWN if by_method else HARNESS
        found[field.name] = {"default": _jsonable(value), "what": here.what, "source": source}
    return found


def _of_stage(
    name: str, stage: type[Method], parts: Anatomy, said: Mapping[str, Remark]
) -> dict[str, dict[str, Any]]:
    """The recipe of a stage, with what a variant sets in it."""
    dot = f"{name}."
    bound = {k.removeprefix(dot): v for k, v in parts.bound.items() if k.startswith(dot)}
    own = {k.removeprefix(dot): v for k, v in said.items() if k.startswith(dot)}
    return _recipe(dataclasses.replace(stage.recipe, **bound), above(_of(stage), own))


def _prose(*documentations: str) -> dict[str, str]:
    """Idea, citation and departures, each from the first text that has it."""
    found = {"idea": "", "citation": "", "departures": ""}
    for text in documentations:
        idea, _, rest = text.partition("\n")
        before, sign, after = rest.partition("Departures:")
        parts = {"idea": idea, "citation": before, "departures": after if sign else ""}
        for key, part in parts.items():
            found[key] = found[key] or " ".join(part.split())
    return found


def _documentation(target: Any) -> str:
    return inspect.cleandoc(target.__doc__ or "")


def _suites(
    entry: Entry, parts: Anatomy, registry: Registry
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each suite sets for a method, stages included; "tuned": chosen by trials."""
    from ..cells.settings import Settings
    from ..cells.suite import load_suite

    name = entry.name if registry.find("methods", entry.name) == entry else entry.qualified
    for suite_name in registry.names("suites"):
        try:
            suite = load_suite(suite_name, registry)
        except UserError:  # a broken suite is reported elsewhere
            continue
        concerns = any(key.startswith(f"{name}.") for key in suite.set)
        if not concerns and name not in (*suite.methods, *suite.baselines):
            continue
        for_all = {"epochs": suite.epochs, "batch": suite.batch} if parts.recipe else {}
        settings = Settings((({k: v for k, v in for_all.items() if v is not None}, suite.set),))
        found = {key: _jsonable(value) for key, value in settings.of(name).items()}
        known = {*parts.hints, *vars(parts.recipe or object)}
        for stage in getattr(parts.target, "stages", {}):
            found |= {
                f"{stage}.{k}": _jsonable(v) for k, v in settings.of(name, stage=stage).items()
            }
        for key in suite.tuning.space if suite.tuning else ():
            whose, _, what = key.partition(".")
            if whose in ("*", name) and what in known:
                found[what] = "tuned"
        if found:
            yield suite_name, found


def _jsonable(value: Any) -> Any:
    """The value if JSON can hold it, else its repr."""
    from ..cells.cell import plain

    try:
        found = plain(value)
        json.dumps(found, allow_nan=False)
    except ValueError:
        return repr(value)
    return found


def setting(value: Any) -> str:
    """A value as written for `--set`."""
    return value if isinstance(value, str) and value else json.dumps(value)


# ---- the page --------------------------------------------------------------------------------


def page(registry: Registry) -> str:
    """The page docs/methods.md: a section per method, under the headings of the built-in plugin."""
    entries = registry.entries("methods")
    families: dict[str, list[str]] = {}
    for name, family in headings(Path(__file__).parents[1] / "builtin.py", "methods").items():
        families.setdefault(family or "Methods", []).append(name)
    lines = [
        "# Methods",
        "",
        "Made from the sources by `pytest tests/test_show.py --regold`. Defaults are the papers';",
        "`sslbench show METHOD` prints what each suite sets instead. Recipe fields that a method",
        "does not name are the harness's defaults (`Recipe` in `sslbench/api/methods.py`).",
        "",
        "Conditional GANs, pix2pix and CycleGAN have no row: they learn to make one image of another, or",
        "of a label, and leave no encoder of images that could be judged.",
        "",
    ]
    for family, names in families.items():
        lines.append(f"- {family}: {', '.join(f'[{name}](#{name})' for name in names)}")
    for family, names in families.items():
        lines += ["", f"## {family}"]
        for name in names:
            lines += ["", f"### {name}", *_section(method(entries[name], registry))]
    return "\n".join(lines) + "\n"


def _section(found: dict[str, Any]) -> Iterator[str]:
    """Lines on a method: idea, citation, departures, and the defaults that it sets."""
    base = found["variant_of"]
    citation = re.sub(r"arXiv (\S*\d)", r"[arXiv \1](https://arxiv.org/abs/\1)", found["citation"])
    departures = found["departures"] and f"Departures: {found['departures']}"
    said = [found["idea"], f"[{base}](#{base}) with other defaults." if base else citation]
    for text in (*said, "" if base else departures):
        if text:
            yield from ("", *textwrap.wrap(text, 100, break_long_words=False))
    rows = {**found["hyperparameters"], **found.get("recipe", {})}
    for stage, of_stage in found.get("stages", {}).items():
        rows |= {f"{stage}.{name}": row for name, row in of_stage["recipe"].items()}
    rows = {k: row for k, row in rows.items() if row["source"] != HARNESS}
    rows = {k: rows[k] for k in found["sets"]} if base else rows
    if rows:
        yield from ("", "| setting | default | what it is | source |", "| --- | --- | --- | --- |")
    for name, row in rows.items():
        texts = (f"`{name}`", f"`{setting(row['default'])}`", meaning(row), row["source"])
        yield f"| {' | '.join(text.replace('|', '&#124;') for text in texts)} |"


def meaning(row: Mapping[str, str]) -> str:
    """What a setting means, and its range."""
    return "; ".join(filter(None, (row["what"], row.get("range"))))
