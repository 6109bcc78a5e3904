"""Locks a cell or a folder for one process, by a lock on a file that ends with the process."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..disk import DiskError, cannot_write

PATIENCE = 0.2  # seconds between two tries


@contextlib.contextmanager
def leased(path: Path, waiting: Callable[[], bool] = lambda: True) -> Iterator[bool]:
    """Locks a file, trying until `waiting` gives up; yields whether this process holds it.

    Raises:
        DiskError: the file cannot be made, or locked.
    """
    try:
        file = path.open("w")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        held = _taken(file, path)
        while not held and waiting():
            time.sleep(PATIENCE)
            held = _taken(file, path)
        yield held


def _taken(file: Any, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DiskError(
            f"cannot lock {path}: {error.strerror}; nothing is damaged: try again, or name a "
            "--store on a disk with locks"
        ) from error
    return True
