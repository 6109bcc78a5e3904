"""The packages of npm that hold the pictures, and the folder that is made from them."""

from __future__ import annotations

import base64
import hashlib
import http.client
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sslbench.disk import CHUNK, make_folder, opened, write_atomic
from sslbench.errors import MissingData

VERSION = "16.0.0"
FOLDER = "emoji"  # in the folder that --data gets
LARGEST = 2**25  # bytes of a file that is taken from a package; the sheets have six million
PATIENCE = 60  # seconds that the registry may be silent

CREDITS = """\
emoji.json, LICENSE: emoji-datasource 16.0.0 by Cal Henderson, MIT licence
    https://github.com/iamcal/emoji-data
twitter.png: Twemoji 16.0.1 by Twitter and other contributors, licence CC BY 4.0, resized to 32 pixels
    https://github.com/jdecked/twemoji https://creativecommons.org/licenses/by/4.0/
google.png: Noto Emoji 2.048 by Google, Apache License 2.0, resized to 32 pixels
    https://github.com/googlefonts/noto-emoji https://www.apache.org/licenses/LICENSE-2.0
"""


class Package(NamedTuple):
    name: str
    sha512: str  # as npm states it, in base 64
    members: dict[str, str]  # file of the package -> name in our folder

    @property
    def file(self) -> str:
        return f"{self.name}-{VERSION}.tgz"

    @property
    def url(self) -> str:
        return f"https://registry.npmjs.org/{self.name}/-/{self.file}"


PACKAGES = {
    "twitter": Package(
        "emoji-datasource-twitter",
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
        {
            "package/emoji.json": "emoji.json",
            "package/LICENSE": "LICENSE",
            "package/img/twitter/sheets/32.png": "twitter.png",
        },
    ),
    "google": Package(
        "emoji-datasource-google",
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
        {"package/img/google/sheets/32.png": "google.png"},
    ),
}


def make(folder: Path, *, packages: Path | None = None) -> Path:
    """Makes `folder`/emoji from the packages in a folder, or from those of npm's registry.

    MissingData where one is missing, cannot be fetched, or is not the published one.
    """
    home = folder.expanduser() / FOLDER
    make_folder(home)
    for package in PACKAGES.values():
        with _archive(package, packages, home) as archive:
            _check(package, archive)
            for name, content in _contents(package, archive).items():
                write_atomic(home / name, content)
    write_atomic(home / "CREDITS.txt", CREDITS.encode())
    return home


@contextmanager
def _archive(package: Package, packages: Path | None, home: Path) -> Iterator[Path]:
    """The package as a file, which is removed afterwards if it was fetched."""
    if packages is not None:
        path = packages.expanduser() / package.file
        if not path.is_file():
            raise MissingData(
                f"emoji: there is no {path}; `npm pack {package.name}@{VERSION}` puts it where one is"
            )
        yield path
        return
    with tempfile.TemporaryDirectory(dir=home) as place:
        path = Path(place) / package.file
        try:
            with (
                urllib.request.urlopen(package.url, timeout=PATIENCE) as answer,
                path.open("wb") as file,
            ):
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise MissingData(
                f"emoji: {package.url} could not be fetched ({error}); get it elsewhere with `npm pack "
                f"{package.name}@{VERSION}`, and give its folder as --packages"
            ) from error
        yield path


def _check(package: Package, archive: Path) -> None:
    seen = hashlib.sha512()
    with opened(archive) as file:
        while chunk := file.read(CHUNK):
            seen.update(chunk)
    if base64.b64encode(seen.digest()).decode() != package.sha512:
        raise MissingData(
            f"emoji: {archive.name} is not what npm published (its sha512 is another); get it anew "
            f"with `npm pack {package.name}@{VERSION}`"
        )


def _contents(package: Package, archive: Path) -> dict[str, bytes]:
    """The files that we want, by our name."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as held:
            for member in held:
                if member.isfile() and member.name in package.members:
                    file = held.extractfile(member)
                    assert file is not None
                    found[package.members[member.name]] = file.read(LARGEST)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise MissingData(f"emoji: {archive.name} cannot be unpacked ({error})") from error
    lacking = [name for name, ours in package.members.items() if ours not in found]
    if lacking:
        raise MissingData(f"emoji: {archive.name} holds no {lacking[0]}")
    return found
