"""ShrinkMatch: where a prediction is unsure, classes that it confuses are left out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, DataInfo
from sslbench.methods.shrinkmatch import shrunk

from .helpers import Case, Lent, log_share, near, noise, same, trained

B, K = 8, 6
PLAIN = {"shrinkmatch": {"cutout": 0.0, "operations": 1}}


def of_shrunk(logits, scores):
    return shrunk(logits, (2 * scores.float()).softmax(1), 0.8)


def looped_shrunk(logits, scores):
    losses = []
    for row, score in zip(logits, scores, strict=True):
        p = [log_share([2 * s for s in score], c).exp() for c in range(K)]
        order = sorted(range(K), key=lambda c: -float(p[c].detach()))
        loss = 0 * row.sum()
        for c in range(2, K):
            if p[order[0]] >= 0.8:
                break  # sure as it is
            kept = [order[0], *order[c:]]
            if p[order[0]] / sum(p[k] for k in kept) >= 0.8:
                loss = -p[order[0]] * log_share([row[k] for k in kept], 0)
                break
        losses.append(loss)
    return sum(losses) / len(losses)


CASES = {"shrunk": Case(of_shrunk, [noise(B, K), noise(B, K, seed=1)], looped_shrunk)}


# ---- the shrunk class space ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        ([0.50, 0.45, 0.02, 0.02, 0.01, 0.0], [0, 2, 3, 4, 5]),  # 0.50 of 0.55 is 0.91
        ([0.45, 0.30, 0.20, 0.02, 0.02, 0.01], [0, 3, 4, 5]),  # 0.45 of 0.70 is not enough
        ([0.46, 0.20, 0.15, 0.14, 0.03, 0.02], [0, 4, 5]),
        ([0.30, 0.20, 0.20, 0.20, 0.08, 0.02], [0, 5]),  # 0.30 of 0.32, and of 0.40 is not enough
    ],
)
def test_as_many_classes_go_as_it_takes_and_the_tail_stays(p, kept):
    logits = noise(1, K).requires_grad_()
    loss = shrunk(logits, torch.tensor([p]), 0.9)
    same(loss, p[0] * F.cross_entropy(logits[:, kept], torch.tensor([0])))
    loss.backward()
    gone = [c for c in range(K) if c not in kept]
    assert not logits.grad[0, gone].any()
    assert logits.grad[0, kept].abs().min() > 0
    share = sum(p[c] for c in kept)
    assert p[0] / share >= 0.9


@pytest.mark.parametrize(
    "p",
    [
        [0.95, 0.05, 0.0, 0.0, 0.0, 0.0],  # sure
        [1 / 6] * 6,  # never sure: even the last two are alike
        [0.25, 0.25, 0.2, 0.1, 0.1, 0.1],
    ],
)
def test_who_is_sure_or_never_will_be_learns_nothing_here(p):
    logits = noise(1, K).requires_grad_()
    loss = shrunk(logits, torch.tensor([p]), 0.9)
    loss.backward()
    near(loss, 0.0)
    assert not logits.grad.any()


def test_two_classes_never_shrink():
    logits = noise(3, 2).requires_grad_()
    shrunk(logits, noise(3, 2, seed=1).softmax(1), 0.99).backward()
    assert not logits.grad.any()


def test_the_names_of_classes_do_not_matter():
    logits, target, ids = noise(B, K), (2 * noise(B, K, seed=1)).softmax(1), torch.randperm(K)
    same(shrunk(logits[:, ids], target[:, ids], 0.8), shrunk(logits, target, 0.8))


# ---- a step ----------------------------------------------------------------------------------------


def small_batch(seed=0, size=16, shown=2):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.rand(size, 3, 32, 32, generator=generator) for _ in range(2)]
    index, hidden = torch.arange(size), torch.full((size,), -1)
    own = torch.rand(shown, 3, 32, 32, generator=generator)
    given = Batch(own, index[:shown], torch.arange(shown), 0, 0.0)
    return Batch(views, index, hidden, 0, 0.0, {"labelled": given})


@pytest.mark.parametrize("align", [True, False])
def test_a_step_is_the_labels_the_sure_and_what_is_left_of_the_unsure(made, align):
    method = made("shrinkmatch", threshold=0.11, align=align)
    batch = small_batch()
    update = next(method.step(batch))
    with torch.no_grad():
        h = method.backbone(torch.cat([batch.also["labelled"].views, *batch.views]))
        known, weak, strong = method.head(h).split([2, 16, 16])
        p = weak.softmax(1)
        if align:
            p = p / p.mean(0)
            p = p / p.sum(1, keepdim=True)
        sure = (p.amax(1) >= 0.11).float()
        expected = F.cross_entropy(known, torch.arange(2))
        expected += (-(p * strong.log_softmax(1)).sum(1) * sure).mean()
        expected += sure.mean() * shrunk(method.auxiliary(h[18:]), p, 0.11)
    same(update.loss.detach(), expected)
    assert torch.equal(update.guesses.sure, sure)


def test_the_share_of_sure_images_is_an_average_that_begins_with_the_first(made):
    method = made("shrinkmatch", align=False, average_sure=0.9)
    with torch.no_grad():
        weak = torch.cat([small_batch(0).also["labelled"].views, *small_batch(0).views])
        method.threshold = float(method.net(weak)[2:18].softmax(1).amax(1).median())
    expected = None
    for seed in range(4):
        step = method.step(small_batch(seed))
        share = float(next(step).guesses.sure.mean())
        expected = share if expected is None else 0.9 * expected + 0.1 * share
        near(method.sure, expected)
        with pytest.raises(StopIteration):
            step.send(True)
    assert 0 < expected < 1


def test_unsure_images_reach_the_backbone_through_a_head_of_their_own(made):
    method = made("shrinkmatch")
    kinds = [type(layer).__name__ for layer in method.auxiliary]
    assert kinds == ["Linear", "BatchNorm1d", "LeakyReLU"] * 2 + ["Linear"]
    assert method.auxiliary[0].out_features == method.backbone.dim // 4
    h = noise(B, method.backbone.dim).requires_grad_()
    of_shrunk(method.auxiliary(h)[:, :K], noise(B, K, seed=1)).backward()
    assert h.grad.abs().max() > 0
    assert method.head.weight.grad is None


def test_what_is_judged_is_the_average(made):
    method = made("shrinkmatch")
    before = [p.clone() for p in method.average.parameters()]
    trained(method, small_batch())
    for old, new, online in zip(
        before, method.average.parameters(), method.net.parameters(), strict=True
    ):
        same(new, 0.1 * old + 0.9 * online.detach())
    method.eval()
    x = torch.rand(3, 3, 32, 32)
    same(method.predict(x), method.average[1](method.encoder()(x)))
    near(torch.tensor(method.uniform()), math.log(10))


def test_labelled_images_are_a_seventh_and_only_those_that_are_shown(made):
    method, run = made("shrinkmatch"), Lent()
    run.labels = lambda: torch.tensor([-1, 3, -1, 0])
    method.fit(run)
    stream = run.epoch.streams["labelled"]
    assert stream.pool.tolist() == [1, 3]
    assert stream.share == pytest.approx(1 / 7)


def test_one_class_is_refused(made):
    method = made("shrinkmatch")
    said = type(method).needs(method.backbone, DataInfo("one", size=32, length=9, classes=1))
    assert said == "it tells classes apart, one has one"
