"""Tuning: the same number of random trials for every method, chosen on the held-out tenth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sslbench.api import Place
from sslbench.cells.suite import load_suite
from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.leaderboard.board.members import members_of
from sslbench.leaderboard.board.planned import material_of
from sslbench.one_cell.building import Builder
from sslbench.one_cell.workbench import Workbench
from sslbench.plan.planning import make_plan
from sslbench.plan.selection import Selection
from sslbench.plugins import registry
from sslbench.store import Store
from sslbench.train.options import RunOptions

pytestmark = pytest.mark.usefixtures("forks")
TINY = """
summary: a tiny tuned suite
datasets: ["digits[test=30,train=100]"]
backbones: [test_resnet]
methods: [scan]
baselines: [untrained]
evaluators: [knn]
seeds: [0, 1]
epochs: 2
batch: 32
set: {simclr.blur: 0.0, simclr.optimizer: sgd, simclr.lr: 0.1, scan.neighbours: 5}
tuning:
  trials: 2
  epochs: 1
  judge: knn[k=3]
  seed: 100
  space:
    "*.lr": {times: [0.5, 2]}
    simclr.temperature: [0.1, 0.2, 0.5]
    scan.agree.lr: {times: [0.5, 2]}
    moco.queue: [64]
"""
REGISTRY = registry(installed=False)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)


def planned(**options):
    return make_plan(Selection(suite="tiny.yaml", store=Path("store"), **options), REGISTRY)


def sslbench(*arguments):
    return CliRunner().invoke(program, arguments)


def done(plan):
    """What is open in a plan, done in this process; the plan after it."""
    bench = Workbench(Builder(REGISTRY, Place(), torch.device("cpu")), plan.store, RunOptions())
    plan.store.create()
    for p in plan.open:
        bench.do(p.cell, [j.judge for j in p.judges])
    return make_plan(plan.options, REGISTRY)


def drawn(plan, method):
    return [p.trial[1] for p in plan.cells if p.trial and p.cell.method == method]


def test_trials_come_first_and_are_as_many_for_a_pretext_nobody_asked_for():
    plan = planned()
    assert [len(drawn(plan, name)) for name in ("simclr", "scan", "untrained")] == [2, 2, 0]
    assert {p.cell.seed for p in plan.cells if p.trial} == {100}
    assert {p.cell.recipe.epochs for p in plan.cells if p.cell.recipe} == {1}
    assert [j.judge.protocol for p in plan.cells if p.trial for j in p.judges] == (
        ["knn-1[k=3]@held-out"] * 4
    )
    assert plan.waiting == 4  # simclr for scan, and scan, of two seeds
    assert {b.identity.method for b in material_of(plan, REGISTRY).blanks} == {"untrained"}


def test_draws_lie_in_the_space_and_do_not_change():
    trials = [p for p in planned().cells if p.trial]
    rates = [p.cell.recipe.lr for p in trials if p.cell.method == "simclr"]
    assert all(0.05 <= rate <= 0.2 for rate in rates)
    assert len(set(rates)) == 2
    inner = [p.cell.stages["agree"][1].lr for p in trials if p.cell.method == "scan"]
    assert all(0.5e-4 <= rate <= 2e-4 for rate in inner)
    assert [p.cell.id for p in trials] == [p.cell.id for p in planned().cells if p.trial]


def test_what_the_command_line_sets_is_not_searched():
    titles = drawn(planned(set={"simclr.lr": 0.3}), "simclr")
    assert all(" lr=" not in title and " temperature=" in title for title in titles)


@pytest.mark.slow
def test_one_run_does_the_trials_and_then_the_cells_with_the_best_settings():
    result = sslbench("run", "--suite", "tiny.yaml", "--store", "store")
    assert result.exit_code == 0, result.output
    plan = planned()
    assert plan.waiting == 0
    assert {p.state for p in plan.cells} == {"done"}
    trials = [p for p in plan.cells if p.trial and p.cell.method == "simclr"]
    best = max(trials, key=lambda p: (p.judges[0].record.metric().value, -p.trial[0])).cell
    final = [p.cell for p in plan.cells if p.cell.method == "simclr" and p.cell.seed in (0, 1)]
    assert len(final) == 2
    for cell in final:
        assert cell.recipe.lr == best.recipe.lr
        assert cell.hyperparameters["temperature"] == best.hyperparameters["temperature"]
        assert cell.recipe.epochs == 2
    members, left = members_of(material_of(plan, REGISTRY))
    assert {m.method for m in members} == {"untrained", "scan"}
    assert not left  # trials are not cells of the board
    record = trials[0].judges[0].record
    assert {m.split for m in record.metrics} == {"held-out"}
    assert record.metrics[0].n == 10  # a tenth of the 100 training images, none of the 30 of test
    again = sslbench("run", "--suite", "tiny.yaml", "--store", "store")
    assert "trained 0 cells, made 0 evaluations" in again.output
    shown = sslbench("plan", "--suite", "tiny.yaml", "--store", "store", "--json")
    cells = json.loads(shown.stdout)["cells"]
    assert sorted(c["trial"] for c in cells if c["trial"]) == [1, 1, 2, 2]


def test_a_trial_that_diverged_is_no_reason_to_wait_and_is_not_chosen(tmp_path):
    wild = TINY.replace('"*.lr": {times: [0.5, 2]}', "simclr.lr: [1.0e+30, 0.1]")
    Path("tiny.yaml").write_text(wild.replace("methods: [scan]", "methods: [simclr]"))
    rates = {p.cell.recipe.lr for p in planned().cells if p.trial}
    assert rates == {1e30, 0.1}
    plan = done(planned())
    assert plan.waiting == 0
    final = [p.cell for p in plan.cells if p.cell.method == "simclr" and not p.trial]
    assert {cell.recipe.lr for cell in final} == {0.1}


def test_a_trial_that_died_is_done_again_before_anything_is_chosen():
    plan = done(planned(methods=("simclr",)))
    victim = next(p.cell for p in plan.cells if p.trial)
    assert plan.waiting == 0
    for path in (Store(Path("store")).cell(victim.id).path / "records").glob("*"):
        path.unlink()
    plan = planned(methods=("simclr",))
    assert plan.waiting == 2
    assert [p.cell.id for p in plan.open] == [victim.id]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("trials: 2", "trials: 0", "tuning.trials of the suite tiny.yaml must be 1 or more, not 0"),
        ("seed: 100", "seed: 1", "tuning.seed of the suite tiny.yaml is 1, one of its seeds"),
        ("  epochs: 1\n", "", "the suite tiny.yaml lacks tuning.epochs"),
        ("[0.5, 2]}\n    simclr", "[2, 0.5]}\n    simclr", r"0 < low < high"),
        ("moco.queue: [64]", "moco.queue: 64", "moco.queue must be a list of values"),
    ],
)
def test_a_tuning_that_cannot_be_is_a_sentence(old, new, sentence):
    assert old in TINY
    Path("tiny.yaml").write_text(TINY.replace(old, new))
    with pytest.raises(UserError, match=sentence):
        load_suite("tiny.yaml", REGISTRY)


def test_a_suite_extends_another_setting_by_setting():
    Path("more.yaml").write_text(
        "summary: more\nextends: fashion\nset: {simclr.lr: 0.7}\nseeds: [5]\n"
    )
    more, whole = (load_suite(name, REGISTRY) for name in ("more.yaml", "fashion"))
    assert (more.summary, more.seeds, more.name) == ("more", (5,), "more")
    assert more.set == {**whole.set, "simclr.lr": 0.7}
    assert (more.datasets, more.methods, more.epochs) == (
        whole.datasets,
        whole.methods,
        whole.epochs,
    )


def test_the_tuned_fashion_suite_is_the_fashion_suite_with_trials():
    tuned, whole = (load_suite(name, REGISTRY) for name in ("fashion-tuned", "fashion"))
    assert tuned.set == whole.set
    assert tuned.methods == whole.methods
    assert (tuned.tuning.trials, tuned.tuning.epochs) == (4, 5)


def test_a_batch_below_what_the_loss_takes_is_refused_before_anything_trains():
    result = sslbench("plan", "--methods", "simclr", "--batch", "1")
    assert result.exit_code == 2
    assert "simclr: a batch of 1 is too small for its loss and norms" in result.output


def test_a_queue_that_is_no_multiple_of_the_batch_is_refused_before_anything_trains():
    result = sslbench("plan", "--methods", "moco", "--set", "moco.queue=500")
    assert result.exit_code == 2
    assert "its queue of 500 is not a multiple of the batch of 128" in result.output


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("moco.temperature=0", "moco.temperature expects a number above 0, got 0"),
        ("moco.momentum_target=1.5", "expects a number from 0 to 1, got 1.5"),
        ("moco.queue=-1", "moco.queue expects an integer from 1, got -1"),
    ],
)
def test_what_lies_out_of_range_is_refused_before_anything_trains(setting, sentence):
    result = sslbench("plan", "--methods", "moco", "--set", setting)
    assert result.exit_code == 2
    assert sentence in result.output


@pytest.mark.parametrize(
    ("method", "setting", "sentence"),
    [
        ("ruc", "ruc.base=simclr", "ruc: its base simclr predicts no class of an image"),
        ("scan", "scan.pretext=cpc", "scan: the encoder of its pretext cpc is not a bare backbone"),
        ("scan", "scan.pretext=pixels", "scan: its pretext pixels is never trained"),
    ],
)
def test_a_pretext_that_lacks_what_is_asked_of_it_is_refused_in_the_plan(method, setting, sentence):
    result = sslbench("plan", "--methods", method, "--set", setting)
    assert result.exit_code == 2
    assert sentence in result.output
