"""What judges predicted for each image: kept beside the record, taken along, never believed."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_up import judged, records_of, suite_of, train
from sklearn.metrics import confusion_matrix

from sslbench.api import Predictions
from sslbench.cli.app import program
from sslbench.cli.show_cell import confused
from sslbench.disk import sha256_of, write_atomic
from sslbench.errors import CheckFailed, UserError
from sslbench.leaderboard import predictions, read
from sslbench.leaderboard.folder import folder as folders
from sslbench.leaderboard.folder.merge import merge
from sslbench.leaderboard.folder.validate import validate
from sslbench.leaderboard.output.files import files_of
from sslbench.leaderboard.publish.publishing import pages
from sslbench.leaderboard.verify import unpack as unpacking
from sslbench.leaderboard.verify.bundle import pack
from sslbench.leaderboard.verify.opening import open_bundle
from sslbench.records import Record, loads
from sslbench.store import Answers, Store, answers, packed, predictions_of, read_predictions
from sslbench.store import folder as store_folder
from sslbench.store.predictions import IMAGES, LARGEST

CELL = train("moco", 0)
TINY = """
summary: A hundred digits
datasets: ["digits[test=50,train=100]"]
backbones: [test_resnet]
methods: [simclr]
baselines: [untrained]
floor: untrained
evaluators: [knn, linear]
seeds: [0]
epochs: 1
batch: 32
"""


def said(right: int, of: int = 1000, classes: int = 10) -> Answers:
    """Answers to so many images, the first ones of them right."""
    truth = np.arange(of) % classes
    return Answers(np.where(np.arange(of) < right, truth, (truth + 1) % classes), truth)


def stored(root: Path, records: list[Record]) -> Store:
    """A store of made-up records, with predictions that make their top1."""
    store = Store(root)
    store.create()
    for record in records:
        first = record.metric()
        found = said(round(1000 * first.value)) if first else None
        store.cell(record.cell_id).add(record, found)
    return store


def taken(store: Store) -> list[Record]:
    return [record for cell in store.cells() for record in cell.records()]


def build(root: Path) -> None:
    board = folders.board_of(read(root))
    folders.write(read(root), board, files_of(board))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return stored(tmp_path / "store", records_of(suite_of()))


@pytest.fixture
def board(store: Store, tmp_path: Path) -> Path:
    """A leaderboard that was built of it."""
    folders.add(tmp_path / "board", suite_of(), taken(store), store=store)
    build(tmp_path / "board")
    return tmp_path / "board"


def beside(root: Path) -> list[Path]:
    return sorted(root.rglob("*.npz"))


def errors_of(root: Path) -> list[tuple[str, str]]:
    return [(f.file, f.sentence) for f in validate(root) if f.level == "error"]


# ---- one file --------------------------------------------------------------------------------


def put(path: Path, found: Answers) -> str:
    path.write_bytes(packed(found))
    return found.digest()


@pytest.mark.parametrize("classes", [2, 256, 257, 70_000])
def test_what_was_predicted_comes_back_whole_and_numpy_reads_it(
    tmp_path: Path, classes: int
) -> None:
    found = said(40_000, of=80_000, classes=classes)
    digest = put(tmp_path / "it.npz", found)
    for ours, whole in zip(read_predictions(tmp_path / "it.npz", digest), found, strict=True):
        assert ours.dtype == np.int64
        assert (ours == whole).all()
    with np.load(tmp_path / "it.npz") as file:
        assert {name: file[name].tolist() for name in file} == {
            name: whole.tolist() for name, whole in found._asdict().items()
        }


def test_the_digest_is_of_both_arrays_as_int32_whatever_they_are_packed_in() -> None:
    predicted, truth = said(3, of=7)
    whole = hashlib.sha256(b"".join(int(n).to_bytes(4, "little") for n in (*predicted, *truth)))
    for kind in ("u1", "<i8", ">i4"):
        assert Answers(predicted.astype(kind), truth).digest() == whole.hexdigest()


@pytest.mark.parametrize(
    ("predicted", "truth", "sentence"),
    [
        ([0, 1], [0, 1, 2], r"shape \(2,\) came with labels of shape \(3,\)"),
        ([[0], [1]], [0, 1], r"shape \(2, 1\) came with"),
        ([-1, 1], [0, 1], "`predicted` has int64 from -1 to 1; classes are whole numbers from 0"),
        ([0.0, 1.0], [0, 1], "`predicted` has float32 from 0.0 to 1.0"),
        ([0, 1], [0, 2**31], "`truth` has int64 from 0 to 2147483648"),
    ],
)
def test_what_is_no_class_for_each_image_is_refused(
    predicted: list[Any], truth: list[Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        answers(Predictions(torch.tensor(predicted), torch.tensor(truth)))


def test_more_images_than_are_kept_are_refused_with_the_way_out() -> None:
    many = torch.zeros(IMAGES + 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="only of 2,097,152; --no-predictions judges without"):
        answers(Predictions(many, many))


def zipped(*entries: tuple[str, bytes], size: int | None = None) -> bytes:
    """An archive of these; `size` is what the first one claims to hold."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    whole = file.getvalue()
    if size is not None:
        at = whole.index(b"PK\x01\x02") + 24
        whole = whole[:at] + size.to_bytes(4, "little") + whole[at + 4 :]
    return whole


def array(values: Any, **given: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values, **given))
    return file.getvalue()


FEW = array([1, 2, 3], dtype="u1")
SPOILT = {
    "nothing": b"",
    "text": b"not a zip",
    "one array": zipped(("predicted.npy", FEW)),
    "another array": zipped(("predicted.npy", FEW), ("truth.npy", FEW), ("more.npy", FEW)),
    "twice": zipped(("predicted.npy", FEW), ("truth.npy", FEW), ("truth.npx", FEW)).replace(
        b"truth.npx", b"truth.npy"
    ),
    "objects": zipped(("predicted.npy", array([1, None])), ("truth.npy", FEW)),
    "fractions": zipped(("predicted.npy", array([0.5])), ("truth.npy", FEW)),
    "a header that lies": zipped(
        ("predicted.npy", FEW.replace(b"(3,), }      ", b"(9999999,), }")), ("truth.npy", FEW)
    ),
    "a huge header": zipped(
        ("predicted.npy", FEW.replace(b"(3,), }          ", b"(99999999999,), }")),
        ("truth.npy", FEW),
    ),
    "code in a header": zipped(
        ("predicted.npy", FEW.replace(b"(3,)", b"-+-3")), ("truth.npy", FEW)
    ),
    "a bomb": zipped(("predicted.npy", FEW + bytes(2**24)), ("truth.npy", FEW)),
    "a bomb that lies": zipped(
        ("predicted.npy", FEW + bytes(2**24)), ("truth.npy", FEW), size=len(FEW)
    ),
    "a size that lies": zipped(("predicted.npy", FEW), ("truth.npy", FEW), size=2**31),
    "other lengths": zipped(
        ("predicted.npy", array([1, 2], dtype="u1")), ("truth.npy", array([3, 1], dtype="u1"))
    ),
    "too large": bytes(LARGEST + 1),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_no_such_file_is_refused_before_it_is_believed(tmp_path: Path, how: str) -> None:
    (tmp_path / "it.npz").write_bytes(SPOILT[how])
    with pytest.raises(ValueError, match=r"not a file of predictions: |bytes, more|it holds other"):
        read_predictions(tmp_path / "it.npz", said(1).digest())


def test_every_flipped_bit_is_noticed_or_means_nothing(tmp_path: Path) -> None:
    path, found = tmp_path / "it.npz", said(300)
    digest = put(path, found)
    sound = path.read_bytes()
    for at in range(0, len(sound), 3):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
        try:
            again = read_predictions(path, digest)
        except ValueError:
            continue
        assert all((a == b).all() for a, b in zip(again, found, strict=True))


# ---- beside a record -------------------------------------------------------------------------


KNN = judged(CELL, "knn", {"top1": 0.7})


def test_a_record_has_the_digest_of_what_is_beside_it(tmp_path: Path) -> None:
    cell = stored(tmp_path, [CELL]).cell(CELL.cell_id)
    record = cell.add(KNN, said(700))
    assert record.intact()
    assert record.predictions == said(700).digest()
    found = cell.predictions(record)
    assert found is not None
    assert (found.predicted == found.truth).mean() == record.metric("top1").value
    assert cell.predictions(CELL) is None


def test_an_older_record_keeps_its_hash() -> None:
    plain = json.loads(KNN.dumps())
    assert "predictions" not in plain
    assert loads(KNN.dumps()) == KNN
    assert KNN.model_copy(update={"predictions": "ab"}).sealed().record_id != KNN.record_id


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b"", lambda b: packed(said(1))])
def test_what_is_damaged_is_set_aside_and_said(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    store = stored(tmp_path, [CELL, KNN])
    cell = store.cell(CELL.cell_id)
    record = next(r for r in cell.records() if r.predictions)
    [path] = beside(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert cell.predictions(record) is None
    assert store.notices[0].startswith(f"damaged, not used: {path} (")
    assert not path.exists()
    assert cell.predictions(record) is None
    assert cell.records() == [CELL, record]
    assert len(store.notices) == 1


def test_a_record_never_names_a_file_that_a_killed_writer_did_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = stored(tmp_path, [CELL]).cell(CELL.cell_id)
    written: list[str] = []

    def until(stop: int) -> Callable[[Path, bytes], None]:
        def write(path: Path, content: bytes) -> None:
            written.append(path.suffix)
            if len(written) == stop:
                raise KeyboardInterrupt
            write_atomic(path, content)

        return write

    for stop in (1, 2):
        written.clear()
        monkeypatch.setattr(store_folder, "write_atomic", until(stop))
        with pytest.raises(KeyboardInterrupt):
            cell.add(KNN, said(700))
        assert cell.records() == [CELL]
    assert written == [".npz", ".json"]
    monkeypatch.undo()
    assert cell.predictions(cell.add(KNN, said(700))) is not None
    assert len(beside(tmp_path)) == 1


# ---- leaderboards ----------------------------------------------------------------------------


def test_they_go_along_into_a_leaderboard_where_they_are_locked_and_read(board: Path) -> None:
    folder = read(board)
    lock = folders.read_lock(board)
    assert lock is not None
    assert len(lock.predictions) == 12
    assert lock.predictions == {
        p.relative_to(board).as_posix(): sha256_of(p) for p in beside(board)
    }
    for kept in folder.kept:
        found = predictions(folder, kept)
        assert (found is None) == (kept.record.kind == "train")
        if found is not None:
            assert (found.predicted == found.truth).mean() == kept.record.metric().value
    assert errors_of(board) == []


def test_a_leaderboard_can_do_without_them_and_gets_them_by_another_build(
    board: Path, store: Store
) -> None:
    before = {path: path.read_bytes() for path in beside(board)}
    for path in before:
        path.unlink()
    folder = read(board)
    assert errors_of(board) == []
    assert [predictions(folder, kept) for kept in folder.kept] == [None] * len(folder.kept)
    folders.add(board, suite_of(), taken(store), store=store)
    assert {path: path.read_bytes() for path in beside(board)} == before
    lock = json.loads((board / folders.LOCK).read_text())
    del lock["predictions"]  # as an older sslbench wrote it
    (board / folders.LOCK).write_text(json.dumps(lock))
    assert {sentence.rpartition(".npz ")[2] for _, sentence in errors_of(board)} == {
        "is not in the lock"
    }


def test_damage_in_the_store_is_left_behind_and_said(tmp_path: Path, store: Store) -> None:
    spoilt = beside(store.root)[0]
    spoilt.write_bytes(b"x")
    folders.add(tmp_path / "other", suite_of(), taken(store), store=store)
    assert len(beside(tmp_path / "other")) == 11
    assert [notice.partition(" (")[0] for notice in store.notices] == [
        f"damaged, not used: {spoilt}"
    ]


@pytest.mark.parametrize("how", SPOILT)
def test_one_that_is_not_its_records_is_refused(board: Path, how: str) -> None:
    path = beside(board)[0]
    path.write_bytes(SPOILT[how])
    name = path.relative_to(board).as_posix()
    sentences = [sentence for file, sentence in errors_of(board) if file == name]
    assert len(sentences) == 1
    unlike = f"does not match: {name} is not the one that the leaderboard was built from"
    assert (folders.LOCK, unlike) in errors_of(board)
    folder = read(board)
    [kept] = [k for k in folder.kept if predictions_of(board / k.path) == path]
    with pytest.raises(UserError, match="remove it, for a leaderboard can do without"):
        predictions(folder, kept)
    build(board)  # the lock is of what is there
    assert errors_of(board) == [(name, *sentences)]
    with pytest.raises(UserError, match="remove it, for a leaderboard can do without"):
        pages(board)


def test_those_of_another_record_are_refused_though_they_are_sound(board: Path) -> None:
    one, *others = beside(board)
    shutil.copy(next(p for p in others if p.read_bytes() != one.read_bytes()), one)
    assert "it holds other predictions than its record's" in dict(errors_of(board)).values()


@pytest.mark.parametrize(("right", "of"), [(701, 1000), (7, 10)])
def test_those_that_do_not_count_what_their_record_says_are_refused(
    tmp_path: Path, right: int, of: int
) -> None:
    store = stored(tmp_path / "store", [CELL])
    store.cell(CELL.cell_id).add(KNN, said(right, of))
    suite = suite_of(["moco"], evaluators=("knn",), seeds=(0,))
    folders.add(tmp_path / "board", suite, taken(store), store=store)
    build(tmp_path / "board")
    [(file, sentence)] = errors_of(tmp_path / "board")
    assert file.endswith(".npz")
    assert sentence == f"{right} of {of} are right in it, 0.7 of 1000 in its record"


def test_one_without_a_record_or_beside_one_of_training_is_refused(board: Path) -> None:
    some = beside(board)[0]
    trained = next(some.parent.glob("train-*.json"))
    shutil.copy(some, predictions_of(trained))
    shutil.copy(some, some.with_name(f"knn-{'0' * 24}.npz"))
    shutil.copy(some, some.with_name("knn.npz"))
    (some.parent / f"knn-{'1' * 24}.npz").symlink_to(some)
    (some.parent / f"knn-{'2' * 24}.npz").mkdir()
    place = some.parent.relative_to(board).as_posix()
    assert dict(errors_of(board)) == {
        f"{place}/{predictions_of(trained).name}": "the record beside it has no predictions",
        f"{place}/knn-{'0' * 24}.npz": "there is no sound record beside it",
        f"{place}/knn-{'1' * 24}.npz": "it is not a regular file",
        f"{place}/knn-{'2' * 24}.npz": "it is not a regular file",
        f"{place}/knn.npz": "no record has such a name",
    }
    assert len(folders.predicted(read(board))) == 12


def test_they_are_published_where_they_are_and_where_they_are_not(board: Path) -> None:
    names = {path.relative_to(board).as_posix() for path in beside(board)}
    assert names <= pages(board).keys()
    left = beside(board)[0]
    left.unlink()
    assert names - pages(board).keys() == {left.relative_to(board).as_posix()}
    left.symlink_to(board / "suite.yaml")
    assert names - pages(board).keys() == {left.relative_to(board).as_posix()}


# ---- merges ----------------------------------------------------------------------------------


def test_a_merge_takes_them_from_whichever_side_has_them(
    tmp_path: Path, board: Path, store: Store
) -> None:
    for root in (board, store.root):
        other = tmp_path / f"other-{root.name}"
        shutil.copytree(root, other)
        for at, path in enumerate(beside(root)):
            (path if at % 2 else other / path.relative_to(root)).unlink()
        outs = [tmp_path / f"{root.name}-{at}" for at in range(2)]
        merge(root, other, outs[0])
        merge(other, root, outs[1])
        found = [{p.relative_to(out): p.read_bytes() for p in beside(out)} for out in outs]
        assert found[0] == found[1]
        assert len(found[0]) == 12
    folder = read(tmp_path / "board-0")
    assert sum(predictions(folder, kept) is not None for kept in folder.kept) == 12
    assert errors_of(tmp_path / "board-0") == []


def test_a_merge_refuses_damaged_ones_and_writes_nothing(tmp_path: Path, store: Store) -> None:
    shutil.copytree(store.root, tmp_path / "other")
    beside(store.root)[0].write_bytes(b"x")
    with pytest.raises(UserError, match=r"\.npz: not a file of predictions: .*; remove it, for"):
        merge(store.root, tmp_path / "other", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- bundles ---------------------------------------------------------------------------------


def test_they_are_in_a_bundle_and_come_out_of_it(tmp_path: Path, board: Path, store: Store) -> None:
    bundle = pack(read(board), store, tmp_path / "it.zip", models=False).path
    opened = open_bundle(bundle, made(tmp_path / "scratch"))
    found = {p.relative_to(opened.folder.root): p.read_bytes() for p in beside(opened.folder.root)}
    assert found == {path.relative_to(board): path.read_bytes() for path in beside(board)}
    for path in beside(board):
        path.unlink()
    bundle = pack(read(board), store, tmp_path / "without.zip", models=False).path
    assert beside(open_bundle(bundle, made(tmp_path / "without")).folder.root) == []


def made(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_bundle_with_others_is_refused(
    tmp_path: Path, board: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside(board)[0].write_bytes(packed(said(1)))
    bundle = pack(read(board), store, tmp_path / "it.zip", models=False).path
    with pytest.raises(CheckFailed, match=r"before anything was judged: .*\.npz: it holds other"):
        open_bundle(bundle, made(tmp_path / "scratch"))
    monkeypatch.setitem(unpacking.LARGEST, "predictions", 100)
    with pytest.raises(CheckFailed, match=r"' claims \d+ bytes, 100 are allowed"):
        open_bundle(bundle, made(tmp_path / "again"))


# ---- a run -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("forks")
def test_a_run_keeps_them_and_without_them_everything_else_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)

    def call(*words: str) -> None:
        done = CliRunner().invoke(program, [*words])
        assert done.exit_code == 0, done.output

    call("run", "--suite", "tiny.yaml", "--store", "with")
    call("run", "--suite", "tiny.yaml", "--store", "without", "--no-predictions")
    ours, theirs = Store(Path("with")), Store(Path("without"))
    assert [cell.id for cell in ours.cells()] == [cell.id for cell in theirs.cells()]
    assert beside(theirs.root) == []
    assert len(beside(ours.root)) == 4
    for one, two in zip(ours.cells(), theirs.cells(), strict=True):
        plain = {record.protocol: record for record in two.records()}
        for record in one.records():
            assert plain[record.protocol].identity == record.identity
            assert plain[record.protocol].metrics == record.metrics
            assert plain[record.protocol].predictions == ""
            found = one.predictions(record)
            assert (found is None) == (record.kind == "train")
            if found is not None:
                assert (found.predicted == found.truth).mean() == record.metric("top1").value
                assert len(found.truth) == record.metric("top1").n
    before = {path: path.stat().st_mtime_ns for path in theirs.root.rglob("*.json")}
    call("run", "--suite", "tiny.yaml", "--store", "without")  # nothing is judged again for them
    assert {path: path.stat().st_mtime_ns for path in theirs.root.rglob("*.json")} == before
    call("leaderboard", "build", "tiny.yaml", "--store", "with", "--out", "board")
    assert len(beside(Path("board"))) == 4
    call("leaderboard", "validate", "board")


# ---- who is taken for whom -----------------------------------------------------------------------


def test_the_confusion_matrix_is_scikit_learns():
    draw = np.random.default_rng(0)
    found = Answers(draw.integers(0, 5, 300), draw.integers(0, 4, 300))
    expected = confusion_matrix(found.truth, found.predicted, labels=range(5))
    assert found.confusion().tolist() == expected.tolist()
    assert Answers(np.array([], int), np.array([], int)).confusion().shape == (0, 0)


def test_show_says_who_is_taken_for_whom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = np.array([0] * 8 + [1] * 2 + [3] * 2)  # no image of class 2
    predicted = np.array([0] * 8 + [0, 1] + [3, 3])
    assert confused(Answers(predicted, truth)) == (
        "balanced accuracy 83.3 %, weakest class 1 (50.0 %), most often 1 is taken for 0 (50.0 %)"
    )
    assert confused(Answers(truth, truth)) == "balanced accuracy 100.0 %, weakest class 0 (100.0 %)"
