"""Assembles the live page from its files, with a policy that lets no other code run."""

from __future__ import annotations

from pathlib import Path

from ..output.page.assembly import ASSETS as OF_THE_BOARD
from ..output.page.assembly import digest_of, fill, read
from ..output.page.markup import Markup, tag

ASSETS = Path(__file__).parent / "assets"
STYLES = (
    *(OF_THE_BOARD / name for name in ("colours.css", "controls.css", "table.css", "page.css")),
    ASSETS / "live.css",
)
SCRIPTS = (OF_THE_BOARD / "dom.js", *(ASSETS / name for name in ("curves.js", "live.js")))


def live_page() -> tuple[bytes, str]:
    """The page and its policy. It may ask its own server for the state, and nobody for anything else."""
    style = "\n".join(map(read, STYLES))
    code = "\n".join(map(read, SCRIPTS))
    code = f'"use strict";\n(() => {{\n{code}\n}})();\n'
    policy = (
        f"default-src 'none'; script-src '{digest_of(code)}'; style-src '{digest_of(style)}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    slots = {"style": tag("style", Markup(style)), "code": tag("script", Markup(code))}
    return fill(read(ASSETS / "live.html"), slots).encode(), policy
