"""Who holds a cell or a folder: a lock on a file, gone with its process."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..disk import cannot_write

PATIENCE = 0.2  # seconds between two tries


@contextlib.contextmanager
def leased(path: Path, waiting: Callable[[], bool] = lambda: True) -> Iterator[bool]:
    """Whether this process alone holds the file; tries until `waiting` gives up.

    Raises:
        UserError: the file cannot be made.
    """
    try:
        file = path.open("w")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        held = _taken(file)
        while not held and waiting():
            time.sleep(PATIENCE)
            held = _taken(file)
        yield held


def _taken(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
