"""Imports a plugin and reports what that does. Run as `python -m sslbench.plugins.probe`.

It takes JSON (dist, file, block) and writes JSON to a file; whatever is printed comes from the plugin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ..errors import UserError
from .contained import SHARED
from .entries import canonical
from .owners import registry


def probe(asked: dict[str, Any]) -> dict[str, Any]:
    """Imports a plugin and all that it provides.

    Returns `heavy`, the libraries that calling its hooks imports; and `changed` and `faults`, what
    loading its entries changed, and why some could not be loaded.
    """
    before = set(sys.modules)
    files = [Path(asked["file"])] if asked["file"] else []
    found = registry(installed=not files, files=files, block=asked["block"])
    heavy = {name.partition(".")[0] for name in set(sys.modules) - before} & SHARED - {"sslbench"}
    changed: list[str] = []
    faults: list[str] = []
    for plugin in found.plugins:
        if canonical(plugin.dist) != canonical(asked["dist"]):
            continue
        changed += [note for note in plugin.notes if note.startswith("importing it changed ")]
        for key, entry in found.of(plugin).items():
            try:
                _, changes = entry.imported()
            except UserError as fault:
                faults.append(str(fault))
            else:
                changed += [f"importing {key} changed {each}" for each in changes]
    return {"heavy": sorted(heavy), "changed": changed, "faults": faults}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(probe(json.loads(sys.argv[1]))))
