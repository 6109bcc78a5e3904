"""What may be published holds no path of this machine, and no name of its user or host."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import sslbench
from sslbench.cli.app import program
from sslbench.names import published
from sslbench.one_cell.provenance import without_paths
from sslbench.store import Store

SUITE = """
summary: a tiny suite
datasets: ["folder:{home}/ann/photos[size=16]"]
backbones: [test_resnet]
methods: [simclr, "file:boom/boom"]
baselines: [untrained]
floor: untrained
evaluators: [knn]
seeds: [0]
epochs: 1
batch: 16
set: {{simclr.blur: 0.0}}
"""
BOOM = """
from sslbench import Method, hookimpl
class Boom(Method):
    "It fails. arXiv 0000.00000. Departures: all."
    def __init__(self, backbone, data):
        super().__init__()
        self.backbone = backbone
    def views(self):
        return lambda images: images.float() / 255
    def step(self, batch):
        open(__file__ + ".missing")
        yield
@hookimpl
def methods():
    return {"boom": Boom}
"""


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("digits[test=30]", "digits[test=30]"),
        ("folder:photos", "folder:photos"),
        ("folder:data/photos[size=32]", "folder:data/photos[size=32]"),
        ("folder:/home/ann/photos/[size=32]", "folder:photos[size=32]"),
        ("folder:~/photos", "folder:photos"),
        ("folder:../ann/photos", "folder:photos"),
        (r"folder:C:\Users\ann\photos", "folder:photos"),
        ("folder:/", "folder:root"),
        ("hf:uoft-cs/cifar10", "hf:uoft-cs/cifar10"),
    ],
)
def test_a_folder_is_called_by_its_last_part(name: str, wanted: str) -> None:
    assert published(name) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cannot read /mnt/ann/x.png: no", "cannot read x.png: no"),
        ("folder:/mnt/ann/photos has one class", "folder:photos has one class"),
        (f'File "{Path(sslbench.__file__)}", line 3', 'File "sslbench/__init__.py", line 3'),
        (f'File "{json.__file__}"', 'File "python3.11/json/__init__.py"'),
        (f"{Path.home()}/odd.py:3", "~/odd.py:3"),
        ("3 images/s, and/or see https://arxiv.org/abs/1 or a / b", None),
        (r"C:\Users\ann\x.png is", "x.png is"),
    ],
)
def test_texts_lose_their_paths(text: str, wanted: str | None) -> None:
    text = text.replace("python3.11", Path(json.__file__).parents[1].name)
    wanted = text if wanted is None else wanted
    assert without_paths(text) == wanted.replace("python3.11", Path(json.__file__).parents[1].name)


def test_a_board_and_its_bundle_hold_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: None
) -> None:
    for split, each in (("train", 16), ("test", 4)):
        for number, kind in enumerate(("ants", "bees")):
            for row in range(each):
                path = tmp_path / "ann" / "photos" / split / kind / f"{row}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(100 * number + row).integers(0, 256, (16, 16, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(SUITE.format(home=tmp_path))
    Path("boom.py").write_text(BOOM)

    def call(*line: str, code: int = 0) -> str:
        done = CliRunner().invoke(program, [*line, "--plugin", "boom.py"])
        assert done.exit_code == code, done.output
        return done.output

    call("run", "--suite", "tiny.yaml", code=3)
    call("leaderboard", "build", "tiny.yaml", "--out", "board")
    call("leaderboard", "bundle", "board", "--out", "board.zip")
    shutil.unpack_archive("board.zip", "bundle")
    files = [path for root in ("board", "bundle") for path in Path(root).rglob("*.*")]
    assert len(files) > 15
    secrets = [str(tmp_path), str(Path.home()), str(Path(sslbench.__file__).parents[1])]
    secrets += [f"/{name}/" for name in {getpass.getuser(), socket.gethostname()}]
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, (path, secret)
    failed = [r for c in Store(Path("sslbench-store")).cells() for r in c.records() if r.error]
    assert "boom.py.missing" in failed[0].sentence
    assert 'File "sslbench/train/loop.py"' in failed[0].error.traceback
    (cell,) = {r.cell_id for c in Store(Path("sslbench-store")).cells() for r in c.records()
               if r.method == "simclr"}  # fmt: skip
    monkeypatch.chdir(tmp_path / "ann")  # the path is still known here
    assert sslbench.load(cell, tmp_path / "sslbench-store")
