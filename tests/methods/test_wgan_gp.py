"""WGAN-GP: the penalty by hand, who moves when, and a critic that knows no batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslbench.api import DataInfo
from sslbench.backbones.timm import create
from sslbench.methods.wgan_gp import WGANGP, slope_penalty

from .helpers import Case, near, noise

SMALL = {"wgan-gp.width": 8}
PLAIN = {"wgan-gp": {"lr": 3e-4, "epochs": 2}}  # later the generator catches up


def of_squares(w, x):
    """The penalty of a score that is the weighted sum of the squares of pixels."""
    return slope_penalty(lambda x: (w * x.square()).sum((1, 2, 3)), x)


def looped_of_squares(w, x):
    total = 0
    for image in x.detach():
        pairs = zip(w.flatten(), image.flatten(), strict=True)
        total = total + (sum((2 * a * b) ** 2 for a, b in pairs).sqrt() - 1) ** 2
    return total / len(x)


def order_of_images(w, x):
    return [w, x.roll(1, 0)]


CASES = {
    "slope_penalty": Case(
        of_squares,
        [noise(1, 3, 2, 2), noise(4, 3, 2, 2)],
        looped_of_squares,
        permute=order_of_images,
    )
}


def test_the_penalty_of_a_linear_score_is_its_slopes_distance_from_one():
    w = noise(3, 4, 4)
    x = noise(5, 3, 4, 4, seed=1)
    length = float(w.square().sum().sqrt())
    near(slope_penalty(lambda x: (x * w).sum((1, 2, 3)), x), (length - 1) ** 2)
    near(slope_penalty(lambda x: (x * w).sum((1, 2, 3)) / length, x), 0.0)
    near(slope_penalty(lambda x: x.sum((1, 2, 3)) * 0, x), 1.0)


def test_the_penalty_and_its_gradient_are_those_of_a_slope_written_out_by_hand():
    torch.manual_seed(0)
    inner, outer = nn.Linear(12, 7), nn.Linear(7, 1)
    x = noise(5, 3, 2, 2)

    def score(x):
        return outer(torch.tanh(inner(x.flatten(1))))[:, 0]

    # d score / d x = W1^T (w2 * (1 - tanh^2))
    hidden = torch.tanh(inner(x.flatten(1)))
    slope = ((1 - hidden.square()) * outer.weight[0]) @ inner.weight  # [B, 12]
    expected = (slope.square().sum(1).sqrt() - 1).square().mean()
    found = slope_penalty(score, x)
    near(found, float(expected.detach()))
    weights = [inner.weight, inner.bias, outer.weight]
    by_hand = torch.autograd.grad(expected, weights)
    for one, other in zip(torch.autograd.grad(found, weights), by_hand, strict=True):
        torch.testing.assert_close(one, other)


def test_the_critic_steps_on_parts_of_the_batch_and_the_generator_once(made, batch_of, monkeypatch):
    method = made("wgan-gp", steps=3)
    batch, real = batch_of(method, 9), []
    whole = method.score
    monkeypatch.setattr(method, "score", lambda x: real.append(x.detach()) or whole(x))
    updates = [*method.step(batch)]
    assert [update.group for update in updates] == ["main"] * 3 + ["generator"]
    assert torch.equal(torch.cat(real[1:9:3]), batch.views)  # after the penalty's
    assert all(len(x) == 3 for x in real)
    for i, update in enumerate(updates[:3]):
        between, true, false = real[3 * i : 3 * i + 3]
        share = (between - true).flatten(1).norm(dim=1) / (false - true).flatten(1).norm(dim=1)
        assert 0 <= share.min() < share.max() <= 1  # each of its own pair, and its own share
        torch.testing.assert_close(
            between, true + share.view(-1, 1, 1, 1) * (false - true), rtol=1e-3, atol=1e-4
        )
        apart, steep = update.log["apart"].detach(), update.log["penalty"].detach()
        near(update.loss, float(10 * steep - apart))
        near(apart, float((whole(true).mean() - whole(false).mean()).detach()))
    near(updates[3].loss, -float(whole(real[9]).mean().detach()))


def test_each_loss_reaches_its_own_side(made, batch_of):
    method = made("wgan-gp", steps=1)
    step = method.step(batch_of(method))
    groups = {name: list(own) for name, own in method.groups().items()}
    next(step).loss.backward()
    assert all(p.grad is None for p in groups["generator"])
    assert all(p.grad is not None for p in groups["main"])
    next(step).loss.backward(inputs=groups["generator"])
    assert all(p.grad is not None for p in groups["generator"])
    held = [id(p) for own in groups.values() for p in own]
    assert sorted(held) == sorted(id(p) for p in method.parameters())


def test_the_critic_scores_each_image_by_itself_in_training_too(made):
    method, x = made("wgan-gp"), torch.rand(6, 3, 32, 32)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in method.backbone.modules())
    torch.testing.assert_close(method.score(x)[:2], method.score(x[:2]), rtol=1e-4, atol=1e-5)


def test_a_vit_and_a_batch_smaller_than_the_steps_are_declined_in_a_sentence(made, batch_of):
    vit = create("test_vit", size=32, patch_size=4)
    assert "those of test_vit" in WGANGP.needs(vit, DataInfo("some", 32, 96, 10))
    method = made("wgan-gp", steps=7)
    assert WGANGP.least == 5
    with pytest.raises(ValueError, match=r"a batch of 6 images .* critic's 7 steps"):
        next(method.step(batch_of(method, 6)))
