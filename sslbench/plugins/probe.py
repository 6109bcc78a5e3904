"""What importing a plugin does, seen from a process of its own: `python -m sslbench.plugins.probe`.

Takes JSON (dist, file, block), leaves JSON in a file; what else is printed is the plugin's.
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
    """`heavy`: libraries that its hooks alone bring in; `changed`, `faults`: as all is loaded."""
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
