"""Pictures beside records: kept, found, never believed when changed, and swept with their record."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from sslbench.cli.app import program
from sslbench.records import Record
from sslbench.store import CellFolder, Store, png
from sslbench.store.sheets import PIXELS

LINE = (
    "--no-plugins run --suite quick --methods moco --datasets digits[train=100,test=30] --seeds 0"
)
SMALL = "--epochs 1 --batch 32 --set moco.queue=64 --evaluators nearest --device cpu --quiet"


def call(line: str, store: Path) -> Result:
    done = CliRunner().invoke(program, [*line.split(), "--store", str(store)])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, forks: None) -> Path:
    store = tmp_path_factory.mktemp("sheets") / "store"
    call(f"{LINE} {SMALL}", store)
    return store


def judged(store: Path) -> tuple[CellFolder, Record]:
    found = [(c, r) for c in Store(store).cells() for r in c.records() if r.method == "moco"]
    (one,) = [(cell, record) for cell, record in found if record.kind == "evaluation"]
    return one


def test_a_sheet_lies_beside_its_record_and_is_shown(made: Path) -> None:
    cell, record = judged(made)
    path = cell.sheet(record)
    assert path is not None
    assert path.with_suffix(".json").is_file()
    with Image.open(path) as picture:
        assert picture.size == (6 * 36 + 6, 20 * 36)
    assert f"sheet of nearest-1: {path}" in call(f"show {cell.id[:12]}", made).output
    plain = json.loads(call(f"show {cell.id[:12]} --json", made).output)
    assert plain["sheets"] == {"nearest-1": str(path)}


def test_a_sheet_that_was_changed_is_set_aside(made: Path) -> None:
    cell, record = judged(made)
    path = cell.sheet(record)
    assert path is not None
    before = path.read_bytes()
    path.write_bytes(before + b"x")
    assert cell.sheet(record) is None
    assert any("not its record's sheet" in notice for notice in cell.notices)
    assert cell.sheet(record) is None  # it is gone
    path.write_bytes(before)
    assert cell.sheet(record) == path


def test_gc_removes_sheets_without_a_record_alone(made: Path) -> None:
    cell, record = judged(made)
    kept = cell.sheet(record)
    assert kept is not None
    lone = kept.with_name("nearest-0.png")
    lone.write_bytes(b"x")
    call("store gc", made)
    assert kept.is_file()
    assert not lone.exists()


@pytest.mark.slow
def test_no_predictions_keeps_none_and_changes_no_number(made: Path, tmp_path: Path) -> None:
    call(f"{LINE} {SMALL} --no-predictions", tmp_path / "store")
    cell, record = judged(tmp_path / "store")
    assert record.sheet == ""
    assert cell.sheet(record) is None
    assert not list(cell.path.rglob("*.png"))
    assert "sheet" not in json.loads(record.dumps())
    other = judged(made)[1]
    assert (record.metrics, record.identity) == (other.metrics, other.identity)


def test_a_png_has_the_pixels() -> None:
    sheet = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    with Image.open(io.BytesIO(png(sheet))) as picture:
        assert np.array_equal(np.asarray(picture), sheet.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        (torch.zeros(3, 4, 4), r"a sheet is torch.float32 \[3, 4, 4\], where uint8"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"\[4, 4, 3\], where uint8 \[3, H, W\]"),
        (torch.zeros(3, 0, 4, dtype=torch.uint8), "0 x 4 pixels cannot be kept"),
        (torch.zeros(3, 1, dtype=torch.uint8).expand(3, PIXELS + 1)[:, None], "cannot be kept"),
    ],
)
def test_what_is_no_sheet_is_a_sentence(sheet: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        png(sheet)
