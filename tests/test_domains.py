"""Two domains: whose labels are shown, what a budget is of, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sslbench.api import Images, Place, Recipe
from sslbench.arrays import Stored, assemble
from sslbench.cells.budget import labels_in
from sslbench.cli.app import program
from sslbench.data import Data, open_data
from sslbench.data.opening import _check
from sslbench.errors import UserError
from sslbench.one_cell.subject import JudgedData
from sslbench.plugins import registry
from sslbench.train.optim import Optimisation

PLUGIN = Path(__file__).parent / "styles.py"


@pytest.fixture(scope="module")
def data() -> Data:
    return opened("styles")


def opened(name: str) -> Data:
    return open_data(name, registry(installed=False, files=[PLUGIN]), Place())


def made(**domains: np.ndarray) -> Images:
    rng = np.random.default_rng(0)
    stored = Stored(torch.from_numpy(rng.integers(0, 256, (6, 3, 8, 8), np.uint8)), "a")
    split = (stored, np.arange(6) % 2)
    parts = {"train": split, "test": split}
    return assemble(parts, classes=("a", "b"), made={}, domains=domains)


# ---- who sees what ---------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0, 3, 9])
def test_a_budget_is_of_the_target_beside_all_labels_of_the_source(data: Data, budget: int) -> None:
    seen = data.pretraining("budget", budget=budget, seed=1)
    target = data.train.domains == 1
    shown = seen.labels >= 0
    assert int((shown & target).sum()) == budget
    assert torch.equal(shown & ~target, ~data.held_out & ~target)
    assert torch.equal(seen.labels[shown], data.train.labels[shown])
    assert torch.bincount(seen.labels[shown & target], minlength=3).tolist() == [budget // 3] * 3
    assert torch.equal(data.rows_shown(budget, 1), shown.nonzero()[:, 0])
    assert seen.info.domains == 2
    assert seen.domains is not None
    assert torch.equal(seen.domains, data.train.domains)


def test_budgets_are_nested_and_drawn_anew_for_each_seed(data: Data) -> None:
    few, more, other = (set(data.rows_shown(*each).tolist()) for each in ((3, 0), (9, 0), (9, 1)))
    assert few < more
    assert more != other


def test_none_sees_none_and_all_sees_those_of_the_target_too(data: Data) -> None:
    assert data.pretraining("none").labels.eq(-1).all()
    assert torch.equal(data.pretraining("all").labels >= 0, ~data.held_out)


def test_a_judge_is_shown_the_rows_that_a_method_was(data: Data) -> None:
    rows = JudgedData(data).shown("1/class", seed=2)
    assert torch.equal(rows, data.rows_shown(3, 2))
    target = data.train.labels[(data.train.domains == 1) & ~data.held_out]
    assert data.label_sizes() == torch.bincount(target).tolist()


def test_parts_of_the_data_have_both_domains_of_each_class() -> None:
    part = opened("styles[train=12]")
    assert part.train.domains is not None
    kinds = 2 * part.train.labels + part.train.domains
    assert torch.bincount(kinds).tolist() == [2] * 6


def test_a_tenth_of_each_domain_is_held_out(data: Data) -> None:
    assert data.train.domains is not None
    held = torch.bincount(data.train.domains[data.held_out]).tolist()
    assert min(held) >= 7
    assert sum(held) == 15


def test_data_of_one_domain_say_so() -> None:
    digits = opened("digits[train=100]")
    assert not digits.has_target
    assert digits.pretraining("none").info.domains == 1
    assert digits.pretraining("budget", budget=10).domains is None


def test_which_images_are_of_the_target_is_part_of_the_fingerprint() -> None:
    one, other = (made(train=np.array(each)) for each in ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]))
    assert len({one.fingerprint, other.fingerprint, made().fingerprint}) == 3


@pytest.mark.parametrize(
    ("domains", "sentence"),
    [
        (torch.tensor([0, 0, 1, 1, 2, 2]), "has domains other than 0, the source, and 1, the targ"),
        (
            torch.tensor([0, 0, -1, 1, 1, 1]),
            "has domains other than 0, the source, and 1, the targ",
        ),
        (torch.tensor([0, 1]), r"has torch.int64 \[2\] domains for 6 images"),
        (torch.zeros(6), r"has torch.float32 \[6\] domains for 6 images"),
    ],
)
def test_other_domains_are_refused(domains: torch.Tensor, sentence: str) -> None:
    images = made()
    with pytest.raises(UserError, match=sentence):
        _check("odd", replace(images, train=images.train._replace(domains=domains)))


def test_an_unlabelled_split_says_its_domains_too() -> None:
    images = made(train=np.array([0, 0, 0, 1, 1, 1]))
    with pytest.raises(UserError, match="its unlabelled split does not say of which domains it is"):
        _check("odd", replace(images, unlabelled=images.test))


# ---- budgets of none -------------------------------------------------------------------------------


def test_no_label_of_the_target_is_a_budget() -> None:
    assert labels_in(0, [5, 5], "styles", target=True) == 0
    assert labels_in("1/class", [5, 5], "styles", target=True) == 2
    with pytest.raises(UserError, match="a label budget of 0 was asked for"):
        labels_in(0, [5, 5], "digits")
    with pytest.raises(UserError, match="one label of each at least"):
        labels_in(1, [5, 5], "styles", target=True)


def said(*words: str, code: int = 0) -> str:
    whole = ["--plugin", str(PLUGIN), "--no-plugins", "plan", "--backbones", "test_resnet"]
    done = CliRunner().invoke(program, [*whole, "--seeds", "0", *words])
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            "0",
            "0 labels of the target of styles are shown to few-labels, beside those of its source",
        ),
        (
            "1/class",
            "3 labels of the target of styles, spread evenly over its classes and drawn anew for "
            "each seed, are shown to few-labels, beside those of its source",
        ),
    ],
)
def test_a_plan_says_of_which_domain_the_labels_are(
    labels: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--datasets", "styles", "--methods", "few-labels", "--labels", labels)
    assert sentence in said(*words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--datasets", "digits", "--labels", "0"), "a label budget of 0 was asked for"),
        (("--datasets", "styles"), "4/class, 10% or all gives some of the target, and 0 none"),
    ],
)
def test_a_missing_budget_is_a_sentence(
    words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in said("--methods", "few-labels", *words, code=2)


# ---- the schedule ----------------------------------------------------------------------------------


def test_inverse_falls_as_in_dann() -> None:
    recipe = Recipe(epochs=4, lr=2.0, schedule="inverse", warmup=1.0)
    optimisation = Optimisation(torch.nn.Linear(2, 2), recipe, steps_per_epoch=10)
    assert optimisation.set(0) == pytest.approx(2 / 11)
    for step in (10, 25, 39):
        expected = 2 / math.pow(1 + 10 * (step - 10) / 30, 0.75)
        assert optimisation.set(step) == pytest.approx(expected, rel=1e-12)
