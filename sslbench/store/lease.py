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
HELD = Path("/proc/locks")  # the system's list of them, on Linux


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


def is_leased(path: Path) -> bool | None:
    """Whether a process of this machine holds the lock of a file; None where the system does not tell.

    It reads the system's list, for to try the lock would be to hold it for a moment. Files are
    known by their inode: of their device, overlays and btrfs tell two different numbers.
    """
    try:
        inode = str(path.stat().st_ino)
        found = (line.split() for line in HELD.read_text().splitlines())
        return any(each[1] == "FLOCK" and each[5].endswith(f":{inode}") for each in found)
    except FileNotFoundError:
        return False if HELD.exists() else None
    except OSError:
        return None


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
