"""Who holds a cell: a lock on a file, gone with its process."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..disk import cannot_write

if TYPE_CHECKING:
    pass


@contextlib.contextmanager
def _open_lock(path: Path) -> Iterator[Any]:
    try:
        file = path.open("w")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        yield file


def _try_lock(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
