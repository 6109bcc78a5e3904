"""What can go wrong for the person at the keyboard; each says what was asked, found and would work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend. The command line prints it once, without a traceback."""

    exit_code = 2


class EmptySelection(UserError):
    """The options leave nothing to do."""

    exit_code = 4


class CheckFailed(UserError):
    """A check that was asked for did not pass."""

    exit_code = 5


class MissingData(UserError):
    """A dataset's files are not there, or are damaged."""


class UnknownName(UserError):
    """A name that nobody provides."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        super().__init__(f"unknown {kind} {name!r}{suggestion(name, known)}{hint and f'; {hint}'}")


class Unsuited(Exception):
    """A judge can say nothing of such data or such an encoder: its record is skipped, not failed."""


class Interrupted(Exception):
    """Asked to stop: what was done is saved, and the same command continues."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'moco'?`, or what there is when nothing is near."""
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
