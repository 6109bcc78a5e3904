"""Finds, downloads and checks the published CIFAR-10-C and CIFAR-100-C."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

from torch import Tensor

from ..api import Place
from ..corruptions.files import LABELS, Claim, CorruptedFolder
from ..errors import MissingData

BLOCK = 2**20  # bytes read at a time
PATIENCE = 60  # seconds without a byte until a download has failed


@dataclass(frozen=True)
class Published:
    """A set of corrupted images as its authors published it."""

    name: str  # of the set
    folder: str  # below a root; also the folder in the archive
    sums: Mapping[str, str]  # file without .npy -> md5
    page: str  # where a person gets it
    url: str  # of the archive, a plain tar
    size: int  # of the archive, bytes
    md5: str
    sides: tuple[int, int] = (32, 32)

    def open(self, place: Place, labels: Tensor) -> CorruptedFolder:
        """Opens the folder in the first root that has it, or downloads it.

        labels: [N], those of the test split, in order

        Raises:
            MissingData: it is missing, or is not the published one.
        """
        found = self._look(place)
        if found is None and place.download:
            found = self._fetch(place)
        if found is None:
            looked = ", ".join(str(root / self.folder) for root in place.roots)
            where = f"looked for {looked}" if looked else "no folder was given to look in"
            raise MissingData(
                f"{self.name}: the folder {self.folder} was not found ({where}); get it with "
                f"--download --data DIR, or {self._by_hand()}"
            )
        claim = Claim(
            self.name,
            names=tuple(name for name in self.sums if name != LABELS),
            sides=self.sides,
            sums=self.sums,
            algorithm="md5",
            remedy=f"remove the folder and get it with --download, or {self._by_hand()}",
        )
        return CorruptedFolder(found, claim, labels)

    def _look(self, place: Place) -> Path | None:
        return next((r / self.folder for r in place.roots if (r / self.folder).is_dir()), None)

    def _by_hand(self) -> str:
        return f"from {self.page} into the folder given by --data DIR or SSLBENCH_DATA"

    # ---- downloading -----------------------------------------------------------------------

    def _fetch(self, place: Place) -> Path:
        if not place.roots:
            raise MissingData(
                f"{self.name}: --download needs a folder to download to; give --data DIR"
            )
        root = place.roots[0]
        part = root / f"{self.folder}.tar.part"
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._require_space(root, part)
            self._receive(part)
            return self._unpack(part, root)
        except (OSError, LookupError, ValueError, HTTPException, tarfile.TarError) as error:
            raise MissingData(
                f"{self.name}: the download of {self.url} into {root} failed ({_reason(error)}); "
                f"the same command goes on from there, or get it {self._by_hand()}"
            ) from error

    def _require_space(self, root: Path, part: Path) -> None:
        """Checks that the disk has space for the archive and its content."""
        needed = 2 * self.size - (part.stat().st_size if part.exists() else 0)
        free = shutil.disk_usage(root).free
        if free < needed:
            raise MissingData(
                f"{self.name}: {root} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are "
                "needed for the archive and its content; give --data DIR on another disk"
            )

    def _receive(self, part: Path) -> None:
        """Downloads the rest of the archive to `part`, and checks its md5."""
        have = part.stat().st_size if part.exists() else 0
        if have < self.size:
            with _opened(self.url, have) as answer:
                resumed = getattr(answer, "status", None) == HTTPStatus.PARTIAL_CONTENT
                with part.open("ab" if resumed else "wb") as file:
                    shutil.copyfileobj(answer, file, BLOCK)
        found = part.stat().st_size
        if found < self.size:
            raise OSError(f"only {found:,} of {self.size:,} bytes were received")
        md5 = _md5(part)
        if md5 != self.md5:
            part.unlink()
            raise OSError(
                f"the file received has {found:,} bytes and the md5 {md5}, published are "
                f"{self.size:,} and {self.md5}; it was removed"
            )

    def _unpack(self, part: Path, root: Path) -> Path:
        """Unpacks only the known files, and moves the folder into place once it is complete."""
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{self.folder}-") as fresh:
            inside = Path(fresh) / self.folder
            inside.mkdir()
            with tarfile.open(part, "r:") as archive:
                for name in self.sums:
                    member = archive.getmember(f"{self.folder}/{name}.npy")
                    content = archive.extractfile(member) if member.isreg() else None
                    if content is None:
                        raise OSError(f"{member.name} in it is not a plain file")
                    with content, (inside / f"{name}.npy").open("wb") as file:
                        shutil.copyfileobj(content, file, BLOCK)
            inside.replace(root / self.folder)
        part.unlink()
        return root / self.folder


@contextlib.contextmanager
def _opened(url: str, have: int) -> Iterator[Any]:
    """Opens a URL, from byte `have` on where the server supports that."""
    headers = {"User-Agent": "sslbench"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        yield answer


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return " ".join(str(inner).split()) or type(error).__name__


def _md5(path: Path) -> str:
    seen = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            seen.update(block)
    return seen.hexdigest()


CIFAR10_C = Published(
    name="cifar10-c",
    folder="CIFAR-10-C",
    sums={
        "gaussian_noise": "ecaf8b9a2399ffeda7680934c33405fd",
        "shot_noise": "3a7239bb118894f013d9bf1984be7f11",
        "impulse_noise": "2090e01c83519ec51427e65116af6b1a",
        "defocus_blur": "7d1322666342a0702b1957e92f6254bc",
        "glass_blur": "7361fb4019269e02dbf6925f083e8629",
        "motion_blur": "fffa5f852ff7ad299cfe8a7643f090f4",
        "zoom_blur": "6ea8e63f1c5cdee1517533840641641b",
        "snow": "bb238de8555123da9c282dea23bd6e55",
        "frost": "31f6ab3bce1d9934abfb0cc13656f141",
        "fog": "7b397314b5670f825465fbcd1f6e9ccd",
        "brightness": "0a81ef75e0b523c3383219c330a85d48",
        "contrast": "3c8262171c51307f916c30a3308235a8",
        "elastic_transform": "9421657c6cd452429cf6ce96cc412b5f",
        "pixelate": "0f14f7e2db14288304e1de10df16832f",
        "jpeg_compression": "2b9cc4c864e0193bb64db8d7728f8187",
        "speckle_noise": "ef00b87611792b00df09c0b0237a1e30",
        "gaussian_blur": "c33370155bc9b055fb4a89113d3c559d",
        "spatter": "8a5a3903a7f8f65b59501a6093b4311e",
        "saturate": "1cfae0964219c5102abbb883e538cc56",
        "labels": "c439b113295ed5254878798ffe28fd54",
    },
    page="https://zenodo.org/records/2535967",
    url="https://zenodo.org/records/2535967/files/CIFAR-10-C.tar?download=1",
    size=2_918_471_680,
    md5="56bf5dcef84df0e2308c6dcbcbbd8499",
)
CIFAR100_C = Published(
    name="cifar100-c",
    folder="CIFAR-100-C",
    sums={
        "gaussian_noise": "ecc4d366eac432bdf25c024086f5e97d",
        "shot_noise": "b0a1fa6e1e465a747c1b204b1914048a",
        "impulse_noise": "3b3c210ddfa0b5cb918ff4537a429fef",
        "defocus_blur": "d923e3d9c585a27f0956e2f2ad832564",
        "glass_blur": "0bf384f38e5ccbf8dd479d9059b913e1",
        "motion_blur": "732a7e2e54152ff97c742d4c388c5516",
        "zoom_blur": "0204613400c034a81c4830d5df81cb82",
        "snow": "0237be164583af146b7b144e73b43465",
        "frost": "3a39c6823bdfaa0bf8b12fe7004b8117",
        "fog": "4efc7ebd5e82b028bdbe13048e3ea564",
        "brightness": "f22d7195aecd6abb541e27fca230c171",
        "contrast": "322bb385f1d05154ee197ca16535f71e",
        "elastic_transform": "a0792bd6581f6810878be71acedfc65a",
        "pixelate": "96c00c60f144539e14cffb02ddbd0640",
        "jpeg_compression": "c851b7f1324e1d2ffddeb76920576d11",
        "speckle_noise": "e3f215b1a0f9fd9fd6f0d1cf94a7ce99",
        "gaussian_blur": "5204ba0d557839772ef5a4196a052c3e",
        "spatter": "12ccf41d62564d36e1f6a6ada5022728",
        "saturate": "c0697e9fdd646916a61e9c312c77bf6b",
        "labels": "bb4026e9ce52996b95f439544568cdb2",
    },
    page="https://zenodo.org/records/3555552",
    url="https://zenodo.org/records/3555552/files/CIFAR-100-C.tar?download=1",
    size=2_918_473_216,
    md5="11f0ed0f1191edbf9fa23466ae6021d3",
)
