"""Builds the JavaScript file that draws the plots on a leaderboard's page.

    python benchmarks/vendor_vega.py sslbench/leaderboard/output/page/assets/vega.min.js

It takes the parts of Vega that the page uses from npm, at the versions below, and bundles them with
esbuild. The licences of all parts are at the head of the file. It prints whether the result is what
`sslbench.leaderboard.output.page.assembly` expects. It needs npm and its registry.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ESBUILD = "0.25.12"
VEGA = """
d3-array@3.2.5 d3-color@3.1.1 d3-dsv@3.0.2 d3-ease@3.0.2 d3-format@3.1.3 d3-geo@3.1.2
d3-interpolate@3.0.2 d3-path@3.1.1 d3-scale@4.0.3 d3-scale-chromatic@3.1.1 d3-shape@3.2.1
d3-time@3.1.1 d3-time-format@4.1.1 d3-timer@3.0.2 internmap@2.0.3 topojson-client@3.1.0
vega-canvas@2.0.0 vega-dataflow@6.1.3 vega-encode@5.2.2 vega-event-selector@4.0.0
vega-expression@6.2.2 vega-format@2.1.3 vega-functions@6.2.0 vega-interpreter@2.3.2
vega-label@2.1.3 vega-loader@5.1.3 vega-parser@7.1.3 vega-runtime@7.1.3 vega-scale@8.1.3
vega-scenegraph@5.3.0 vega-selections@6.1.5 vega-statistics@2.0.0 vega-time@3.3.0
vega-transforms@5.2.2 vega-util@2.1.3 vega-view@6.2.0 vega-view-transforms@5.2.2
"""
# without maps, forces, trees, regressions, word clouds and Vega-Lite
ENTRY = """
import {transforms} from 'vega-dataflow'
import * as tx from 'vega-transforms'
import * as vtx from 'vega-view-transforms'
import * as encode from 'vega-encode'
import * as label from 'vega-label'
Object.assign(transforms, tx, vtx, encode, label)
export {View} from 'vega-view'
export {parse} from 'vega-parser'
export {expressionInterpreter} from 'vega-interpreter'
"""


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        notices = _notices(room, _bundled(room))
        content = notices + "\n" + (room / "vega.min.js").read_text(encoding="utf-8")
    out.write_text(content, encoding="utf-8", newline="\n")
    found = hashlib.sha256(content.encode()).hexdigest()
    from sslbench.leaderboard.output.page.assembly import VEGA_SHA256

    print(f"{out}: {len(content.encode())} bytes, sha256 {found}")
    print("as expected" if found == VEGA_SHA256 else f"expected {VEGA_SHA256}")


def _bundled(room: Path) -> list[str]:
    """Installs, bundles and minifies; returns the names of packages in the result."""
    pins = [f"esbuild@{ESBUILD}", *VEGA.split()]
    wanted = dict(pin.rsplit("@", 1) for pin in pins)
    (room / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted}))
    (room / "entry.js").write_text(ENTRY)
    for command in (
        "npm install --ignore-scripts --no-audit --no-fund --silent",
        "node node_modules/esbuild/install.js",
        "npx esbuild entry.js --bundle --minify --format=iife --charset=utf8 --global-name=vega "
        "--legal-comments=none --log-level=error --outfile=vega.min.js --metafile=meta.json",
    ):
        subprocess.run(command.split(), cwd=room, check=True)
    paths = json.loads((room / "meta.json").read_text())["inputs"]
    names = {path.split("/")[1] for path in paths if path.startswith("node_modules/")}
    if names - wanted.keys():
        sys.exit(f"without a pinned version: {', '.join(sorted(names - wanted.keys()))}")
    return sorted(names)


def _notices(room: Path, names: list[str]) -> str:
    """Each licence once, below the packages that have it."""
    owners: dict[str, list[str]] = {}
    for name in names:
        home = room / "node_modules" / name
        version = json.loads((home / "package.json").read_text())["version"]
        owners.setdefault((home / "LICENSE").read_text().strip(), []).append(f"{name} {version}")
    parts = [f"{', '.join(found)}\n\n{text}" for text, found in owners.items()]
    return "/*!\n" + "\n\n----\n\n".join(parts).replace("*/", "* /") + "\n*/"


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".js"):
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
