"""Unpacks an untrusted bundle: nothing is written outside of the folder given."""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ...disk import sha256_of
from ...errors import CheckFailed, UserError
from ...records import Document, NewerSchema, parsed
from ...store.predictions import LARGEST as LARGEST_PREDICTIONS
from ..folder.validate import GRAMMAR, PREDICTIONS
from .bundle import FORMAT, MANIFEST, MODELS, SUITE, write

ENTRIES = 200_000  # at most
KINDS = {
    "record": GRAMMAR,
    "predictions": PREDICTIONS,
    "model": re.compile(rf"{MODELS}/[0-9a-f]{{64}}\.safetensors"),
}
LARGEST = {  # bytes
    MANIFEST: 2**26,
    SUITE: 2**20,
    "record": 2**24,
    "predictions": LARGEST_PREDICTIONS,
    "model": 2**33,
}
BLOCK = 2**20
ENCRYPTED = 0x1


def unpack(bundle: Path, into: Path) -> dict[str, Any]:
    """Unpacks a bundle into a folder, checks every file, and returns the manifest.

    Raises:
        UserError: the bundle cannot be read, or a later sslbench wrote it.
        CheckFailed: it is not what `leaderboard bundle` writes.
    """
    if not bundle.is_file():
        raise UserError(f"there is no bundle {bundle}; `sslbench leaderboard bundle` writes one")
    try:
        with zipfile.ZipFile(bundle) as archive:
            entries = _allowed(archive, bundle)
            manifest = _manifest(archive.read(entries[MANIFEST]), bundle)
            listed = {str(each["path"]): each for each in manifest["files"]}
            _compare(entries, listed, len(manifest["files"]), bundle)
            for name, each in listed.items():
                _copy(archive, entries[name], into / name, each, bundle)
    except (zipfile.BadZipFile, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise CheckFailed(f"{bundle} is damaged, or not a bundle: {error}") from error
    except OSError as error:
        raise UserError(f"{bundle} cannot be opened: {error.strerror or error}") from error
    _check_whole(bundle, into, listed)
    return manifest


def _allowed(archive: zipfile.ZipFile, bundle: Path) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, checked before any is read."""
    infos = archive.infolist()
    if len(infos) > ENTRIES:
        raise _refused(bundle, f"it has {len(infos):,} entries, {ENTRIES:,} are allowed")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        fault = _fault(info)
        if not fault and info.filename in found:
            fault = "is there twice"
        if fault:
            raise _refused(bundle, f"its entry {info.filename[:100]!r} {fault}")
        found[info.filename] = info
    for name in (MANIFEST, SUITE):
        if name not in found:
            raise _refused(bundle, f"it has no {name}")
    total, size = sum(info.file_size for info in infos), bundle.stat().st_size
    if total > size:
        raise _refused(bundle, f"it has {size:,} bytes and claims to hold {total:,}")
    return found


def _fault(info: zipfile.ZipInfo) -> str:
    name, mode = info.orig_filename, info.external_attr >> 16
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name:
        return "has an absolute path"
    if ".." in name.split("/"):
        return "climbs out of the bundle"
    if stat.S_ISLNK(mode):
        return "is a link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or name.endswith("/"):
        return "is not a regular file"
    kinds = [kind for kind, grammar in KINDS.items() if grammar.fullmatch(name)]
    kind = name if name in (MANIFEST, SUITE) else next(iter(kinds), "")
    if not kind or info.filename != name:
        return "is not one that a bundle has"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        return "is compressed; entries of a bundle are stored"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    if info.file_size > LARGEST[kind]:
        return f"claims {info.file_size:,} bytes, {LARGEST[kind]:,} are allowed"
    return ""


def _manifest(content: bytes, bundle: Path) -> dict[str, Any]:
    try:
        return parsed(BundleManifest, content, newest=FORMAT).model_dump(exclude_unset=True)
    except NewerSchema as error:
        raise UserError(f"{bundle} {error}") from error
    except ValueError as error:
        raise _refused(bundle, f"its {MANIFEST} cannot be read ({error})") from error


class Listed(BaseModel):
    """One file of a bundle."""

    model_config = ConfigDict(extra="allow", strict=True)
    path: str
    sha256: str
    size: int  # bytes


class BundleManifest(Document):
    """What a bundle holds."""

    files: list[Listed]


def _compare(
    entries: Mapping[str, zipfile.ZipInfo], listed: Mapping[str, Any], files: int, bundle: Path
) -> None:
    if files > len(listed):
        raise _refused(bundle, f"its {MANIFEST} lists a file twice")
    there = entries.keys() - {MANIFEST}
    for name in sorted(there ^ listed.keys()):
        missing = "is listed and not there" if name in listed else "is there and not listed"
        raise _refused(bundle, f"{name[:100]!r} {missing}")
    for name, each in listed.items():
        if entries[name].file_size != each["size"]:
            raise _refused(
                bundle, f"{name} has {entries[name].file_size:,} bytes, not {each['size']:,}"
            )


def _copy(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    path: Path,
    listed: Mapping[str, Any],
    bundle: Path,
) -> None:
    """Copies an entry, and refuses it if its checksum is not the manifest's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    total = hashlib.sha256()
    with archive.open(info) as content, path.open("xb") as into:
        while part := content.read(BLOCK):
            total.update(part)
            into.write(part)
    if total.hexdigest() != listed["sha256"]:
        raise _refused(bundle, f"{info.filename} is not the file that its {MANIFEST} lists")


def _check_whole(bundle: Path, into: Path, listed: Mapping[str, Any]) -> None:
    """Packs the content again and compares bytes: nothing may hide between or around entries."""
    with zipfile.ZipFile(bundle) as archive:
        manifest = archive.read(MANIFEST)
    again = into / "again.zip"
    write(again, manifest, {name: into / name for name in listed})
    same = sha256_of(again) == sha256_of(bundle)
    again.unlink()
    if not same:
        raise _refused(bundle, "its bytes are not those that its content makes")


def _refused(bundle: Path, why: str) -> CheckFailed:
    return CheckFailed(f"{bundle} was refused: {why}; ask for one that `leaderboard bundle` wrote")
