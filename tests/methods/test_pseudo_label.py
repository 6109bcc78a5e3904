"""Pseudo-label: what is sure is learnt as its own best class."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.methods.pseudo_label import self_named
from sslbench.nn import risen

from .helpers import Case, log_share, near, noise, same, with_gradients

B, K = 6, 4
LOGITS = 2 * noise(B, K, seed=1)
PLAIN = {"pseudo-label": {"unlabelled": 0.0}}  # which rises with the fit


def of_named(logits):
    return self_named(logits, 0.6)[0]


def looped(logits):
    losses = []
    for row in logits:
        best = max(range(K), key=lambda c: float(row[c].detach()))
        sure = float(log_share(row, best).detach()) >= math.log(0.6)
        losses.append(-log_share(row, best) if sure else 0 * row.sum())
    return sum(losses) / len(losses)


CASES = {
    "self_named": Case(
        of_named, [LOGITS], looped, clusters=lambda x: [x[:, torch.tensor([2, 0, 3, 1])]]
    )
}


def test_some_images_are_named_and_some_are_not():
    logits = LOGITS.clone().requires_grad_()
    _, p, sure = self_named(logits, 0.6)
    same(p, LOGITS.softmax(1))
    assert torch.equal(sure, p.amax(1) >= 0.6)
    assert 0 < int(sure.sum()) < B
    assert not p.requires_grad


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.95])
def test_its_gradient_is_that_of_cross_entropy_where_it_is_sure_over_all_images(threshold):
    _, (found,) = with_gradients(lambda x: self_named(x, threshold)[0], [LOGITS])
    p = LOGITS.softmax(1)
    best, name = p.max(1)
    expected = (p - F.one_hot(name, K)) * (best >= threshold)[:, None] / B
    same(found, expected)


def test_a_threshold_that_nobody_reaches_gives_nothing():
    value, (gradient,) = with_gradients(lambda x: self_named(x, 1 + 1e-6)[0], [100 * LOGITS])
    near(value, 0.0)
    assert not gradient.any()


def test_of_a_tie_one_class_is_named():
    value, (gradient,) = with_gradients(lambda x: self_named(x, 0.0)[0], [torch.zeros(1, K)])
    near(value, math.log(K))
    assert sorted(gradient[0].tolist()) == pytest.approx([-0.75, 0.25, 0.25, 0.25])


def test_a_sure_image_is_named_at_the_threshold_itself():
    logits = torch.tensor([[0.0, 0.0]])
    near(self_named(logits, 0.5)[0], math.log(2))
    near(self_named(logits, 0.5001)[0], 0.0)


def test_its_guesses_are_its_own_predictions(made, some_batch):
    method = made("pseudo-label", threshold=0.12)
    guesses = next(method.step(some_batch(method))).guesses
    with torch.no_grad():
        p = method.online(some_batch(method).views).softmax(1)
    same(guesses.shares, p)
    assert torch.equal(guesses.sure, p.amax(1) >= 0.12)
    assert torch.equal(guesses.index, some_batch(method).index)


def test_the_weight_rises_in_a_straight_line_and_then_stays():
    assert [risen(p, 0.4) for p in (0.0, 0.1, 0.4, 0.9)] == pytest.approx([0, 0.25, 1, 1])
    assert risen(0.0, 0.0) == 1.0
