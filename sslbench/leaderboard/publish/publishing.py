"""Publishes leaderboards for GitHub Pages, in a folder or on a branch that is not checked out.

Only files that the lock names are published, and only files published before are replaced. A marker
beside the pages has the sha256 of each.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import quote

from ...disk import sha256, write_atomic
from ...errors import CheckFailed, UserError
from ...records import Document, NewerSchema, parsed
from ..board.printable import printable
from ..folder import folder as folders
from ..folder.folder import is_inside
from ..folder.soundness import contradictions, impossible
from .repository import HEADS, PLAIN, Blob, Repository

MARKER = ".sslbench-pages.json"
FORMAT = 1  # of the marker; a newer one is refused
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a folder; it becomes part of an address
Files = Mapping[str, bytes]  # by path below the root of the pages
Known = Mapping[str, list[str]]  # path -> sha256 of what we wrote there, or were about to


@dataclass(frozen=True)
class Changes:
    """Paths that publishing changed, or would change."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    commit: str = ""  # id of the commit, if one was made

    @property
    def any(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def pages(root: Path) -> dict[str, bytes]:
    """All files to publish of a leaderboard, or of a folder of leaderboards.

    Raises:
        UserError: there is no leaderboard, a folder's name does not suit an address, or a file of
            predictions is damaged.
        CheckFailed: a leaderboard differs from its lock, or has an impossible record.
    """
    if folders.is_leaderboard(root):
        found = _of_board(root)
    else:
        boards = [path for path in sorted(root.glob("*/")) if folders.is_leaderboard(path)]
        if not boards:
            raise UserError(
                f"{root} is not a leaderboard and has none in it; "
                f"`sslbench leaderboard build SUITE --out {root / 'NAME'}` makes one"
            )
        found = {}
        for board in boards:
            if not NAME.fullmatch(board.name) or board.name == "index.html":
                raise UserError(f"the folder {board} must be named by letters, digits, '.-_' alone")
            found |= {f"{board.name}/{name}": data for name, data in _of_board(board).items()}
        found["index.html"] = _listing(boards).encode()
    found[".nojekyll"] = b""
    return found


def _of_board(root: Path) -> dict[str, bytes]:
    lock = folders.read_lock(root)
    again = f"`sslbench leaderboard build {root}` builds it"
    if lock is None:
        raise UserError(f"{root} has no {folders.LOCK}; {again}")
    names = [folders.LOCK, *lock.names]
    for name in names:
        if (root / name).resolve() != root.resolve() / name:
            raise UserError(
                f"the lock of {root} names {name!r}, which is not a file in its folder; {again}"
            )
    folder = folders.read(root)
    names += folders.predicted(folder)
    unlike = folders.differences(folder, lock)
    if unlike:
        more = f" (and {len(unlike) - 1} more)" if len(unlike) > 1 else ""
        raise CheckFailed(
            f"{root} is not what its lock says: {unlike[0]}{more}; move away what was "
            f"edited, and {again} anew"
        )
    for kept in folder.kept:  # a page may show gaps, but nothing impossible
        folders.predictions(folder, kept)
        for fault in (*contradictions(kept.record), *impossible(kept.record)):
            raise CheckFailed(
                f"{root / kept.path}: {fault}; `sslbench leaderboard validate {root}` lists all errors"
            )
    return {name: (root / name).read_bytes() for name in sorted(names)}


LISTING = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Leaderboards</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 45rem; margin: 2rem auto; padding: 0 1rem }}
</style>
</head>
<body>
<main>
<h1>Leaderboards</h1>
<ul>
{items}
</ul>
</main>
</body>
</html>
"""


def _listing(boards: list[Path]) -> str:
    items = []
    for board in boards:
        suite = folders.read(board).suite
        name, summary = (html.escape(printable(text)) for text in (board.name, suite.summary))
        address = html.escape(f"{quote(board.name)}/index.html")
        items.append(f'<li><a href="{address}">{name}</a>: {summary}</li>')
    return LISTING.format(items="\n".join(items))


# ---- where to --------------------------------------------------------------------------------


class Target(Protocol):
    """Where pages are published."""

    name: str
    empty: bool

    def read(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Content of those that exist; UserError if one is a link, a folder, or below a file."""

    def check(self, added: Iterable[str]) -> None:
        """UserError if `put` would overwrite unsaved work."""

    def put(self, files: Mapping[str, bytes | None]) -> str:
        """Writes these files and removes those that are None; returns the commit's id, or ""."""


def publish(files: Files, target: Target, *, dry_run: bool = False) -> Changes:
    """Publishes these files to the target, and leaves its other files alone.

    Raises:
        UserError: sslbench did not publish the target, or a file that is in the way.
    """
    known = _known(target)
    if not known and not target.empty:
        raise UserError(
            f"{target.name} is not empty and was not published by sslbench; name an empty one"
        )
    there = target.read(sorted({*files, *known}))
    changes = _changes(files, known, there, target.name)
    marker = _marker({path: [sha256(content)] for path, content in files.items()})
    if not changes.any and target.read([MARKER]).get(MARKER) == marker:
        return changes
    target.check([*changes.added, MARKER])
    if dry_run:
        return changes
    new: dict[str, bytes | None] = {p: files[p] for p in (*changes.added, *changes.changed)}
    new |= dict.fromkeys(changes.removed)
    commit = target.put({**new, MARKER: marker})
    return dataclasses.replace(changes, commit=commit)


def _changes(files: Files, known: Known, there: Files, where: str) -> Changes:
    for path, found in there.items():
        if files.get(path) != found and sha256(found) not in known.get(path, ()):
            what = "was changed since it was" if path in known else "was not"
            raise UserError(f"{path} in {where} {what} published by sslbench; move it away")
    return Changes(
        tuple(sorted(files.keys() - there.keys())),
        tuple(sorted(p for p in files.keys() & there.keys() if files[p] != there[p])),
        tuple(sorted(there.keys() - files.keys())),
    )


class Marker(Document):
    """Which files sslbench has published there."""

    files: dict[str, list[str]]  # path -> sha256 of each version


def _known(target: Target) -> Known:
    there = target.read([MARKER])
    if not there:
        return {}
    try:
        marker = parsed(Marker, there[MARKER], newest=FORMAT)
        if outside := [path for path in marker.files if not is_inside(path)]:
            raise ValueError(f"it has {outside[0]!r}")
    except NewerSchema as error:
        raise UserError(f"{MARKER} in {target.name} {error}") from error
    except ValueError as error:
        raise UserError(
            f"{MARKER} in {target.name} is not a marker that sslbench wrote: {error}"
        ) from error
    return marker.files


def _marker(known: Known) -> bytes:
    plain = {"format": FORMAT, "files": dict(sorted(known.items()))}
    return (json.dumps(plain, indent=1) + "\n").encode()


class FolderTarget:
    """A folder: files are written one by one; if broken off, the same command goes on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)
        if root.exists() and not root.is_dir():
            raise UserError(f"{root} is not a folder; name one with --to FOLDER")
        self.empty = not root.exists() or not any(root.iterdir())

    def read(self, paths: Iterable[str]) -> dict[str, bytes]:
        found = {path: self._at(path) for path in paths}
        return {path: place.read_bytes() for path, place in found.items() if place.exists()}

    def _at(self, path: str) -> Path:
        place = self.root
        *above, last = PurePosixPath(path).parts
        for part in above:
            place /= part
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise UserError(f"{place} is in the way of {path}, not a folder; move it away")
        place /= last
        if place.is_symlink() or (place.exists() and not place.is_file()):
            raise UserError(f"{place} is in the way and is not a file; move it away")
        return place

    def check(self, added: Iterable[str]) -> None:
        """Does nothing: a folder has no unsaved work."""

    def put(self, files: Mapping[str, bytes | None]) -> str:
        known = _known(self)
        coming = {p: [sha256(data)] for p, data in files.items() if data is not None}
        coming.pop(MARKER)
        both = {p: [*known.get(p, ()), *coming.get(p, ())] for p in known.keys() | coming.keys()}
        write_atomic(self.root / MARKER, _marker(both))
        for path, content in files.items():
            if path != MARKER and content is not None:
                write_atomic(self.root / path, content)
        for path, content in files.items():
            if content is None:
                self._remove(self.root / path)
        write_atomic(self.root / MARKER, files[MARKER] or b"")
        return ""

    def _remove(self, place: Path) -> None:
        place.unlink()
        for above in place.parents:
            if above == self.root or any(above.iterdir()):
                break
            above.rmdir()


class BranchTarget:
    """A git branch, which gets one commit; it starts from the remote's if there is no local one."""

    def __init__(self, repository: Repository, branch: str, remote: str = "origin") -> None:
        repository.check_branch(branch)
        self.repository, self.branch = repository, branch
        self.name = f"the branch {branch} of {repository.root}"
        self.parent = repository.commit(HEADS + branch)
        self.parent = self.parent or repository.commit(f"refs/remotes/{remote}/{branch}")
        self.empty = not self._there

    @cached_property
    def _there(self) -> dict[str, Blob]:
        return self.repository.files(self.parent) if self.parent else {}

    @cached_property
    def _folders(self) -> set[str]:
        return {str(above) for path in self._there for above in PurePosixPath(path).parents}

    def read(self, paths: Iterable[str]) -> dict[str, bytes]:
        found = {}
        for path in paths:
            above = [str(each) for each in PurePosixPath(path).parents]
            blocked = [each for each in above if each in self._there]
            blob = self._there.get(path)
            if blocked or path in self._folders or (blob and blob.mode not in PLAIN):
                raise UserError(f"{(blocked or [path])[0]} in {self.name} is in the way; remove it")
            if blob:
                found[path] = blob
        return dict(zip(found, self.repository.contents(found.values()), strict=True))

    def check(self, added: Iterable[str]) -> None:
        self.repository.check_clean(self.branch, [p for p in added if p not in self._there])

    def put(self, files: Mapping[str, bytes | None]) -> str:
        commit = self.repository.write(files, self.parent, message="Publish leaderboards")
        self.repository.move(self.branch, commit, self.parent)
        return commit
