"""Finds the pictures in folders, each once, and counts what it leaves out and why."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..api import Place
from ..disk import cannot_read, names_in
from ..errors import UserError
from .pictures import is_picture

TEST = ("test", "val", "valid", "validation")  # in this order, in any case of letters

LITTER = frozenset(["thumbs.db", "desktop.ini", "__macosx"])  # of systems, beside hidden files
NOTHING, MET, ODD = "links to nothing", "links to folders met elsewhere", "pipes or devices"


class Found(NamedTuple):
    """What lies in a folder, at any depth."""

    pictures: list[Path]  # sorted
    left_out: Counter[str]  # why -> number


def is_litter(name: str) -> bool:
    """Whether systems put such files and folders beside one's own."""
    return name.startswith(".") or name.lower() in LITTER


# ---- splits --------------------------------------------------------------------------------


def located(path: Path, place: Place) -> Path:
    """The folder as it stands here or, if it is relative, in one of the roots."""
    tried = (root / path for root in (Path(), *place.roots))
    return next((each for each in tried if each.is_dir()), path)


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    entries = [folder / name for name in names_in(folder) if not is_litter(name)]
    return [entry for entry in entries if entry.is_dir()]


def loose_in(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Pictures that lie in a folder itself, and what else does besides folders."""
    left: Counter[str] = Counter()
    loose = []
    for entry in (folder / name for name in names_in(folder) if not is_litter(name)):
        if entry.is_dir():
            continue
        if entry.is_file() and is_picture(entry):
            loose.append(entry)
        else:
            left[entry.suffix.lower() or "without a suffix"] += 1
    return loose, left


def splits_in(folder: Path, dataset: str) -> dict[str, Path]:
    """The folders of splits, by the name of the split in lower case."""
    found: dict[str, Path] = {}
    for entry in folders_in(folder):
        name = entry.name.lower()
        if name not in ("train", *TEST):
            continue
        if name in found:
            raise UserError(f"{dataset}: {found[name].name} and {entry.name} are both {name}")
        found[name] = entry
    return found


def check_apart(splits: Mapping[str, Path], dataset: str) -> None:
    """Checks that no two splits are one folder, to which both names lead."""
    met: dict[Path, str] = {}
    for name, folder in splits.items():
        other = met.setdefault(folder.resolve(), name)
        if other != name:
            raise UserError(f"{dataset}: {other} and {name} are one folder; give two")


# ---- pictures ------------------------------------------------------------------------------


def find_pictures(folders: Iterable[Path]) -> dict[Path, Found]:
    """Lists the pictures below each folder. A folder is met once, however many links lead there.

    Links are followed when all real folders are known, and never to a folder that holds one of
    them. DiskError where a folder cannot be read.
    """
    found = {folder: Found([], Counter()) for folder in folders}
    met = {_number(above) for folder in found for above in folder.resolve().parents}
    links = [(folder, folder) for folder in found if folder.is_symlink()]
    real = [folder for folder in found if not folder.is_symlink()]
    met |= {_number(folder) for folder in real}
    for folder in real:
        links += [(folder, link) for link in _walked(folder, found[folder], met)]
    while links:
        folder, link = links.pop(0)
        if _number(link) in met:
            found[folder].left_out[MET] += 1
            continue
        met.add(_number(link))
        links += [(folder, each) for each in _walked(link, found[folder], met)]
    for folder, each in found.items():
        each.pictures.sort(key=lambda path: path.relative_to(folder).as_posix())
    return found


def _number(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _walked(folder: Path, found: Found, met: set[tuple[int, int]]) -> list[Path]:
    """Adds what lies in a folder and its real folders; returns the links to others."""
    links: list[Path] = []
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop()):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if _number(path) not in met:
                    met.add(_number(path))
                    waiting.append(path)
            elif entry.is_symlink() and not _leads_somewhere(path):
                found.left_out[NOTHING] += 1
            elif entry.is_dir():
                links.append(path)
            elif not entry.is_file():
                found.left_out[ODD] += 1
            elif is_picture(path):
                found.pictures.append(path)
            else:
                found.left_out[path.suffix.lower() or "without a suffix"] += 1
    return links


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    """What a folder holds, sorted, without hidden files and the litter of systems."""
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not is_litter(entry.name)]
    except OSError as error:
        raise cannot_read(folder, error) from error
    return sorted(kept, key=lambda entry: entry.name)


def _leads_somewhere(link: Path) -> bool:
    try:
        link.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # to nothing, or to itself
            return False
        raise cannot_read(link, error) from error
    return True


def said(left_out: Counter[str]) -> str:
    """What was left out in words: `3 .txt, 1 links to nothing`."""
    return ", ".join(f"{number} {why}" for why, number in sorted(left_out.items()))
