"""Writes files atomically, hashes them, and knows the default place of the store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError

STORE = "sslbench-store"
CHUNK = 2**20  # bytes read at once


def default_store() -> Path:
    """The store where no other is given: SSLBENCH_STORE, or ./sslbench-store."""
    return Path(os.environ.get("SSLBENCH_STORE") or STORE)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary file to write, and renames it to `path` once it is safely on disk.

    Where the body fails, `path` stays as it was. An OSError passes through.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes) -> None:
    """Replaces a file, never leaving a partial one. UserError when the disk refuses."""
    make_folder(path.parent)
    try:
        with replacing(path) as temporary, temporary.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Makes a folder and all above it. UserError when the disk refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error to raise for a path that the disk refuses."""
    return UserError(
        f"cannot write {path}: {error.strerror or error}; free space, change permissions, or name "
        "another place"
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 of a file, which need not fit into memory."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()
