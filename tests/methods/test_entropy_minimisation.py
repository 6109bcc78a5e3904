"""Entropy minimisation: predictions become sure."""

from __future__ import annotations

import math

import pytest
import torch

from sslbench.methods.entropy_minimisation import entropy

from .helpers import Case, log_share, near, noise, same, with_gradients

B, K = 6, 4
LOGITS = 2 * noise(B, K, seed=1)
PLAIN = {"entropy-minimisation": {"unlabelled": 0.0}}  # which rises with the fit


def looped(logits):
    logs = [[log_share(row, c) for c in range(K)] for row in logits]
    return sum(-sum(log.exp() * log for log in row) for row in logs) / len(logs)


CASES = {
    "entropy": Case(
        entropy, [LOGITS], looped, clusters=lambda x: [x[:, torch.tensor([2, 0, 3, 1])]]
    )
}


@pytest.mark.parametrize("classes", [2, 10])
def test_it_is_highest_where_all_classes_are_alike_and_none_where_one_is_sure(classes):
    near(entropy(torch.zeros(3, classes)), math.log(classes))
    near(entropy(1000 * torch.eye(classes)), 0.0)


def test_its_gradient_is_minus_p_times_log_p_and_entropy():
    value, (found,) = with_gradients(entropy, [LOGITS])
    p = LOGITS.double().softmax(1)
    own = -(p * p.log()).sum(1, keepdim=True)
    same(found, (-p * (p.log() + own) / B).float())
    near(value, float(own.mean()))
    assert float(found.sum(1).abs().max()) < 1e-6


@pytest.mark.parametrize("logits", [torch.zeros(2, K), 1000 * torch.eye(K)])
def test_it_pulls_nowhere_at_a_guess_and_where_it_is_sure(logits):
    _, (gradient,) = with_gradients(entropy, [logits])
    assert float(gradient.abs().max()) < 1e-7
