"""Rotation: four copies of an image, each turned by a quarter more."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sslbench.api import Update
from sslbench.cells.parameters import anatomy
from sslbench.methods.rotation import turned

from .helpers import METHODS, first_loss, near

CASES = {}  # torch's cross-entropy


def test_four_quarter_turns_are_none_to_the_bit():
    x = torch.rand(2, 3, 7, 7)
    once = turned(x).unflatten(0, (4, 2))
    for turns, images in enumerate(once):
        assert torch.equal(images, torch.rot90(x, turns, (2, 3)))
    assert torch.equal(turned(once[3])[2:4], x)
    assert torch.equal(turned(once[1]).unflatten(0, (4, 2))[3], x)


def test_turns_are_anticlockwise_and_move_pixels_alone():
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 0, 0] = 1  # top left, then bottom left, bottom right, top right
    found = [tuple(each[0].nonzero()[0].tolist()) for each in turned(x)]
    assert found == [(0, 0), (2, 0), (2, 2), (0, 2)]
    noise = torch.rand(1, 3, 6, 6)
    for each in turned(noise):
        assert torch.equal(each.flatten().sort().values, noise.flatten().sort().values)


def test_each_rotation_is_a_quarter_of_the_batch_and_has_its_own_label(made, batch_of, monkeypatch):
    method, seen = made("rotation"), {}
    batch = batch_of(method)
    real = nn.functional.cross_entropy

    def noting(logits, labels):
        seen.update(logits=logits, labels=labels)
        return real(logits, labels)

    monkeypatch.setattr("torch.nn.functional.cross_entropy", noting)
    method.backbone.register_forward_pre_hook(lambda _, given: seen.update(images=given[0]))
    update = next(method.step(batch))
    assert seen["labels"].bincount().tolist() == [8, 8, 8, 8]
    for image, label, source in zip(
        seen["images"], seen["labels"], batch.views.repeat(4, 1, 1, 1), strict=True
    ):
        assert torch.equal(image, torch.rot90(source, int(label), (1, 2)))
    right = (seen["logits"].argmax(1) == seen["labels"]).tolist()
    assert isinstance(update, Update)
    assert float(update.log["accuracy"]) == pytest.approx(sum(right) / 32)


def test_the_first_loss_is_near_that_of_a_guess(made, batch_of):
    method = made("rotation")
    near(torch.tensor(method.uniform()), 1.38629)
    losses = [first_loss(method, batch_of(method, 32, seed=s))[1].item() for s in range(3)]
    assert losses == pytest.approx([math.log(4)] * 3, abs=0.2)


class Brightness(nn.Module):
    """A feature that does not change when an image is turned."""

    dim = 1

    def forward(self, x):
        return x.mean((1, 2, 3))[:, None]


def test_a_feature_that_no_turn_changes_stays_at_chance(made, batch_of):
    method = made("rotation")
    batch = batch_of(method)
    method.backbone, method.head = Brightness(), nn.Linear(1, 4)
    update = next(method.step(batch))
    assert update.loss.item() >= math.log(4) - 1e-6
    assert float(update.log["accuracy"]) == 0.25


def test_it_learns_which_side_is_up(made, batch_of):
    method = made("rotation", padding=1)
    images = torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
    images[:, :, :16] = 200  # sky above
    optimiser, found = torch.optim.SGD(method.parameters(), 0.05, 0.9), []
    batch = batch_of(method)
    for _ in range(15):
        update = next(method.step(batch._replace(views=method.view(images))))
        optimiser.zero_grad()
        update.loss.backward()
        optimiser.step()
        found.append((update.loss.item(), float(update.log["accuracy"])))
    assert found[-1][0] < 0.3 * found[0][0]
    assert found[-1][1] > 0.95


@pytest.mark.parametrize(
    ("name", "rates", "epochs"),
    [
        ("rotation", [0.1, 0.02, 0.004, 0.0008], [60, 120, 160]),
        ("rotation-imagenet", [0.01, 0.001, 0.0001, 0.00001], [15, 30, 45]),
    ],
)
def test_the_schedule_is_the_codes(name, rates, epochs):
    recipe = anatomy(METHODS[name]).recipe
    assert [recipe.lr * recipe.gamma**n for n in range(4)] == pytest.approx(rates)
    assert [round(share * recipe.epochs) for share in recipe.milestones] == epochs


def test_images_are_shifted_or_on_imagenet_cropped(made):
    shown = repr(made("rotation").view)
    assert "PadCrop(padding=4" in shown
    assert "Resized" not in shown
    assert "scale=(0.08, 1.0)" in repr(made("rotation", crop=0.08).view)
