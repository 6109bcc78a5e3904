"""FixMatch: sure names of weak views teach strong ones; the average of the weights is judged."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.methods.fixmatch import FixMatch, pseudo_labelled
from sslbench.nn import warm

from .helpers import METHODS, Case, first_loss, log_share, near, noise, same, trained

U, K = 8, 4
WEAK = 3 * noise(U, K)


def of_pseudo(strong, weak):
    return pseudo_labelled(weak, strong, 0.8)[0]


def looped(strong, weak):
    losses = []
    for own, other in zip(weak, strong, strict=True):
        shares = [float(log_share(own, c).exp().detach()) for c in range(K)]
        name = shares.index(max(shares))
        losses.append(-log_share(other, name) if shares[name] >= 0.8 else 0 * other.sum())
    return sum(losses) / len(losses)


def names_permuted(strong, weak):
    ids = torch.tensor([2, 0, 3, 1])
    return strong[:, ids], weak[:, ids]


CASES = {
    "pseudo_labelled": Case(of_pseudo, [noise(U, K, seed=1), WEAK], looped, clusters=names_permuted)
}


def labelled_batch(method, size=7, few=4, progress=0.0, images=None):
    torch.manual_seed(0)
    images = torch.randint(256, (size + few, 3, 32, 32), dtype=torch.uint8)
    views = method.views()
    label = torch.arange(few) % 10
    given = Batch(views["labelled"](images[size:]), torch.arange(few), label, 0, progress)
    hidden = torch.full((size,), -1)
    return Batch(
        views["main"](images[:size]), torch.arange(size), hidden, 0, progress, {"labelled": given}
    )


# ---- the loss --------------------------------------------------------------------------------------


def test_below_the_threshold_nothing_is_learned_and_where_all_are_sure_it_is_cross_entropy():
    strong = noise(U, K, seed=1)
    assert float(pseudo_labelled(WEAK, strong, 1.0)[0]) == 0
    same(pseudo_labelled(WEAK, strong, 0.0)[0], F.cross_entropy(strong, WEAK.argmax(1)))


def test_the_mean_is_over_all_images_not_over_the_sure_ones():
    strong, sure = noise(U, K, seed=1), WEAK.softmax(1).amax(1) >= 0.8
    assert 0 < int(sure.sum()) < U
    found, p, counted = pseudo_labelled(WEAK, strong, 0.8)
    wanted = F.cross_entropy(strong, WEAK.argmax(1), reduction="none")[sure].sum() / U
    same(found, wanted)
    same(p, WEAK.softmax(1))
    assert torch.equal(counted > 0, sure)


def test_a_weak_view_takes_no_gradient_and_a_strong_one_only_where_it_is_sure():
    weak, strong = WEAK.clone().requires_grad_(), noise(U, K, seed=1).requires_grad_()
    pseudo_labelled(weak, strong, 0.8)[0].backward()
    assert weak.grad is None
    sure = WEAK.softmax(1).amax(1) >= 0.8
    assert torch.equal(strong.grad.abs().sum(1) > 0, sure)
    wanted = (strong.detach().softmax(1) - F.one_hot(WEAK.argmax(1), K)) / U
    same(strong.grad[sure], wanted[sure])


def test_one_exactly_at_the_threshold_is_sure():
    weak = torch.zeros(1, 2)  # shares of a half
    assert float(pseudo_labelled(weak, noise(1, 2), 0.5)[0]) > 0


# ---- a step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.12, 1.0])
def test_a_step_adds_the_labelled_loss_and_the_weighted_one_in_one_pass(threshold, made):
    method = made("fixmatch", threshold=threshold, unlabelled=3.0)
    batch = labelled_batch(method)
    given, (weak, strong) = batch.also["labelled"], batch.views
    passes = []
    method.online[0].register_forward_pre_hook(lambda _, x: passes.append(x[0]))
    update = next(method.step(batch))
    assert len(passes) == 1
    assert torch.equal(passes[0], torch.cat([given.views, weak, strong]))
    logits = method.online(passes[0]).detach()
    known, weak, strong = logits[:4], logits[4:11].softmax(1), logits[11:]
    wanted = F.cross_entropy(known, given.label)
    mask = weak.amax(1) >= threshold
    other = F.cross_entropy(strong, weak.argmax(1), reduction="none")
    same(update.loss.detach(), wanted + 3 * (other * mask).mean())
    assert torch.equal(update.guesses.sure > 0, mask)
    same(update.guesses.shares, weak)
    near(update.log["labelled"], float(wanted))


def test_norms_see_all_images_of_a_step_once(made):
    method = made("fixmatch")
    norm = next(m for m in method.online.modules() if hasattr(m, "num_batches_tracked"))
    before = int(norm.num_batches_tracked)
    next(method.step(labelled_batch(method)))
    assert int(norm.num_batches_tracked) == before + 1


def test_the_average_is_judged_follows_warmed_up_and_has_the_statistics_of_the_network(made):
    method = made("fixmatch", momentum_average=0.15)
    held = [p.clone() for p in method.average.parameters()]
    for steps in range(4):
        trained(method, labelled_batch(method), lr=0.1)
        own = warm(0.15, steps)
        held = [
            own * a + (1 - own) * p.detach()
            for a, p in zip(held, method.online.parameters(), strict=True)
        ]
        for found, wanted in zip(method.average.parameters(), held, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
        for found, wanted in zip(method.average.buffers(), method.online.buffers(), strict=True):
            assert torch.equal(found, wanted)
    assert int(method.steps) == 4
    method.eval()
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(method.predict(x), method.average(x))
    assert torch.equal(method.average[1](method.encoder()(x)), method.predict(x))
    assert not torch.equal(method.predict(x), method.online(x))


class Run:
    def __init__(self, labels):
        self.given = labels

    def labels(self):
        return self.given

    def epochs(self, method):
        from sslbench.api import Epoch

        self.epoch = Epoch(0)
        yield self.epoch


def test_the_shown_images_are_a_seventh_of_the_unlabelled_ones_which_are_all(made):
    run = Run(torch.tensor([-1, 3, -1, 0, -1]))
    made("fixmatch").fit(run)
    stream = run.epoch.streams["labelled"]
    assert stream.pool.tolist() == [1, 3]
    assert stream.share == pytest.approx(1 / 7)
    assert run.epoch.main
    recipe = anatomy(METHODS["fixmatch"]).recipe
    assert round(stream.share * recipe.batch) == 64


def test_the_views_are_weak_for_labelled_images_and_both_for_others(made):
    method = made("fixmatch")
    weak, strong = method.both.view
    assert method.views()["labelled"] is weak
    assert "PadCrop(padding=4, mode='reflect')" in repr(weak)
    assert repr(weak) in repr(strong)
    assert "RandAugment(n=2, m=10" in repr(strong)
    assert "p=0.5" in repr(strong)
    assert "Cutout(size=16" in repr(strong)
    other = made("fixmatch", crop=0.3, cutout=0.0)
    assert "RandomResizedCrop" in repr(other.weak)
    assert "Cutout" not in repr(other.both)


def test_a_blind_guess_costs_the_logarithm_of_the_classes(made):
    method = made("fixmatch")
    with torch.no_grad():
        method.online[1].weight.zero_()
        method.online[1].bias.zero_()
    near(first_loss(method, labelled_batch(method))[1], math.log(10))
    near(torch.tensor(method.uniform()), math.log(10))


def test_its_rate_ends_at_the_cosine_of_seven_sixteenths_of_pi():
    recipe = anatomy(METHODS["fixmatch"]).recipe
    assert recipe.schedule == "arc"
    assert recipe.lr_end == pytest.approx(math.cos(7 * math.pi / 16), abs=1e-7)
    assert recipe.epochs * (50_000 // recipe.batch) == pytest.approx(2**20, rel=1e-3)


def test_one_class_is_refused(made):
    sentence = FixMatch.needs(made("untrained"), DataInfo("one", 32, 96, classes=1))
    assert "one has one" in sentence
