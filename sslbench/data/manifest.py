"""Reads the manifest of a corrupted set that sslbench wrote to a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..disk import read_file, sha256
from ..errors import MissingData
from ..names import Name, parse
from ..records import Document, parsed
from .rendered import Making

MANIFEST, IMAGES = "manifest.json", "images.sha256"
FORMAT = 1  # of the manifest


class SetFile(BaseModel):
    """One file of a set."""

    model_config = ConfigDict(extra="allow", strict=True)
    sha256: str


class SetManifest(Document):
    """How a set was made, and of what."""

    version: int
    seed: int
    frost: str | None
    dataset: str
    images: str  # sha256 of the list of clean images
    files: dict[str, SetFile]


def made(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in Making().facts()}


def without_subset(name: str) -> str:
    """A dataset's name without the subset of it."""
    asked = parse(name)
    params = {key: value for key, value in asked.params.items() if key not in ("train", "test")}
    return str(Name(asked.base, asked.argument, params))


def command(manifest: dict[str, Any], folder: Path) -> str:
    """The command that makes this set, or completes it."""
    seed = f" --seed {manifest['seed']}" if manifest["seed"] else ""
    frost = " --frost FOLDER" if manifest["frost"] else ""
    words = f"sslbench corrupt {shlex.quote(str(manifest['dataset']))}"
    return f"`{words} --out {shlex.quote(str(folder.parent))}{seed}{frost}`"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Reads the manifest of a folder; None where there is none.

    Raises:
        MissingData: it is not a manifest of sslbench.
        DiskError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        manifest = parsed(SetManifest, read_file(path), newest=FORMAT)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise MissingData(
            f"{folder.name}: {path} is not a manifest of a set ({error}); remove the folder"
        ) from error
    return manifest.model_dump(exclude_unset=True)


def images_of(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Reads the sha256 of each clean image that a set was made from."""
    path = folder / IMAGES
    try:
        text = read_file(path)
    except (FileNotFoundError, ValueError) as error:
        raise MissingData(
            f"{folder.name}: {path} is missing ({error}); remove the folder"
        ) from error
    if sha256(text) != manifest["images"]:
        raise MissingData(
            f"{folder.name}: {path} has another sha256 than the manifest gives; remove the folder"
        )
    return text.decode().split()
