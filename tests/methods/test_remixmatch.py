"""ReMixMatch: aligned guesses of a weak view anchor strong ones; rotations are told apart."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, DataInfo, Epoch
from sslbench.methods import remixmatch
from sslbench.methods.remixmatch import ReMixMatch, cross_entropy, quarter_turned
from sslbench.nn import aligned, interleaved, mixup, sharpen, warm

from .helpers import Case, dot, log_share, near, noise, same, trained

B, K = 6, 4
SMALL = {"remixmatch.anchored": 2}
PLAIN = {"remixmatch": {"rise": 1e-6}}  # weights that rise hide that the loss falls


def looped(logits, target):
    losses = [
        -dot(aim, [log_share(row, c) for c in range(K)])
        for row, aim in zip(logits, target, strict=True)
    ]
    return sum(losses) / len(losses)


def names_permuted(logits, target):
    ids = torch.tensor([2, 0, 3, 1])
    return logits[:, ids], target[:, ids]


CASES = {
    "cross_entropy": Case(
        cross_entropy, [noise(B, K), noise(B, K, seed=1).softmax(1)], looped,
        clusters=names_permuted,
    ),
}  # fmt: skip


def labelled_batch(method, size=8, progress=0.5):
    torch.manual_seed(0)
    images = torch.randint(256, (2 * size, 3, 32, 32), dtype=torch.uint8)
    views = method.views()
    label, hidden = torch.arange(size) % 10, torch.full((size,), -1)
    given = Batch(views["labelled"](images[size:]), torch.arange(size), label, 0, progress)
    main = views["main"](images[:size])
    for scale, view in zip((1.0, 0.6, 0.3), main, strict=False):
        view.mul_(scale)  # each has statistics of its own
    return Batch(main, torch.arange(size), hidden, 0, progress, {"labelled": given})


def unmixed(monkeypatch):
    monkeypatch.setattr(remixmatch, "mixup", lambda x, target, alpha, *, each: (x, target))


# ---- parts -----------------------------------------------------------------------------------------


def test_alignment_is_the_identity_for_equal_mixes_and_brings_the_mean_near_the_labels():
    p, mix = noise(B, K).softmax(1), noise(K, seed=1).softmax(0)
    same(aligned(p, mix, mix), p)
    same(aligned(p, mix, p.mean(0)).sum(1), torch.ones(B))
    many = (0.2 * noise(4000, K) + torch.tensor([1.0, 0, 0, -1])).softmax(1)
    even = torch.full((K,), 0.25)
    torch.testing.assert_close(aligned(many, even, many.mean(0)).mean(0), even, atol=0.01, rtol=0)


@pytest.mark.parametrize("size", [8, 10, 3, 1])
def test_a_quarter_of_a_batch_is_turned_by_each_angle(size):
    x = torch.rand(size, 3, 5, 5)
    turned, turns = quarter_turned(x)
    counts = turns.bincount(minlength=4)
    assert counts.max() - counts.min() <= 1
    for source, image, k in zip(x, turned, turns.tolist(), strict=True):
        assert torch.equal(image, torch.rot90(source, k, (1, 2)))


# ---- a step ----------------------------------------------------------------------------------------


class Run:
    def labels(self):
        return torch.tensor([-1, 3, -1, 0, 3, 3])

    def epochs(self, method):
        self.epoch = Epoch(0)
        yield self.epoch


def test_guesses_are_aligned_with_the_mix_of_the_shown_labels(made):
    method, run = made("remixmatch"), Run()
    near(method.of_labels.sum(), 1.0)
    method.fit(run)
    wanted = torch.zeros(10)
    wanted[0], wanted[3] = 0.25, 0.75
    same(method.of_labels, wanted)
    assert run.epoch.streams["labelled"].pool.tolist() == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 0.0), (1 / 128, 0.5), (1 / 64, 1.0), (0.9, 1.0)]
)
def test_a_step_adds_four_losses_of_which_two_rise(progress, share, made, monkeypatch):
    method = made("remixmatch", mixed=2.0, plain=3.0, rotation=5.0)
    unmixed(monkeypatch)
    torch.manual_seed(3)
    method.of_labels.copy_(torch.rand(10).softmax(0))
    method.guessed.copy_(torch.rand(method.guessed.shape).softmax(1))
    method.eval()  # norms see each image alone
    batch = labelled_batch(method, progress=progress)
    given, (weak, *strong) = batch.also["labelled"], batch.views
    assert len(strong) == 2
    update = next(method.step(batch))
    with torch.no_grad():
        p = method.online(weak).softmax(1)
        p = p * (1e-6 + method.of_labels) / (1e-6 + method.guessed.mean(0))
        guess = (p / p.sum(1, keepdim=True)) ** 2
        guess = guess / guess.sum(1, keepdim=True)
        known = F.cross_entropy(method.online(given.views), given.label)
        mixed = sum(F.cross_entropy(method.online(v), guess) for v in batch.views) / 3
        plain = F.cross_entropy(method.online(strong[0]), guess)
        x, turns = quarter_turned(strong[0])
        rotation = F.cross_entropy(method.turned(method.online[0](x)), turns)
    torch.testing.assert_close(
        update.loss.detach(),
        known + share * (2 * mixed + 3 * plain) + 5 * rotation,
        rtol=1e-4,
        atol=1e-5,
    )
    near(update.log["turned"], float(rotation))
    same(update.guesses.shares, guess)


def test_all_views_are_mixed_with_any_in_shares_of_their_own(made, monkeypatch):
    method, seen = made("remixmatch"), {}
    batch = labelled_batch(method)

    def noting(x, target, alpha, *, each):
        seen.update(x=x, target=target, alpha=alpha, each=each)
        return mixup(x, target, alpha, each=each)

    monkeypatch.setattr(remixmatch, "mixup", noting)
    next(method.step(batch))
    assert torch.equal(seen["x"], torch.cat([batch.also["labelled"].views, *batch.views]))
    assert torch.equal(seen["target"][:8], torch.eye(10)[:8])
    for k in (2, 3):
        assert torch.equal(seen["target"][8:16], seen["target"][8 * k : 8 * k + 8])
    assert (seen["alpha"], seen["each"]) == (0.75, True)


def test_the_weak_view_makes_the_target_and_takes_no_gradient(made, monkeypatch):
    method, given = made("remixmatch"), []
    method.online[0].register_forward_hook(lambda _, x, y: given.append((x[0], y.requires_grad)))
    batch = labelled_batch(method)
    next(method.step(batch)).loss.backward()
    assert torch.equal(given[0][0], batch.views[0])
    assert torch.equal(given[1][0], batch.views[1])
    assert [grad for _, grad in given] == [False] + [True] * 6
    assert method.turned.weight.grad.abs().max() > 0


def test_running_statistics_are_those_of_the_last_mixed_part(made, monkeypatch):
    method, other = made("remixmatch"), made("remixmatch")
    other.load_state_dict(method.state_dict())
    unmixed(monkeypatch)
    batch = labelled_batch(method)
    next(method.step(batch))
    other.online(interleaved([batch.also["labelled"].views, *batch.views])[-1])
    for mine, theirs in zip(method.online.buffers(), other.online.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_logits_of_parts_come_back_in_order(made):
    method = made("remixmatch")
    parts = [torch.rand(6, 3, 32, 32) * scale for scale in (1.0, 0.5, 0.2)]
    wanted = torch.cat(interleaved([method.online(part) for part in interleaved(parts)]))
    same(method.in_turn(parts), wanted)


def test_the_mean_prediction_moves_after_the_step_one_row_at_a_time(made):
    method = made("remixmatch", window=5)
    batch = labelled_batch(method)
    step = method.step(batch)
    next(step)
    same(method.guessed, torch.full((5, 10), 0.1))
    with torch.no_grad():
        p = method.predicted(batch.views[0])
    with pytest.raises(StopIteration):
        step.send(True)
    same(method.guessed[-1], p.mean(0))
    same(method.guessed[:-1], torch.full((4, 10), 0.1))


def test_the_average_is_judged_and_warmed_up(made):
    method = made("remixmatch")
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


def test_it_sees_a_weak_view_and_eight_strong_ones_by_default(made):
    views = made("remixmatch", anchored=8).anchor.view
    assert len(views) == 9
    assert "RandAugment" not in repr(views[0])
    assert all("RandAugment" in repr(view) for view in views[1:])
    assert sharpen(torch.tensor([[0.5, 0.5]]), 0.5).tolist() == [[0.5, 0.5]]


def test_a_blind_guess_and_one_class(made):
    near(torch.tensor(made("remixmatch").uniform()), math.log(10) + 0.5 * math.log(4))
    sentence = ReMixMatch.needs(made("untrained"), DataInfo("one", 32, 96, classes=1))
    assert "one has one" in sentence
