"""AdaMatch: logits between two passes, names aligned with the labelled mix, a relative threshold."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.methods import adamatch
from sslbench.methods.adamatch import AdaMatch, between
from sslbench.nn import aligned, warm

from .helpers import METHODS, near, noise, same, trained
from .test_source_only import Two

CASES = {}  # torch's cross-entropy, of images that a mask chooses
PLAIN = {"adamatch": {"rise": 1e-6}}  # a weight that rises hides that the loss falls
U, K = 8, 4


def labelled_batch(method, size=9, few=4, progress=0.5):
    torch.manual_seed(0)
    images = torch.randint(256, (size + few, 3, 32, 32), dtype=torch.uint8)
    view = method.views()
    label, hidden = torch.arange(few) % 10, torch.full((size,), -1)
    given = Batch(view(images[size:]), torch.arange(few), label, 0, progress)
    return Batch(view(images[:size]), torch.arange(size), hidden, 0, progress, {"labelled": given})


# ---- parts -----------------------------------------------------------------------------------------


def test_alignment_is_the_identity_where_both_mixes_are_one_and_always_sums_to_one():
    p, mix = noise(U, K).softmax(1), noise(K, seed=1).softmax(0)
    same(aligned(p, mix, mix), p)
    found = aligned(p, mix, p.mean(0))
    same(found.sum(1), torch.ones(U))
    for row, own in zip(found, p, strict=True):
        wanted = [
            float(a) * float(b) / float(c) for a, b, c in zip(own, mix, p.mean(0), strict=True)
        ]
        same(row, torch.tensor(wanted) / sum(wanted))


def test_alignment_brings_the_mean_of_predictions_to_the_wanted_mix():
    p, mix = (
        noise(4000, K).mul(0.2).add(torch.tensor([1.0, 0, 0, -1])).softmax(1),
        torch.full((K,), 0.25),
    )
    found = aligned(p, mix, p.mean(0)).mean(0)
    torch.testing.assert_close(found, mix, atol=0.01, rtol=0)
    assert (p.mean(0) - mix).abs().max() > 0.1


def test_logits_lie_uniformly_between_those_of_the_two_passes(monkeypatch):
    one, other = noise(500, K), noise(500, K, seed=1)
    share = (between(one, other) - other) / (one - other)
    assert -1e-4 < share.min() < 0.01
    assert 0.99 < share.max() < 1 + 1e-4
    assert float(share.mean()) == pytest.approx(0.5, abs=0.03)
    assert share.std(1).min() > 0  # each logit by itself
    for value, wanted in ((0.0, other), (1.0, one)):
        monkeypatch.setattr(torch, "rand_like", lambda x, v=value: torch.full_like(x, v))
        same(between(one, other), wanted)


def test_the_gradient_reaches_both_passes():
    one, other = noise(U, K).requires_grad_(), noise(U, K, seed=1).requires_grad_()
    between(one, other).sum().backward()
    same(one.grad + other.grad, torch.ones(U, K))
    assert one.grad.min() >= 0
    assert one.grad.std() > 0.1


# ---- a step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.9, 1.0)])
@pytest.mark.parametrize("relative", [0.0, 0.9, 1.0])
def test_a_step_is_that_of_a_loop_over_images(progress, weight, relative, made, monkeypatch):
    method = made("adamatch", relative=relative, unlabelled=3.0)
    torch.manual_seed(5)
    method.of_labelled.copy_(torch.rand(10).softmax(0))
    method.of_unlabelled.copy_(torch.rand(method.of_unlabelled.shape).softmax(1))
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.25))
    batch = labelled_batch(method, progress=progress)
    given = batch.also["labelled"]
    before = [method.of_labelled.clone(), method.of_unlabelled.clone()]
    update = next(method.step(batch))
    assert torch.equal(method.of_labelled, before[0])

    x = torch.cat(given.views)
    alone, joint = method.online(x), method.online(torch.cat([x, *batch.views]))
    alone, joint = alone.detach(), joint.detach()
    known = joint[:8] + 0.25 * (alone - joint[:8])
    p_known, p = known[:4].softmax(1), joint[8:17].softmax(1)
    mine = 0.999 * before[0] + 0.001 * p_known.mean(0)
    theirs = torch.cat([before[1][1:], p.mean(0)[None]]).mean(0)
    threshold = relative * float(p_known.amax(1).mean())
    losses, taken = [], []
    for own, strong in zip(p, joint[17:], strict=True):
        q = own * (1e-6 + mine) / (1e-6 + theirs)
        q = q / q.sum()
        taken.append(float(q.max()) >= threshold)
        losses.append(-strong.log_softmax(0)[q.argmax()] * taken[-1])
    wanted = sum(F.cross_entropy(part, given.label) for part in known.chunk(2)) / 2
    wanted = wanted + 3 * weight * sum(losses) / 9
    torch.testing.assert_close(update.loss.detach(), wanted, rtol=1e-4, atol=1e-5)
    near(update.log["threshold"], threshold)
    assert update.guesses.sure.tolist() == taken
    assert 0 <= float(update.log["threshold"]) <= relative


def test_the_labelled_pass_by_itself_leaves_no_trace_in_running_statistics(made):
    method = made("adamatch")
    batch = labelled_batch(method)
    norm = next(m for m in method.online.modules() if hasattr(m, "num_batches_tracked"))
    other = made("adamatch")
    other.load_state_dict(method.state_dict())
    next(method.step(batch))
    assert int(norm.num_batches_tracked) == 1
    other.online(torch.cat([*batch.also["labelled"].views, *batch.views]))
    for mine, theirs in zip(method.online.buffers(), other.online.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_no_gradient_passes_through_names_mask_or_threshold(made, monkeypatch):
    method, seen = made("adamatch", relative=0.0), {}
    batch = labelled_batch(method)
    whole = adamatch.cross_entropy

    def noting(logits, label):
        seen[len(seen)] = label
        return whole(logits, label)

    monkeypatch.setattr(adamatch, "cross_entropy", noting)
    logits = []
    method.online[1].register_forward_hook(lambda _, x, y: logits.append(y.retain_grad() or y))
    update = next(method.step(batch))
    update.loss.backward()
    assert not any(label.requires_grad for label in seen.values())
    gradient = logits[1].grad
    assert float(gradient[8:17].abs().max()) == 0  # weak views of unlabelled images
    assert float(gradient[17:].abs().min(1).values.max()) > 0
    assert float(logits[0].grad.abs().max()) > 0


def test_running_means_move_after_the_step_one_row_at_a_time(made):
    method = made("adamatch", window=5)
    same(method.of_unlabelled, torch.full((5, 10), 0.1))
    for done in range(1, 4):
        batch = labelled_batch(method)
        held = method.of_unlabelled.clone()
        trained(method, batch, lr=0.0)
        assert torch.equal(method.of_unlabelled[:-1], held[1:])
        near(method.of_unlabelled[-1].sum(), 1.0)
        near(method.of_labelled.sum(), 1.0)
        assert int((method.of_unlabelled == 0.1).all(1).sum()) == 5 - done
    assert int(method.steps) == 3


def test_the_average_is_judged_and_warmed_up(made):
    method = made("adamatch")
    held = [p.clone() for p in method.average.parameters()]
    trained(method, labelled_batch(method))
    own = warm(0.999, 0)
    for old, found, online in zip(
        held, method.average.parameters(), method.online.parameters(), strict=True
    ):
        torch.testing.assert_close(found, own * old + (1 - own) * online, rtol=1e-4, atol=1e-6)
    for found, online in zip(method.average.buffers(), method.online.buffers(), strict=True):
        assert torch.equal(found, online)
    method.eval()
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(method.average[1](method.encoder()(x)), method.predict(x))


def test_its_rate_ends_at_a_quarter_and_a_step_has_64_labelled_images(made):
    recipe = anatomy(METHODS["adamatch"]).recipe
    assert (recipe.schedule, recipe.lr_end, recipe.nesterov) == ("arc", 0.25, False)
    assert recipe.batch / made("adamatch").ratio == 64
    assert recipe.epochs * (50_000 // recipe.batch) == pytest.approx(2**17, rel=1e-3)


def test_a_blind_guess_costs_the_logarithm_of_the_classes(made):
    near(torch.tensor(made("adamatch").uniform()), math.log(10))


def test_one_class_is_refused(made):
    sentence = AdaMatch.needs(made("untrained"), DataInfo("one", 32, 96, classes=1))
    assert "one has one" in sentence


# ---- two domains -----------------------------------------------------------------------------------


class Domains(Two):
    def __init__(self, budget, method):
        super().__init__(budget)
        method.fit(self)


@pytest.mark.parametrize("budget", [(), (12, 14)])
def test_of_two_domains_the_source_is_labelled_and_all_of_the_target_is_not(budget, made):
    method = made("adamatch")
    method.domains = 2
    streams = Domains(budget, method).epoch.streams
    assert streams["labelled"].pool.tolist() == [*range(1, 10)]
    assert streams["target"].pool.tolist() == [*range(10, 16)]
    assert streams["target"].share is None
    shares = {streams[key].share for key in streams.keys() - {"target"}}
    assert shares == {1 / 3}
    assert ("of target" in streams) == bool(budget)


def test_threshold_and_mix_go_by_the_source_and_both_labelled_losses_are_added(made, monkeypatch):
    method = made("adamatch")
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)  # the joint pass alone
    batch, more = labelled_batch(method, few=4), labelled_batch(method, few=6)
    also = {"labelled": batch.also["labelled"], "of target": more.also["labelled"], "target": batch}
    nothing = torch.empty(0, dtype=torch.long)
    update = next(method.step(Batch(None, nothing, nothing, 0, 0.0, also)))
    parts = [*also["labelled"].views, *also["of target"].views]
    logits = method.online(torch.cat([*parts, *batch.views])).detach()
    pieces = logits.split([len(each) for each in parts] + [9, 9])
    truth = [also["labelled"].label] * 2 + [also["of target"].label] * 2
    losses = [F.cross_entropy(*each) for each in zip(pieces[:4], truth, strict=True)]
    torch.testing.assert_close(update.loss.detach(), sum(losses) / 2, rtol=1e-4, atol=1e-5)
    near(update.log["threshold"], 0.9 * float(pieces[0].softmax(1).amax(1).mean()))
