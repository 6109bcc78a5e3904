"""Calibration against scikit-learn, torchmetrics and made-up heads."""

import math

import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from sslbench.errors import Unsuited
from sslbench.evaluators import calibration
from sslbench.evaluators.calibration import Calibration, calibration_error
from sslbench.evaluators.linear import Linear

from .helpers import fake


class Lender:
    """Lends a head that is not a probe, and remembers what was asked for."""

    def __init__(self, head):
        self.head, self.asked = head, []

    def probe(self, subject, data, *, nine_tenths=False):
        self.asked.append(nine_tenths)
        return self.head


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def told(n=4000, classes=5, *, scale=1.0, sharpness=2.0):
    """A world whose labels are drawn from the softmax of its features; logits are `scale` times."""
    world = fake(n, n, classes, classes)
    for split in ("train", "test"):
        logits = sharpness * torch.randn(n, classes, generator=generator(len(split)))
        setattr(world, split, logits)
        drawn = torch.multinomial(logits.softmax(1), 1, generator=generator(1))
        world.truth[split] = drawn[:, 0]
    world.lenders = {"linear": Lender(lambda features: scale * features)}
    return world


def values(world):
    return {k: each.value for k, each in world.judged_by(Calibration()).metrics.items()}


@pytest.mark.parametrize("classes", [2, 7])
def test_every_score_is_that_of_an_outside_oracle(classes):
    world = fake(600, 500, 8, classes, spread=4.0)
    judgement = world.judged_by(Calibration())
    truth = world.truth["test"]
    logits = world.probe("linear", nine_tenths=True)(world.test).double()
    for suffix, temperature in (("", 1.0), ("_scaled", judgement.chosen["temperature"])):
        p = (logits / temperature).softmax(1)
        ece = multiclass_calibration_error(p, truth, classes, n_bins=15, norm="l1")
        brier = brier_score_loss(truth, p, scale_by_half=False, labels=range(classes))
        found = {name: judgement.metrics[name + suffix] for name in ("ece", "brier", "nll")}
        assert found["ece"].value == pytest.approx(float(ece), abs=1e-6)
        assert found["brier"].value == pytest.approx(brier)
        assert found["nll"].value == pytest.approx(log_loss(truth, p, labels=range(classes)))
        each = -p.log()[torch.arange(500), truth]
        assert found["nll"].stderr == pytest.approx(float(each.std()) / math.sqrt(500))
    assert judgement.metrics["top1"].value == float((logits.argmax(1) == truth).double().mean())
    assert all(value.n == 500 for value in judgement.metrics.values())
    assert judgement.metrics["ece"] != judgement.metrics["ece_scaled"]


# ---- the temperature


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_the_temperature_mends_logits_that_were_scaled(scale):
    world, plain = told(scale=scale), told()
    temperature = world.judged_by(Calibration()).chosen["temperature"]
    assert temperature == pytest.approx(scale, rel=0.1)
    expected = plain.judged_by(Calibration()).chosen["temperature"]
    assert temperature == pytest.approx(scale * expected, rel=1e-4)
    found = values(world)
    assert found["ece_scaled"] < 0.04
    if scale != 1:
        assert found["ece"] > 0.1
        assert found["nll"] > found["nll_scaled"] + 0.05
        assert found["brier"] > found["brier_scaled"] + 0.01


def test_the_temperature_has_the_lowest_cross_entropy_on_the_held_out_tenth():
    world = told(1000, scale=3.0)
    chosen = world.judged_by(Calibration()).chosen["temperature"]
    logits, truth = 3 * world.train[world.held_out].double(), world.truth["train"][world.held_out]

    def loss(temperature):
        return float(torch.nn.functional.cross_entropy(logits / temperature, truth))

    assert loss(chosen) < min(loss(chosen * 1.01), loss(chosen / 1.01))
    best = min((1 + step / 100 for step in range(600)), key=loss)
    assert chosen == pytest.approx(best, rel=0.01)


def test_nothing_of_test_moves_the_temperature():
    world = told(scale=3.0)
    chosen = world.judged_by(Calibration()).chosen
    truth = world.truth["test"]
    world.truth["test"] = truth[torch.randperm(len(truth), generator=generator())]
    judgement = world.judged_by(Calibration())
    assert judgement.chosen == chosen
    assert judgement.metrics["top1"].value == pytest.approx(0.2, abs=0.03)
    world.test = torch.randn(4000, 5, generator=generator())
    assert world.judged_by(Calibration()).chosen == chosen


def test_test_is_read_once_and_last():
    world = fake()
    world.judged_by(Calibration())
    assert world.reads[-1] == "test"
    assert world.reads.count("test") == 1


def test_the_probe_is_that_of_nine_tenths_and_the_temperature_of_the_last():
    world = fake(spread=4.0)
    world.lenders = {"linear": Linear(l2=0.01)}
    before = world.judged_by(Calibration())
    held = world.held_out
    world.truth["train"][held] = world.truth["train"][held].flip(0)
    after = world.judged_by(Calibration())
    assert after.chosen["temperature"] > 2 * before.chosen["temperature"]
    for name in ("ece", "brier", "nll", "top1"):
        assert after.metrics[name] == before.metrics[name]
    lender = told()
    lender.judged_by(Calibration())
    assert lender.lenders["linear"].asked == [True]


def test_a_temperature_at_its_bound_is_said():
    world = told()
    world.truth["train"] = world.train.argmax(1)
    judgement = world.judged_by(Calibration())
    assert judgement.chosen["temperature"] == pytest.approx(1 / calibration.HOTTEST, rel=0.01)
    assert "is at its bound" in judgement.warnings[0]


# ---- planted


def test_a_perfect_probe_is_perfectly_calibrated():
    world = told(scale=1e3)
    for split in ("train", "test"):
        world.truth[split] = getattr(world, split).argmax(1)
        one_hot = torch.nn.functional.one_hot(world.truth[split], 5).float()
        setattr(world, split, one_hot)
    found = values(world)
    assert found.pop("top1") == 1
    assert found == pytest.approx(dict.fromkeys(found, 0), abs=1e-12)


def test_a_probe_that_knows_nothing_has_the_scores_of_chance():
    judgement = told(scale=0.0).judged_by(Calibration())
    found = {name: value.value for name, value in judgement.metrics.items()}
    assert judgement.chosen == {"temperature": 1.0}
    assert found["nll"] == found["nll_scaled"] == pytest.approx(math.log(5))
    assert found["brier"] == pytest.approx(0.8)
    assert found["ece"] == pytest.approx(abs(found["top1"] - 0.2))


def test_a_probe_that_is_sure_and_wrong_is_worst():
    world = told(scale=50.0)
    world.test = torch.nn.functional.one_hot((world.truth["test"] + 1) % 5, 5).float()
    found = values(world)
    assert found["ece"] == pytest.approx(1)
    assert found["brier"] == pytest.approx(2)
    assert found["nll"] == pytest.approx(-math.log(calibration.LEAST))  # 50, were it not bounded


def test_scaling_moves_no_prediction():
    world = fake(spread=4.0)
    found = values(world)
    logits = world.probe("linear", nine_tenths=True)(world.test)
    assert found["top1"] == float((logits.argmax(1) == world.truth["test"]).double().mean())


# ---- bins


def test_bins_are_closed_above_so_that_certainty_is_in_the_last():
    confidence, right = torch.tensor([1.0, 0.97]).double(), torch.tensor([False, True])
    assert calibration_error(confidence, right) == pytest.approx(abs(1 - 1.97) / 2)
    confidence, right = torch.tensor([0.5, 0.51]).double(), torch.tensor([False, True])
    assert calibration_error(confidence, right, bins=2) == pytest.approx((0.5 + 0.49) / 2)
    assert calibration_error(confidence, right, bins=1) == pytest.approx(abs(1 - 1.01) / 2)


def test_bins_are_fifteen():
    confidence = (torch.arange(15).double() + 0.5) / 15
    right = torch.arange(15) % 2 == 0
    expected = float((right.double() - confidence).abs().mean())  # each in a bin of its own
    assert calibration_error(confidence, right) == pytest.approx(expected)
    close = torch.cat([confidence, confidence + 0.4 / 15])  # and these in the same ones
    both = torch.cat([right, ~right])
    expected = float((1 - confidence - confidence - 0.4 / 15).abs().sum()) / 30
    assert calibration_error(close, both) == pytest.approx(expected)


# ---- bad input


def test_a_class_that_train_never_shows_leaves_every_number_finite():
    world = fake(classes=4, spread=3.0)
    expected = world.judged_by(Calibration())
    world.classes = 6
    world.truth["test"] = world.truth["test"].clone()
    world.truth["test"][:50] = 5
    judgement = world.judged_by(Calibration())
    assert all(math.isfinite(value.value) for value in judgement.metrics.values())
    assert judgement.chosen["temperature"] == pytest.approx(expected.chosen["temperature"])
    assert "train shows 4 of 6 classes" in judgement.warnings[0]
    assert judgement.warnings[1].startswith("50 test images are of classes")
    logits = world.probe("linear", nine_tenths=True)(world.test)[50:].double()
    rest = torch.nn.functional.cross_entropy(logits, world.truth["test"][50:], reduction="sum")
    expected_nll = (float(rest) - 50 * math.log(1e-12)) / 200
    assert judgement.metrics["nll"].value == pytest.approx(expected_nll)


def test_held_out_images_of_a_class_that_was_not_fitted_do_not_move_the_temperature():
    world = fake(classes=4, spread=3.0)
    world.lenders = {"linear": Linear(l2=0.01)}
    expected = world.judged_by(Calibration()).chosen
    stray = torch.randn(5, 12, generator=generator())
    world.train = torch.cat([world.train, stray])
    world.truth["train"] = torch.cat([world.truth["train"], torch.full((5,), 4)])
    world.held_out = torch.cat([world.held_out, torch.ones(5, dtype=torch.bool)])
    world.classes = 5
    assert world.judged_by(Calibration()).chosen == pytest.approx(expected)


def test_no_held_out_image_of_a_fitted_class_is_said():
    world = fake(classes=4, spread=3.0)
    world.held_out = world.truth["train"] == 3
    judgement = world.judged_by(Calibration())
    assert judgement.chosen == {"temperature": 1.0}
    assert any("temperature 1 was taken" in warning for warning in judgement.warnings)


@pytest.mark.parametrize("held", [True, False])
def test_without_a_held_out_tenth_nothing_is_said_of_calibration(held):
    world = fake()
    world.held_out[:] = held
    with pytest.raises(Unsuited, match=r"held-out tenth; (0|300) of 300 labelled images"):
        world.judged_by(Calibration())


def test_what_is_lower_when_better_says_so():
    higher = {metric.name for metric in Calibration.metrics if metric.higher_is_better}
    assert higher == {"top1"}
    assert Calibration.metrics[0].name == "ece"
    assert set(values(fake())) == {metric.name for metric in Calibration.metrics}
