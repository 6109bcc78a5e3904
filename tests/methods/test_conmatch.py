"""ConMatch: strong views teach each other as far as an estimator trusts them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.methods.conmatch import guided, right, trusted
from sslbench.train.optim import Optimisation

from .helpers import METHODS, Case, Lent, log_share, near, noise, same, trained

B, K = 6, 4
LABEL = torch.tensor([3, 0, 1, 1, 2, 0])


def looped_guided(logits, teacher, weight):
    losses = [
        -w * log_share(row, int(guess.argmax()))
        for row, guess, w in zip(logits, teacher, weight, strict=True)
    ]
    return sum(losses) / len(losses)


def looped_right(belief, logits):
    losses = []
    for odds, row, label in zip(belief, logits, LABEL.tolist(), strict=True):
        p = 1 / (1 + (-odds).exp())
        losses.append(-(p if int(row.argmax()) == label else 1 - p).log())
    return sum(losses) / len(losses)


def of_right(belief, logits):
    return right(belief, logits, LABEL[: len(belief)])


def of_trusted(belief, strong, weak):
    return trusted(belief, strong, weak, 0.5)


def looped_trusted(belief, strong, weak):
    losses = []
    for odds, row, guess in zip(belief, strong.detach(), weak, strict=True):
        c = 1 / (1 + (-odds).exp())
        losses.append(-c * log_share(row, int(guess.argmax())) - 0.5 * c.log())
    return sum(losses) / len(losses)


CASES = {
    "guided": Case(
        guided, [noise(B, K), noise(B, K, seed=1), noise(B, seed=2).sigmoid()], looped_guided
    ),
    "right": Case(of_right, [noise(B), noise(B, K, seed=1)], looped_right, permute=False),
    "trusted": Case(
        of_trusted, [noise(B), noise(B, K, seed=1), noise(B, K, seed=2)], looped_trusted
    ),
}


# ---- losses ----------------------------------------------------------------------------------------


def test_full_confidence_in_equal_views_is_the_pseudo_label_of_every_image():
    logits = noise(B, K)
    same(guided(logits, logits, torch.ones(B)), F.cross_entropy(logits, logits.argmax(1)))


def test_confidence_settles_where_the_reward_is_the_cost_of_an_error():
    """c * loss - 0.5 log c is least where c = 0.5 / loss."""
    strong, weak = 0.3 * noise(B, K), noise(B, K, seed=1)
    cost = F.cross_entropy(strong, weak.argmax(1), reduction="none")
    assert (cost > 0.5).all()
    belief = (0.5 / cost).logit().requires_grad_()
    of_trusted(belief, strong, weak).backward()
    near(belief.grad.abs().max(), 0.0)


def test_trust_in_strong_views_moves_nothing_but_the_belief():
    belief, strong, weak = (noise(*s).requires_grad_() for s in ((B,), (B, K), (B, K)))
    of_trusted(belief, strong, weak).backward()
    assert belief.grad.abs().max() > 0
    assert strong.grad is None
    assert weak.grad is None


# ---- a step ----------------------------------------------------------------------------------------


def small_batch(seed=0, size=16, shown=4):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.rand(size, 3, 32, 32, generator=generator) for _ in range(3)]
    index, hidden = torch.arange(size), torch.full((size,), -1)
    own = torch.rand(shown, 3, 32, 32, generator=generator)
    given = Batch(own, index[:shown], torch.arange(shown), 0, 0.0)
    return Batch(views, index, hidden, 0, 0.0, {"labelled": given})


def test_a_step_is_the_sum_of_its_nine_terms(made):
    method = made("conmatch", threshold=0.11)
    batch = small_batch()
    update = next(method.step(batch))
    with torch.no_grad():
        h = method.backbone(torch.cat([batch.also["labelled"].views, *batch.views]))
        logits = method.head(h)
        c = method.estimator(h, logits).sigmoid()
        label = torch.arange(4)
        known, weak, one, two = logits.split([4, 16, 16, 16])
        c_known, _, c_one, c_two = c.split([4, 16, 16, 16])

        def entropy(row, guess):
            return F.cross_entropy(row, guess.argmax(1), reduction="none")

        sure = (weak.softmax(1).amax(1) >= 0.11).float()
        terms = [
            F.cross_entropy(known, label),
            (entropy(one, weak) * sure).mean(),
            (entropy(two, weak) * sure).mean(),
            F.binary_cross_entropy(c_known, (known.argmax(1) == label).float()),
            0.5 * (-c_one.log()).mean(),
            0.5 * (-c_two.log()).mean(),
            (entropy(one, weak) * c_one).mean() + (entropy(two, weak) * c_two).mean(),
            (entropy(two, one) * c_one).mean(),
            (entropy(one, two) * c_two).mean(),
        ]
    same(update.loss.detach(), sum(terms))
    assert torch.equal(update.guesses.sure, sure)


def test_the_estimator_never_moves_the_backbone_nor_the_head_nor_they_it(made):
    method, grads = made("conmatch", unlabelled=0.0, consistency=0.0), []
    for weight in (1.0, 0.0):
        method.estimate = weight
        method.zero_grad()
        next(method.step(small_batch())).loss.backward()
        grads.append([p.grad.clone() for p in method.net.parameters()])
        moved = [bool(p.grad.any()) for p in method.estimator.parameters()]
        assert all(moved) if weight else not any(moved)
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


def test_the_estimator_does_not_know_which_class_it_is_nor_how_long_features_are(made):
    estimator = made("conmatch").estimator
    h, logits, ids = noise(B, 96), noise(B, 10), torch.randperm(10)
    same(estimator(3 * h, logits[:, ids]), estimator(h, logits))


def test_the_estimator_has_a_rate_of_its_own(made):
    method = made("conmatch")
    optimisation = Optimisation(method, anatomy(METHODS["conmatch"]).recipe, steps_per_epoch=5)
    optimisation.set(0)
    own = {id(p) for p in method.estimator.parameters()}
    rates = {True: set(), False: set()}
    for group in optimisation.optimizer.param_groups:
        for p in group["params"]:
            rates[id(p) in own].add(round(group["lr"], 12))
    assert rates == {True: {3e-6}, False: {0.03}}


def test_what_is_judged_is_the_average(made):
    method = made("conmatch")
    before = [p.clone() for p in method.average.parameters()]
    trained(method, small_batch())
    for old, new, online in zip(
        before, method.average.parameters(), method.net.parameters(), strict=True
    ):
        same(new, 0.1 * old + 0.9 * online.detach())
    method.eval()
    x = torch.rand(3, 3, 32, 32)
    same(method.predict(x), method.average[1](method.encoder()(x)))


def test_labelled_images_are_a_seventh_and_only_those_that_are_shown(made):
    method, run = made("conmatch"), Lent()
    run.labels = lambda: torch.tensor([-1, 3, -1, 0])
    method.fit(run)
    stream = run.epoch.streams["labelled"]
    assert stream.pool.tolist() == [1, 3]
    assert stream.share == pytest.approx(1 / 7)


def test_one_class_is_refused(made):
    method = made("conmatch")
    said = type(method).needs(method.backbone, DataInfo("one", size=32, length=9, classes=1))
    assert said == "it tells classes apart, one has one"
