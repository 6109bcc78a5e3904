"""Sets of corrupted images: published, rendered here, and written to folders."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import re
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sslbench.api import Card, Corrupted, Dataset, Images, Place, Split
from sslbench.corruptions import ALL, Frost, corrupt
from sslbench.corruptions import files as layout
from sslbench.data import open_data, rendered
from sslbench.data import writing as writing_module
from sslbench.data.corrupted import Making, Rendered, open_corrupted, set_name, write
from sslbench.datasets import cifar, cifar_c
from sslbench.errors import MissingData, Unsuited, UserError

CPU = torch.device("cpu")
SIDE, TEST = 16, 20
CARD = Card("Noise", 4, None, None, "none", "none", "here")


class Noise(Dataset):
    """Random images."""

    card = CARD
    published: Corrupted | None = None
    side = SIDE

    def load(self, place):
        draw = torch.Generator().manual_seed(0)

        def split(count):
            shape = (count, 3, self.side, self.side)
            images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
            return Split(images, torch.randint(0, 4, (count,), generator=draw))

        return Images(split(40), split(TEST), tuple("abcd"), fingerprint=f"noise {self.side}")

    def corrupted(self, place, labels):
        self.asked = labels
        return self.published


def opened(name="noise", *roots, kind=Noise):
    entry = SimpleNamespace(load=lambda: kind)
    return open_data(name, SimpleNamespace(find=lambda *_: entry), Place(tuple(roots)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A root with the whole set of `noise`."""
    root = tmp_path_factory.mktemp("written")
    for _ in write(opened(), root, device=CPU):
        pass
    return root


@pytest.fixture
def copy(written, tmp_path):
    shutil.copytree(written, tmp_path / "root")
    return tmp_path / "root"


# ---- the published layout -----------------------------------------------------------------


LABELS = torch.tensor([3, 1, 4, 1, 5, 9, 2])


def planted(name, count=7):
    """[5 N, 4, 6, 3] in which every byte says where it belongs."""
    rows, high, wide, plane = np.indices((5 * count, 4, 6, 3))
    place = 7 * ALL.index(name) + 3 * rows + 50 * high + 11 * wide + 101 * plane
    return (place % 251).astype(np.uint8)


def lay(root):
    """A whole set as published, in small."""
    folder = root / "THE-C"
    folder.mkdir(parents=True)
    for name in ALL:
        np.save(folder / f"{name}.npy", planted(name))
    np.save(folder / "labels.npy", np.tile(LABELS.numpy(), 5).astype(np.uint8))
    return folder


def published(folder, **changes):
    sums = {path.stem: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.glob("*.npy")}
    sums = {name: sums[name] for name in (*ALL, "labels")}
    made = cifar_c.Published(
        "the-c", "THE-C", sums, page="https://page", url="", size=0, md5="", sides=(4, 6)
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def root(tmp_path):
    lay(tmp_path / "data")
    return tmp_path / "data"


def refused(work, *words):
    with pytest.raises(MissingData) as error:
        work()
    for word in words:
        assert str(word) in str(error.value)


def test_a_block_of_the_published_set_is_those_images_at_that_severity(root):
    found = published(root / "THE-C").open(Place((root / "nothing", root)), LABELS)
    assert found.name == "the-c"
    for name in ("fog", "saturate"):
        for severity in (1, 2, 5):
            whole = found.block(name, severity)
            assert whole.shape == (7, 3, 4, 6)
            assert whole.dtype == torch.uint8
            assert whole.is_contiguous()
            wanted = planted(name)[7 * (severity - 1) : 7 * severity].transpose(0, 3, 1, 2)
            assert np.array_equal(whole.numpy(), wanted)
            rows = torch.tensor([6, 0, 3])
            assert torch.equal(found.block(name, severity, rows), whole[rows])


def test_what_is_read_may_be_written_to_without_a_trace(root):
    found = published(root / "THE-C").open(Place((root,)), LABELS)
    block = found.block("fog", 1)
    before = block.clone()
    block.zero_()
    assert torch.equal(found.block("fog", 1), before)


@pytest.mark.parametrize("wrong", [("rain", 1), ("fog", 0), ("fog", 6)])
def test_a_block_that_nobody_has_is_an_error(root, wrong):
    found = published(root / "THE-C").open(Place((root,)), LABELS)
    with pytest.raises(ValueError, match=r"rain|severity"):
        found.block(*wrong)


def test_a_set_that_is_nowhere_says_where_it_was_looked_for(root, tmp_path):
    the = published(root / "THE-C")
    away = tmp_path / "away"
    refused(lambda: the.open(Place((away,)), LABELS), away / "THE-C", "--download", "https://page")
    refused(lambda: the.open(Place(), LABELS), "no folder was given")


def test_one_missing_of_nineteen_is_named(root):
    the = published(root / "THE-C")
    (root / "THE-C" / "snow.npy").unlink()
    refused(
        lambda: the.open(Place((root,)), LABELS), root / "THE-C" / "snow.npy", "20 files", "19 were"
    )


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (planted("fog").astype(np.int16), "int16 [35, 4, 6, 3]"),
        (planted("fog")[:-1], "uint8 [34, 4, 6, 3]"),
        (planted("fog").transpose(0, 3, 1, 2), "uint8 [35, 3, 4, 6]"),
        (planted("fog")[..., 0], "uint8 [35, 4, 6]"),
        (np.array([{}], object), "is not a whole array"),
    ],
)
def test_a_file_of_another_kind_says_what_was_found_and_expected(root, array, found):
    path = root / "THE-C" / "fog.npy"
    np.save(path, array)
    # with the right sum, so that nothing but its content is at fault
    the = published(root / "THE-C")
    expected = "" if "whole" in found else "uint8 [35, 4, 6, 3]"
    refused(lambda: the.open(Place((root,)), LABELS), path, found, expected)


@pytest.mark.parametrize("cut", [0, 60, 1000])
def test_a_file_cut_short_is_damaged(root, cut):
    path = root / "THE-C" / "frost.npy"
    path.write_bytes(path.read_bytes()[:cut])
    refused(lambda: published(root / "THE-C").open(Place((root,)), LABELS), path)


def test_labels_of_another_order_are_refused(root):
    path = root / "THE-C" / "labels.npy"
    labels = np.tile(LABELS.numpy(), 5)
    labels[[7 * 3 + 2, 7 * 3 + 4]] = labels[[7 * 3 + 4, 7 * 3 + 2]]  # in severity 4 alone
    np.save(path, labels)
    the = published(root / "THE-C")
    refused(
        lambda: the.open(Place((root,)), LABELS),
        path,
        "wrong order of labels",
        "2 differ",
        "image 2 at severity 4: expected 4, found 5",
    )


def test_labels_sorted_by_image_are_refused(root):
    np.save(root / "THE-C" / "labels.npy", np.repeat(LABELS.numpy(), 5))
    the = published(root / "THE-C")
    refused(lambda: the.open(Place((root,)), LABELS), "wrong order of labels")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.tile(LABELS.numpy(), 4), "expected are 5 x N"),
        (np.tile(LABELS.numpy()[:6], 5), "6 images at each of 5 severities; the test split has 7"),
        (np.tile(LABELS.numpy(), 5).astype(float), "float64 [35]"),
    ],
)
def test_labels_of_another_number_or_kind_are_refused(root, labels, words):
    np.save(root / "THE-C" / "labels.npy", labels)
    the = published(root / "THE-C")
    refused(lambda: the.open(Place((root,)), LABELS), "labels.npy", words)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


def test_one_bit_of_an_image_is_noticed_when_it_is_read(root):
    the = published(root / "THE-C")
    found = flip(root / "THE-C" / "zoom_blur.npy")
    opened = the.open(Place((root,)), LABELS)
    opened.block("fog", 1)
    refused(
        lambda: opened.block("zoom_blur", 1),
        root / "THE-C" / "zoom_blur.npy",
        f"md5 is {found}",
        f"expected one {the.sums['zoom_blur']}",
    )


def test_one_bit_of_the_labels_is_noticed_by_its_sum(root):
    path = root / "THE-C" / "labels.npy"
    the = published(root / "THE-C")
    np.save(path, np.tile(LABELS.numpy(), 5).astype(np.int32))  # right, and not the published one
    refused(lambda: the.open(Place((root,)), LABELS), path, "md5", the.sums["labels"])


def test_a_file_is_hashed_once_and_again_when_it_changes(root, monkeypatch):
    the, hashed = published(root / "THE-C"), []
    kept = hashlib.new
    monkeypatch.setattr(layout.hashlib, "new", lambda *a, **k: hashed.append(a) or kept(*a, **k))
    for _ in range(2):
        found = the.open(Place((root,)), LABELS)
        for severity in (1, 2):
            found.block("fog", severity)
    assert len(hashed) == 2  # labels, fog
    flip(root / "THE-C" / "fog.npy")
    refused(lambda: found.block("fog", 1), "fog.npy")


def test_the_fingerprint_is_of_all_sums(root):
    the = published(root / "THE-C")
    before = the.open(Place((root,)), LABELS).fingerprint
    assert the.open(Place((root,)), LABELS).fingerprint == before
    others = [
        dataclasses.replace(the, sums={**the.sums, name: the.sums["fog"]}) for name in ALL[-2:]
    ]
    assert len({before, *(o.open(Place((root,)), LABELS).fingerprint for o in others)}) == 3


# ---- what is published --------------------------------------------------------------------


@pytest.mark.parametrize(("the", "readme"), [(cifar_c.CIFAR10_C, 0), (cifar_c.CIFAR100_C, 1)])
def test_the_published_archive_has_the_size_of_what_should_be_in_it(the, readme):
    files = [128 + 50_000 * 32 * 32 * 3] * 19 + [128 + 50_000] + [600] * readme
    assert the.size == 512 + sum(512 + -(-file // 512) * 512 for file in files) + 2 * 512
    assert set(the.sums) == {*ALL, "labels"}
    assert len({*the.sums.values(), the.md5}) == 21
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in (*the.sums.values(), the.md5))


def test_the_sums_are_those_that_two_loaders_agree_on():
    assert cifar_c.CIFAR10_C.sums["labels"] == "c439b113295ed5254878798ffe28fd54"
    assert cifar_c.CIFAR10_C.sums["gaussian_noise"] == "ecaf8b9a2399ffeda7680934c33405fd"
    assert cifar_c.CIFAR10_C.md5 == "56bf5dcef84df0e2308c6dcbcbbd8499"
    assert cifar_c.CIFAR100_C.sums["labels"] == "bb4026e9ce52996b95f439544568cdb2"
    assert cifar_c.CIFAR100_C.sums["frost"] == "3a39c6823bdfaa0bf8b12fe7004b8117"
    assert cifar_c.CIFAR100_C.md5 == "11f0ed0f1191edbf9fa23466ae6021d3"


@pytest.mark.parametrize(
    ("dataset", "constant", "folder", "md5"),
    [
        (cifar.CIFAR10, "CIFAR10_C", "CIFAR-10-C", "c439b113295ed5254878798ffe28fd54"),
        (cifar.CIFAR100, "CIFAR100_C", "CIFAR-100-C", "bb4026e9ce52996b95f439544568cdb2"),
    ],
)
def test_a_dataset_trusts_the_published_sums_alone(
    tmp_path, monkeypatch, dataset, constant, folder, md5
):
    lay(tmp_path).rename(tmp_path / folder)
    place = Place((tmp_path,))
    refused(lambda: dataset().corrupted(place, LABELS), folder, "expected is uint8 [35, 32, 32, 3]")
    small = dataclasses.replace(getattr(cifar, constant), sides=(4, 6))
    monkeypatch.setattr(cifar, constant, small)
    refused(lambda: dataset().corrupted(place, LABELS), "labels.npy", f"expected one {md5}")


def test_coarse_labels_are_judged_on_the_images_of_the_fine_ones(root, monkeypatch):
    the = published(root / "THE-C")
    monkeypatch.setattr(cifar, "CIFAR100_C", the)
    images = Split(torch.zeros(7, 3, 4, 6, dtype=torch.uint8), LABELS)
    fine = Images(images, images, tuple(map(str, range(10))), "fine")
    monkeypatch.setattr(cifar.CIFAR100, "load", lambda self, place: fine)
    found = cifar.CIFAR100Coarse().corrupted(Place((root,)), LABELS // 2)
    assert torch.equal(found.block("fog", 2), the.open(Place((root,)), LABELS).block("fog", 2))


# ---- downloading --------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves one file; `short` bytes of it at most, from a given place if `ranges`."""

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.short, self.ranges, self.asked = content, None, True, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/the.tar"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        begin = int(re.findall(r"\d+", wanted)[0]) if wanted and self.server.ranges else 0
        self.send_response(206 if begin else 200)
        body = self.server.content[begin:][: self.server.short]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    folder = lay(tmp_path / "authors")
    (folder / "README.txt").write_text("first 10,000 images are severity 1")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder, "THE-C")
        archive.add(folder / "README.txt", "../../outside.txt")
    serving = Server(packed.getvalue())
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    content = packed.getvalue()
    serving.set = published(
        folder, url=serving.url, size=len(content), md5=hashlib.md5(content).hexdigest()
    )
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_leaves_the_nineteen_files_and_nothing_else(server, tmp_path):
    place = Place((tmp_path / "new" / "data",), download=True)
    found = server.set.open(place, LABELS)
    assert np.array_equal(found.block("snow", 1).numpy()[0], planted("snow")[0].transpose(2, 0, 1))
    assert names(place.roots[0]) == ["THE-C"]
    assert names(place.roots[0] / "THE-C") == sorted(f"{n}.npy" for n in (*ALL, "labels"))
    assert not list(tmp_path.rglob("outside.txt"))
    server.set.open(place, LABELS)
    assert server.asked == [None]  # once


def test_nothing_is_fetched_unasked(server, tmp_path):
    refused(lambda: server.set.open(Place((tmp_path / "new",)), LABELS), "--download")
    assert server.asked == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_off_download_goes_on_and_is_whole(server, tmp_path, ranges):
    place = Place((tmp_path / "new",), download=True)
    server.short, server.ranges = 10_000, ranges
    refused(
        lambda: server.set.open(place, LABELS), f"10,000 of {server.set.size:,} bytes were received"
    )
    assert names(place.roots[0]) == ["THE-C.tar.part"]
    server.short = None
    server.set.open(place, LABELS).block("fog", 1)
    assert server.asked == [None, "bytes=10000-"]
    assert names(place.roots[0]) == ["THE-C"]


@pytest.mark.parametrize("size", [5_000, None])
def test_a_part_that_lay_there_is_never_trusted(server, tmp_path, size):
    place = Place((tmp_path / "new",), download=True)
    place.roots[0].mkdir()
    (place.roots[0] / "THE-C.tar.part").write_bytes(bytes(size or server.set.size))
    refused(lambda: server.set.open(place, LABELS), "md5", server.set.md5, "removed")
    assert names(place.roots[0]) == []
    server.set.open(place, LABELS)


def test_another_file_at_that_address_is_refused(server, tmp_path):
    place = Place((tmp_path / "new",), download=True)
    server.content += b"more"
    refused(lambda: server.set.open(place, LABELS), f"published are {server.set.size:,}")
    assert names(place.roots[0]) == []


def test_an_archive_without_one_of_the_files_leaves_no_folder(server, tmp_path):
    place = Place((tmp_path / "new",), download=True)
    the = dataclasses.replace(server.set, sums={**server.set.sums, "rain": "0"})
    refused(lambda: the.open(place, LABELS), "rain.npy")
    assert not (place.roots[0] / "THE-C").exists()


def test_a_link_in_the_archive_is_not_followed(server, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in (*ALL, "labels"):
            link = tarfile.TarInfo(f"THE-C/{name}.npy")
            link.type, link.linkname = tarfile.SYMTYPE, str(secret)
            archive.addfile(link)
    server.content = packed.getvalue()
    md5 = hashlib.md5(server.content).hexdigest()
    the = dataclasses.replace(server.set, size=len(server.content), md5=md5)
    place = Place((tmp_path / "new",), download=True)
    refused(lambda: the.open(place, LABELS), "is not a plain file")
    assert not (place.roots[0] / "THE-C").exists()


def test_no_network_is_a_sentence(server, tmp_path):
    the = dataclasses.replace(server.set, url="http://127.0.0.1:9/the.tar")
    place = Place((tmp_path / "new",), download=True)
    refused(lambda: the.open(place, LABELS), "the-c: the download of", "refused", "https://page")
    refused(lambda: the.open(Place((), download=True), LABELS), "--data DIR")


def test_a_full_disk_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_c.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    place = Place((tmp_path / "new",), download=True)
    refused(lambda: server.set.open(place, LABELS), "free", "--data DIR on another disk")
    assert server.asked == []


# ---- rendering ----------------------------------------------------------------------------


def test_what_is_rendered_is_the_corruption_of_each_image_at_its_place():
    data = opened()
    made = Rendered(data, CPU)
    assert made.name == "noise-regen-c"
    for name, severity in (("gaussian_noise", 1), ("frost", 4), ("contrast", 5)):
        wanted = corrupt(data.test.images, name, severity, index=torch.arange(TEST))
        assert torch.equal(made.block(name, severity), wanted)
        rows = torch.tensor([13, 2, 7])
        assert torch.equal(made.block(name, severity, rows), wanted[rows])


def test_parts_of_any_size_give_the_same_bytes(monkeypatch):
    whole = Rendered(opened(), CPU).block("snow", 3)
    monkeypatch.setattr(rendered, "CHUNK", 3 * SIDE * SIDE * 7)
    assert torch.equal(Rendered(opened(), CPU).block("snow", 3), whole)


def test_a_small_set_is_kept_and_what_is_damaged_is_made_again(tmp_path, monkeypatch):
    data = opened()
    data = dataclasses.replace(data, place=dataclasses.replace(data.place, scratch=tmp_path))
    rows = torch.tensor([4, 1])
    fresh = Rendered(opened(), CPU).block("fog", 2, rows)
    assert torch.equal(Rendered(data, CPU).block("fog", 2, rows), fresh)
    [kept] = (tmp_path / "corrupted").iterdir()
    counted = []
    real = rendered.corrupt
    monkeypatch.setattr(rendered, "corrupt", lambda *a, **k: counted.append(a) or real(*a, **k))
    assert torch.equal(Rendered(data, CPU).block("fog", 2, rows), fresh)
    assert not counted
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    assert torch.equal(Rendered(data, CPU).block("fog", 2, rows), fresh)
    assert len(counted) == 1
    for other in ((2, [1, 4]), (3, [4, 1])):
        Rendered(data, CPU).block("fog", other[0], torch.tensor(other[1]))
    assert len(counted) == 3
    held = sum(path.stat().st_size for path in (tmp_path / "corrupted").iterdir())
    monkeypatch.setattr(rendered, "KEPT", held + fresh.numel() - 1)
    Rendered(data, CPU).block("fog", 1, rows)
    assert len(list((tmp_path / "corrupted").iterdir())) == 3
    monkeypatch.setattr(rendered, "KEPT", held + fresh.numel())
    Rendered(data, CPU).block("fog", 1, rows)
    assert len(list((tmp_path / "corrupted").iterdir())) == 4


def test_a_subset_is_corrupted_as_the_rows_of_the_whole():
    data = opened("noise[test=8]")
    assert data.test_rows.tolist() != list(range(8))
    part, whole = Rendered(data, CPU), Rendered(opened(), CPU)
    rows = data.test_rows
    assert torch.equal(part.block("fog", 2), whole.block("fog", 2)[rows])
    some = torch.tensor([5, 1])
    assert torch.equal(part.block("fog", 2, some), whole.block("fog", 2, rows[some]))
    assert part.block("fog", 2, torch.tensor([], dtype=torch.int64)).shape == (0, 3, SIDE, SIDE)


def test_the_fingerprint_is_of_all_that_decides_the_bytes(monkeypatch):
    data = opened()
    ice = Frost((torch.zeros(3, 40, 40, dtype=torch.uint8),), "here")
    changed = data.test.images.clone()
    changed[3, 0, 0, 0] ^= 1
    moved = torch.arange(TEST).roll(1)
    prints = [
        Rendered(data, CPU).fingerprint,
        Rendered(data, CPU, making=Making(seed=1)).fingerprint,
        Rendered(data, CPU, making=Making(frost=ice)).fingerprint,
        Rendered(dataclasses.replace(data, test=Split(changed, data.test.labels)), CPU).fingerprint,
        Rendered(dataclasses.replace(data, test_rows=moved), CPU).fingerprint,
    ]
    train = Rendered(opened("noise[train=10]"), CPU).fingerprint
    assert train == prints[0]
    monkeypatch.setattr(rendered, "VERSION", 0)
    prints.append(Rendered(data, CPU).fingerprint)
    assert len(set(prints)) == len(prints)


def test_sets_that_differ_have_names_that_differ():
    ice = Frost((torch.zeros(3, 40, 40, dtype=torch.uint8),), "here")
    assert set_name("fashion-mnist[test=50,train=10]") == "fashion-mnist-regen-c"
    assert set_name("folder:/data/birds[size=64]") == "folder-birds-regen-c"
    assert set_name("folder:/data/birds/eggs/..") == "folder-birds-regen-c"
    assert set_name("someone/noise") == "someone-noise-regen-c"
    assert set_name("noise", Making(seed=3)) == "noise-regen-c-seed-3"
    assert set_name("noise", Making(frost=ice)) == f"noise-regen-c-frost-{ice.fingerprint[:8]}"


def test_seed_and_frost_reach_the_images():
    data = opened()
    ice = Frost((torch.full((3, 40, 40), 200, dtype=torch.uint8),), "here")
    wanted = corrupt(data.test.images, "frost", 1, index=torch.arange(TEST), seed=5, frost=ice)
    assert torch.equal(Rendered(data, CPU, making=Making(5, ice)).block("frost", 1), wanted)


# ---- writing ------------------------------------------------------------------------------


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.npy")}


def test_a_written_set_has_the_published_layout(written):
    folder, data = written / "noise-regen-c", opened()
    made = Rendered(data, CPU)
    assert {p.stem for p in folder.glob("*.npy")} == {*ALL, "labels"}
    labels = np.load(folder / "labels.npy")
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, np.tile(data.test.labels.numpy(), 5))
    for name in ("glass_blur", "frost"):
        array = np.load(folder / f"{name}.npy")
        assert array.dtype == np.uint8
        assert array.shape == (5 * TEST, SIDE, SIDE, 3)
        wanted = torch.cat([made.block(name, severity) for severity in range(1, 6)])
        assert np.array_equal(array, wanted.permute(0, 2, 3, 1).numpy())


def test_the_manifest_says_how_it_was_made_and_knows_every_file(written):
    manifest = json.loads((written / "noise-regen-c" / "manifest.json").read_text())
    sums = {f"{name}.npy": entry["sha256"] for name, entry in manifest["files"].items()}
    assert sums == digests(written / "noise-regen-c")
    assert manifest["name"] == "noise-regen-c"
    assert manifest["dataset"] == "noise"
    assert manifest["dataset_fingerprint"] == "noise 16"
    assert manifest["complete"] is True
    assert (manifest["seed"], manifest["frost"]) == (0, None)


def test_what_is_whole_is_not_made_again_and_what_is_not_is(copy, monkeypatch):
    before = digests(copy / "noise-regen-c")
    flip(copy / "noise-regen-c" / "snow.npy")
    (copy / "noise-regen-c" / "fog.npy").unlink()
    (copy / "noise-regen-c" / "labels.npy").unlink()
    made, kept = set(), rendered.corrupt
    monkeypatch.setattr(
        rendered,
        "corrupt",
        lambda images, name, *a, **k: made.add(name) or kept(images, name, *a, **k),
    )
    steps = list(write(opened(), copy, device=CPU))
    assert made == {"snow", "fog"}
    assert [step.name for step in steps if step.state == "damaged"] == ["snow"]
    assert [step.name for step in steps if step.state == "made"] == ["snow", "fog"]
    assert sum(step.state == "there" for step in steps) == 17
    assert digests(copy / "noise-regen-c") == before


def test_a_writer_stopped_anywhere_leaves_whole_files_and_goes_on(tmp_path, written, monkeypatch):
    monkeypatch.setattr(writing_module, "CHUNK", 3 * SIDE * SIDE * 6)
    folder = tmp_path / "noise-regen-c"
    for stop in (3, 40):
        writing = write(opened(), tmp_path, device=CPU, corruptions=("fog", "snow", "frost"))
        for _ in range(stop):
            next(writing)
        assert [p.name for p in folder.glob(".*.tmp")]
        writing.close()
        assert not list(folder.glob(".*.tmp"))
    assert {p.stem for p in folder.glob("*.npy")} == {"labels", "fog"}
    (folder / ".spatter.npy.1.ab.tmp").write_text("left by one that was killed")
    for _ in write(opened(), tmp_path, device=CPU, corruptions=("fog", "snow")):
        pass
    assert json.loads((folder / "manifest.json").read_text())["complete"] is False
    assert not list(folder.glob(".*.tmp"))
    for _ in write(opened(), tmp_path, device=CPU):
        pass
    assert digests(folder) == digests(written / "noise-regen-c")
    assert json.loads((folder / "manifest.json").read_text())["complete"] is True


def test_the_manifest_comes_first_so_that_a_killed_writer_can_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(writing_module, "_lay_labels", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(write(opened(), tmp_path, device=CPU))
    monkeypatch.undo()
    assert next(write(opened(), tmp_path, device=CPU)).state == "begun"


def test_steps_say_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(writing_module, "CHUNK", 3 * SIDE * SIDE * 15)
    steps = list(write(opened(), tmp_path, device=CPU, corruptions=("contrast",)))
    assert [step.images for step in steps] == [0, 15, 20, 35, 40, 55, 60, 75, 80, 95, 100, 100]
    assert {step.of for step in steps} == {100}
    assert steps[-1].bytes == 100 * 3 * SIDE * SIDE


class Other(Noise):
    """Other images of the same name."""

    def load(self, place):
        images = super().load(place)
        return dataclasses.replace(
            images, test=Split(images.test.images.flip(0), images.test.labels)
        )


def test_a_folder_of_another_set_is_not_written_into(copy, tmp_path, monkeypatch):
    before = digests(copy / "noise-regen-c")
    with pytest.raises(UserError, match="holds a set of version 1 made from noise"):
        list(write(opened(kind=Other), copy, device=CPU))
    monkeypatch.setattr(rendered, "VERSION", 2)
    with pytest.raises(UserError, match="not version 2 made from these images"):
        list(write(opened(), copy, device=CPU))
    assert digests(copy / "noise-regen-c") == before
    foreign = tmp_path / "x" / "noise-regen-c"
    foreign.mkdir(parents=True)
    (foreign / "fog.npy").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        list(write(opened(), tmp_path / "x", device=CPU))
    assert (foreign / "fog.npy").read_text() == "mine"


@pytest.mark.parametrize("name", ["noise[test=8]", "noise[train=8]"])
def test_a_part_of_a_dataset_is_not_written(tmp_path, name):
    with pytest.raises(UserError, match=r"ask for noise$"):
        list(write(opened(name), tmp_path / "out", device=CPU))
    assert not (tmp_path / "out").exists()


def test_two_writers_do_not_share_a_folder(tmp_path):
    first = write(opened(), tmp_path, device=CPU, corruptions=("contrast",))
    next(first)
    with pytest.raises(UserError, match="being written by another process"):
        next(write(opened(), tmp_path, device=CPU))
    assert list(first)[-1].state == "made"


def test_no_room_is_told_before_and_a_disk_that_fills_up_is_a_sentence(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(writing_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=150_000))
        with pytest.raises(UserError, match=r"needs 0\.00 GB .* free; give --out on another disk"):
            list(write(opened(), tmp_path, device=CPU, corruptions=("fog", "snow")))
        # one file of 76,800 bytes is there then, so that the other fits
        assert list(write(opened(), tmp_path, device=CPU, corruptions=("fog",)))
        assert list(write(opened(), tmp_path, device=CPU, corruptions=("fog", "snow")))

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing_module._Hashing, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        list(write(opened(), tmp_path, device=CPU, corruptions=("frost",)))
    assert not list((tmp_path / "noise-regen-c").glob("*frost*"))


# ---- opening ------------------------------------------------------------------------------


class Once(Corrupted):
    """Says which rows it is asked for."""

    name, fingerprint = "noise-c", "f"

    def block(self, corruption, severity, rows=None):
        return rows


def test_the_published_set_is_asked_with_the_labels_of_the_whole(monkeypatch):
    whole, part = opened(), opened("noise[test=8]")
    found = Once()
    monkeypatch.setattr(Noise, "published", found)
    assert open_corrupted(whole, "official", CPU) is found
    assert torch.equal(whole.dataset.asked, whole.test.labels)
    cut = open_corrupted(part, "official", CPU)
    assert torch.equal(part.dataset.asked, whole.test.labels)
    assert torch.equal(cut.block("fog", 1), part.test_rows)
    some = torch.tensor([4, 2])
    assert torch.equal(cut.block("fog", 1, some), part.test_rows[some])
    assert cut.name == "noise-c"
    assert cut.fingerprint != "f"


def test_where_nobody_published_any_ours_are_named():
    with pytest.raises(Unsuited, match=r"noise: nobody .* corruption\[set=regen\]"):
        open_corrupted(opened(), "official", CPU)


def test_images_too_small_are_unsuited(monkeypatch):
    monkeypatch.setattr(Noise, "side", 8)
    with pytest.raises(Unsuited, match="8 x 8 pixels are too small"):
        open_corrupted(opened(), "regen", CPU)


@pytest.mark.parametrize("name", ["noise", "noise[test=8]", "noise[train=10]"])
def test_a_folder_of_ours_stands_for_rendering(written, name, monkeypatch):
    drawn = open_corrupted(opened(name), "regen", CPU)
    wanted = drawn.block("snow", 2)
    monkeypatch.setattr(rendered, "corrupt", None)  # nothing is rendered
    found = open_corrupted(opened(name, written), "regen", CPU)
    assert isinstance(found, layout.CorruptedFolder)
    assert torch.equal(found.block("snow", 2), wanted)
    assert torch.equal(found.block("snow", 2, torch.tensor([6, 1])), wanted[[6, 1]])
    assert (found.name, found.fingerprint) == (drawn.name, drawn.fingerprint)


def test_a_folder_of_another_version_or_of_other_images_is_passed_over(written, monkeypatch):
    for kind, name in ((Other, "noise"), (Other, "noise[test=8]")):
        found = open_corrupted(opened(name, written, kind=kind), "regen", CPU)
        assert isinstance(found, Rendered)
    data = opened("noise", written)
    fewer = Split(data.test.images[:12], data.test.labels[:12])
    beyond = torch.arange(TEST - 11, TEST + 1)
    for other in (
        dataclasses.replace(data, test=fewer),
        dataclasses.replace(data, test=fewer, test_rows=beyond),
    ):
        assert isinstance(open_corrupted(other, "regen", CPU), Rendered)
    assert isinstance(open_corrupted(data, "regen", CPU), layout.CorruptedFolder)
    monkeypatch.setattr(rendered, "VERSION", 2)
    assert isinstance(open_corrupted(data, "regen", CPU), Rendered)


@pytest.mark.parametrize("which", ["regen", "noise-regen-c"])
def test_a_folder_that_is_not_whole_is_an_error(copy, which):
    folder, data = copy / "noise-regen-c", opened("noise", copy)
    flip(folder / "fog.npy")
    found = open_corrupted(data, which, CPU)
    found.block("snow", 1)
    refused(lambda: found.block("fog", 1), "fog.npy", "sha256", "sslbench corrupt noise --out")
    (folder / "fog.npy").unlink()
    refused(lambda: open_corrupted(data, which, CPU), "fog.npy", "is not there")


def test_a_folder_with_some_corruptions_is_incomplete_and_regen_needs_none(tmp_path):
    for _ in write(opened(), tmp_path, device=CPU, corruptions=ALL[:17]):
        pass
    refused(
        lambda: open_corrupted(opened("noise", tmp_path), "noise-regen-c", CPU),
        "not complete: 19 corruptions are expected",
        "has 17 and lacks spatter, saturate",
    )
    assert isinstance(open_corrupted(opened("noise", tmp_path), "regen", CPU), Rendered)


def test_a_renamed_folder_is_mended_under_its_own_name(written, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(written / "noise-regen-c", folder)
    (folder / "fog.npy").unlink()
    refused(
        lambda: open_corrupted(opened("noise", tmp_path), "mine", CPU),
        "name the folder noise-regen-c again, then `sslbench corrupt noise",
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", "[]"),
        ("manifest.json", "{"),
        ("manifest.json", '{"format": 2}'),
        ("images.sha256", "0"),
        ("images.sha256", None),
    ],
)
def test_a_manifest_that_cannot_be_believed_is_an_error(copy, name, content):
    path = copy / "noise-regen-c" / name
    path.unlink() if content is None else path.write_text(content)
    refused(lambda: open_corrupted(opened("noise", copy), "regen", CPU), path, "remove the folder")


def test_a_set_by_name_is_one_for_these_images(copy):
    (copy / "noise-regen-c").rename(copy / "mine")
    found = open_corrupted(opened("noise[test=8]", copy), "mine", CPU)
    assert found.name == "mine"
    refused(lambda: open_corrupted(opened("noise", copy, kind=Other), "mine", CPU), "other images")


def test_a_set_of_somebody_else_is_known_by_its_labels_and_bytes(copy):
    folder = (copy / "noise-regen-c").rename(copy / "theirs")
    (folder / "manifest.json").unlink()
    whole = open_corrupted(opened("noise", copy), "theirs", CPU)
    part = open_corrupted(opened("noise[test=8]", copy), "theirs", CPU)
    rows = opened("noise[test=8]").test_rows
    assert torch.equal(part.block("fog", 4), whole.block("fog", 4)[rows])
    before = whole.fingerprint
    flip(folder / "fog.npy")
    assert open_corrupted(opened("noise", copy), "theirs", CPU).fingerprint != before
    labels = np.load(folder / "labels.npy")
    labels[int(rows[3])] ^= 1
    np.save(folder / "labels.npy", labels)
    for name in ("noise", "noise[test=8]"):
        refused(
            lambda name=name: open_corrupted(opened(name, copy), "theirs", CPU),
            "wrong order of labels",
        )
    (folder / "fog.npy").unlink()
    refused(lambda: open_corrupted(opened("noise", copy), "theirs", CPU), "19 common corruptions")


def test_a_set_with_fewer_images_than_a_subset_reaches_to_is_refused(root):
    claim = layout.Claim("the-c", tuple(ALL), (4, 6), {})
    rows = torch.tensor([2, 7])  # of 7
    refused(
        lambda: layout.CorruptedFolder(root / "THE-C", claim, LABELS[:2], rows=rows),
        "7 images at each of 5 severities; the test split has 8 or more",
    )


def test_images_of_another_size_are_refused(copy, monkeypatch):
    folder = (copy / "noise-regen-c").rename(copy / "theirs")
    (folder / "manifest.json").unlink()
    monkeypatch.setattr(Noise, "side", 17)
    labels = torch.from_numpy(np.load(folder / "labels.npy")[:TEST].astype(np.int64))
    data = opened("noise", copy)
    data = dataclasses.replace(data, test=Split(data.test.images, labels))
    refused(lambda: open_corrupted(data, "theirs", CPU), "[100, 16, 16, 3]", "[100, 17, 17, 3]")


def test_a_set_that_is_nowhere_is_told(tmp_path):
    refused(
        lambda: open_corrupted(opened("noise", tmp_path), "theirs", CPU),
        tmp_path / "theirs",
        "sslbench corrupt noise --out DIR",
    )
    refused(lambda: open_corrupted(opened("noise"), "theirs", CPU), "no folder was given")
    for name in ("../theirs", "/etc", "", ".."):
        refused(lambda name=name: open_corrupted(opened("noise", tmp_path), name, CPU), "slashes")
