"""Small datasets made here, saved in every form there is, and opened without a network."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import datasets
import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from sslbench_hf import pictures, source
from sslbench_hf.dataset import HuggingFace

from sslbench.api import Place
from sslbench.data import open_data
from sslbench.datasets.folder import Folder
from sslbench.errors import MissingData, UserError
from sslbench.plugins import registry
from sslbench.testing import conformance

HOME = Path(__file__).parents[1]
KINDS = datasets.ClassLabel(names=["cat", "dog"])


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    """Caches of our own; both libraries believe to be online, and a connection is a failure."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)

    def refuse(*address):
        raise AssertionError(f"a connection was tried: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def picture(number, *, mode="RGB", size=(8, 8)):
    draws = np.random.default_rng(number)
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = draws.integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze() if bands == 1 else pixels, mode if bands > 3 else None)


def encoded(image):
    held = io.BytesIO()
    image.save(held, "PNG")
    return {"bytes": held.getvalue(), "path": None}


def made(count, first=0, *, image="image", label="label", kinds=KINDS, **more):
    columns = {
        image: [encoded(picture(first + n)) for n in range(count)],
        label: [n % 2 for n in range(count)],
    }
    features = {image: datasets.Image(), label: kinds}
    for name, (values, feature) in more.items():
        columns[name], features[name] = values, feature
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def small(**more):
    return datasets.DatasetDict(train=made(12), test=made(6, 100), **more)


def save(content, name="saved"):
    content.save_to_disk(name)
    return name


def parquet(content, folder):
    """As a dataset lies on the hub: data/SPLIT-00000-of-00001.parquet."""
    (Path(folder) / "data").mkdir(parents=True)
    for split, rows in content.items():
        rows.to_parquet(Path(folder) / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def load(path, place=None, **params):
    return HuggingFace(path=str(path), **params).load(place or Place())


def refused(path, place=None, kind=UserError, **params):
    with pytest.raises(kind) as error:
        load(path, place, **params)
    return str(error.value)


def _lasting() -> str:
    """A dataset that is there when the checks are collected."""
    folder = Path(tempfile.mkdtemp(prefix="sslbench-hf-")) / "set"
    datasets.DatasetDict(train=made(40), test=made(10, 100)).save_to_disk(folder)
    return str(folder)


test_it_keeps_what_every_dataset_promises = conformance(
    str(HOME / "sslbench_hf" / "__init__.py"), examples=[f"hf:{_lasting()}"]
)


# ---- where it lies ---------------------------------------------------------------------------


def test_every_form_of_the_same_images_is_the_same_data(tmp_path):
    content = small()
    images = load(save(content))
    assert images.train.images.shape == (12, 3, 8, 8)
    assert images.test.labels.tolist() == [0, 1] * 3
    assert images.classes == ("cat", "dog")
    want = np.asarray(picture(3)).transpose(2, 0, 1)
    assert np.array_equal(images.train.images[3].numpy(), want)

    forms = [parquet(content, "plain")]
    hub = tmp_path / "hub" / "datasets--org--Small"
    parquet(content, hub / "snapshots" / "c0ffee")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("c0ffee")
    forms.append("org/Small")  # as `hf download` leaves it
    prepared(content, tmp_path / "cache" / "org___other" / "default" / "0.0.0" / "abc")
    forms.append("org/Other")  # as `load_dataset` leaves it
    for form in forms:
        assert load(form).fingerprint == images.fingerprint, form


def prepared(content, folder):
    """Arrow files with their description, as in the library's cache."""
    whole = datasets.load_dataset(parquet(content, "to-prepare"))
    [first, *_] = whole["train"].cache_files
    home = Path(first["filename"]).parent
    shutil.copytree(home, folder)
    for path in folder.glob("*.arrow"):
        path.rename(path.with_name(path.name.replace("to-prepare", "other")))
    note = folder / "dataset_info.json"
    about = json.loads(note.read_text()) | {"dataset_name": "other", "config_name": "default"}
    for split in about["splits"].values():
        split["dataset_name"] = "other"
    note.write_text(json.dumps(about))


def test_the_data_folder_goes_before_the_working_directory(tmp_path):
    save(small(), "lent/mine/set")
    save(datasets.DatasetDict(train=made(4), test=made(2)), "mine/set")
    assert len(load("mine/set", Place(roots=(tmp_path / "lent",))).train.labels) == 12
    assert len(load("mine/set").train.labels) == 4


def test_what_is_nowhere_is_said_with_what_would_help_and_without_asking_the_network(tmp_path):
    said = refused("org/absent", kind=MissingData)
    assert str(tmp_path / "cache") in said
    assert str(tmp_path / "hub") in said
    assert "--download" in said
    assert "hf download --repo-type dataset org/absent" in said
    assert "no such folder" in refused("/no/where", kind=MissingData)
    assert "no such folder" in refused("../up/and/away", kind=MissingData)


def test_a_dataset_with_code_of_its_own_is_refused():
    Path("scripted").mkdir()
    Path("scripted/scripted.py").write_text("open('ran', 'w')")
    assert "cannot be opened" in refused("scripted", kind=MissingData)
    assert not Path("ran").exists()


@pytest.mark.parametrize("download", [True, False])
def test_only_download_lets_the_library_ask_the_hub(monkeypatch, download):
    calls = []

    def stand_in(*given, **more):
        calls.append((given, more, datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE))
        return small()

    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    load("org/name", Place(download=download), config="plain")
    assert calls == [(("org/name", "plain"), {}, not download, not download)]
    assert not datasets.config.HF_HUB_OFFLINE  # as it was before
    assert not constants.HF_HUB_OFFLINE


def test_offline_by_the_environment_stays_offline_under_download(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "cannot be opened" in refused("org/name", Place(download=True), kind=MissingData)


def test_one_of_several_configurations_has_to_be_named():
    for config, first in (("red", 0), ("blue", 50)):
        parquet({"train": made(4, first), "test": made(2, 9)}, f"many/{config}")
    Path("many/README.md").write_text(
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {config}\n  data_files:\n"
            f"  - {{split: train, path: {config}/data/train-*}}\n"
            f"  - {{split: test, path: {config}/data/test-*}}\n"
            for config in ("red", "blue")
        )
        + "---\n"
    )
    said = refused("many", kind=MissingData)
    assert "red" in said
    assert "blue" in said
    images = load("many", config="blue")
    want = np.asarray(picture(50)).transpose(2, 0, 1)
    assert np.array_equal(images.train.images[0].numpy(), want)


# ---- columns ---------------------------------------------------------------------------------


def test_the_only_columns_of_their_kind_are_taken_whatever_their_names():
    content = datasets.DatasetDict(
        train=made(4, image="scan", label="verdict"), test=made(2, image="scan", label="verdict")
    )
    assert load(save(content)).train.labels.tolist() == [0, 1, 0, 1]


def test_where_two_may_be_meant_the_columns_are_listed():
    fine = datasets.ClassLabel(names=[f"k{n}" for n in range(5)])

    def both(count):
        more = {
            "coarse": (list(range(count)), fine),
            "mask": ([encoded(picture(7))] * count, datasets.Image()),
        }
        return made(count, image="photo", label="fine", **more)

    path = save(datasets.DatasetDict(train=both(4), test=both(2)))
    said = refused(path, label="fine")
    assert "2 columns that may be the image; say [image=COLUMN]" in said
    said = refused(path, image="photo")
    assert "2 columns that may be the label; say [label=COLUMN]" in said
    assert "fine (2 classes), mask (pictures)" in said.replace("coarse (5 classes), ", "")
    assert load(path, image="photo", label="coarse").train.labels.tolist() == [0, 1, 2, 3]
    assert "no label column 'lable'" in refused(path, image="photo", label="lable")


def test_the_usual_name_decides_between_two():
    more = {"mask": ([encoded(picture(7))] * 4, datasets.Image()), "colour": ([0] * 4, KINDS)}
    content = datasets.DatasetDict(train=made(4, **more), test=made(4, **more))
    images = load(save(content))
    assert images.train.labels.tolist() == [0, 1, 0, 1]
    assert np.array_equal(images.train.images[0].numpy(), np.asarray(picture(0)).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("feature", "values", "classes"),
    [
        (datasets.Value("string"), ["owl", "ant", None, "owl"], ("ant", "owl")),
        (datasets.Value("int64"), [7, 3, -1, 7], ("3", "7")),
    ],
)
def test_words_and_numbers_serve_as_labels(feature, values, classes):
    def rows():
        rows = made(4).remove_columns("label")
        return rows.add_column("label", values, feature=feature)

    images = load(save(datasets.DatasetDict(train=rows(), test=rows())))
    assert images.classes == classes
    assert images.train.labels.tolist() == [1, 0, -1, 1]


def test_pictures_that_a_file_does_not_mark_as_such_are_found():
    content = small()
    bare = {
        s: rows.cast_column("image", datasets.Image(decode=False)) for s, rows in content.items()
    }
    Path("bare/data").mkdir(parents=True)
    for split, rows in bare.items():
        frame = rows.data.table.replace_schema_metadata(None)
        import pyarrow.parquet

        pyarrow.parquet.write_table(frame, f"bare/data/{split}-00000-of-00001.parquet")
    images = load("bare")
    assert images.train.images.shape == (12, 3, 8, 8)
    assert images.classes == ("0", "1")  # the names went with the marks


# ---- splits ----------------------------------------------------------------------------------


def test_validation_stands_in_for_test_and_the_card_says_so():
    content = datasets.DatasetDict(train=made(8), validation=made(4, 50))
    dataset = HuggingFace(path=save(content))
    assert len(dataset.load(Place()).test.labels) == 4
    assert "test is the split validation" in dataset.card.summary
    assert (dataset.card.train, dataset.card.test, dataset.card.classes) == (8, 4, 2)
    assert HuggingFace.card.train is None  # of the class, as it was


def test_one_split_alone_is_refused_until_a_rule_is_given():
    path = save(made(20))
    said = refused(path)
    assert "test_share=0.2" in said
    assert "train (20 images)" in said
    images = load(path, test_share=0.2)
    assert (len(images.train.labels), len(images.test.labels)) == (16, 4)
    assert images.test.labels.bincount().tolist() == [2, 2]
    assert load(path, test_share=0.2).fingerprint == images.fingerprint
    assert load(path, test_share=0.3).fingerprint != images.fingerprint
    whole = {bytes(i.numpy()) for part in (images.train, images.test) for i in part.images}
    assert len(whole) == 20  # nobody is in both, nobody is lost


def test_splits_are_taken_by_name_and_listed_where_they_are_not_there():
    path = save(small(extra=made(2, 300)))
    assert len(load(path, test_split="extra").test.labels) == 2
    assert "train (12 images), test (6 images), extra" in refused(path, test_split="tset")
    assert "cannot be both" in refused(path, train_split="test", test_split="test")
    assert "exclude each other" in refused(path, test_split="test", test_share=0.2)


def test_a_test_split_whose_labels_are_kept_back_is_no_test_split():
    hidden = made(4).remove_columns("label").add_column("label", [-1] * 4, feature=KINDS)
    path = save(datasets.DatasetDict(train=made(8), test=hidden, validation=made(4, 70)))
    assert "test_split=NAME (there are train, test, validation)" in refused(path)
    assert load(path, test_split="validation").test.labels.tolist() == [0, 1, 0, 1]


# ---- pictures --------------------------------------------------------------------------------


def test_pictures_become_the_squares_that_the_folder_dataset_makes(tmp_path):
    odd = [("L", (9, 12)), ("RGBA", (10, 8)), ("RGB", (20, 10)), ("LA", (8, 8))]
    shown = [picture(n, mode=mode, size=size) for n, (mode, size) in enumerate(odd)]
    rows = datasets.Dataset.from_dict(
        {"image": [encoded(each) for each in shown], "label": [0, 0, 1, 1]},
        features=datasets.Features(image=datasets.Image(), label=KINDS),
    )
    images = load(save(datasets.DatasetDict(train=rows, test=rows)))
    for split in ("train", "test"):
        for n, each in enumerate(shown):
            home = tmp_path / "folder" / split / ("cat" if n < 2 else "dog")
            home.mkdir(parents=True, exist_ok=True)
            each.save(home / f"{n}.png")
    same = Folder(path=str(tmp_path / "folder")).load(Place())
    assert images.train.images.shape == (4, 3, 9, 9)  # the short side of the first
    assert np.array_equal(images.train.images.numpy(), same.train.images.numpy())
    assert images.fingerprint == same.fingerprint
    assert load("saved", size=5).train.images.shape == (4, 3, 5, 5)
    assert load("saved", size=5).fingerprint != images.fingerprint


@pytest.mark.parametrize("scratch", [False, True])
def test_broken_pictures_are_named_or_left_out(tmp_path, scratch):
    rows = made(6)
    spoilt = [encoded(picture(n)) for n in range(6)]
    spoilt[2]["bytes"] = spoilt[2]["bytes"][:60]
    spoilt[4] = {"bytes": b"", "path": None}
    rows = rows.remove_columns("image").add_column(
        "image", spoilt, feature=datasets.Image(decode=False)
    )
    rows = rows.cast_column("image", datasets.Image())
    path = save(datasets.DatasetDict(train=rows, test=made(4, 50)))
    place = Place(scratch=tmp_path / "scratch" if scratch else None)
    assert "row 2 is a broken image" in refused(path, place)
    for _ in range(2):  # the second time from what was laid down
        images = load(path, Place(scratch=place.scratch, skip_broken=True))
        assert images.train.labels.tolist() == [0, 1, 1, 1]
        assert [each.rpartition(": ")[2] for each in images.skipped] == ["row 2", "row 4"]
        assert np.array_equal(
            images.train.images[2].numpy(), np.asarray(picture(3)).transpose(2, 0, 1)
        )
    assert "--skip-broken" in refused(path, place)


def test_a_picture_given_as_a_file_is_read_and_one_given_as_an_address_is_not_fetched(tmp_path):
    picture(5).save(tmp_path / "5.png")
    paths = [str(tmp_path / "5.png"), "https://example.org/4.png", "hf://datasets/a/b/4.png"]
    rows = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": path} for path in paths]})
    column = pictures.Column("x", rows, "image")
    stored, broken = column.decoded(8, Place(skip_broken=True))
    assert len(stored.images) == 1
    assert set(broken) == {1, 2}


def test_pictures_are_decoded_once_while_no_file_changes(tmp_path, monkeypatch):
    place, path = Place(scratch=tmp_path / "scratch"), save(small())
    first = load(path, place)
    with monkeypatch.context() as patched:
        patched.setattr(pictures, "square", lambda *given: pytest.fail("decoded again"))
        assert load(path, place).fingerprint == first.fingerprint
    for laid in (tmp_path / "scratch").glob("*.u8"):
        laid.write_bytes(b"\0" * laid.stat().st_size)  # damaged: not used
    assert load(path, place).fingerprint == first.fingerprint
    shutil.rmtree(path)
    save(datasets.DatasetDict(train=made(12, 1), test=made(6, 100)), path)
    assert load(path, place).fingerprint != first.fingerprint


def test_other_labels_are_other_data():
    first = load(save(small()))
    turned = made(12).map(lambda row: {"label": 1 - row["label"]})
    second = load(save(datasets.DatasetDict(train=turned, test=made(6, 100)), "turned"))
    assert np.array_equal(first.train.images.numpy(), second.train.images.numpy())
    assert first.fingerprint != second.fingerprint


# ---- as sslbench asks for it -----------------------------------------------------------------


def plugin():
    return registry(installed=False, files=[HOME / "sslbench_hf" / "__init__.py"])


def test_a_name_with_a_bracket_opens_it():
    save(small(), "mine/set")
    data = open_data("hf:mine/set[train=8,size=6,label=label]", plugin(), Place())
    assert data.name == "hf:mine/set[label=label,size=6,train=8]"
    assert (len(data.train.labels), data.size, data.classes) == (8, 6, 2)
    with pytest.raises(UserError, match="did you mean 'label'"):
        open_data("hf:mine/set[lable=x]", plugin(), Place())
    with pytest.raises(UserError, match="wants a path"):
        open_data("hf", plugin(), Place())
    for bracket, said in (("test_share=2", "such as 0.2"), ("size=big", "such as 64")):
        with pytest.raises(UserError, match=said):
            open_data(f"hf:mine/set[{bracket}]", plugin(), Place())


def test_the_hook_names_the_dataset_without_importing_the_library():
    command = (
        "import sys, pathlib, sslbench.plugins as p;"
        f"found = p.registry(installed=False, files=[pathlib.Path({str(HOME)!r}, 'sslbench_hf', "
        "'__init__.py')]).find('datasets', 'hf');"
        "print(found.summary(), {'torch', 'datasets', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Images of the Hugging Face hub")
    assert done.stdout.endswith("set()\n")


def test_the_wheel_holds_the_package_and_the_entry_point(tmp_path):
    copy = copytree(HOME, tmp_path / "source", ignore=ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*command, str(copy)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("sslbench_hf-0.1.0-*.whl")
    with zipfile.ZipFile(wheel) as held:
        names = {f"sslbench_hf/{path.name}" for path in HOME.glob("sslbench_hf/*.py")}
        assert names <= set(held.namelist())
        points = held.read("sslbench_hf-0.1.0.dist-info/entry_points.txt").decode()
    assert points.split() == ["[sslbench]", "hf", "=", "sslbench_hf"]


def test_what_may_stand_for_a_name_of_the_hub():
    good = ("mnist", "uoft-cs/cifar10", "a.b/c-d_e")
    bad = ("a/b/c", "../x", "/x", "a b", ".x/y", "a//b", "")
    assert all(source.HUB.fullmatch(name) for name in good)
    assert not any(source.HUB.fullmatch(name) for name in bad)
