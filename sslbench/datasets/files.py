"""Finds the official files of a published dataset, checks them, and downloads them."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..api import Place
from ..arrays import Bytes
from ..errors import MissingData


@dataclass(frozen=True)
class Layout:
    """Names of files that lie in one folder, and the folders in which to look for them."""

    folders: tuple[str, ...]  # below each root, "" for the root itself
    names: tuple[str, ...]
    zipped: bool = False  # each may also be there as NAME.gz


@dataclass(frozen=True)
class Official:
    """The files of a published dataset."""

    name: str  # of the dataset
    layouts: tuple[Layout, ...]  # any of them will do
    source: str  # where a person gets them
    checksums: Mapping[str, str] = field(default_factory=dict)  # file -> md5, unzipped
    system: tuple[Path, ...] = ()  # where a package of a Linux distribution puts them
    package: str = ""  # the name of that package
    torchvision: str = ""  # the class of torchvision that downloads them
    arguments: tuple[Mapping[str, Any], ...] = ({},)  # of its constructor, one call each

    def find(self, place: Place) -> dict[str, Path]:
        """Finds the files in the first folder that holds a complete layout: path by name."""
        found = self._look(place)
        if found is None and place.download:
            self._fetch(place)
            found = self._look(place)
        if found is None:
            raise MissingData(self._absence(place))
        return found

    def read(self, path: Path) -> Bytes:
        """Reads a file, unzipped or memory-mapped, and checks its published checksum."""
        name = path.name.removesuffix(".gz")
        try:
            if path.suffix == ".gz":
                content = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
            elif path.stat().st_size == 0:
                raise self.damaged(path, "it is empty")
            else:
                content = np.memmap(path, np.uint8, mode="r")
        except (OSError, EOFError, zlib.error) as error:
            raise self.damaged(path, f"it cannot be read: {error}") from error
        wanted = self.checksums.get(name)
        found = wanted and hashlib.md5(content.data, usedforsecurity=False).hexdigest()
        if found != wanted:
            raise self.damaged(path, f"its md5 is {found}, the published one {wanted}")
        return content

    def expect(self, path: Path, found: int, wanted: int | None, what: str = "images") -> None:
        """Checks a count, which tells a truncated or foreign file from the published one."""
        if wanted is not None and found != wanted:
            raise self.damaged(path, f"it holds {found:,} {what}, the published one {wanted:,}")

    def damaged(self, path: Path, why: str) -> MissingData:
        return MissingData(
            f"{self.name}: {path} is not the published file ({why}); "
            f"remove it and get it anew {self._remedy()}"
        )

    def _look(self, place: Place) -> dict[str, Path] | None:
        for folder, layout in self._candidates(place):
            found = {name: _present(folder / name, layout) for name in layout.names}
            whole = {name: path for name, path in found.items() if path is not None}
            if len(whole) == len(found):
                return whole
        return None

    def _candidates(self, place: Place) -> Iterator[tuple[Path, Layout]]:
        for root in place.roots:
            for layout in self.layouts:
                for folder in layout.folders:
                    yield root / folder, layout
        for packaged in self.system:
            yield packaged, self.layouts[0]

    def _absence(self, place: Place) -> str:
        """Says what is missing: a file of the folder that has most of them, or else the first."""
        absent = self.layouts[0].names[0]
        most = 0
        for folder, layout in self._candidates(place):
            gone = [name for name in layout.names if _present(folder / name, layout) is None]
            if len(layout.names) - len(gone) > most:
                most, absent = len(layout.names) - len(gone), gone[0]
        looked = dict.fromkeys(str(folder) for folder, _ in self._candidates(place))
        where = f"looked in {', '.join(looked)}" if looked else "no folder was given to look in"
        return f"{self.name}: {absent} was not found ({where}); get it {self._remedy()}"

    def _remedy(self) -> str:
        ways = [f"from {self.source} into the folder given by --data DIR or SSLBENCH_DATA"]
        if self.torchvision:
            ways.insert(0, "with --download --data DIR")
        if self.package:
            ways.insert(0, f"with `apt-get install {self.package}`")
        return ", or ".join(ways)

    def _fetch(self, place: Place) -> None:
        if not self.torchvision:
            raise MissingData(
                f"{self.name}: its files are not there and --download does not know how to fetch "
                f"them; get them {self._remedy()}"
            )
        if not place.roots:
            raise MissingData(
                f"{self.name}: --download needs a folder to download to; give --data DIR"
            )
        # takes seconds to import, so that it is imported only to download
        from torchvision import datasets

        root = place.roots[0]
        try:
            root.mkdir(parents=True, exist_ok=True)
            for arguments in self.arguments:
                getattr(datasets, self.torchvision)(root, download=True, **arguments)
        except (
            OSError,
            EOFError,
            RuntimeError,
            ValueError,
            http.client.HTTPException,
            tarfile.TarError,
            zlib.error,
        ) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise MissingData(
                f"{self.name}: the download into {root} failed ({reason}); try again, or get it "
                f"from {self.source}"
            ) from error


def _present(path: Path, layout: Layout) -> Path | None:
    if path.is_file():
        return path
    packed = path.with_name(path.name + ".gz")
    return packed if layout.zipped and packed.is_file() else None
