"""Feeds damaged files to everything that reads strangers' files, and reports what is not a sentence.

    python benchmarks/fuzz.py --seconds 600      # for each kind of file
    python benchmarks/fuzz.py --seconds 5        # as CI does

Kinds: pictures in ten formats, checkpoints, bundles, suites, records and other JSON of a store,
predictions, leaderboards. Each is made soundly, then bits are flipped, bytes replaced, cut out,
doubled, or spliced from another sound file. A reader may refuse by its own errors; another
exception, more than ten seconds, a file written outside the scratch folder, a started process, a
connection or a module imported by a name in the file is a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from sslbench.api import Place, Predictions
from sslbench.cells.suite import read_suite
from sslbench.datasets.pictures import BROKEN, decode, is_picture, short_side
from sslbench.errors import UserError
from sslbench.leaderboard.folder import folder as folders
from sslbench.leaderboard.folder.validate import validate
from sslbench.leaderboard.verify.bundle import pack
from sslbench.leaderboard.verify.unpack import unpack
from sslbench.records import Record, loads
from sslbench.run.external.reading import read
from sslbench.store import Store, answers
from sslbench.store.predictions import packed, read_predictions
from sslbench.store.tensors import Damaged, read_tensors

ROOT = Path(__file__).parents[1]
SLOW = 10.0  # seconds
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "JPEG2000", "AVIF")
FORBIDDEN = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")
CELL = "ab" * 32


class Kind(NamedTuple):
    """A kind of file: sound contents, what reads one, and the errors by which it may refuse."""

    sound: list[bytes]
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...]
    suffix: str = ""


class Hung(BaseException):
    """A reader took too long."""


# ---- what must not happen --------------------------------------------------------------------

_events: list[str] = []
_scratch = [Path("/nowhere")]


def audit(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN):
        _events.append(f"{event} {args!r:.100}")
    if event == "open" and isinstance(args[0], str | bytes) and isinstance(args[2], int):
        writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        path = Path(os.path.abspath(os.fsdecode(args[0])))  # noqa: PTH100 - never follows links
        if writes and not path.is_relative_to(_scratch[0]) and path != Path(os.devnull):
            _events.append(f"writes {path}")


@contextlib.contextmanager
def watched() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SLOW)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- damage ----------------------------------------------------------------------------------


def damaged(sound: list[bytes]) -> bytes:
    content = bytearray(random.choice(sound))
    for _ in range(random.choice([1, 1, 1, 2, 4, 16])):
        at = random.randrange(len(content)) if content else 0
        length = min(random.choice([1, 2, 4, 8, 64, 512]), len(content) - at)
        how = random.randrange(7)
        if how == 0 and content:
            content[at] ^= 1 << random.randrange(8)
        elif how == 1:
            content[at : at + length] = random.randbytes(length)
        elif how == 2:
            del content[at : at + length]
        elif how == 3:
            content[at:at] = content[at : at + length] * random.choice([1, 2, 50])
        elif how == 4:
            other = random.choice(sound)
            start = random.randrange(len(other)) if other else 0
            content[at:] = other[start:]
        elif how == 5:
            content[at : at + 4] = random.choice(
                [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"99999"]
            )
        else:
            content = content[:at]
    return bytes(content)


# ---- kinds -----------------------------------------------------------------------------------


def pictures(home: Path) -> Kind:
    sound = []
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 31, 3), np.uint8)
        for form in FORMATS:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, form)
            sound.append(file.getvalue())

    def use(path: Path) -> None:
        if is_picture(path):
            with contextlib.suppress(*BROKEN):
                short_side(path)
        decode([path], size=16, place=Place(skip_broken=True))

    return Kind(sound, use, (UserError,), ".png")


def checkpoints(home: Path) -> Kind:
    state = {"conv.weight": torch.rand(4, 3), "bn.bias": torch.ones(2), "n": torch.tensor(3)}
    path = home / "sound"
    sound = []
    for content in (
        state,
        {"state_dict": state, "args": argparse.Namespace(lr=1), "best": np.float64(1)},
        {"teacher": state, "epoch": 3, "path": Path("x")},
    ):
        torch.save(content, path)
        sound.append(path.read_bytes())
        torch.save(content, path, _use_new_zipfile_serialization=False)
        sound.append(path.read_bytes())
    return Kind(sound, read, (UserError,), ".pth")


def safetensors(home: Path) -> Kind:
    path = home / "sound"
    save_file({"a": torch.rand(3, 4), "b": torch.arange(5)}, path, metadata={"plain": "{}"})
    return Kind([path.read_bytes()], read, (UserError,), ".safetensors")


def tensors(home: Path) -> Kind:
    cell = Store(home / "store").cell(CELL)
    path = cell.save("model", {"w": torch.rand(3, 4)}, {"x": 1})
    return Kind([path.read_bytes()], read_tensors, (Damaged,), ".safetensors")


def suites(home: Path) -> Kind:
    files = [*ROOT.glob("sslbench/suites/*.yaml"), *ROOT.glob("leaderboards/*/suite.yaml")]
    return Kind([file.read_bytes() for file in files], read_suite, (UserError,), ".yaml")


def records(home: Path) -> Kind:
    files = sorted(ROOT.glob("leaderboards/quick/records/*/*/*.json"))
    return Kind(
        [file.read_bytes() for file in files],
        lambda path: loads(path.read_bytes().decode()),
        (ValueError,),
        ".json",
    )


def stores(home: Path) -> Kind:
    """Any JSON file of a store, wherever it lies in one."""
    store = Store(home / "whole")
    store.create()
    cell = store.cell(CELL)
    record = Record(
        kind="train", cell_id=CELL, identity={"x": 1}, status="ok", method="m", backbone="b",
        dataset="d", seed=0, finished="2026-01-01T00:00:00Z",
    )  # fmt: skip
    cell.add(record)
    (file,) = (cell.path / "records").glob("*.json")

    def use(path: Path) -> None:
        root = home / "damaged"
        shutil.rmtree(root, ignore_errors=True)
        opened = Store(root)
        place = opened.cell(CELL)
        (place.path / "records").mkdir(parents=True)
        for name in ("records/train-0.json", "identity.json", "place.json"):
            shutil.copy(path, place.path / name)
        place.records(), place.identity(), place.place(), place.trained()  # none of them raises
        shutil.copy(path, root / "store.json")
        with contextlib.suppress(UserError):
            Store(root)

    sound = [file.read_bytes(), (home / "whole" / "store.json").read_bytes(), b'{"dataset": "a"}']
    return Kind(sound, use, (), ".json")


def predictions(home: Path) -> Kind:
    found = [answers(Predictions(torch.arange(n) % 7, torch.arange(n) % 5)) for n in (3, 300)]
    return Kind(
        [packed(each) for each in found],
        lambda path: read_predictions(path, found[0].digest()),
        (ValueError,),
        ".npz",
    )


def bundles(home: Path) -> Kind:
    board = home / "board"
    shutil.copytree(ROOT / "leaderboards/quick", board)
    pack(folders.read(board), Store(home / "none"), home / "sound.zip", models=False)

    def use(path: Path) -> None:
        into = home / "unpacked"
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        unpack(path, into)

    return Kind([(home / "sound.zip").read_bytes()], use, (UserError,), ".zip")


def boards(home: Path) -> Kind:
    """A leaderboard of which one file is damaged."""
    board = home / "one"
    shutil.copytree(ROOT / "leaderboards/quick", board)
    files = [board / "leaderboard.lock.json", board / "suite.yaml"]
    files += sorted(board.glob("records/*/*/*.json"))[:4]
    whole = {file: file.read_bytes() for file in files}

    def use(path: Path) -> None:
        file = random.choice(files)
        file.write_bytes(path.read_bytes())
        try:
            validate(board)
            folders.read(board)
            folders.read_lock(board)
        finally:
            file.write_bytes(whole[file])

    return Kind(list(whole.values()), use, (UserError,), ".json")


KINDS = (
    *(pictures, checkpoints, safetensors, tensors, suites, records, stores, predictions),
    *(bundles, boards),
)


def fuzz(kind: Kind, home: Path, seconds: float) -> tuple[int, float, list[str]]:
    """Reads damaged files for so long. Returns how many, the slowest, and what went wrong."""
    faults: list[str] = []
    count, slowest, end = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        content = damaged(kind.sound)
        path = home / f"damaged{kind.suffix}"
        path.write_bytes(content)
        _events.clear()
        begun, fault = time.monotonic(), ""
        try:
            with watched():
                kind.read(path)
        except kind.refuses:
            pass
        except Hung:
            fault = f"took over {SLOW:g} s"
        except BaseException as error:  # noqa: BLE001 - which is what is looked for
            fault = f"{type(error).__name__}: {error}"
        count, slowest = count + 1, max(slowest, time.monotonic() - begun)
        for found in filter(None, [fault, *_events]):
            faults.append(found[:200])
            kept = Path(tempfile.gettempdir()) / f"fuzz-{len(faults)}{kind.suffix}"
            print(f"  {found[:200]}: {kept}", flush=True)
            _events.clear()
            shutil.copy(path, kept)
    return count, slowest, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="for each kind")
    parser.add_argument("--kinds", default="", help="names, joined by commas; all")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    wrong = 0
    Image.init()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        _scratch[0] = Path(scratch).resolve()
        sys.addaudithook(audit)
        for make in KINDS:
            if asked.kinds and make.__name__ not in asked.kinds.split(","):
                continue
            random.seed(json.dumps([asked.seed, make.__name__]))
            home = Path(scratch) / make.__name__
            home.mkdir()
            count, slowest, faults = fuzz(make(home), home, asked.seconds)
            print(
                f"{make.__name__:12} {count:8,} files, slowest {slowest:.2f} s, {len(faults)} faults"
            )
            wrong += len(faults)
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
