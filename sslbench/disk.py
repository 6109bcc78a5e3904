"""Files: where the store is unless told, how they are written whole or not at all, their digests."""

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
    """SSLBENCH_STORE, or ./sslbench-store."""
    return Path(os.environ.get("SSLBENCH_STORE") or STORE)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place once it is whole and on the disk.

    Where the body fails, what was at `path` before is still there. OSError as it comes.
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
    """The old file or the new one, never a part. UserError when the disk refuses."""
    make_folder(path.parent)
    try:
        with replacing(path) as temporary, temporary.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """With all folders above it. UserError when the disk refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to tell of a disk that refuses."""
    return UserError(
        f"cannot write {path}: {error.strerror or error}; free space or rights, or name another place"
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """Of a file, which need not fit into memory."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()
