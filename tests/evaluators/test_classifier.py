"""The method's own answer, against outside oracles; and who has none."""

import math

import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from sslbench.api import Method, Place
from sslbench.data import open_data
from sslbench.errors import Unsuited
from sslbench.evaluators.classifier import Classifier
from sslbench.one_cell.subject import Frozen, Inner, JudgedData
from sslbench.plugins import registry

from .helpers import fake


def told(classes=7, *, spread=2.0, scale=1.0, **settings):
    """A world whose method answers, rightly now and then."""
    world = fake(300, 500, 8, classes, **settings)
    truth = torch.nn.functional.one_hot(world.truth["test"], classes)
    noise = torch.randn(500, classes, generator=torch.Generator().manual_seed(3))
    world.logits = scale * (2 * truth + spread * noise)
    return world


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_every_score_is_that_of_an_outside_oracle(classes, scale):
    world = told(classes, scale=scale)
    judgement = world.judged_by(Classifier())
    truth, p = world.truth["test"], world.logits.double().softmax(1)
    found = {name: value.value for name, value in judgement.metrics.items()}
    assert found["top1"] == float((p.argmax(1) == truth).double().mean())
    assert ("top5" in found) == (classes > 5)
    ece = multiclass_calibration_error(p, truth, classes, n_bins=15, norm="l1")
    assert found["ece"] == pytest.approx(float(ece), abs=1e-6)
    assert found["nll"] == pytest.approx(log_loss(truth, p, labels=range(classes)))
    each = -p.log()[torch.arange(500), truth]
    assert judgement.metrics["nll"].stderr == pytest.approx(float(each.std()) / math.sqrt(500))
    assert all(value.n == 500 and value.split == "test" for value in judgement.metrics.values())
    assert not judgement.chosen


def test_it_keeps_what_was_answered_to_each_image():
    world = told()
    found = world.judged_by(Classifier()).predictions
    assert torch.equal(found.predicted, world.logits.argmax(1))
    assert torch.equal(found.truth, world.truth["test"])


def test_features_are_not_read_and_labels_of_test_once(monkeypatch):
    world, asked = told(), []
    whole = world.labels
    monkeypatch.setattr(world, "labels", lambda split: asked.append(split) or whole(split))
    world.judged_by(Classifier())
    assert world.reads == []
    assert asked == ["test"]


def test_images_without_a_label_do_not_count():
    world, other = told(), told()
    other.truth["test"] = world.truth["test"].clone()
    other.truth["test"][400:] = -1
    world.truth["test"], world.logits = world.truth["test"][:400], world.logits[:400]
    few, all_of_few = (each.judged_by(Classifier()) for each in (other, world))
    assert few.metrics == all_of_few.metrics
    assert few.predictions == all_of_few.predictions


def test_a_sure_wrong_answer_counts_as_a_probability_of_1e_12():
    world = told(2)
    world.logits = torch.tensor([[1e6, 0.0]]).repeat(500, 1)
    world.truth["test"] = torch.ones(500, dtype=torch.long)
    found = world.judged_by(Classifier()).metrics
    assert found["nll"].value == pytest.approx(-math.log(1e-12))
    assert found["ece"].value == pytest.approx(1.0)
    assert found["top1"].value == 0.0


# ---- who has no answer, and bad input


def test_a_method_that_saw_no_label_is_refused_whatever_it_predicts():
    world = told()
    world.told = "none"
    with pytest.raises(Unsuited, match=r"saw no label: .* are clusters; `clustering` judges these"):
        world.judged_by(Classifier())


def test_a_method_that_answers_nothing_is_refused():
    with pytest.raises(Unsuited, match="this one answers none; `linear` fits"):
        fake().judged_by(Classifier())


def test_one_class_and_no_label_are_refused():
    world = told()
    world.classes = 1
    with pytest.raises(Unsuited, match="one class only"):
        world.judged_by(Classifier())
    world = told()
    world.truth["test"] = torch.full((500,), -1)
    with pytest.raises(Unsuited, match="none of its 500 images has one"):
        world.judged_by(Classifier())


def test_logits_of_another_number_of_classes_and_broken_ones_are_errors():
    world = told()
    world.logits = world.logits[:, :5]
    with pytest.raises(ValueError, match=r"answered \[500, 5\] to 500 images of 7 classes"):
        world.judged_by(Classifier())
    world = told()
    world.logits[3:5, 2] = math.nan
    with pytest.raises(ValueError, match="answers to 2 of 500 images hold NaN or infinity"):
        world.judged_by(Classifier())


class Answers(Method):
    """Answers by the mean of the red, green and blue corner."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Flatten()

    def step(self, batch):
        yield batch.views.sum()

    def predict(self, x):
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize("labels", ["none", "budget", "all"])
def test_what_a_method_was_told_is_what_its_class_says(labels):
    data = open_data("digits[test=50,train=100]", registry(installed=False), Place())
    method = type("Some", (Answers,), {"labels": labels})()
    subject = Frozen(method, data, torch.device("cpu"))
    assert subject.told == Inner(subject, data).told == labels
    if labels == "none":
        with pytest.raises(Unsuited, match="saw no label"):
            Classifier()(subject, JudgedData(data), 0)
        return
    found = Classifier()(subject, JudgedData(data), 0)
    assert found.metrics["top1"].n == 50
    inner = Inner(subject, data)  # the held-out tenth stands for test
    assert Classifier()(inner, inner, 0).metrics["top1"].n == int(data.held_out.sum())


def test_an_encoder_that_is_no_method_was_told_nothing():
    data = open_data("digits[test=50,train=100]", registry(installed=False), Place())
    subject = Frozen(nn.Flatten(), data, torch.device("cpu"))
    with pytest.raises(Unsuited, match="saw no label"):
        Classifier()(subject, JudgedData(data), 0)
