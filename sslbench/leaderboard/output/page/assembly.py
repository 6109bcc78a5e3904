"""Assembles the page from its files, with a policy that lets no other code run.

The policy names the sha256 of each script and style, so injected markup cannot run code, and nothing
can be fetched or sent. Vega's expressions are interpreted, so `eval` stays forbidden.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from .markup import Markup, tag

ASSETS = Path(__file__).parent / "assets"
VEGA = "vega.min.js"  # made by benchmarks/vendor_vega.py; licences at its head
VEGA_SHA256 = "134ab9c2ea97fa9271507465aeca4f472b87d13740df443d1f46dab7303e5d5f"
STYLES = ("colours.css", "controls.css", "plots.css", "table.css", "panel.css", "page.css")
SCRIPTS = (
    "dom.js",
    "data.js",
    "format.js",
    "fields.js",
    "table.js",
    "columns.js",
    "panel.js",
    "charts.js",
    "cost.js",
    "heat.js",
    "curves.js",
    "orders.js",
    "page.js",
)
_SLOT = re.compile(r"<!-- (\w+) -->")


def assemble(slots: Mapping[str, str]) -> str:
    """Fills the slots of page.html, and those of its policy, styles and scripts."""
    vega, code, style = read(ASSETS / VEGA), _scripts(), _style()
    policy = (
        f"default-src 'none'; script-src '{digest_of(vega)}' '{digest_of(code)}'; "
        f"style-src '{digest_of(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    own = {
        "policy": tag("meta", http_equiv="Content-Security-Policy", content=policy),
        "style": tag("style", Markup(style)),
        "vega": tag("script", Markup(vega)),
        "code": tag("script", Markup(code)),
    }
    return fill(read(ASSETS / "page.html"), {**slots, **own})


def fill(text: str, slots: Mapping[str, str]) -> str:
    """Fills each `<!-- name -->`; inserted text is not searched for more."""
    return _SLOT.sub(lambda found: slots[found[1]], text)


def _scripts() -> str:
    parts = "\n".join(read(ASSETS / name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}\n}})();\n'


def _style() -> str:
    return "\n".join(read(ASSETS / name) for name in STYLES)


@functools.cache
def read(path: Path) -> str:
    """The text of a file of the page, byte for byte, since its hash counts."""
    return path.read_bytes().decode()


def digest_of(text: str) -> str:
    """What a policy calls a script or a style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
