"""MME: the classifier raises the entropy on the target, the features lower it."""

from __future__ import annotations

import math

import pytest
import torch

from sslbench.methods.mme import entropy

from .helpers import Case, near, noise, same
from .test_source_only import two_domains


def loop(logits):
    found = []
    for row in logits:
        p = row.exp() / row.exp().sum()
        found.append(-sum(each * each.log() for each in p))
    return sum(found) / len(found)


CASES = {"entropy": Case(entropy, [noise(6, 4)], loop)}
DATASETS = {"mme": "styles"}


@pytest.mark.parametrize("classes", [2, 9, 1000])
def test_entropy_is_the_logarithm_of_the_classes_where_blind_and_0_where_sure(classes):
    near(entropy(torch.zeros(3, classes)), math.log(classes))
    near(entropy(100 * torch.eye(classes)[:3]), 0.0)


def test_logits_are_cosines_to_prototypes_over_the_temperature(made):
    method = made("mme")
    h, w = noise(4, method.backbone.dim), method.head.weight.detach()
    same(method.classified(h), h @ w.T / h.norm(dim=1, keepdim=True) / 0.05)
    same(method.classified(h), method.classified(7 * h))
    assert method.head.bias is None


def test_cosines_keep_their_digits_under_autocast(made):
    method = made("mme")
    h = noise(4, method.backbone.dim)
    with torch.autocast("cpu", torch.bfloat16):
        found = method.classified(h)
    same(found, method.classified(h))


def test_classifier_and_features_pull_at_the_entropy_from_both_sides(made):
    method = made("mme", adversary=0.3)
    step = method.step(two_domains(method))
    next(step)
    update = next(step)
    assert update.group == "adversary"
    update.loss.backward()
    found = {name: p.grad for name, p in method.named_parameters()}
    unsure = entropy(method.predict(two_domains(method).also["target"].views))
    torch.testing.assert_close(update.loss.detach(), -0.3 * unsure.detach(), rtol=1e-4, atol=1e-5)
    near(update.log["entropy"], float(unsure.detach()))
    own = torch.autograd.grad(unsure, [*method.parameters()])
    for (name, _), gradient in zip(method.named_parameters(), own, strict=True):
        sign = -1 if name.startswith("head") else 1
        torch.testing.assert_close(found[name], sign * 0.3 * gradient, rtol=1e-3, atol=1e-5)


def test_a_small_step_moves_both_the_way_that_they_pull(made):
    for part, sign in (("head", 1), ("backbone", -1)):
        method = made("mme", adversary=1.0)
        batch = two_domains(method)
        views = batch.also["target"].views
        before = float(entropy(method.predict(views)).detach())
        step = method.step(batch)
        next(step)
        next(step).loss.backward()
        with torch.no_grad():
            for p in getattr(method, part).parameters():
                p -= 1e-3 * p.grad / p.grad.norm().clamp_min(1e-12)
        after = float(entropy(method.predict(views)).detach())
        assert (after - before) * sign > 0
