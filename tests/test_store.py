"""The store: nothing half-written, nothing damaged used, one writer a cell."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from sslbench import records
from sslbench.api import Predictions
from sslbench.disk import DiskError, write_atomic
from sslbench.errors import UserError
from sslbench.records import Failure, MetricValue, Record
from sslbench.store import Store, answers, newest

CELL = "ab" * 32


def record(**given) -> Record:
    values = {"kind": "train", "cell_id": CELL, "identity": {"x": 1}, "status": "ok", "seed": 0}
    names = {"method": "m", "backbone": "b", "dataset": "d", "finished": "2026-01-01T00:00:00Z"}
    return Record(**{**values, **names, **given})


@pytest.fixture
def cell(tmp_path):
    store = Store(tmp_path / "store")
    store.create()
    return store.cell(CELL)


def test_a_record_comes_back_whole(cell):
    metrics = (MetricValue(name="top1", value=1 / 3, n=10, stderr=0.1),)
    error = Failure(kind="oom", type="X", message="line\nline \u2028 \ud800")
    sealed = cell.add(record(metrics=metrics, error=error, curves={"loss": [(1.0, 0.1)]}))
    assert cell.records() == [sealed]
    assert sealed.intact()


def test_a_clock_that_is_set_back_does_not_reorder_attempts(cell):
    cell.add(record(status="failed", sentence="first", finished="2026-01-02T00:00:00Z"))
    cell.add(record(status="failed", sentence="second", attempt=2, finished="2026-01-01T00:00:00Z"))
    assert [r.sentence for r in cell.records()] == ["first", "second"]
    assert cell.current("train", {"x": 1}).sentence == "second"


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_truncated_record_is_set_aside(cell, at):
    sealed = cell.add(record())
    path = next((cell.path / "records").iterdir())
    path.write_bytes(path.read_bytes()[: int(at * len(path.read_bytes()))])
    assert cell.records() == []
    assert "damaged, not used" in cell.notices[0]
    cell.add(record())
    assert [r.record_id for r in cell.records()] == [sealed.record_id]


def test_an_edited_number_is_noticed(cell):
    cell.add(record(metrics=(MetricValue(name="top1", value=0.25),)))
    path = next((cell.path / "records").iterdir())
    path.write_text(path.read_text().replace("0.25", "0.95"))
    assert cell.records() == []
    assert "does not match its record_id" in cell.notices[0]


def test_a_record_of_a_newer_schema_is_left_alone_and_not_used(cell):
    cell.add(record())
    path = next((cell.path / "records").iterdir())
    plain = json.loads(path.read_text())
    plain["schema_version"] = "2.0"
    path.write_text(json.dumps(plain))
    assert cell.records() == []
    assert path.exists()
    assert "upgrade sslbench" in cell.notices[0]


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"schema_version": {}}', "[" * 10000])
def test_rubbish_is_no_record(text):
    with pytest.raises(ValueError, match="not a record"):
        records.loads(text)


def test_a_store_of_a_newer_format_is_refused(tmp_path):
    (tmp_path / "store.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="format 99"):
        Store(tmp_path)


def test_ok_beats_newer_failures_and_newer_beats_older(cell):
    old = cell.add(record(finished="2026-01-01T00:00:00Z"))
    new = cell.add(record(finished="2026-01-02T00:00:00Z"))
    cell.add(record(finished="2026-01-03T00:00:00Z", status="failed"))
    assert cell.current("train", {"x": 1}) == new != old
    assert cell.current("train", {"x": 2}) is None
    assert newest([], "train", {"x": 1}) is None


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "g" * 64, "ab" * 31])
def test_only_hashes_become_folders(tmp_path, name):
    with pytest.raises(ValueError, match="is not a cell id"):
        Store(tmp_path).cell(name)


def test_names_in_records_never_become_paths(cell):
    cell.add(record(kind="evaluation", evaluator="../../../evil/\0name"))
    found = list((cell.path / "records").iterdir())
    assert len(found) == 1
    assert "/" not in found[0].name
    assert ".." not in found[0].name


def tensors():
    return {"a": torch.randn(30, 4), "n": torch.tensor(3), "b": torch.tensor([True, False])}


def test_tensors_come_back_bit_for_bit_in_their_layout(cell):
    saved = {**tensors(), "c": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    cell.save("state", saved, {"lr": 0.1 + 0.2})
    loaded, plain = cell.load("state")
    assert plain == {"lr": 0.1 + 0.2}
    assert all(torch.equal(loaded[k], saved[k]) for k in saved)


def test_every_flipped_bit_is_noticed(cell):
    path = cell.save("state", tensors(), {"step": 7})
    sound = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for at in torch.randint(8, len(sound), (60,), generator=generator).tolist():
        flipped = bytearray(sound)
        flipped[at] ^= 1 << (at % 8)
        path.write_bytes(flipped)
        loaded = cell.load("state")
        if loaded is not None:  # a bit that means nothing: padding of the header
            assert all(torch.equal(loaded[0][k], v) for k, v in cell_again(cell, sound).items())
        path.write_bytes(sound)


def cell_again(cell, sound):
    (cell.path / "again.safetensors").write_bytes(sound)
    return cell.load("again")[0]


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_set_aside(cell, at):
    path = cell.save("state", tensors(), {})
    path.write_bytes(path.read_bytes()[: int(at * len(path.read_bytes()))])
    assert cell.load("state") is None
    assert not path.exists()
    assert "damaged" in cell.notices[0]


def test_a_full_disk_is_one_sentence_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*file: .* or name another place"):
            write_atomic(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        Store(tmp_path / "file" / "store").create()


KILLED = """
import sys
from pathlib import Path
from sslbench.disk import write_atomic
n = 0
while True:
    n += 1
    write_atomic(Path(sys.argv[1]), bytes([n % 256]) * 1_000_000)
    print(n, flush=True)
"""


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file"
    for i in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
        )
        with writer:
            writer.stdout.readline()
            time.sleep(0.003 * i)
            writer.kill()
        content = path.read_bytes()
        assert len(content) == 1_000_000
        assert len(set(content)) == 1


def test_a_lock_is_gone_with_its_process_and_sweeps_what_it_left(cell):
    code = (
        "import sys, os; from pathlib import Path; from sslbench.store.folder import Store\n"
        "c = Store(Path(sys.argv[1])).cell(sys.argv[2])\n"
        "with c.lock() as held:\n"
        "    (c.path / '.x.1.2.tmp').write_text('half')\n"
        "    print(held, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    root = str(cell.path.parents[2])
    holder = subprocess.Popen(
        [sys.executable, "-c", code, root, CELL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "True\n"
        with cell.lock(waiting=lambda: False) as held:
            assert not held
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with cell.lock(waiting=lambda: False) as held:
        assert held
    assert not list(cell.path.glob(".*.tmp"))


def test_a_path_that_is_not_utf8_is_a_path(tmp_path):
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9"))
    store = Store(root)
    store.create()
    cell = store.cell(CELL)
    cell.save("model", {"w": torch.ones(3)}, {})
    cell.add(record())
    assert torch.equal(cell.load("model")[0]["w"], torch.ones(3))
    assert len(cell.records()) == 1
    assert store.notices == []


@pytest.mark.parametrize("value", [1e308, -1e200])
def test_a_number_that_no_measurement_gives_is_refused_in_one_sentence(cell, value):
    with pytest.raises(ValidationError) as error:
        MetricValue(name="top1", value=value)
    assert f"{value:g} is larger than any measurement" in records.wrong_field(error.value)
    text = cell.add(record(metrics=(MetricValue(name="top1", value=0.25),))).dumps()
    with pytest.raises(ValueError, match=r"metrics\.0\.value: .*larger than any measurement"):
        records.loads(text.replace("0.25", f"{value:g}"))


def test_a_curve_of_very_many_points_is_thinned_out():
    points = [(float(i), i / 7) for i in range(400_000)]
    thin = records.thinned(points)
    assert len(thin) == records.POINTS
    assert (thin[0], thin[-1]) == (points[0], points[-1])
    assert records.thinned(points[:100]) == points[:100]


# ---- what the system refuses to read ---------------------------------------------------------

REFUSALS = [errno.EACCES, errno.EMFILE, errno.EIO, errno.ESTALE]
READERS = {
    "records": lambda cell: cell.records(),
    "identity": lambda cell: cell.identity(),
    "model": lambda cell: cell.load("model"),
    "predictions": lambda cell: cell.predictions(cell.answered),
    "marker": lambda cell: Store(cell.path.parents[2]),
}


@pytest.fixture
def whole(cell):
    """A cell with one of each file."""
    cell.write_identity({"x": 1})
    cell.answered = cell.add(
        record(), answers(Predictions(torch.ones(3).long(), torch.ones(3).long()))
    )
    cell.save("model", {"w": torch.ones(3)}, {})
    return cell


def listed(cell) -> dict[str, bytes]:
    root = cell.path.parents[2]
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
def test_what_cannot_be_read_is_a_sentence_and_is_left_alone(whole, monkeypatch, what, number):
    before, open_ = listed(whole), os.open

    def refusing(path, *rest, **more):
        if str(path).startswith(str(whole.path.parents[2])):
            raise OSError(number, os.strerror(number))
        return open_(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        with pytest.raises(DiskError, match=r"cannot read .*; it is left as it was: "):
            READERS[what](whole)
    assert listed(whole) == before
    assert whole.notices == []


def test_a_fault_while_reading_is_not_damage_either(whole, monkeypatch):
    def faulty(fd):
        raise OSError(errno.EIO, "Input/output error")

    before = listed(whole)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", faulty)
        with pytest.raises(DiskError, match="Input/output error"):
            whole.records()
    assert listed(whole) == before


@contextlib.contextmanager
def another_user():
    """Acts as a user who owns nothing; one who is not root already is one."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("hidden", ["a record", "its folder"])
def test_another_users_records_stay_as_they_are(hidden):
    root = Path(tempfile.mkdtemp())  # tmp_path is for its owner's eyes alone
    try:
        root.chmod(0o755)
        store = Store(root / "store")
        store.create()
        cell = store.cell(CELL)
        cell.add(record())
        (path,) = (cell.path / "records").iterdir()
        (path if hidden == "a record" else path.parent).chmod(0)
        with another_user(), pytest.raises(DiskError, match="Permission denied; it is left as it"):
            cell.records()
        path.parent.chmod(0o700)
        path.chmod(0o600)
        assert len(cell.records()) == 1
        assert cell.notices == []
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_sentence(cell, monkeypatch, number):
    def refused(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(DiskError, match=r"cannot lock .*; nothing is damaged"), cell.lock():
        pass


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("place", [_fifo, _loop, Path.mkdir])
def test_what_is_no_file_is_not_waited_for(whole, place):
    folder = whole.path / "records"
    place(folder / "train-0.json")
    (whole.path / "identity.json").unlink()
    place(whole.path / "identity.json")
    (whole.path / "model.safetensors").unlink()
    place(whole.path / "model.safetensors")
    assert len(whole.records()) == 1
    assert whole.identity() is None
    assert whole.load("model") is None
    assert [n.count("it is not a regular file") for n in whole.notices] == [1, 1, 1]


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "text", [DEEP, '{"schema_version": Infinity}', '{"format": 1e999}', "\ud800", "1" * 5000]
)
def test_texts_that_are_no_records_are_set_aside(whole, text):
    content = text.encode("utf-8", "surrogatepass")
    (whole.path / "records" / "train-0.json").write_bytes(content)
    (whole.path / "identity.json").write_bytes(content)
    assert len(whole.records()) == 1
    assert whole.identity() is None
    assert len(whole.notices) == 2


@pytest.mark.parametrize("text", [DEEP, '{"format": Infinity}', '{"format": 1e999}', "[", ""])
def test_a_damaged_marker_says_how_it_is_mended(whole, text):
    root = whole.path.parents[2]
    (root / "store.json").write_text(text)
    with pytest.raises(UserError, match=r"is not a marker of a store.*remove that file"):
        Store(root)
    (root / "store.json").unlink()
    again = Store(root)
    again.create()
    assert len(again.cell(CELL).records()) == 1
