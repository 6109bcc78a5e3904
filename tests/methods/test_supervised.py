"""Supervised: the cross-entropy of the labels that are shown."""

from __future__ import annotations

import math

import pytest
import torch

from .helpers import first_loss

CASES = {}  # torch's cross-entropy


def test_supervised_is_the_cross_entropy_of_the_shown_labels_on_untrained(made, batch_of):
    label = torch.tensor([3, -1, 0, 9, -1, -1, 4, 4])
    method = made("supervised")
    batch = batch_of(method, label=label)
    _, loss = first_loss(method, batch)
    h = made("untrained")(batch.views)
    logs = (h @ method.head.weight.T + method.head.bias).log_softmax(1)
    expected = -sum(logs[i, label[i]] for i in (0, 2, 3, 6, 7)) / 5
    torch.testing.assert_close(loss, expected)


def test_supervised_takes_no_step_where_every_label_is_hidden(made, batch_of):
    method = made("supervised")
    assert list(method.step(batch_of(method)._replace(labelled=False))) == []


def test_the_loss_of_a_guess_is_the_logarithm_of_the_classes(made):
    assert made("supervised").uniform() == pytest.approx(math.log(10))
