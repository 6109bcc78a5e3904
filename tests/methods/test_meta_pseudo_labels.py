"""Meta Pseudo Labels: a teacher is told how its pseudo-labels served the student."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, DataInfo
from sslbench.methods.meta_pseudo_labels import agreement, reinforced

from .helpers import Case, Lent, log_share, near, noise, same

PLAIN = {"meta-pseudo-labels": {"unlabelled": 0.0, "dropout": 0.0, "smoothing": 0.0, "cutout": 0.0}}
B, K = 6, 4


def of_agreement(strong, weak):
    return agreement(strong, weak, 0.7, 0.6)[0]


def looped_agreement(strong, weak):
    losses = []
    for row, guess in zip(strong, weak.detach(), strict=True):
        p = [log_share([x / 0.7 for x in guess], c).exp() for c in range(K)]
        logs = [log_share(row, c) for c in range(K)]
        sure = max(p) >= 0.6
        losses.append(-sum(a * log for a, log in zip(p, logs, strict=True)) * sure)
    return sum(losses) / len(losses)


def of_reinforced(logits):
    return reinforced(logits, -0.3)


def looped_reinforced(logits):
    losses = [-log_share(row, int(row.argmax())) for row in logits]
    return -0.3 * sum(losses) / len(losses)


CASES = {
    "agreement": Case(of_agreement, [noise(B, K), 2 * noise(B, K, seed=1)], looped_agreement),
    "reinforced": Case(of_reinforced, [noise(B, K)], looped_reinforced),
}


# ---- feedback --------------------------------------------------------------------------------------


@pytest.mark.parametrize("worth", [0.4, -0.2, 0.0])
def test_the_gradient_of_feedback_is_its_worth_times_the_error_on_the_own_first_class(worth):
    logits = noise(B, K).requires_grad_()
    reinforced(logits, torch.tensor(worth)).backward()
    p = logits.detach().softmax(1)
    same(logits.grad, worth * (p - F.one_hot(p.argmax(1), K)) / B)


def test_soft_labels_would_give_no_gradient():
    logits = noise(B, K).requires_grad_()
    F.cross_entropy(logits, logits.detach().softmax(1)).backward()
    assert logits.grad.abs().max() < 1e-7


def test_labels_that_helped_become_more_probable_and_others_less():
    for worth, sign in ((0.5, 1), (-0.5, -1)):
        logits = noise(B, K).requires_grad_()
        reinforced(logits, worth).backward()
        first = logits.detach().argmax(1, keepdim=True)
        before = logits.detach().softmax(1).gather(1, first)
        after = (logits - logits.grad).detach().softmax(1).gather(1, first)
        assert (sign * (after - before) > 0).all()


def small_batch(progress=0.5, size=16, shown=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.rand(size, 3, 32, 32, generator=generator) for _ in range(2)]
    index, hidden = torch.arange(size), torch.full((size,), -1)
    own = torch.rand(shown, 3, 32, 32, generator=generator)
    given = Batch(own, index[:shown], torch.arange(shown), 0, progress)
    return Batch(views, index, hidden, 0, progress, {"labelled": given})


def student_losses(method, batch):
    """The student's loss on soft labels, and on the labelled images of the same batch."""
    given, (_, strong) = batch.also["labelled"], batch.views
    torch.manual_seed(0)
    with torch.no_grad():
        every = torch.cat([given.views, *batch.views])
        target = method.teacher(every)[-len(strong) :].softmax(1)
    logits = method.net(torch.cat([given.views, strong]))
    mine, learned = logits[: len(given.index)], logits[len(given.index) :]
    smooth = 0.85 * target + 0.15 / 10
    taught = -(smooth * learned.log_softmax(1)).sum(1).mean()
    return taught, F.cross_entropy(mine, given.label)


@pytest.mark.parametrize("seed", range(3))
def test_feedback_is_the_product_of_both_gradients_to_first_order(made, seed):
    """By hand: before less after = lr * (gradient on labels) . (gradient on pseudo-labels)."""
    method, batch = made("meta-pseudo-labels", dropout=0.0, forget=0.0), small_batch()
    for p in method.teacher[2].parameters():
        p.data.add_(0.5 * noise(*p.shape, seed=seed))  # with something to teach
    own = [*method.net.parameters()]
    taught, known = student_losses(method, batch)
    gradients = torch.autograd.grad(taught, own, retain_graph=True)
    others = torch.autograd.grad(known, own)
    product = float(sum((g * o).sum() for g, o in zip(gradients, others, strict=True)))
    update, lr = next(step := method.step(batch)), 2.5e-4
    assert update.group == "student"
    same(update.loss, taught)
    with torch.no_grad():
        for p, g in zip(own, torch.autograd.grad(update.loss, own), strict=True):
            p.sub_(lr * g)
    slope = float(step.send(True).log["feedback"]) / lr
    # a step meets kinks of rectifiers, and a loss has 7 digits
    assert slope == pytest.approx(product, rel=0.02, abs=0.02)


def test_views_move_by_an_eighth_of_the_side_and_what_is_gone_is_grey(made):
    method = made("meta-pseudo-labels", operations=1, strength=0)
    grey = torch.full((64, 3, 32, 32), 128, dtype=torch.uint8)
    for view in method.two(grey):
        torch.testing.assert_close(view, torch.full_like(view, 128 / 255))
    _, strong = method.two(torch.zeros_like(grey))
    hole = (strong > 0).float().mean((1, 2, 3)) * 32**2
    assert hole.max() == 16**2  # where no border clips it
    columns = (4 * torch.arange(32)).expand(64, 3, 32, 32).to(torch.uint8)
    middle = (method.weak(columns)[:, 0, 0, 15:17] * 255 / 4).sort(dim=1).values[:, 0].round()
    assert {int(x) for x in middle} <= set(range(11, 20))  # mirrored or not, by 4 at most
    assert len(set(middle.tolist())) > 7


def test_without_a_step_of_the_student_before_and_after_are_alike(made):
    """Same batch, same dropout, same norms: nothing but the step makes a difference."""
    method = made("meta-pseudo-labels", forget=0.0)
    step = method.step(small_batch())
    next(step)
    near(step.send(False).log["feedback"], 0.0)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_feedback_is_the_loss_on_labels_before_the_step_less_that_after_it(made, dropout):
    """With the sign of the derivation; both of the same batch, in training mode, by a loop."""
    method, batch = made("meta-pseudo-labels", forget=0.0, dropout=dropout), small_batch()
    given, (_, strong) = batch.also["labelled"], batch.views
    x = torch.cat([given.views, strong])
    torch.manual_seed(0)
    with torch.no_grad():
        answer = method.teacher(torch.cat([given.views, *batch.views]))[-len(strong) :].softmax(1)
    keep = F.dropout(torch.ones(len(x), method.backbone.dim), dropout)

    def known(net):
        with torch.no_grad():
            logits = net[1](net[0](x) * keep)[: len(given.index)].double()
        rows = zip(logits, given.label, strict=True)
        return -sum(log_share(row, int(label)) for row, label in rows) / len(logits)

    before = known(copy.deepcopy(method.net))
    torch.manual_seed(0)
    step = method.step(batch)
    update = next(step)
    assert float(update.log["confidence of targets"]) == pytest.approx(float(answer.amax(1).mean()))
    update.loss.backward()
    with torch.no_grad():
        for p in method.net.parameters():
            p.sub_(0.5 * p.grad)
    after = known(copy.deepcopy(method.net))
    worth = step.send(True).log["feedback"]
    assert abs(float(before - after)) > 1e-3
    assert float(worth) == pytest.approx(float(before - after), abs=1e-5)


def test_feedback_is_less_its_moving_average(made):
    method = made("meta-pseudo-labels", forget=0.25, dropout=0.0)
    usual = 0.0
    for seed in range(3):
        step = method.step(small_batch(seed=seed))
        loss = next(step).loss
        _, before = student_losses(method, small_batch(seed=seed))
        loss.backward()
        with torch.no_grad():
            for p in method.net.parameters():
                p.sub_(0.05 * p.grad)
                p.grad = None
        _, after = student_losses(method, small_batch(seed=seed))
        worth = step.send(True).log["feedback"]
        gain = float((before - after).detach())
        usual = 0.75 * usual + 0.25 * gain
        assert float(worth) == pytest.approx(gain - usual, abs=2e-5)


# ---- a step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "rise", "weight"),
    [(0, 5000, 0.0), (1250, 5000, 2.0), (5000, 5000, 8.0), (9000, 5000, 8.0), (0, 0, 8.0)],
)
def test_a_teachers_loss_is_labels_agreement_and_feedback(made, seen, rise, weight):
    """Agreement counts more by the step, not by the share of the fit."""
    method = made("meta-pseudo-labels", rise=rise, wait=0.0, dropout=0.0, threshold=0.12)
    method.seen.fill_(seen)
    batch = small_batch(0.5)
    given = batch.also["labelled"]
    step = method.step(batch)
    next(step)
    update = step.send(True)
    assert update.group == "teacher"
    torch.manual_seed(0)
    with torch.no_grad():
        logits = method.teacher(torch.cat([given.views, *batch.views]))
        known, weak, strong = logits.split([6, 16, 16])
        expected = F.cross_entropy(known, given.label, label_smoothing=0.15)
        expected += weight * agreement(strong, weak, 0.7, 0.12)[0]
        expected += update.log["feedback"] * F.cross_entropy(strong, strong.argmax(1))
    same(update.loss.detach(), expected)
    assert list(step) == []
    assert int(method.seen) == seen + 1


def test_the_student_waits_while_the_teacher_learns(made):
    method = made("meta-pseudo-labels", wait=0.5)
    assert [u.group for u in method.step(small_batch(0.4))] == ["teacher"]
    assert [u.group for u in method.step(small_batch(0.5))] == ["student", "teacher"]


def test_student_and_teacher_are_two_networks_and_each_learns_from_its_loss(made):
    method = made("meta-pseudo-labels")
    groups = {name: [*parameters] for name, parameters in method.groups().items()}
    assert {*map(id, groups["student"])}.isdisjoint(map(id, groups["teacher"]))
    first = [net[0].state_dict().values() for net in (method.net, method.teacher)]
    assert not all(torch.equal(one, two) for one, two in zip(*first, strict=True))
    for update in method.step(small_batch()):
        method.zero_grad(set_to_none=True)
        update.loss.backward()
        for name, parameters in groups.items():
            assert all((p.grad is not None) == (name == update.group) for p in parameters)


def test_what_is_judged_is_the_students_average(made):
    method = made("meta-pseudo-labels").eval()
    x = torch.rand(3, 3, 32, 32)
    same(method.predict(x), method.net(x))
    assert method.encoder() is method.average[0]
    method.train()
    before = [p.clone() for p in method.average.parameters()]
    step = method.step(small_batch())
    next(step).loss.backward()
    for p in method.net.parameters():
        p.data.sub_(p.grad)
    step.send(True)
    for old, new, online in zip(
        before, method.average.parameters(), method.net.parameters(), strict=True
    ):
        same(new, 0.1 * old + 0.9 * online.detach())


def test_labelled_images_are_a_seventh_and_only_those_that_are_shown(made):
    method, run = made("meta-pseudo-labels"), Lent()
    run.labels = lambda: torch.tensor([-1, 3, -1, 0])
    method.fit(run)
    stream = run.epoch.streams["labelled"]
    assert stream.pool.tolist() == [1, 3]
    assert stream.share == pytest.approx(1 / 7)


def test_one_class_is_refused(made):
    method = made("meta-pseudo-labels")
    said = type(method).needs(method.backbone, DataInfo("one", size=32, length=9, classes=1))
    assert said == "it tells classes apart, one has one"
