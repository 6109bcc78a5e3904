"""Mean teacher: the average of the weights is the target, and takes no gradient."""

from __future__ import annotations

import pytest
import torch

from sslbench.methods.mean_teacher import apart

from .helpers import Case, log_share, near, noise, with_gradients

B, K = 6, 4
PLAIN = {"mean-teacher": {"unlabelled": 0.0}}  # which rises with the fit


def looped(one, two):
    total = 0
    for a, b in zip(one, two, strict=True):
        p, q = ([log_share(row, c).exp() for c in range(K)] for row in (a, b))
        total = total + sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) / K
    return total / len(one)


def permuted(one, two):
    return [x[:, torch.tensor([2, 0, 3, 1])] for x in (one, two)]


CASES = {
    "apart": Case(
        apart, [2 * noise(B, K), 2 * noise(B, K, seed=1)], looped, swap=True, clusters=permuted
    )
}


def test_a_guess_and_a_sure_class_of_ten_are_9_hundredths_apart():
    near(apart(torch.zeros(10, 10), 1000 * torch.eye(10)), 0.09)
    near(apart(1000 * torch.eye(10)[:1], 1000 * torch.eye(10)[1:2]), 0.2)


@pytest.fixture
def step_of(made, some_batch):
    def get(name, **settings):
        method = made(name, **settings)
        batch = some_batch(method, progress=0.9)
        update = next(method.step(batch))
        return method, batch, update

    return get


def test_the_teacher_is_the_average_in_training_mode_and_takes_no_gradient(step_of):
    method, batch, update = step_of("mean-teacher", unlabelled=7.0)
    assert method.average.training
    with torch.no_grad():
        one, two = batch.views
        expected = apart(method.online(one), method.average(two))
    torch.testing.assert_close(update.log["apart"].detach(), expected)
    total = update.log["labelled"] + 7.0 * expected
    torch.testing.assert_close(update.loss.detach(), total.detach())
    update.loss.backward()
    assert all(p.grad is None for p in method.average.parameters())


def test_the_student_alone_is_drawn(step_of):
    method, batch, _ = step_of("mean-teacher")
    one, two = (x.clone().requires_grad_() for x in batch.views)
    update = next(method.step(batch._replace(views=[one, two])))
    first, second = torch.autograd.grad(update.log["apart"], [one, two], allow_unused=True)
    assert float(first.abs().max()) > 0
    assert second is None


def test_of_the_pi_model_both_are(step_of):
    method, batch, _ = step_of("pi-model")
    one, two = (x.clone().requires_grad_() for x in batch.views)
    update = next(method.step(batch._replace(views=[one, two])))
    for gradient in torch.autograd.grad(update.log["apart"], [one, two]):
        assert float(gradient.abs().max()) > 0


def test_two_equal_views_of_the_pi_model_are_not_apart(step_of):
    method, batch, _ = step_of("pi-model")
    one = batch.views[0]
    update = next(method.step(batch._replace(views=[one, one])))
    assert float(update.log["apart"].detach()) == 0.0


def test_the_weights_at_hand_are_those_of_the_case():
    value, gradients = with_gradients(apart, CASES["apart"].inputs)
    assert float(value.detach()) > 0.01
    for gradient in gradients:
        assert float(gradient.sum(1).abs().max()) < 1e-6  # a shift of all logits moves nothing
