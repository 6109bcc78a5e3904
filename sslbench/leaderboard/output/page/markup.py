"""Builds HTML and escapes all text that was not made here, so that none becomes markup."""

from __future__ import annotations

import html
import re

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_WEB = re.compile(r"https?://[^\s/?#]+[^\s]*", re.IGNORECASE)
_VOID = ("br", "link", "meta")


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | int | bool | None) -> Markup:
    """One element. `class_` gives class, other underscores become hyphens; True gives no value."""
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(key):
            raise ValueError(f"{key!r} is not the name of an attribute")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{html.escape(str(value))}"')
    opened = f"<{' '.join(parts)}>"
    return Markup(opened if name in _VOID else f"{opened}{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """The children as one piece of HTML; plain texts are escaped."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(c) for c in children))


def link(text: str, url: str) -> Markup:
    """A link; only its text if the address is not http or https."""
    if not is_web(url):
        return join(text)
    return tag("a", text, href=url, rel="noopener noreferrer nofollow")


def is_web(url: str) -> bool:
    return bool(_WEB.fullmatch(url))
