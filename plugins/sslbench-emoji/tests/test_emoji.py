"""A small sheet in the official layout, drawn here, and opened without a network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import numpy as np
import pytest
import torch
from PIL import Image
from sslbench_emoji import packages
from sslbench_emoji.__main__ import main
from sslbench_emoji.dataset import Emoji
from sslbench_emoji.families import Pictures, distances, families, family, in_test

from sslbench.api import Place
from sslbench.data import open_data
from sslbench.errors import MissingData, UserError
from sslbench.plugins import registry
from sslbench.testing import conformance

HOME = Path(__file__).parents[1]
SIDE, COLUMNS = 32, 8
TONES = ("1F3FB", "1F3FC")


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refuse(*address):
        raise AssertionError(f"a connection was tried: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class Sheets:
    """An emoji.json and two sheets, to which emoji are added one by one."""

    def __init__(self):
        self.table, self.drawn = [], {"twitter": [], "google": []}

    def add(self, unified, category="Objects", tones=(), **pictures):
        """Pictures by style as [32, 32, 4]; unless given, noise of its own."""
        entry = {**self._cell(unified, **pictures), "category": category}
        if tones:
            entry["skin_variations"] = {t: self._cell(f"{unified}-{t}") for t in tones}
        self.table.append(entry)

    def _cell(self, unified, **pictures):
        place = len(self.drawn["twitter"])
        for at, (style, drawn) in enumerate(self.drawn.items()):
            noise = np.random.default_rng(2 * place + at).integers(0, 256, (4, 4, 4), np.uint8)
            own = noise.repeat(8, 0).repeat(8, 1)
            own[..., 3] = 255
            drawn.append(pictures.get(style, own))
        has = {f"has_img_{s}": pictures.get(s, "") is not None for s in self.drawn}
        where = {"sheet_x": place // COLUMNS, "sheet_y": place % COLUMNS}
        return {"unified": unified, **where, **has}

    def sheet(self, style):
        count = len(self.drawn[style])
        pixels = np.zeros((COLUMNS * (SIDE + 2), -(-count // COLUMNS) * (SIDE + 2), 4), np.uint8)
        for place, picture in enumerate(self.drawn[style]):
            x, y = place // COLUMNS * (SIDE + 2) + 1, place % COLUMNS * (SIDE + 2) + 1
            pixels[y : y + SIDE, x : x + SIDE] = 0 if picture is None else picture
        held = io.BytesIO()
        Image.fromarray(pixels).save(held, "PNG")
        return held.getvalue()

    def write(self, root):
        folder = Path(root) / "emoji"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "emoji.json").write_text(json.dumps(self.table))
        for style in self.drawn:
            (folder / f"{style}.png").write_bytes(self.sheet(style))
        return folder


def small():
    """Forty objects, ten people of two skin tones, and a swatch."""
    made = Sheets()
    made.add("1F3FB-1F3FB", "Component")
    for number in range(40):
        made.add(f"1F4{number:02X}")
    for number in range(10):
        made.add(f"1F9{number:02X}", "People & Body", TONES)
    return made


def load(root=".", **given):
    return Emoji(**given).load(Place(roots=(Path(root),)))


def _lasting():
    """A folder that is there when the checks are collected."""
    root = Path(tempfile.mkdtemp(prefix="sslbench-emoji-"))
    small().write(root)
    return root


test_it_keeps_what_every_dataset_promises = conformance(
    str(HOME / "sslbench_emoji" / "__init__.py"), data=[_lasting()]
)


# ---- pictures --------------------------------------------------------------------------------


def test_pictures_are_cut_from_the_sheet_by_column_and_row():
    made = small()
    made.write(".")
    images = load()
    assert images.classes == ("Objects", "People & Body")
    assert images.train.images.shape[1:] == (3, SIDE, SIDE)
    assert len(images.train.labels) + len(images.test.labels) == 50
    wanted = [made.drawn["twitter"][e["sheet_x"] * COLUMNS + e["sheet_y"]] for e in made.table[1:]]
    cut = [*images.train.images, *images.test.images]
    for picture in wanted:
        own = torch.from_numpy(picture[..., :3].transpose(2, 0, 1).copy())
        assert sum(torch.equal(own, each) for each in cut) == 1


def test_what_is_transparent_is_white():
    made, clear = small(), np.zeros((SIDE, SIDE, 4), np.uint8)
    clear[:16] = (255, 0, 0, 255)
    clear[16:20] = (0, 0, 0, 128)
    made.add("1F600", "Smileys", twitter=clear)
    made.add("1F601", "Smileys")
    made.write(".")
    images = load()
    both = torch.cat([images.train.images, images.test.images])
    labels = torch.cat([images.train.labels, images.test.labels])
    (found,) = (x for x in both[labels == 2] if (x[:, 20:] == 255).all())
    assert found[:, 0, 0].tolist() == [255, 0, 0]
    assert found[:, 17, 5].tolist() == [127, 127, 127]


def test_one_style_or_both_with_one_split():
    small().write(".")
    twitter, google, both = (load(style=style) for style in ("twitter", "google", "both"))
    for split in ("train", "test"):
        one, other, joined = (getattr(i, split) for i in (twitter, google, both))
        assert torch.equal(one.labels, other.labels)
        assert not torch.equal(one.images, other.images)
        assert torch.equal(joined.images, torch.cat([one.images, other.images]))
        assert torch.equal(joined.labels, torch.cat([one.labels, other.labels]))
    assert len({twitter.fingerprint, google.fingerprint, both.fingerprint}) == 3


@pytest.mark.parametrize("target", ["twitter", "google"])
def test_a_target_is_judged_and_the_other_style_is_the_source(target):
    small().write(".")
    both, own = load(style="both"), load(style=target)
    images = load(style="both", target=target)
    assert torch.equal(images.train.images, both.train.images)
    assert torch.equal(images.train.labels, both.train.labels)
    of_target = images.train.domains == 1
    assert torch.equal(images.train.images[of_target], own.train.images)
    assert of_target.sum() == 40 == (~of_target).sum()
    assert torch.equal(images.test.images, own.test.images)
    assert images.test.domains.tolist() == [1] * 10
    assert both.train.domains is None
    assert len({both.fingerprint, own.fingerprint, images.fingerprint}) == 3
    assert (
        load(style="both", target="google").fingerprint
        != load(style="both", target="twitter").fingerprint
    )


def test_a_target_s_labels_are_hidden_but_for_a_budget():
    small().write(".")
    found = registry(installed=False, files=[HOME / "sslbench_emoji" / "__init__.py"])
    data = open_data("emoji[style=both,target=google]", found, Place(roots=(Path(),)))
    assert (data.card.train, data.card.test) == (80, 10)
    for budget in (0, 2):
        seen = data.pretraining("budget", budget=budget)
        assert seen.info.domains == 2
        assert int(((seen.labels >= 0) & (seen.domains == 1)).sum()) == budget
        assert int(((seen.labels >= 0) & (seen.domains == 0)).sum()) == 36


def test_a_style_that_lacks_an_emoji_has_one_less():
    made = small()
    made.add("1F600", google=None)
    made.add("1F601", google=None)
    made.write(".")
    counts = [len(i.train.labels) + len(i.test.labels) for i in (load(), load(style="google"))]
    assert counts == [52, 50]


def test_a_pixel_a_category_or_a_form_makes_other_data():
    made = small()
    made.write(".")
    before = load().fingerprint
    assert load().fingerprint == before
    made.table[3]["category"] = "People & Body"
    made.write(".")
    assert load().fingerprint != before


# ---- the split -------------------------------------------------------------------------------


def test_a_fifth_of_each_category_is_in_test():
    small().write(".")
    images = load()
    assert images.train.labels.bincount().tolist() == [32, 8]
    assert images.test.labels.bincount().tolist() == [8, 2]


def test_skin_tones_are_on_the_side_of_their_emoji():
    small().write(".")
    plain, toned = load(), load(variants=True)
    assert toned.train.labels.bincount().tolist() == [32, 24]
    assert toned.test.labels.bincount().tolist() == [8, 6]
    for split in ("train", "test"):
        own, more = (getattr(images, split) for images in (plain, toned))
        people = more.images[more.labels == 1]
        assert torch.equal(people[:: 1 + len(TONES)], own.images[own.labels == 1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1F3C3", "1F3C3-200D-2640-FE0F-200D-27A1-FE0F"),  # a runner, a woman to the right
        ("1F468-200D-2695-FE0F", "1F9D1-200D-2695-FE0F"),  # man and adult of one role
        ("1F468-200D-2764-FE0F-200D-1F468", "1F469-200D-2764-FE0F-200D-1F468"),
        ("1F466", "1F467"),
        ("1F44B", "1F44B-1F3FB"),
    ],
)
def test_forms_of_one_emoji_are_a_family(one, other):
    assert family(one) == family(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2640-FE0F", "2642-FE0F"),  # the signs themselves
        ("1F1F3-1F1F4", "1F1F3-1F1F5"),  # flags
        ("1F468-200D-2695-FE0F", "1F468-200D-2696-FE0F"),  # roles
        ("1F468", "1F466"),
        ("0031-FE0F-20E3", "0032-FE0F-20E3"),
    ],
)
def test_other_emoji_are_another_family(one, other):
    assert family(one) != family(other)


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def test_distances_are_those_of_a_loop():
    pixels = noise(5)
    means = pixels.reshape(5, 8, 4, 8, 4, 3).astype(float).mean((2, 4))
    for a in range(5):
        for b in range(5):
            straight = ((means[a] - means[b]) ** 2).mean()
            turned = ((means[a] - means[b][:, ::-1]) ** 2).mean()
            assert distances(pixels)[a, b] == pytest.approx(min(straight, turned), abs=1e-9)


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("more", [0, 2, 4])
def test_twins_in_one_style_are_a_family(turn, more):
    pixels = noise(4) // 2
    pixels[3] = (pixels[1][:, ::-1] if turn else pixels[1]) + more
    rows = np.array([0, 1, 2, 5])
    found = families(list("ABCDEF"), [Pictures(rows, pixels), Pictures(np.arange(6), noise(6, 9))])
    assert (found[1] == found[5]) == (more < 4)
    assert len(set(found.tolist())) == 6 - (more < 4)


def test_families_are_joined_by_code_and_by_picture():
    pixels = noise(3)
    pixels[2] = pixels[0]
    found = families(["A", "B", "A-1F3FB", "C"], [Pictures(np.array([0, 1, 3]), pixels)])
    assert found[0] == found[2] == found[3] != found[1]


def test_no_family_is_on_both_sides():
    codes = [f"{n:X}" for n in range(300)]
    numbers = np.arange(300) // 3
    kinds = ["a" if n < 200 else "b" for n in range(300)]
    test = in_test(codes, kinds, numbers)
    assert all(len(set(test[numbers == n])) == 1 for n in range(100))
    assert 38 <= test[:200].sum() <= 40
    assert 18 <= test[200:].sum() <= 20
    other = in_test(codes[::-1], kinds[::-1], numbers[::-1])
    assert (other[::-1] == test).all()  # by what they are, not by where they stand


# ---- the folder ------------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Both packages as npm has them, of the small sheets, under their own digests."""
    made, folder = small(), tmp_path / "packed"
    folder.mkdir()
    for style, package in packages.PACKAGES.items():
        with tarfile.open(folder / package.file, "w:gz") as held:
            for name, content in {
                "package/../../evil.txt": b"out",
                "package/emoji.json": json.dumps(made.table).encode(),
                "package/LICENSE": b"MIT",
                f"package/img/{style}/sheets/32.png": made.sheet(style),
            }.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                held.addfile(member, io.BytesIO(content))
        _trust(monkeypatch, style, folder)
    return folder


def _trust(monkeypatch, style, folder):
    package = packages.PACKAGES[style]
    digest = hashlib.sha512((folder / package.file).read_bytes()).digest()
    own = package._replace(sha512=base64.b64encode(digest).decode())
    monkeypatch.setitem(packages.PACKAGES, style, own)


def test_the_folder_is_made_from_packages_on_disk(packed, tmp_path, capsys):
    assert main(["data", "--packages", str(packed)]) == 0
    assert capsys.readouterr().out.startswith("made data/emoji; try: sslbench run")
    assert sorted(path.name for path in Path("data/emoji").iterdir()) == [
        "CREDITS.txt", "LICENSE", "emoji.json", "google.png", "twitter.png",
    ]  # fmt: skip
    assert not list(tmp_path.rglob("evil.txt"))
    small().write("other")
    assert load("data").fingerprint == load("other").fingerprint
    assert "CC BY 4.0" in Path("data/emoji/CREDITS.txt").read_text()


def test_packages_are_fetched_from_npm(packed, monkeypatch):
    asked = []

    def opened(url, timeout):
        asked.append(url)
        return (packed / url.rpartition("/")[2]).open("rb")

    monkeypatch.setattr(packages.urllib.request, "urlopen", opened)
    assert main(["data"]) == 0
    base = "https://registry.npmjs.org/emoji-datasource"
    assert asked == [f"{base}-{s}/-/emoji-datasource-{s}-16.0.0.tgz" for s in ("twitter", "google")]
    assert not list(Path("data").rglob("*.tgz"))
    place = Place(roots=(Path("new"),), download=True)
    assert Emoji().load(place).fingerprint == load("data").fingerprint
    assert len(asked) == 4
    Emoji().load(place)
    assert len(asked) == 4


def test_a_registry_that_does_not_answer_is_a_sentence(monkeypatch, capsys):
    def refuse(url, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(packages.urllib.request, "urlopen", refuse)
    assert main(["data"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: emoji: https://registry.npmjs.org/")
    assert "no route to host" in said
    assert "--packages" in said


def test_what_npm_did_not_publish_is_refused(packed, capsys):
    path = packed / "emoji-datasource-google-16.0.0.tgz"
    path.write_bytes(path.read_bytes() + b"x")
    assert main(["data", "--packages", str(packed)]) == 2
    assert "google-16.0.0.tgz is not what npm published" in capsys.readouterr().err
    path.unlink()
    assert main(["data", "--packages", str(packed)]) == 2
    assert "there is no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"), [(b"no archive", "cannot be unpacked"), (None, "holds no package/emoji")]
)
def test_a_package_of_something_else_is_a_sentence(content, said, packed, monkeypatch, capsys):
    path = packed / "emoji-datasource-twitter-16.0.0.tgz"
    if content is None:
        with tarfile.open(path, "w:gz"):
            pass
    else:
        path.write_bytes(content)
    _trust(monkeypatch, "twitter", packed)
    assert main(["data", "--packages", str(packed)]) == 2
    assert said in capsys.readouterr().err


# ---- bad input -------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_says_how_it_is_made():
    with pytest.raises(MissingData, match=r"was not found \(looked in .*python -m sslbench_emoji"):
        load()
    with pytest.raises(MissingData, match="no folder was given"):
        Emoji().load(Place(download=True))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("twitter.png", b"", "twitter.png cannot be read"),
        ("google.png", None, "google.png cannot be read"),
        ("emoji.json", b"{", "JSONDecodeError"),
        ("emoji.json", b"[3]", "TypeError"),
        ("emoji.json", b'[{"category": "Flags"}]', "KeyError"),
    ],
)
def test_a_damaged_folder_is_a_sentence(file, content, said):
    folder = small().write(".")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(MissingData, match=said):
        load()


@pytest.mark.parametrize("where", [-1, 99])
def test_an_emoji_beside_the_sheet_is_a_sentence(where):
    made = small()
    made.table[5]["sheet_x"] = where
    made.write(".")
    with pytest.raises(MissingData, match=rf"column {where}, row .* is not on the sheet"):
        load()


@pytest.mark.parametrize(
    "given",
    [{"style": "apple"}, {"style": 3}, {"variants": 1}, {"style": "both", "target": "apple"}],
)
def test_a_setting_that_is_not_there_is_a_sentence(given):
    with pytest.raises(UserError, match=r"emoji: (style is twitter|variants is true|target is)"):
        Emoji(**given)


def test_a_target_without_a_source_is_a_sentence():
    with pytest.raises(
        UserError, match=r"target=google was asked.*emoji\[style=both,target=google"
    ):
        Emoji(target="google")


# ---- as sslbench asks for it -----------------------------------------------------------------


def test_a_name_with_a_bracket_opens_it():
    small().write(".")
    found = registry(installed=False, files=[HOME / "sslbench_emoji" / "__init__.py"])
    data = open_data("emoji[style=both,train=20]", found, Place(roots=(Path(),)))
    assert (data.name, data.size, data.classes) == ("emoji[style=both,train=20]", SIDE, 2)
    assert not data.pretraining("none").info.grey
    assert (len(data.train.labels), len(data.test.labels)) == (20, 20)
    assert (data.card.train, data.card.test) == (80, 20)


@pytest.mark.parametrize("suite", ["emoji", "emoji-domains"])
def test_its_suites_can_be_planned(suite):
    small().write("data")
    asked = ["plan", "--suite", suite, "--data", "data", "--seeds", "0", "--batch", "16"]
    command = [sys.executable, "-m", "sslbench", *asked]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert f"to do them: sslbench run --suite {suite}" in said.stdout
    assert "unsupported" not in said.stdout


def test_the_wheel_holds_the_package_and_the_entry_point(tmp_path):
    copy = copytree(HOME, tmp_path / "source", ignore=ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*command, str(copy)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("sslbench_emoji-0.1.0-*.whl")
    with zipfile.ZipFile(wheel) as held:
        names = {f"sslbench_emoji/{path.name}" for path in HOME.glob("sslbench_emoji/*.*")}
        assert names <= set(held.namelist())
        points = held.read("sslbench_emoji-0.1.0.dist-info/entry_points.txt").decode()
    assert points.split() == ["[sslbench]", "emoji", "=", "sslbench_emoji"]
