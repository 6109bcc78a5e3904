"""CoMatch: pseudo-labels and embeddings teach each other by a graph of the batch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, DataInfo
from sslbench.methods.comatch import graph
from sslbench.nn import balanced, warm, weighed_entropy

from .helpers import Case, Lent, dot, log_share, near, noise, same, trained, units

B, K, D = 6, 4, 5
SURE = torch.tensor([1, 0, 1, 1, 0, 0])
PLAIN = {"comatch": {"cutout": 0.0, "contrast": 0.0}}


def of_graph(z, other, logits):
    return graph(z, other, (3 * logits.float()).softmax(1), 0.2, 0.3)


def looped_graph(z, other, logits):
    p = [[(3 * x - (3 * row).logsumexp(0)).exp() for x in row] for row in logits]
    losses = []
    for i in range(len(z)):
        logs = [log_share([dot(z[i], each) / 0.2 for each in other], j) for j in range(len(z))]
        edges = [dot(p[i], p[j]) if i != j else torch.ones(()) for j in range(len(z))]
        edges = [edge if edge >= 0.3 else 0 * edge for edge in edges]
        total = sum(edges)
        losses.append(-sum(edge / total * log for edge, log in zip(edges, logs, strict=True)))
    return sum(losses) / len(losses)


def looped_entropy(logits, target, sure):
    losses = [
        -dot(aim, [log_share(row, c) for c in range(K)])
        for row, aim, one in zip(logits, target, sure, strict=True)
        if one
    ]
    return sum(losses) / len(logits)  # of all images


CASES = {
    "graph": Case(
        of_graph, [units(B, D), units(B, D, seed=1), noise(B, K, seed=2)], looped_graph,
    ),
    "weighed_entropy": Case(
        weighed_entropy, [noise(B, K), noise(B, K, seed=1).softmax(1), SURE], looped_entropy,
    ),
}  # fmt: skip


# ---- the graph -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_contrast_of_equal_embeddings_is_the_logarithm_of_their_number(seed):
    z = torch.ones(B, D) / math.sqrt(D)
    near(of_graph(z, z, noise(B, K, seed=seed)), math.log(B))


def test_images_of_one_pseudo_label_are_joined_alike_and_to_no_others():
    label = torch.tensor([0, 0, 1, 2, 2, 2])
    target = F.one_hot(label, K).float()
    z, other = units(B, D).requires_grad_(), units(B, D, seed=1)
    loss = graph(z, other, target, 0.2, 0.8)
    same_class = (label[:, None] == label).float()
    scores = (z @ other.T / 0.2).log_softmax(1)
    expected = -(same_class / same_class.sum(1, keepdim=True) * scores).sum(1).mean()
    same(loss, expected)
    same(*(torch.autograd.grad(each, z, retain_graph=True)[0] for each in (loss, expected)))


def test_unsure_pseudo_labels_join_an_image_to_itself_alone():
    z, other = units(B, D), units(B, D, seed=1)
    loss = graph(z, other, torch.full((B, K), 1 / K), 0.2, 0.8)
    same(loss, F.cross_entropy(z @ other.T / 0.2, torch.arange(B)))


def test_pseudo_labels_below_the_threshold_teach_nothing_and_all_share_the_mean():
    logits, target = noise(B, K).requires_grad_(), F.one_hot(torch.arange(B) % K, K).float()
    loss = weighed_entropy(logits, target, SURE.bool())
    loss.backward()
    assert not logits.grad[SURE == 0].any()
    same(logits.grad[SURE == 1], ((logits.softmax(1) - target) / B)[SURE == 1].detach())
    near(weighed_entropy(logits, target, torch.zeros(B)), 0.0)


# ---- pseudo-labels ---------------------------------------------------------------------------------


def test_predictions_are_balanced_by_the_mean_of_the_last_batches(made):
    method, batches = made("comatch", window=3), []
    for step in range(5):
        p = (2 * noise(8, 10, seed=step)).softmax(1)
        batches.append(p.mean(0))
        method.steps.fill_(step)
        found = balanced(p, method.recent, method.steps)
        expected = p / torch.stack(batches[-3:]).mean(0)
        same(found, expected / expected.sum(1, keepdim=True))
    equal = torch.full((8, 10), 0.1)
    method.recent.fill_(0.1)
    same(balanced(equal, method.recent, method.steps), equal)  # what is balanced stays


def filled(method, seed=5):
    for memory in (method.queue, method.shown):
        memory[:, :64].copy_(units(len(memory), 64, seed=seed))
        memory[:, 64:].copy_(noise(len(memory), 10, seed=seed).softmax(1))
    return method


def test_smoothing_starts_at_the_seventh_step_of_a_memory_of_five_batches(made):
    method = filled(made("comatch", queue=40))
    z, guess = units(8, 64), noise(8, 10).softmax(1)
    for step in range(9):
        method.steps.fill_(step)
        assert torch.equal(method.smoothed(z, guess), guess) == (step < 6)


def test_a_smoothed_pseudo_label_has_a_tenth_of_what_near_embeddings_say(made):
    method = filled(made("comatch", queue=40))
    method.steps.fill_(10)
    z, guess = units(8, 64), noise(8, 10).softmax(1)
    memory = [(row[:64], row[64:]) for row in (*method.queue, *method.shown)]
    assert len(memory) == 40 + 5  # a seventh as many labelled ones
    found = method.smoothed(z, guess)
    for i in range(8):
        weights = torch.stack([(z[i] @ row / 0.2).exp() for row, _ in memory])
        mixed = sum(w * p for w, (_, p) in zip(weights / weights.sum(), memory, strict=True))
        same(found[i], 0.9 * guess[i] + 0.1 * mixed)
    alone = filled(made("comatch", queue=40, own=1.0))
    alone.steps.fill_(10)
    same(alone.smoothed(z, guess), guess)
    method.shown.zero_()  # as before any came: they have no weight
    same(method.smoothed(z, guess).sum(1), torch.ones(8))


def small_batch(method, seed=0, size=16, shown=2):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.rand(size, 3, 32, 32, generator=generator) for _ in range(3)]
    index, hidden = torch.arange(size), torch.full((size,), -1)
    own = torch.rand(shown, 3, 32, 32, generator=generator)
    given = Batch(own, index[:shown], torch.arange(shown), 0, 0.0)
    return Batch(views, index, hidden, 0, 0.0, {"labelled": given})


def test_memory_holds_balanced_predictions_before_smoothing_and_labels(made):
    method = made("comatch", queue=32, own=0.0)
    for seed in range(6):
        batch = small_batch(method, seed)
        before = (method.queue.clone(), method.shown.clone())
        step = method.step(batch)
        next(step)
        assert torch.equal(method.queue, before[0])  # written only after the yield
        with torch.no_grad():
            h = method.backbone(torch.cat([batch.also["labelled"].views, *batch.views]))
            z = F.normalize(method.project(h), dim=1)
            p = method.net[1](h[2:18]).softmax(1)
        with pytest.raises(StopIteration):
            step.send(True)
        at = seed * 16 % 32
        same(method.queue[at : at + 16, :64], z[2:18])
        balanced = p / method.recent.sum(0)
        same(method.queue[at : at + 16, 64:], balanced / balanced.sum(1, keepdim=True))
        slots = (seed * 2 + torch.arange(2)) % 4
        same(method.shown[slots], torch.cat([z[:2], torch.eye(10)[:2]], 1))


def test_the_first_strong_view_learns_the_pseudo_label_and_both_the_graph(made):
    method = made("comatch", threshold=0.0)
    batch = small_batch(method)
    update = next(method.step(batch))
    with torch.no_grad():
        h = method.backbone(torch.cat([batch.also["labelled"].views, *batch.views]))
        known, weak, strong, _ = method.head(h).split([2, 16, 16, 16])
        z = F.normalize(method.project(h), dim=1)
        p = weak.softmax(1)
        p = p / p.mean(0)
        p = p / p.sum(1, keepdim=True)
        expected = F.cross_entropy(known, torch.arange(2))
        expected += -(p * strong.log_softmax(1)).sum(1).mean()
        expected += graph(z[18:34], z[34:], p, 0.2, 0.8)
    same(update.loss.detach(), expected)
    same(update.guesses.shares, p)
    assert update.guesses.sure.all()


def test_what_is_judged_is_an_average_that_is_warmed_up(made):
    method = made("comatch")
    before = [p.clone() for p in method.average.parameters()]
    trained(method, small_batch(method))
    momentum = warm(0.999, 0)
    for old, new, online in zip(
        before, method.average.parameters(), method.net.parameters(), strict=True
    ):
        same(new, momentum * old + (1 - momentum) * online.detach())
    statistics = zip(method.average.buffers(), method.net.buffers(), strict=True)
    assert all(torch.equal(one, two) for one, two in statistics)
    method.eval()
    x = torch.rand(3, 3, 32, 32)
    same(method.predict(x), method.average[1](method.encoder()(x)))
    assert method.encoder() is method.average[0]


def test_labelled_images_are_a_seventh_and_only_those_that_are_shown(made):
    method, run = made("comatch"), Lent()
    run.labels = lambda: torch.tensor([-1, 3, -1, 0])
    method.fit(run)
    stream = run.epoch.streams["labelled"]
    assert stream.pool.tolist() == [1, 3]
    assert stream.share == pytest.approx(1 / 7)


def test_the_strong_views_differ(made):
    views = made("comatch").views()
    weak, first, second = views["main"].view
    assert views["labelled"] == weak
    assert (weak.ops[0].padding, weak.ops[0].mode) == (4, "reflect")
    augment, hole = first.ops[2:]
    assert (augment.n, augment.m, augment.bins, augment.p) == (2, 10, 11, 0.5)
    assert hole.size == 16
    crop, jitter, grey = second.ops
    assert (crop.scale, crop.flip, jitter.p, grey.p) == ((0.2, 1.0), 0.5, 0.8, 0.2)
    assert jitter.hue == 0.1


def test_what_cannot_work_is_a_sentence(made):
    method = made("comatch")
    said = type(method).needs(method.backbone, DataInfo("one", size=32, length=9, classes=1))
    assert said == "it tells classes apart, one has one"
