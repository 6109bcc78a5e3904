"""lightly on this loop: the promises of every method, and lightly's own code behind each loss."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from shutil import copytree, ignore_patterns

import pytest
import torch
from sslbench import testing
from sslbench.cells.suite import load_suite
from sslbench.testing import METHOD_CHECKS

from .conftest import BOTH, HOME

SMALL = {
    "simclr": {},
    "moco": {"splits": 2},
    "byol": {},
    "barlow-twins": {},
    "vicreg": {},
    "swav": {"prototypes": 12, "crops": (2, 1), "small_size": 20, "queue": 32, "queue_from": 1},
    "dino": {"prototypes": 24, "hidden": 32, "bottleneck": 16, "crops": (2, 1)},
}
PLAIN = {  # what a falling loss needs beside mild views, as for sslbench's own
    "moco": {"queue": 32, "momentum_target": 0.9},
    "dino": {"epochs": 4},
}


@pytest.mark.parametrize("check", METHOD_CHECKS)
@pytest.mark.parametrize("name", SMALL)
def test_it_keeps_what_every_method_promises(name, check, trial_of):
    trial = trial_of(f"lightly-{name}", SMALL[name])
    plain = PLAIN.get(name, {}) if check is testing.learns else {}
    check(trial, **{f"lightly-{name}.{key}": value for key, value in plain.items()})


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_is_what_lightlys_own_code_says(name, made, batch_of):
    method = made(f"lightly-{name}", **SMALL[name])
    assert type(method.loss).__module__.startswith("lightly.loss.")
    seen = []

    def stand_in(*given, **options):
        seen.extend(each for part in given if part is not None for each in part)
        assert not torch.is_autocast_enabled("cpu")
        return torch.tensor([7.0]) if name == "swav" else torch.tensor(7.0)

    del method.loss
    method.loss = stand_in
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert next(method.step(batch_of(method))).item() == 7.0
    assert seen, "lightly's loss was not asked"
    assert {each.dtype for each in seen} == {torch.float32}


@pytest.mark.parametrize("name", SMALL)
def test_everything_of_ours_that_it_names_too_has_the_same_default(name, trial_of):
    ours, theirs = (BOTH.find("methods", of) for of in (name, f"lightly-{name}"))
    ours, theirs = (testing.trial.anatomy(entry) for entry in (ours, theirs))
    assert theirs.recipe == ours.recipe
    assert theirs.target.least == ours.target.least
    for key, value in theirs.defaults.items():
        assert ours.defaults[key] == value, key


def test_the_suite_gives_both_the_same_settings_views_and_budget():
    suite, fashion = load_suite("fashion-lightly", BOTH), load_suite("fashion", BOTH)
    for field in ("datasets", "backbones", "baselines", "seeds", "epochs", "batch", "precision"):
        assert getattr(suite, field) == getattr(fashion, field), field
    assert suite.methods == tuple(each for name in SMALL for each in (name, f"lightly-{name}"))
    assert suite.evaluators == ("knn", "linear", "clustering")
    assert suite.once == ()
    for name in SMALL:
        of = {
            who: {k.partition(".")[2]: v for k, v in suite.set.items() if k.startswith(f"{who}.")}
            for who in (name, f"lightly-{name}")
        }
        assert of[name], name
        assert of[name] == of[f"lightly-{name}"]


def test_a_memory_bank_is_in_the_checkpoint_with_its_place(made, batch_of):
    method = made("lightly-moco", queue=24, splits=2)
    for step in range(2):
        list(method.step(batch_of(method, step)))
    state = method.state_dict()
    assert state["loss.memory_bank.bank_ptr"].tolist() == [16]
    other = made("lightly-moco", queue=24, splits=2)
    other.load_state_dict(state)
    losses = [next(each.step(batch_of(each, 2))) for each in (method, other)]
    assert losses[0] == losses[1]
    with torch.no_grad():
        other.loss.memory_bank.bank.neg_()
    assert next(other.step(batch_of(other, 2))) != losses[0]


def test_the_wheel_holds_methods_suite_and_entry_point(tmp_path):
    source = copytree(HOME, tmp_path / "source", ignore=ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("sslbench_lightly-0.1.0-*.whl")
    files = {path.name for path in (HOME / "sslbench_lightly").glob("*.[py]*")}
    with zipfile.ZipFile(wheel) as held:
        assert {f"sslbench_lightly/{name}" for name in files} <= set(held.namelist())
        assert not [name for name in held.namelist() if name.startswith("tests")]
        points = held.read("sslbench_lightly-0.1.0.dist-info/entry_points.txt").decode()
    assert points.split() == ["[sslbench]", "lightly", "=", "sslbench_lightly"]
