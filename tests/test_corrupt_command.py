"""`sslbench corrupt`, whole: what it writes, draws, prints and exits with."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from sslbench.api import Corrupted, Place, Split
from sslbench.cli.app import program
from sslbench.cli.sheet import draw
from sslbench.corruptions import ALL
from sslbench.data import open_data, writing
from sslbench.data.corrupted import Rendered
from sslbench.plugins import registry

CPU = torch.device("cpu")
QUICK = "contrast,pixelate"
PROGRAM = [sys.executable, "-m", "sslbench"]


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("SSLBENCH_", "NO_COLOR")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def call(*args, code=0):
    result = CliRunner().invoke(program, ["corrupt", *args])
    assert result.exit_code == code, (result.output, result.exception)
    return result


# ---- files --------------------------------------------------------------------------------


def test_a_set_is_written_line_by_line_and_then_found_there(tmp_path):
    first = call("digits", "--out", "out", "--corruptions", "pixelate,contrast")
    lines = first.stdout.splitlines()
    assert re.fullmatch(r"contrast: 5\.3 MiB in \S+ s \(1/2\)", lines[0])
    assert re.fullmatch(r"pixelate: 5\.3 MiB in \S+ s \(2/2\)", lines[1])
    assert lines[2].startswith(
        "out/digits-regen-c: 2 corruptions made, 0 already there, 10.5 MiB, in "
    )
    assert lines[3].startswith("not complete: evaluators refuse it until all 19 are there")
    assert len(lines) == 4
    array = np.load(tmp_path / "out" / "digits-regen-c" / "contrast.npy")
    data = open_data("digits", registry(installed=False), Place())
    wanted = Rendered(data, CPU).block("contrast", 2).permute(0, 2, 3, 1)
    assert np.array_equal(array[360:720], wanted.numpy())
    second = call("digits", "--out", "out", "--corruptions", QUICK).stdout.splitlines()
    assert second[:2] == ["contrast: already there (1/2)", "pixelate: already there (2/2)"]
    assert "0 corruptions made, 2 already there" in second[2]


def test_a_damaged_file_is_made_again_and_told(tmp_path):
    call("digits", "--out", ".", "--corruptions", "contrast")
    path = tmp_path / "digits-regen-c" / "contrast.npy"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + b"x")
    lines = call("digits", "--out", ".", "--corruptions", "contrast").stdout.splitlines()
    assert lines[0] == "contrast: not what its manifest says; made again"
    assert path.read_bytes() == before


def test_json_is_all_that_standard_output_gets():
    result = call("digits", "--out", "out", "--corruptions", QUICK, "--sheet", "s.png", "--json")
    found = json.loads(result.stdout)
    assert found["dataset"] == "digits"
    assert found["set"] == "digits-regen-c"
    assert found["path"] == "out/digits-regen-c"
    assert found["complete"] is False
    assert found["made"] == ["contrast", "pixelate"]
    assert found["there"] == []
    assert found["images"] == 360
    assert found["bytes"] == 2 * 5 * 360 * 32 * 32 * 3
    assert isinstance(found["seconds"], float)
    assert found["sheet"] == "s.png"
    assert "pixelate: 5.3 MiB" in result.stderr


def test_a_whole_set_is_called_complete(tmp_path):
    folder = tmp_path / "pictures"
    draws = np.random.default_rng(0)
    for split, name in ((s, n) for s in ("train", "test") for n in "ab"):
        (folder / split / name).mkdir(parents=True)
        for number in range(2):
            pixels = draws.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    result = call(f"folder:{folder}[size=16]", "--out", "out", "--json")
    found = json.loads(result.stdout)
    assert found["complete"] is True
    assert found["made"] == list(ALL)
    assert found["set"] == "folder-pictures-regen-c"
    assert "not complete" not in result.stderr


def test_another_seed_and_photographs_make_sets_of_other_names(tmp_path):
    (tmp_path / "ice").mkdir()
    draws = np.random.default_rng(0)
    for number in range(2):
        pixels = draws.integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ice" / f"{number}.png")
    one = ("digits", "--out", "out", "--corruptions", "frost", "--json")
    sets = [
        json.loads(call(*one, *more).stdout)["set"]
        for more in ((), ("--seed", "3"), ("--frost", "ice"))
    ]
    assert sets[:2] == ["digits-regen-c", "digits-regen-c-seed-3"]
    assert re.fullmatch("digits-regen-c-frost-[0-9a-f]{8}", sets[2])
    arrays = [np.load(tmp_path / "out" / name / "frost.npy") for name in sets]
    assert not np.array_equal(arrays[0], arrays[1])
    assert not np.array_equal(arrays[0], arrays[2])


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files_and_the_same_command_goes_on(tmp_path):
    command = [*PROGRAM, "corrupt", "digits", "--out", "out"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs, and all that they start, ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as job:
        assert job.stdout.readline().startswith("gaussian_noise: ")  # in the order of the papers
        job.send_signal(signal.SIGINT)
        _, said = job.communicate()
    assert job.returncode == 130
    assert "interrupted; the same command goes on from here" in said
    assert "Traceback" not in said
    folder = tmp_path / "out" / "digits-regen-c"
    assert {path.stem for path in folder.glob("*.npy")} < {"labels", *ALL}
    assert not list(folder.glob(".*.part"))
    again = call(*command[4:])
    assert again.stdout.startswith("gaussian_noise: already there (1/19)")
    assert {path.stem for path in folder.glob("*.npy")} == {"labels", *ALL}


@pytest.mark.slow
def test_a_terminal_sees_a_bar_and_keeps_the_lines():
    ours, theirs = pty.openpty()
    job = subprocess.Popen(
        [*PROGRAM, "corrupt", "digits", "--out", "out", "--corruptions", QUICK],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert job.communicate()[1] == b""
    assert job.returncode == 0
    text = seen.decode()
    assert "━" in text
    assert re.search(r"pixelate: 5\.3 MiB in \S+ s \(2/2\)\r\n", text)
    assert "2 corruptions made" in text


# ---- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "give --out DIR for files, --sheet FILE.png for a picture, or both"),
        (("--out", "o", "--severities", "1"), 2, "--severities are columns of a --sheet"),
        (("--sheet", "s.png", "--severities", "0,6"), 2, "severities are 1 to 5"),
        (("--sheet", "s.png", "--severities", ""), 2, "severities are 1 to 5"),
        (("--sheet", "s.jpg"), 2, "name it FILE.png"),
        (("--out", "o", "--corruptions", "fgo"), 2, "unknown corruption 'fgo'; did you mean 'fog'"),
        (("--out", "o", "--corruptions", ""), 4, "--corruptions names none"),
        (("--out", "o", "--device", "abacus"), 2, "abacus"),
        (("--out", "o", "--frost", "nowhere"), 2, "nowhere"),
        (("--out", "o", "--seed", "-1"), 2, "-1"),
        (("--out", "taken/o"), 2, "taken/o/digits-regen-c could not be written"),
        (("--sheet", "taken/s.png"), 2, "cannot write taken/s.png"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(tmp_path, args, code, words):
    (tmp_path / "taken").write_text("a file")
    result = call("digits", *args, code=code)
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("digit", "did you mean 'digits'"),
        ("digits[test=9]", "ask for digits"),
        ("digits[size=8]", "8 x 8 pixels are too small"),
        ("cifar10", "cifar10: data_batch_1.bin was not found"),
    ],
)
def test_a_dataset_that_does_not_suit_is_a_sentence(dataset, words):
    assert words in call(dataset, "--out", "o", code=2).stderr


def test_a_disk_without_room_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: SimpleNamespace(free=5_600_000))
    result = call("digits", "--out", "o", "--corruptions", QUICK, code=2)
    assert "needs 0.01 GB for what is not there yet and its disk has 0.01 GB free" in result.stderr
    assert result.stdout == ""
    assert not list((tmp_path / "o" / "digits-regen-c").glob("contrast*"))


def test_help_costs_no_torch():
    look = (
        "import sys, sslbench.cli.corrupt; print([m for m in ('torch', 'PIL') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", look], text=True) == "[]\n"
    shown = call("--help").stdout
    for option in ("--out", "--sheet", "--corruptions", "--severities", "--frost", "--seed"):
        assert option in shown


# ---- the sheet ----------------------------------------------------------------------------


class Planted(Corrupted):
    """Every corruption and severity has colours of its own."""

    name, fingerprint = "planted-regen-c", "f"

    def block(self, corruption, severity, rows=None):
        colour = torch.tensor([10 + ALL.index(corruption), 40 * severity, 0], dtype=torch.uint8)
        images = colour[None, :, None, None].repeat(len(rows), 1, 20, 24)
        images[:, 2] = rows[:, None, None].to(torch.uint8)
        images[:, 2, 0, 0] = 255  # one pixel, so that turning a picture is noticed
        return images


def found(sheet, picture):
    """Where that picture stands on the sheet: x, y; it must stand there once."""
    high, wide = picture.shape[:2]
    first = (sheet == picture[0, 0]).all(-1)
    places = [
        (int(x), int(y))
        for y, x in np.argwhere(first)
        if np.array_equal(sheet[y : y + high, x : x + wide], picture)
    ]
    assert len(places) == 1, places
    return places[0]


def test_the_sheet_has_each_picture_enlarged_in_its_row_and_column():
    labels = torch.tensor([2, 2, 0, 1, 0, 3])
    images = torch.zeros(6, 3, 20, 24, dtype=torch.uint8)
    images[:, 0] = torch.arange(200, 206)[:, None, None].to(torch.uint8)
    names = ("snow", "gaussian_noise", "saturate")
    planted, severities = Planted(), (2, 5)
    drawn = draw(Split(images, labels), planted, corruptions=names, severities=severities)
    sheet = np.asarray(drawn)
    rows = torch.tensor([2, 0])  # the first images of classes 0 and 2
    places = {}
    for name in names:
        for severity in severities:
            for column, image in enumerate(planted.block(name, severity, rows)):
                large = image.permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1)
                places[name, severity, column] = found(sheet, large)
    for name in names:
        x, y = zip(*(places[name, s, c] for s in severities for c in (0, 1)), strict=True)
        assert len(set(y)) == 1
        assert x[1] - x[0] > 24 * 3  # paper in between
        assert list(x) == sorted(x)
        # the clean ones stand to the left of the first severity, in the same row
        step = x[2] - x[0]
        clean = sheet[y[0], x[0] - step]
        assert clean.tolist() == [202, 0, 0]
    heights = [places[name, 2, 0][1] for name in ("gaussian_noise", "snow", "saturate")]
    assert heights == sorted(heights)
    assert len(set(heights)) == 3


def test_columns_are_in_order_and_rows_are_those_asked_for():
    whole = json.loads(call("digits", "--sheet", "a.png", "--json").stdout)
    part = json.loads(
        call(
            *("digits[test=50]", "--sheet", "sub/b.png", "--corruptions", QUICK),
            *("--severities", "5,1", "--json"),
        ).stdout
    )
    for made in (whole, part):
        with Image.open(made["sheet"]) as sheet:
            assert sheet.size == (made["width"], made["height"])
    assert 2000 > whole["width"] > part["width"] > 500
    assert whole["height"] > 19 * 72 > part["height"] > 2 * 72


def test_words_stand_where_no_picture_is():
    """Titles and names are drawn, and each stays left of the pictures and on the sheet."""
    labels = torch.arange(4)
    images = torch.full((4, 3, 20, 24), 255, dtype=torch.uint8)

    class White(Planted):
        def block(self, corruption, severity, rows=None):
            return images[rows]

    sheet = draw(Split(images, labels), White(), corruptions=ALL, severities=(1, 2, 3, 4, 5))
    dark = np.asarray(sheet).min(-1) < 150
    assert not dark[:, :10].any()
    assert not dark[:, -10:].any()
    lines = np.diff(dark[:, :180].any(1).astype(int))
    assert (lines == 1).sum() >= 1 + 5 + 19  # a title, five groups and nineteen names
