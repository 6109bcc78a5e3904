"""Label budgets: how they are asked for, how many labels they are, and who is shown them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sslbench.api import Epoch, Place, Recipe, Stream
from sslbench.cells.budget import labels_in
from sslbench.cells.settings import resolve_recipe
from sslbench.cli.app import program
from sslbench.data import open_data
from sslbench.errors import Unsuited, UserError
from sslbench.names import check_budget
from sslbench.one_cell.subject import JudgedData
from sslbench.plugins import registry
from sslbench.store import Store
from sslbench.train.feed import orders
from sslbench.train.optim import Optimisation

pytestmark = pytest.mark.usefixtures("forks")
PLUGIN = """
import torch.nn.functional as F
from torch import nn
from sslbench.api import Evaluator, Judgement, Method, Metric, Recipe, Stream, Value
from sslbench.hookspecs import hookimpl
from sslbench.views import plain

SSLBENCH_API = (1, 2)


class Few(Method):
    \"\"\"Learns from a few labels.

    Nobody, arXiv 0000.00000. Departures: none known.
    \"\"\"

    labels = "budget"
    recipe = Recipe(epochs=1, batch=32, lr=0.05)

    def __init__(self, backbone, data, *, width: int = 8):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.view = plain

    def fit(self, run):
        shown = (run.labels() >= 0).nonzero().flatten()
        for epoch in run.epochs(self):
            epoch.streams["labelled"] = Stream(shown, share=1 / 4)

    def step(self, batch):
        also = batch.also["labelled"]
        assert len(also.index) == len(batch.index) // 4
        yield F.cross_entropy(self.predict(also.views), also.label)

    def predict(self, x):
        return self.head(self.backbone(x))


class Asks(Evaluator):
    \"\"\"Says which rows it is shown.\"\"\"

    metrics = (Metric("rows", unit="1"),)

    def __call__(self, subject, data, seed):
        rows = data.shown("4/class")
        return Judgement({"rows": Value(float((rows + 1).square().sum()))})


@hookimpl
def methods():
    return {"few": Few}


@hookimpl
def evaluators():
    return {"asks": Asks}
"""
SUITE = """
summary: a tiny suite
datasets: ["digits[test=30,train=300]"]
backbones: [test_resnet]
methods: [few]
baselines: [untrained]
evaluators: [knn]
seeds: [0]
epochs: 1
batch: 32
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SSLBENCH_STORE", "SSLBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    Path("few.py").write_text(PLUGIN)
    Path("tiny.yaml").write_text(SUITE)


def called(command: str, *words: str, code: int = 0) -> str:
    whole = ["--plugin", "few.py", "--no-plugins", command, "--suite", "tiny.yaml", *words]
    done = CliRunner().invoke(program, whole)
    assert done.exit_code == code, done.output
    return done.output


# ---- how many labels -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (40, 40),
        ("40", 40),
        ("4/class", "4/class"),
        ("10%", "10%"),
        ("2.5%", "2.5%"),
        ("all", "all"),
    ],
)
def test_a_budget_has_four_forms(asked: int | str, kept: int | str) -> None:
    assert check_budget(asked) == kept


@pytest.mark.parametrize(
    "asked",
    [0, "0", "-4", "0/class", "0%", "101%", "4.5", "1.5/class", "four", "", "4 / class", True],
)
def test_other_budgets_are_refused_with_what_would_work(asked: int | str) -> None:
    with pytest.raises(UserError, match=r"40, 4/class, 10% or all"):
        check_budget(asked)


@pytest.mark.parametrize(
    ("asked", "labels"),
    [(40, 40), (42, 42), ("4/class", 40), ("10%", 90), ("all", 900), (10, 10), (900, 900)],
)
def test_a_budget_is_so_many_labels(asked: int | str, labels: int) -> None:
    assert labels_in(asked, [90] * 10, "data") == labels


@pytest.mark.parametrize(
    ("asked", "sizes", "sentence"),
    [
        (9, [90] * 10, "it has 10 classes, one label of each at least"),
        (901, [90] * 10, "and 900 labels that can be given"),
        ("1%", [90] * 10, r"budget of 1% \(9 labels\)"),
        ("4/class", [90, 3], "its smallest class has 3 labels to show; ask for 3/class"),
        (4, [90], "has 1 classes"),
    ],
)
def test_what_the_data_cannot_give_is_a_sentence(
    asked: int | str, sizes: list[int], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        labels_in(asked, sizes, "data")


# ---- on the command line ---------------------------------------------------------------------------


def test_a_run_shows_the_labels_it_was_told_to_and_records_which() -> None:
    said = called("plan", "--labels", "4/class")
    assert "40 labels of digits[test=30,train=300], spread evenly over its classes" in said
    called("run", "--labels", "4/class")
    (few,) = [
        cell.trained()
        for cell in Store(Path("sslbench-store")).cells()
        if _method(cell) == "file:few/few"
    ]
    assert few is not None
    assert few.labels is not None
    assert few.identity["labels"] == {"budget": 40}
    data = open_data("digits[test=30,train=300]", registry(installed=False), Place())
    rows = JudgedData(data).shown("4/class", seed=0)
    assert few.labels.count == 40 == len(rows)
    seen = data.pretraining("budget", budget=40, seed=0).labels
    assert (seen >= 0).nonzero()[:, 0].equal(rows)
    assert torch.bincount(data.train.labels[rows]).tolist() == [4] * 10
    assert not data.held_out[rows].any()


def test_a_methods_own_answers_are_watched_on_the_held_out_tenth() -> None:
    called("run", "--labels", "4/class", "--epochs", "2", "--watch", "classifier:1")
    (few,) = [cell for cell in Store(Path("sslbench-store")).cells() if "few" in str(_method(cell))]
    trained = few.trained()
    assert trained is not None
    curve = trained.curves["watch.classifier-1.top1"]
    assert [epoch for epoch, _ in curve] == [1, 2]
    assert all(value * 30 == pytest.approx(round(value * 30)) for _, value in curve)  # of 30 images


def _method(cell: object) -> str | None:
    identity = cell.identity()  # type: ignore[attr-defined]
    return identity.method if identity else None


def test_forms_of_the_same_budget_are_the_same_cell() -> None:
    ids = [
        {c["id"] for c in json.loads(called("plan", "--json", "--labels", form))["cells"]}
        for form in ("40", "4/class")
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            (),
            "learns from a few labels, and none were given; --labels 40, 4/class, 10% or all gives",
        ),
        (("--labels", "5"), "it has 10 classes, one label of each at least"),
        (("--labels", "0"), "a label budget of 0 was asked for"),
        (("--labels", "many"), "a label budget is 40, 4/class, 10% or all, not many"),
        (("--labels", "40", "--methods", "simclr"), "simclr does not take a budget of labels"),
        (("--labels", "40", "--methods", "few,simclr"), "simclr does not take a budget of labels"),
        (
            ("--labels", "40", "--evaluators", "knn,linear[labels=99999]"),
            "linear[labels=99999]: digits[test=30,train=300]: a label budget of 99999 was asked for",
        ),
        (
            ("--labels", "40", "--evaluators", "finetune[labels=500/class]"),
            "a label budget of 500/class was asked for, and its smallest class has 27 labels to show",
        ),
        (("--labels", "40", "--evaluators", "knn[labels=5]"), "one label of each at least"),
    ],
)
def test_a_wrong_budget_is_a_sentence_before_anything_trains(
    words: tuple[str, ...], sentence: str
) -> None:
    said = " ".join(called("run", *words, code=2).split())
    assert sentence in said
    assert not Path("sslbench-store", "cells").exists()


def test_a_suite_with_a_budget_may_hold_methods_without_one() -> None:
    Path("tiny.yaml").write_text(SUITE + "labels: 4/class\n")
    said = called("plan", "--methods", "few,simclr", "--labels", "50")
    assert "50 labels of digits" in said


def test_judges_that_see_what_a_suites_methods_see_follow_its_budget() -> None:
    judges = '["linear[labels=4/class]", "knn[labels=2/class]", knn]'
    text = SUITE + "labels: 4/class\nonce: ['finetune[labels=4/class]']\n"
    Path("tiny.yaml").write_text(text.replace("[knn]", judges))
    made = json.loads(called("plan", "--labels", "50", "--json"))
    judges = made["cells"][0]["judges"]
    found = {re.sub(r"-\d+", "", each) for each in judges}  # without versions
    assert found == {"linear[labels=50]", "knn[labels=2/class]", "knn", "finetune[labels=50]"}


def test_a_suite_with_another_budget_is_a_sentence() -> None:
    Path("tiny.yaml").write_text(SUITE + "labels: some\n")
    said = " ".join(called("plan", code=2).split())
    assert "labels of the suite tiny.yaml must be 40, 4/class, 10% or all, not 'some'" in said


# ---- judges ------------------------------------------------------------------------------------------


def test_a_judge_is_shown_the_rows_that_the_method_of_its_cell_was() -> None:
    judged = ("--evaluators", "asks", "--seeds", "0,3", "--labels", "4/class")
    called("run", *judged)
    data = open_data("digits[test=30,train=300]", registry(installed=False), Place())
    found = {}
    for cell in Store(Path("sslbench-store")).cells():
        for record in cell.records():
            if record.kind == "evaluation":
                found[record.method, record.seed] = record.metrics[0].value
    assert len(found) == 4
    for (_, seed), value in found.items():
        shown = (data.pretraining("budget", budget=40, seed=seed).labels >= 0).nonzero()[:, 0]
        assert value == float((shown + 1).square().sum())


def test_budgets_of_judges_stand_in_the_heads_and_rank_apart() -> None:
    judges = "knn,knn[labels=2/class],knn[labels=10%]"
    asked = ("run", "--labels", "4/class", "--evaluators", judges)
    assert "knn-1[labels=2/class]" in called(*asked)
    board, _ = json.JSONDecoder().raw_decode(called(*asked, "--json"))
    (table,) = board["tables"]
    heads = [column["protocol"] for column in table["columns"] if column["ranks"]]
    assert heads == ["knn-1", "knn-1[labels=2/class]", "knn-1[labels=10%]"]


# ---- for methods and evaluators ----------------------------------------------------------------------


def test_a_smaller_budget_lies_within_a_larger_one() -> None:
    data = JudgedData(open_data("digits", registry(installed=False), Place()))
    few, more = data.shown(40, seed=1), data.shown("25/class", seed=1)
    assert torch.isin(few, more).all()
    assert not data.shown(40, seed=2).equal(few)
    with pytest.raises(Unsuited, match="one label of each at least"):
        data.shown(3, seed=0)


@pytest.mark.parametrize(("batch", "drawn"), [(64, 9), (7, 1), (2, 1)])
def test_a_stream_is_a_share_of_the_main_batch(batch: int, drawn: int) -> None:
    epoch = Epoch(0, streams={"labelled": Stream(torch.arange(5), share=1 / 7)})
    found = orders(epoch, 200, steps=3, batch=batch, origin=("data", 0))
    assert found["labelled"].shape == (3, drawn)


def test_the_arc_is_that_of_fixmatch() -> None:
    network = torch.nn.Linear(2, 2)
    end = math.cos(7 * math.pi / 16)
    recipe = Recipe(epochs=4, lr=2.0, schedule="arc", lr_end=end)
    optimisation = Optimisation(network, recipe, steps_per_epoch=10)
    for step in (0, 11, 39):
        optimisation.set(step)
        expected = 2 * math.cos(7 * math.pi * step / (16 * 40))
        assert optimisation.optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)


def test_an_arc_that_would_rise_is_refused() -> None:
    with pytest.raises(UserError, match="lr_end must be at most 1 with the schedule arc"):
        resolve_recipe(Recipe(schedule="arc"), {"lr_end": 1.5}, what="few")
