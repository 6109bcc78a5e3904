"""Plan and run on the whole command line: processes that die, two runs at once, disks, bad data."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from processes import Command

from sslbench.cli.app import program
from sslbench.evaluators.knn import KNN
from sslbench.plan.planning import make_plan
from sslbench.plan.selection import Selection
from sslbench.plugins import registry
from sslbench.run.matrix import run
from sslbench.store import Store

pytestmark = pytest.mark.usefixtures("forks")
TINY = """
summary: a tiny suite
datasets: ["digits[test=30,train=100]"]
backbones: [test_resnet]
methods: [simclr]
baselines: [untrained]
floor: untrained
evaluators: [knn]
seeds: [0]
epochs: 1
batch: 32
set: {simclr.blur: 0.0}
"""
DIES = """
import os, signal
import torch
from sslbench import Method, hookimpl
class Dies(Method):
    "It ends its process. arXiv 0000.00000. Departures: all."
    def __init__(self, backbone, data):
        super().__init__()
        self.backbone = backbone
    def views(self):
        return lambda images: images.float() / 255
    def step(self, batch):
        os.kill(os.getpid(), signal.SIGKILL)
        yield self.backbone(batch.views).mean()
class Orphan(Dies):
    "Its loss is not a number. arXiv 0000.00000. Departures: all."
    def step(self, batch):
        yield self.backbone(batch.views).mean() * torch.nan
@hookimpl
def methods():
    return {"dies": Dies, "nan": Orphan}
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("SSLBENCH_STORE", "SSLBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    Path("tiny.yaml").write_text(TINY)
    Path("dies.py").write_text(DIES)


def sslbench(*args, code=0):
    done = CliRunner().invoke(program, args)
    assert done.exit_code == code, done.output
    return done


def refused(*args) -> str:
    """The one sentence of a run that never began."""
    done = CliRunner().invoke(program, ["run", "--suite", "tiny.yaml", *args])
    assert done.exit_code == 2, done.output
    assert not Path("sslbench-store/cells").exists()
    return done.stderr


def all_records(store="sslbench-store"):
    return [r for cell in Store(Path(store)).cells() for r in cell.records()]


def test_a_process_that_dies_fails_its_cell_and_no_other():
    said = sslbench(
        "--plugin", "dies.py", "run", "--suite", "tiny.yaml", "--methods", "dies,nan,simclr", code=3
    ).stdout
    status = {(r.method, r.kind): r for r in all_records()}
    killed = status["file:dies/dies", "train"]
    assert killed.error.kind == "killed"
    assert "signal 9" in killed.sentence
    assert status["file:dies/nan", "train"].error.kind == "nan"
    assert status["simclr", "evaluation"].status == "ok"
    assert "signal 9" in said
    assert "epoch 0, step 0" in said


def test_two_runs_at_once_train_each_cell_once():
    line = ["run", "--suite", "tiny.yaml", "--epochs", "4"]
    runs = [Command(line, Path(each)) for each in ("one", "other")]
    ended = [run.ended() for run in runs]
    assert [each.code for each in ended] == [0, 0], ended
    made = [(r.method, r.kind) for r in all_records()]
    assert sorted(made) == [
        ("simclr", "evaluation"),
        ("simclr", "train"),
        ("untrained", "evaluation"),
        ("untrained", "train"),
    ]
    assert all("simclr" in each.stdout for each in ended)


def test_a_full_disk_is_one_sentence_and_the_store_stays_sound():
    def little():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))

    done = Command(["run", "--suite", "tiny.yaml"], Path("said"), little).ended()
    assert done.code == 2, done
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path("sslbench-store").rglob("*.tmp"))
    sslbench("run", "--suite", "tiny.yaml")


def test_a_new_version_of_an_evaluator_judges_again_and_trains_nothing(monkeypatch):
    assert CliRunner().invoke(program, ["run", "--suite", "tiny.yaml"]).exit_code == 0
    options, found = Selection(suite="tiny.yaml"), registry()
    assert {p.state for p in make_plan(options, found).cells} == {"done"}
    monkeypatch.setattr(KNN, "version", 2)
    plan = make_plan(options, found)
    assert {p.state for p in plan.cells} == {"evaluate"}
    assert {p.judges[0].judge.protocol for p in plan.cells} == {"knn-2"}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("moco.queue=101", "queue of 101 keys is longer than the 100 images"),
        ("swav.queue=101", "queue of 101 features is longer"),
        ("deepcluster.clusters=101", "101 clusters of the 100 images"),
        ("scan.neighbours=101", "101 neighbours among the 100 images"),
        ("moco.batch=101", "a batch of 101 is larger than the 100 images"),
    ],
)
def test_what_is_larger_than_the_data_is_refused_before_anything_trains(setting, sentence):
    method = setting.partition(".")[0]
    assert sentence in refused("--methods", method, "--set", setting)


def test_a_judge_that_wants_more_than_the_data_has_is_skipped_with_its_sentence():
    done = CliRunner().invoke(
        program, ["run", "--suite", "tiny.yaml", "--methods", "", "--evaluators", "knn[k=500]"]
    )
    assert done.exit_code == 0, done.output
    assert "asks for 500 neighbours" in done.stdout
    again = CliRunner().invoke(
        program, ["run", "--suite", "tiny.yaml", "--methods", "", "--evaluators", "knn[k=500]"]
    )
    assert "made 0 evaluations" in again.stdout
    assert len([r for r in all_records() if r.status == "skipped"]) == len(all_records()) // 2


def test_a_dataset_without_files_says_where_it_looked_and_how_to_get_it():
    said = refused("--datasets", "cifar10", "--data", "nowhere")
    assert "nowhere" in said
    assert "--download" in said


def test_a_dataset_with_a_wrong_checksum_is_refused():
    folder = Path("data/cifar-10-batches-bin")
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(b"\0" * 100)
    assert "data_batch_1.bin" in refused("--datasets", "cifar10", "--data", "data")


def paint(path: Path, mode: str, seed: int, side=(20, 24)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*side, 4), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(pixels).convert(mode).save(path)


def photos(classes=("cat", "dog")):
    for split, n in (("train", 12), ("test", 4)):
        for k, name in enumerate(classes):
            for i in range(n):
                mode = ("RGB", "L", "RGBA", "I;16", "P")[i % 5]
                paint(Path(f"photos/{split}/{name}/{i}.png"), mode, 100 * k + i)
    paint(Path(f"photos/train/{classes[0]}/wide.png"), "RGB", 7, (1, 30))


FOLDER = ("run", "--suite", "tiny.yaml", "--datasets", "folder:photos[size=32]", "--batch", "8")


def test_a_folder_of_all_kinds_of_pictures_runs():
    photos()
    done = CliRunner().invoke(program, [*FOLDER])
    assert done.exit_code == 0, done.output


def test_a_broken_image_is_named_and_can_be_left_out_and_counted():
    photos()
    Path("photos/train/dog/3.png").write_bytes(b"no picture")
    done = CliRunner().invoke(program, [*FOLDER])
    assert done.exit_code == 2
    assert str(Path("photos/train/dog/3.png")) in done.stderr
    assert "--skip-broken" in done.stderr
    done = CliRunner().invoke(program, [*FOLDER, "--skip-broken"])
    assert done.exit_code == 0, done.output
    assert {r.components["dataset"]["skipped"] for r in all_records()} == {1}


def test_one_class_only_is_skipped_with_a_sentence():
    photos(classes=("cat",))
    done = CliRunner().invoke(program, [*FOLDER, "--evaluators", "knn,linear,clustering"])
    assert done.exit_code == 0, done.output
    judged = [r for r in all_records() if r.kind == "evaluation"]
    assert {r.status for r in judged} == {"skipped"}
    assert all("one class only" in r.sentence for r in judged)


PICKY = DIES.replace(
    "    def views",
    "    @classmethod\n    def needs(cls, backbone, data):\n"
    "        return 'dies wants more than 16 classes'\n    def views",
    1,
)


def test_a_method_that_cannot_serve_is_skipped_with_its_sentence():
    Path("picky.py").write_text(PICKY)
    line = ["run", "--plugin", "picky.py", "--suite", "tiny.yaml", "--methods", "dies"]
    done = CliRunner().invoke(program, line)
    assert done.exit_code == 0, done.output
    assert "wants more than 16 classes" in done.stdout


def test_a_cell_that_only_a_worker_finds_unsupported_is_counted_once():
    Path("picky.py").write_text(PICKY)
    files = (Path("picky.py"),)
    found = registry(installed=False, files=files)
    options = Selection(suite="tiny.yaml", methods=("dies",), plugins=files, installed=False)
    plan = make_plan(options, found, preflight=False)  # which would have found it
    outcome = run(plan, found)
    assert (outcome.skipped, outcome.failed) == (1, 0)
