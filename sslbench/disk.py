"""Reads whole files, writes them atomically, hashes them, and knows the default place of the store."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import UserError

STORE = "sslbench-store"
CHUNK = 2**20  # bytes read at once
NO_FILE = (errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)  # nothing to be read there
REMEDIES = {
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.EMFILE: "raise the limit of open files with `ulimit -n`",
    errno.ENFILE: "close other programs, for the system has too many files open",
}


class DiskError(UserError):
    """The system refused to read or write; what lies on the disk may be sound."""


class CannotRead(DiskError):
    """The system refused to read; the file is left as it was."""


def default_store() -> Path:
    """The store where no other is given: SSLBENCH_STORE, or ./sslbench-store."""
    return Path(os.environ.get("SSLBENCH_STORE") or STORE)


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """Opens a regular file to read; one that is a pipe or a device is not waited for.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a regular file, or a link to itself.
        CannotRead: the system refuses, when it is opened or while it is read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except OSError as error:
        if error.errno in NO_FILE:
            raise ValueError(f"it is not a regular file: {error.strerror}") from error
        raise cannot_read(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is not a regular file")
        with open(handle, "rb", closefd=False) as file:
            yield file
    except OSError as error:
        if error.errno is None:
            raise  # of whoever reads the content, as Pillow raises them
        raise cannot_read(path, error) from error
    finally:
        os.close(handle)


def utf8(path: Path | str, file: BinaryIO) -> str:
    """A path that libraries take that know UTF-8 alone; `file` is its opened file."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return f"/dev/fd/{file.fileno()}"
    return os.fspath(path)


def read_file(path: Path | str) -> bytes:
    """The bytes of a regular file; raises what `opened` does."""
    with opened(path) as file:
        return file.read()


def names_in(folder: Path | str) -> list[str]:
    """The sorted names in a folder, none where it is missing. CannotRead where it is unreadable."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - a Path a name takes longer
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_read(folder, error) from error


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
    """Replaces a file, never leaving a partial one. DiskError when the disk refuses."""
    make_folder(path.parent)
    try:
        with replacing(path) as temporary, temporary.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Makes a folder and all above it. DiskError when the disk refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_read(path: Path | str, error: OSError) -> CannotRead:
    """The error to raise for a path that the system refuses to read; it says that nothing is lost."""
    remedy = REMEDIES.get(error.errno or 0, "try again when the disk answers")
    return CannotRead(
        f"cannot read {path}: {error.strerror or error}; it is left as it was: {remedy}"
    )


def cannot_write(path: Path, error: OSError) -> DiskError:
    """The error to raise for a path that the disk refuses."""
    return DiskError(
        f"cannot write {path}: {error.strerror or error}; free space, change permissions, or name "
        "another place"
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 of a file, which need not fit into memory."""
    total = hashlib.sha256()
    with opened(path) as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()
