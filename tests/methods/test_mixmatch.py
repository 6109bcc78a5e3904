"""MixMatch: guesses of several views are sharpened, and all images are mixed."""

from __future__ import annotations

import math

import pytest
import torch

from sslbench.api import Batch, DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.methods import mixmatch
from sslbench.methods.mixmatch import MixMatch
from sslbench.nn import interleaved, mixup, semi_supervised, sharpen, warm

from .helpers import METHODS, Case, dot, log_share, near, noise, same, trained

B, K = 6, 4
KNOWN = torch.tensor([1, 1, 0, 0, 0, 0])
PLAIN = {"mixmatch": {"unlabelled": 1.0}}  # whose weight rises while the loss should fall


def of_semi(logits, target, known):
    return semi_supervised(logits, target, known, 75.0)


def looped(logits, target, known):
    entropy, error = 0.0, 0.0
    for row, aim, sure in zip(logits, target, known.tolist(), strict=True):
        logs = [log_share(row, c) for c in range(K)]
        if sure:
            entropy = entropy - dot(aim, logs) / 2
        else:
            error = error + sum((log.exp() - a) ** 2 for log, a in zip(logs, aim, strict=True)) / (
                4 * K
            )
    return entropy + 75 * error


def names_permuted(logits, target, known):
    ids = torch.tensor([2, 0, 3, 1])
    return logits[:, ids], target[:, ids], known


CASES = {
    "semi_supervised": Case(
        of_semi, [noise(B, K), noise(B, K, seed=1).softmax(1), KNOWN], looped,
        clusters=names_permuted,
    ),
}  # fmt: skip


def labelled_batch(method, size=6, progress=0.5, differ=True):
    torch.manual_seed(0)
    images = torch.randint(256, (2 * size, 3, 32, 32), dtype=torch.uint8)
    views = method.views()
    label = torch.arange(size) % 10
    given = Batch(views["labelled"](images[size:]), torch.arange(size), label, 0, progress)
    main = views["main"](images[:size])
    if differ:
        for scale, view in zip((1.0, 0.3), main, strict=False):
            view.mul_(scale)  # each has statistics of its own
    hidden = torch.full((size,), -1)
    return Batch(main, torch.arange(size), hidden, 0, progress, {"labelled": given})


def unmixed(monkeypatch, module):
    monkeypatch.setattr(module, "mixup", lambda x, target, alpha, *, each: (x, target))


# ---- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(6, 3), (7, 3), (2, 3), (8, 10), (4, 1)])
def test_parts_swapped_twice_are_as_they_were_and_the_first_has_some_of_each(size, count):
    parts = [torch.arange(size) + 100 * k for k in range(count)]
    once = interleaved(parts)
    assert [len(part) for part in once] == [size] * count
    assert sorted(torch.cat(once).tolist()) == sorted(torch.cat(parts).tolist())
    again = interleaved(once)
    assert all(torch.equal(one, other) for one, other in zip(again, parts, strict=True))
    kinds = (once[0] // 100).unique().numel()
    assert kinds == min(size, count)


def test_a_blind_guess_costs_the_logarithm_and_nine_hundredths_of_the_weight():
    target = torch.eye(10)
    near(semi_supervised(torch.zeros(10, 10), target, torch.zeros(10), 2.0), 0.18)
    near(semi_supervised(torch.zeros(10, 10), target, torch.ones(10), 2.0), math.log(10))


# ---- a step ----------------------------------------------------------------------------------------


def test_guesses_are_the_sharpened_mean_of_views_that_pass_one_by_one(made):
    method = made("mixmatch")
    batch = labelled_batch(method)
    before = [b.clone() for b in method.online.buffers()]
    found = method.guess(batch.views)
    with torch.no_grad():
        p = [method.online(view).softmax(1) for view in batch.views]
    same(found, sharpen((p[0] + p[1]) / 2, 0.5))
    same(found, ((p[0] + p[1]) ** 2) / ((p[0] + p[1]) ** 2).sum(1, keepdim=True))
    method = made("mixmatch")
    held = [b.clone() for b in method.online.buffers()]
    method.guess(batch.views)
    assert all(torch.equal(a, b) for a, b in zip(held, method.online.buffers(), strict=True))
    assert len(before) == len(held)
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 0.0), (1 / 128, 0.5), (1 / 64, 1.0), (0.9, 1.0)]
)
def test_a_step_is_cross_entropy_and_a_squared_error_whose_weight_rises(
    progress, share, made, monkeypatch
):
    method = made("mixmatch", unlabelled=30.0)
    unmixed(monkeypatch, mixmatch)
    method.eval()  # norms see each image alone
    batch = labelled_batch(method, progress=progress)
    given = batch.also["labelled"]
    update = next(method.step(batch))
    with torch.no_grad():
        guess = method.guess(batch.views)
        logs = method.online(given.views).log_softmax(1)
        p = torch.cat([method.online(view).softmax(1) for view in batch.views])
    wanted = -logs[range(6), given.label].mean()
    wanted = wanted + 30 * share * (p - torch.cat([guess, guess])).square().mean()
    same(update.loss.detach(), wanted)
    same(update.guesses.shares, guess)


def test_all_images_are_mixed_with_any_in_shares_of_their_own(made, monkeypatch):
    method, seen = made("mixmatch"), {}
    batch = labelled_batch(method)

    def noting(x, target, alpha, *, each):
        seen.update(x=x, target=target, alpha=alpha, each=each)
        seen["made"] = mixup(x, target, alpha, each=each)
        return seen["made"]

    monkeypatch.setattr(mixmatch, "mixup", noting)
    images = []
    method.online[0].register_forward_pre_hook(lambda _, x: images.append(x[0]))
    next(method.step(batch))
    assert torch.equal(seen["x"], torch.cat([batch.also["labelled"].views, *batch.views]))
    assert torch.equal(seen["target"][:6], torch.eye(10)[:6])
    assert torch.equal(seen["target"][6:12], seen["target"][12:])
    assert (seen["alpha"], seen["each"]) == (0.75, True)
    parts = interleaved(seen["made"][0].split(6))
    assert all(torch.equal(one, other) for one, other in zip(images[2:], parts, strict=True))


def test_running_statistics_are_those_of_the_first_mixed_part(made, monkeypatch):
    method, other = made("mixmatch"), made("mixmatch")
    other.load_state_dict(method.state_dict())
    unmixed(monkeypatch, mixmatch)
    batch = labelled_batch(method)
    next(method.step(batch))
    parts = interleaved([batch.also["labelled"].views, *batch.views])
    other.online(parts[0])
    for mine, theirs in zip(method.online.buffers(), other.online.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_each_part_is_normed_by_itself_and_logits_come_back_in_order(made):
    method = made("mixmatch")
    parts = [torch.rand(6, 3, 32, 32) * scale for scale in (1.0, 0.5, 0.2)]
    wanted = torch.cat(interleaved([method.online(part) for part in interleaved(parts)]))
    same(method.in_turn(parts), wanted)


def test_a_guess_takes_no_gradient(made, monkeypatch):
    method = made("mixmatch")
    logits = []
    method.online[1].register_forward_hook(lambda _, x, y: logits.append(y))
    next(method.step(labelled_batch(method))).loss.backward()
    assert [each.requires_grad for each in logits] == [False] * 2 + [True] * 3


def test_the_average_is_judged_and_warmed_up(made):
    method = made("mixmatch")
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
    assert int(method.steps) == 1


def test_usb_trains_it_by_sgd_with_other_weights(made):
    paper, usb = (anatomy(METHODS[name]) for name in ("mixmatch", "mixmatch-usb"))
    assert (paper.recipe.optimizer, paper.recipe.lr, paper.recipe.schedule) == (
        "adamw",
        0.002,
        "constant",
    )
    assert (paper.defaults["mixup"], paper.defaults["unlabelled"]) == (0.75, 75.0)
    assert (usb.recipe.optimizer, usb.recipe.lr, usb.recipe.schedule) == ("sgd", 0.03, "arc")
    assert (usb.defaults["mixup"], usb.defaults["unlabelled"]) == (0.5, 100.0)
    assert paper.recipe.epochs * (50_000 // 64) == pytest.approx(2**20, rel=1e-3)


def test_a_blind_guess_and_one_class(made):
    near(torch.tensor(made("mixmatch").uniform()), math.log(10))
    sentence = MixMatch.needs(made("untrained"), DataInfo("one", 32, 96, classes=1))
    assert "one has one" in sentence
