"""`sslbench evaluate`: what is finished is judged, and nothing is trained."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from sslbench.cells.protocol import resolve_judge
from sslbench.cli.app import program
from sslbench.names import parse
from sslbench.plan import named
from sslbench.plan.planning import make_plan
from sslbench.plan.selection import Selection, suite_of
from sslbench.plugins import registry
from sslbench.store import Store
from sslbench.train.options import RunOptions

pytestmark = pytest.mark.usefixtures("forks")
TINY = """
summary: a tiny suite
datasets: ["digits[test=30,train=100]"]
backbones: [test_resnet]
methods: [simclr]
baselines: [pixels, untrained]
floor: untrained
evaluators: [knn]
seeds: [0, 1, 2, 3]
epochs: 1
batch: 100
set: {simclr.blur: 0.0}
"""
FOUND = registry(installed=False)


def call(*args, code=0):
    done = CliRunner().invoke(program, args)
    assert done.exit_code == code, (done.output, done.exception)
    return done


@pytest.fixture(scope="module")
def trained(forks, tmp_path_factory):
    """A store of twelve finished cells."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY)
    call("run", "--suite", str(folder / "tiny.yaml"), "--store", str(folder / "store"))
    return folder / "store"


@pytest.fixture
def store(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("SSLBENCH_STORE", "SSLBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    Path("tiny.yaml").write_text(TINY)
    shutil.copytree(trained, "sslbench-store")
    return Path("sslbench-store")


def made(store):
    """How many records there are of each kind, evaluator and status."""
    cells = Store(store).cells()
    return Counter((r.kind, r.evaluator, r.status) for cell in cells for r in cell.records())


def test_twelve_finished_cells_are_judged_by_a_new_judge_and_nothing_is_trained(store):
    before = made(store)
    assert before == {("train", None, "ok"): 12, ("evaluation", "knn", "ok"): 12}
    models = {p: p.stat().st_mtime_ns for p in store.rglob("model.safetensors")}
    done = call("evaluate", "tiny.yaml", "--evaluators", "knn,clustering")
    assert made(store) - before == {("evaluation", "clustering", "ok"): 12}
    assert "trained 0 cells, made 12 evaluations\n" in done.stdout
    assert "12 trained cells, 12 to judge" in done.stdout
    assert "clustering-1" in done.stdout
    assert "not trained" not in done.stdout
    assert models == {p: p.stat().st_mtime_ns for p in store.rglob("model.safetensors")}
    again = call("evaluate", "tiny.yaml", "--evaluators", "knn,clustering", "--json")
    assert "trained 0 cells, made 0 evaluations\n" in again.stderr
    assert json.loads(again.stdout)["suite"].startswith("tiny+")
    assert sum(made(store).values()) == 36


def test_what_is_not_trained_is_counted_left_alone_and_how_to_train_it_said(store):
    cells = {c: c.identity() for c in Store(store).cells()}
    lost = [c for c, i in cells.items() if i.method == "simclr" and i.seed > 1]
    lost[0].delete()
    # as a run leaves it that broke off
    next((lost[1].path / "records").glob("train-*.json")).unlink()
    before = made(store)
    done = call("evaluate", "tiny.yaml", "--seeds", "1,2,3,4", "--methods", "simclr")
    assert made(store) == before
    again = "sslbench run --suite tiny.yaml --methods simclr --seeds 1,2,3,4"
    assert "not trained, so not judged: 5 cells (5 missing); to train them: " + again in done.stdout
    assert "7 trained cells, 0 to judge" in done.stdout
    other = call("evaluate", "tiny.yaml", "--set", "simclr.lr=0.5").stdout
    assert "not judged: 4 cells (3 stale, 1 missing)" in other
    assert made(store) == before


def test_a_cell_whose_model_is_lost_is_not_trained_again(store):
    lost = next(c for c in Store(store).cells() if c.identity().method == "simclr")
    (lost.path / "model.safetensors").unlink()
    before = made(store)
    done = call("evaluate", "tiny.yaml", "--evaluators", "retrieval", code=3)
    assert f"the weights of cell {lost.id[:12]} are lost" in " ".join(done.output.split())
    assert made(store) - before == {("evaluation", "retrieval", "ok"): 11}
    assert not (lost.path / "model.safetensors").exists()


def test_a_dataset_to_transfer_to_is_looked_for_before_anything_runs(store):
    before = made(store)
    said = call("evaluate", "tiny.yaml", "--transfer-to", "digitz", code=2).stderr
    assert "did you mean 'digits'" in said
    said = call("evaluate", "tiny.yaml", "--transfer-to", "folder:/data/x", code=2).stderr
    assert "a path says where, not what" in said
    assert made(store) == before


def test_where_nothing_is_trained_there_is_nothing_to_judge(store):
    said = call(
        "evaluate", "tiny.yaml", "--epochs", "7", "--methods", "simclr", "--seeds", "9", code=4
    )
    assert "no cell of suite" in said.stderr
    assert "sslbench run --suite tiny.yaml" in said.stderr
    assert "--epochs 7" in said.stderr
    assert call("evaluate", "tinny", code=2).stderr.startswith("error: unknown suite 'tinny'")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--evaluators knnn", "unknown evaluator 'knnn'; did you mean 'knn'"),
        ("--transfer-to ,", "the selection is empty: --transfer-to names none"),
        ("--name me", "--name goes with --encoder FILE"),
        ("--encoder gone.pth", "--encoder needs --backbone NAME"),
        ("--encoder gone.pth --backbone test_resnet", "--encoder gone.pth does not exist"),
        ("--mean 0,0,0", "--mean goes with --encoder FILE"),
        ("--std 0,1,1", "'0,1,1' is not three numbers"),
        ("--device tpu", "--device"),
    ],
)
def test_bad_input_is_one_sentence(store, line, sentence):
    before = made(store)
    done = CliRunner().invoke(program, ["evaluate", "tiny.yaml", *line.split()])
    assert done.exit_code in (2, 4)
    assert sentence in done.stderr
    assert made(store) == before


# ---- which judges ----------------------------------------------------------------------------


def judges(*given, **more):
    Path("tiny.yaml").write_text(TINY)
    return suite_of(Selection(suite="tiny.yaml", evaluators=given, **more), FOUND)[0].evaluators


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_set_of_judges_stands_for_its_members_once_each(here, monkeypatch):
    monkeypatch.setitem(named.SETS, "full", ("knn", "linear", "clustering"))
    assert judges("full") == ("knn", "linear", "clustering")
    assert judges("clustering", "full") == ("clustering", "knn", "linear")
    Path("tiny.yaml").write_text(TINY.replace("[knn]", "[full]"))
    suite, name = suite_of(Selection(suite="tiny.yaml"), FOUND)
    assert (suite.evaluators, name) == (("knn", "linear", "clustering"), "tiny")


def test_every_judge_of_a_set_is_there():
    for name in named.SETS["full"]:
        FOUND.find("evaluators", parse(name))


def test_layers_and_other_datasets_are_asked_of_their_judges(here):
    assert judges(layers=True) == ("knn", "linear[layers=true]")
    assert judges("linear[lr=1]", "knn", layers=True) == ("linear[layers=true,lr=1]", "knn")
    assert judges(transfer_to=("digits", "mnist")) == ("knn", "transfer[to=digits+mnist]")
    assert judges("transfer[to=svhn]", transfer_to=("mnist",)) == ("transfer[to=mnist]",)
    assert judges() == ("knn",)
    (name,) = judges("transfer", transfer_to=("digits[test=30]", "mnist"))
    assert parse(name).params == {"to": "digits[test=30]+mnist"}


def test_the_name_of_a_judge_can_be_read_again(here):
    Path("odd.py").write_text(
        "from sslbench import hookimpl\n"
        "from sslbench.api import Evaluator, Judgement, Metric, Value\n"
        "class Odd(Evaluator):\n"
        "    metrics = (Metric('one'),)\n"
        "    def __init__(self, *, to: str = '', deep: bool = False):\n"
        "        self.to, self.deep = to, deep\n"
        "    def __call__(self, subject, data, seed):\n"
        "        return Judgement({'one': Value(1.0)})\n"
        "@hookimpl\n"
        "def evaluators():\n"
        "    return {'odd': Odd}\n"
    )
    found = registry(installed=False, files=[Path("odd.py")])
    judge, first = resolve_judge('odd[to="digits[test=3,train=9]+mnist",deep=true]', found)
    again, second = resolve_judge(judge.name, found)
    assert (again, second.to, second.deep) == (judge, first.to, True)
    assert first.to == "digits[test=3,train=9]+mnist"


def test_a_plan_that_must_not_train_opens_only_what_is_trained(store):
    shutil.rmtree(store)
    plan = make_plan(Selection(suite="tiny.yaml", how=RunOptions(train=False)), FOUND)
    assert len(plan.cells) == 12
    assert plan.open == plan.within == []
