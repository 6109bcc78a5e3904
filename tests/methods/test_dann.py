"""DANN: a critic of domains, and features that learn against it."""

from __future__ import annotations

import math

import pytest
import torch

from sslbench.methods.dann import domains, risen

from .helpers import Case, near, noise, same
from .test_source_only import two_domains


def loop(says):
    """Of seven images the last three are of the target."""
    found = [(1 + (s if at < 4 else -s).exp()).log() for at, s in enumerate(says)]
    return sum(found) / len(found)


CASES = {"domains": Case(lambda says: domains(says, 3)[0], [noise(7)], loop, permute=False)}
DATASETS = {"dann": "styles"}
PLAIN = {"dann": {"adversary": 0.0}}  # whom features would please no more


def test_the_weight_rises_from_0_to_nearly_1():
    assert risen(0.0, 10.0) == 0
    assert risen(0.1, 10.0) == pytest.approx(math.tanh(0.5), rel=1e-12)
    assert risen(1.0, 10.0) == pytest.approx(0.99990920, rel=1e-7)
    assert risen(0.7, 0.0) == 0


def test_a_blind_critic_loses_the_logarithm_of_two():
    loss, _ = domains(torch.zeros(8), 4)
    near(loss, math.log(2))
    loss, told = domains(torch.tensor([-9.0, -9.0, 9.0]), 1)
    near(loss, math.log1p(math.exp(-9)))
    assert float(told) == 1


@pytest.mark.parametrize("progress", [0.0, 0.05, 0.5])
def test_features_learn_against_the_critic_and_the_critic_for_itself(progress, made):
    method = made("dann")
    batch = two_domains(method, progress=progress)
    update = next(method.step(batch))
    update.loss.backward()
    found = {name: p.grad.clone() for name, p in method.named_parameters()}

    method.zero_grad()
    known = [batch.also["source"], batch.also["labelled"]]
    h = method.backbone(torch.cat([*(e.views for e in known), batch.also["target"].views]))
    label = torch.cat([e.label for e in known])
    supervised = torch.nn.functional.cross_entropy(method.head(h[:10]), label)
    domain = domains(method.critic(torch.cat([h[:6], h[10:]]))[:, 0], 5)[0]
    near(update.log["domain"], float(domain.detach()))
    torch.testing.assert_close(update.loss.detach(), (supervised + domain).detach())
    weight = risen(progress, 10.0)
    inner = [*method.backbone.parameters()]
    for_classes = torch.autograd.grad(supervised, inner, retain_graph=True)
    for_domains = torch.autograd.grad(domain, inner, retain_graph=True)
    critic = [*method.critic.parameters()]
    for p, mine in zip(critic, torch.autograd.grad(domain, critic), strict=True):
        name = next(n for n, q in method.named_parameters() if q is p)
        same(found[name], mine)
    for (name, _), one, two in zip(
        method.backbone.named_parameters(), for_classes, for_domains, strict=True
    ):
        wanted = one - weight * two
        torch.testing.assert_close(found[f"backbone.{name}"], wanted, rtol=1e-3, atol=1e-5)


def test_who_knows_nothing_loses_what_classes_and_domains_have_to_tell(made):
    classes = made("dann").head.out_features
    assert made("dann").uniform() == pytest.approx(math.log(2 * classes))


def test_labelled_images_of_the_target_are_no_example_of_a_domain(made):
    losses = []
    for labelled in (True, False):
        method = made("dann").eval()  # else norms see other batches
        update = next(method.step(two_domains(method, labelled=labelled)))
        losses.append(float(update.log["domain"].detach()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
