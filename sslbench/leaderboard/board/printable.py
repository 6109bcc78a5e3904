"""Cleans text from records and plugins, so that it is safe to print."""

from __future__ import annotations

import re
import unicodedata

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"  # OSC and other strings
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)


def printable(text: str) -> str:
    """The text on one line, without terminal escapes, control and invisible characters."""
    if text.isprintable() and "  " not in text and text == text.strip():
        return text
    kept = []
    for character in _ESCAPES.sub("", text):
        category = unicodedata.category(character)
        if category in ("Zl", "Zp") or character in "\t\n\r\v\f\x85":
            kept.append(" ")
        elif category not in ("Cc", "Cf", "Cs"):
            kept.append(character)
    return " ".join("".join(kept).split())
