"""`show` of a dataset that is opened, and its sheets: counts by hand, and pictures read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from sslbench.api import Place
from sslbench.cli.app import program
from sslbench.cli.examples import GAP, SHOWN, counted, of_dataset, of_views, views_of
from sslbench.data import open_data
from sslbench.errors import UserError
from sslbench.plugins import registry

FOUND = registry(installed=False)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SSLBENCH_STORE", "SSLBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)


def called(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(program, ["--no-plugins", "show", *words])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def moths() -> Path:
    """Nine pictures of two kinds; two of train are one, and one of test is in train."""
    draw = np.random.default_rng(0)
    first = draw.integers(0, 255, (40, 30, 3), dtype=np.uint8)
    for split, kind, number in [
        *(("train", "moth", i) for i in range(5)),
        *(("train", "owl", i) for i in range(2)),
        ("test", "moth", 0),
        ("test", "owl", 0),
    ]:
        again = (split, kind, number) in (
            ("train", "moth", 0),
            ("train", "moth", 1),
            ("test", "moth", 0),
        )
        pixels = first if again else draw.integers(0, 255, (40, 30, 3), dtype=np.uint8)
        place = Path("moths", split, kind)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return Path("moths")


def test_a_folder_is_counted(moths: Path) -> None:
    said = called("folder:moths[size=32]")
    assert "7 images of train and 2 of test, 32 x 32 pixels as they are stored" in said
    assert "smallest class: owl, 2 of train" in said
    assert "chance: 50.0 %" in said
    assert "the same picture again, bit for bit: 1 within train, 1 of test in train" in said
    assert [line.split() for line in said.splitlines() if line.startswith(("moth ", "owl "))] == [
        ["moth", "5", "1"],
        ["owl", "2", "1"],
    ]
    plain = json.loads(called("folder:moths[size=32]", "--json"))
    assert plain["classes"] == {"moth": {"train": 5, "test": 1}, "owl": {"train": 2, "test": 1}}
    assert (plain["twice_in_train"], plain["of_test_in_train"]) == (1, 1)


def test_a_datasets_card_needs_no_data_and_its_sheet_does() -> None:
    assert "citation" in called("digits")
    assert "chance" in called("digits", "--sheet", "digits.png")
    with Image.open("digits.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.height > 10 * 48


def test_the_sheet_of_a_dataset_has_images_of_every_class() -> None:
    data = open_data("digits[train=100,test=30]", FOUND, Place())
    sheet = np.asarray(of_dataset(data))
    for kind in range(10):
        image = data.train.images[(data.train.labels == kind).nonzero()[0, 0]]
        large = image.permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
        assert _holds(sheet, large) or (data.train.labels == kind).sum() > 8
    assert sheet.shape[0] > 10 * (64 + GAP)


def _holds(sheet: np.ndarray, part: np.ndarray) -> bool:
    """Whether a picture is somewhere on the sheet."""
    high, wide = part.shape[:2]
    corners = (sheet[: -high + 1, : -wide + 1] == part[0, 0]).all(-1)
    return any((sheet[y : y + high, x : x + wide] == part).all() for y, x in np.argwhere(corners))


@pytest.mark.parametrize(
    ("method", "columns"), [("simclr", 2), ("rotation", 1), ("jigsaw", 9), ("mixmatch", 2)]
)
def test_a_methods_views_stand_beside_their_images(method: str, columns: int) -> None:
    data, views = views_of(
        method, "digits[train=100,test=30]", FOUND, Place(), Path("store"), suite="fashion"
    )
    sheet = of_views(method, data, views)
    again = of_views(method, data, views)
    assert sheet.tobytes() == again.tobytes()  # drawn from one seed
    assert sheet.height >= SHOWN * 48
    assert sheet.width >= (1 + columns) * 24
    state = torch.get_rng_state()
    of_views(method, data, views)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_has_no_pictures_is_a_sentence(moths: Path) -> None:
    assert "never trained: it has no views" in called("untrained", "--sheet", "a.png", code=2)
    assert "--sheet draws a dataset or a method, and knn is neither" in called(
        "knn", "--sheet", "a.png", code=2
    )
    assert "name it FILE.png" in called("moco", "--sheet", "a.jpg", code=2)
    assert "unknown dataset 'fodler'; did you mean 'folder'?" in called("fodler:moths", code=2)
    assert "has no views of" in called("mae", "--sheet", "a.png", code=2)
    data = open_data("digits[train=100,test=30]", FOUND, Place())
    with pytest.raises(UserError, match="no pictures that could be shown"):
        of_views("odd", data, {"main": lambda x: x.flatten(1)})


def test_pictures_without_labels_are_counted(moths: Path) -> None:
    data = open_data("folder:moths[size=32]", FOUND, Place())
    data.train.labels[0] = -1
    assert counted(data)["without_label"] == {"train": 1, "test": 0}
