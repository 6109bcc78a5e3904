"""Errors that users see. Each says what was asked for, what was found, and what would work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can correct. The command line prints it without a traceback."""

    exit_code = 2


class EmptySelection(UserError):
    """The options select nothing to do."""

    exit_code = 4


class CheckFailed(UserError):
    """A check that was asked for did not pass."""

    exit_code = 5


class MissingData(UserError):
    """A dataset's files are missing or damaged."""


class UnknownName(UserError):
    """No plugin provides an item of this name."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        super().__init__(f"unknown {kind} {name!r}{suggestion(name, known)}{hint and f'; {hint}'}")


class Unsuited(Exception):
    """An evaluator cannot judge this data or encoder; its record is skipped, not failed."""


class Interrupted(Exception):
    """The run was asked to stop. Its work is saved, and the same command continues it."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a message: `; did you mean 'moco'?`, or the known names when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    if not known:
        return "; there is none"
    shown = ", ".join(known[:20])
    return (
        f"; there {'are' if len(known) > 1 else 'is'} {shown}{', ...' if len(known) > 20 else ''}"
    )
