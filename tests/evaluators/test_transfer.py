"""The probe on other datasets."""

import math

import pytest
import torch

from sslbench.errors import UserError
from sslbench.evaluators.linear import Linear
from sslbench.evaluators.transfer import Transfer
from sslbench.names import parse

from .helpers import fake


def named(name, **rest):
    world = fake(**rest)
    world.name, world.fingerprint = name, f"sha of {name}"
    return world


def abroad():
    """A cell's own data, which nothing may ask for, and three others."""
    home = named("home", seed=1)
    home.train = home.test = torch.full((1, 1), float("nan"))
    home.others = {
        "near": named("near", spread=3.0, seed=2),
        "far": named("far", n=400, m=90, d=12, classes=7, spread=4.0, seed=3),
        "near[train=80]": named("near[train=80]", n=80, spread=3.0, seed=4),
    }
    return home


def test_each_dataset_scores_what_the_linear_probe_scores_there():
    home = abroad()
    judgement = home.judged_by(Transfer(to="near+far+near[train=80]"))
    for name, other in home.others.items():
        assert judgement.metrics[name] == other.judged_by(Linear()).metrics["top1"]
    assert set(judgement.metrics) == {"mean", *home.others}
    assert judgement.sources == {name: f"sha of {name}" for name in home.others}


def test_the_mean_weighs_datasets_alike_and_carries_their_errors():
    home = abroad()
    metrics = home.judged_by(Transfer(to="near+far")).metrics
    near, far, mean = metrics["near"], metrics["far"], metrics["mean"]
    assert near.value != far.value
    assert near.n != far.n
    assert mean.value == pytest.approx((near.value + far.value) / 2)
    assert mean.stderr == pytest.approx(math.hypot(near.stderr, far.stderr) / 2)
    assert mean.n == near.n + far.n


def test_the_cells_own_dataset_scores_as_linear():
    world = named("home", spread=3.0)
    world.others = {"home": world}
    metrics = world.judged_by(Transfer(to="home")).metrics
    assert metrics["home"].value == metrics["mean"].value
    assert metrics["home"] == world.judged_by(Linear()).metrics["top1"]


def test_metrics_carry_the_canonical_name():
    home = abroad()
    home.others["Near[]"] = home.others["near"]
    judgement = home.judged_by(Transfer(to="Near[]"))
    assert set(judgement.metrics) == {"mean", "near"}
    assert set(judgement.sources) == {"near"}


def test_the_head_is_the_borrowed_one():
    home = abroad()
    other = home.others["near"]
    other.lenders = {"linear": Linear(l2=1e3)}  # constant but for the bias
    weak = home.judged_by(Transfer(to="near")).metrics["near"].value
    assert weak == other.judged_by(Linear(l2=1e3)).metrics["top1"].value
    assert weak != other.judged_by(Linear()).metrics["top1"].value
    assert Transfer.uses == ("linear",)


def test_every_head_is_fitted_before_any_test_is_read():
    home = abroad()
    reads = []
    for other in home.others.values():
        other.reads = reads
    home.judged_by(Transfer(to="near+far"))
    assert reads == ["train", "train", "test", "test"]


def test_classes_that_train_never_shows_are_warned_of_by_dataset():
    home = abroad()
    home.others["far"].classes = 9
    warnings = home.judged_by(Transfer(to="near+far")).warnings
    assert warnings == ("far: train shows 7 of 9 classes: the others cannot be predicted",)


@pytest.mark.parametrize(
    ("to", "names"),
    [
        ("near", ("near",)),
        ("near + far", ("near", "far")),
        ("near[train=80]+far", ("near[train=80]", "far")),
        ('near[a="x+y",b=2]+far[c=1+2]', ('near[a="x+y",b=2]', "far[c=1+2]")),
    ],
)
def test_names_are_joined_by_a_plus_outside_of_brackets(to, names):
    assert Transfer(to=to).to == names


@pytest.mark.parametrize("to", ["", "near+", "+near", "near++far", " "])
def test_no_dataset_is_a_sentence_that_says_how(to):
    with pytest.raises(UserError, match=r"--transfer-to NAME,\.\.\. or transfer\[to=NAME\]"):
        Transfer(to=to)


def test_a_dataset_named_twice_is_refused():
    with pytest.raises(UserError, match="far twice"):
        Transfer(to="far+near+far")


def test_a_name_with_a_bracket_survives_the_bracket_of_the_judge():
    typed = parse('transfer[to="near[train=80]+far"]')
    assert typed.params["to"] == "near[train=80]+far"
    assert parse(str(typed)) == typed
