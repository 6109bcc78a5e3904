"""Methods of a budget: which images show their labels, what is averaged and what is judged."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import DataInfo, Stream
from sslbench.cells.parameters import anatomy
from sslbench.train.feed import orders

from .helpers import METHODS, Lent, near, trained

CASES = {}
ALL = ["few-labels", "pseudo-label", "entropy-minimisation", "mean-teacher", "pi-model"]
OTHERS = ALL[1:]  # which look at images without labels
each = pytest.mark.parametrize("name", ALL)
each_other = pytest.mark.parametrize("name", OTHERS)


def numbers_of_norms(module):
    return {k: b.clone() for k, b in module.named_buffers() if "running" in k or "batches" in k}


class Budget(Lent):
    def labels(self):
        labels = torch.full((96,), -1)
        labels[[3, 50, 70]] = torch.tensor([0, 2, 1])
        return labels


@each
@pytest.mark.parametrize(("ratio", "drawn"), [(1.0, 32), (3.0, 11), (0.5, 64)])
def test_only_images_of_the_budget_are_drawn_as_labelled(name, ratio, drawn, made):
    method, run = made(name, ratio=ratio), Budget()
    method.fit(run)
    stream = run.epoch.streams["labelled"]
    assert isinstance(stream, Stream)
    assert stream.pool.tolist() == [3, 50, 70]
    assert run.epoch.main == (name != "few-labels")
    found = orders(run.epoch, 96, steps=3, batch=32, origin=("x", 0))
    assert found["labelled"].shape == (3, drawn)


@each
def test_the_average_is_judged_with_the_statistics_of_what_is_trained(name, made, some_batch):
    method = made(name)
    batch = some_batch(method)
    for _ in range(3):
        trained(method, batch)
    assert method.encoder() is method.average[0]
    for key, buffer in numbers_of_norms(method.online).items():
        torch.testing.assert_close(numbers_of_norms(method.average)[key], buffer)
    images = batch.also["labelled"].views
    method.eval()
    with torch.no_grad():
        found = method.predict(images)
        assert torch.equal(found, method.average[1](method.encoder()(images)))
        assert not torch.allclose(found, method.online(images))


@each
def test_the_average_warms_up(name, made, some_batch):
    method = made(name)
    batch = some_batch(method)
    for momentum in (1 / 10, 2 / 11, 3 / 12):
        before = [p.clone() for p in method.average.parameters()]
        trained(method, batch)
        after = zip(before, method.average.parameters(), method.online.parameters(), strict=True)
        for old, average, online in after:
            expected = momentum * old + (1 - momentum) * online.detach()
            torch.testing.assert_close(average, expected, rtol=1e-5, atol=1e-6)
    assert float(method.steps) == 3
    method.steps += 10**6
    before = [p.clone() for p in method.average.parameters()]
    trained(method, batch)
    after = zip(before, method.average.parameters(), method.online.parameters(), strict=True)
    for old, average, online in after:
        expected = 0.999 * old + 0.001 * online.detach()
        torch.testing.assert_close(average, expected, rtol=1e-5, atol=1e-6)


@each_other
def test_labelled_images_alone_make_the_running_statistics(name, made, some_batch):
    method, other = made(name), made(name)
    batch = some_batch(method)
    next(method.step(batch))
    other.online(batch.also["labelled"].views)
    expected = numbers_of_norms(other.online)
    assert expected
    for key, value in numbers_of_norms(method.online).items():
        torch.testing.assert_close(value, expected[key])
    norms = [m for m in method.modules() if hasattr(m, "track_running_stats")]
    assert norms
    assert all(m.track_running_stats for m in norms)


@each_other
def test_labels_of_the_other_images_do_not_matter_even_where_they_show(name, made, some_batch):
    losses = []
    for label in (-1, 2):
        method = made(name)
        batch = some_batch(method, progress=0.9)
        label = torch.full_like(batch.label, label)
        torch.manual_seed(0)
        losses.append(float(next(method.step(batch._replace(label=label))).loss.detach()))
    assert losses[0] == losses[1]


@each_other
def test_other_images_count_by_a_weight_that_rises(name, made, some_batch):
    method = made(name, **({"threshold": 0.0} if name == "pseudo-label" else {}))
    # one network for all: where a weight is another, so is what is drawn at its birth

    def more(progress, weight):
        method.unlabelled = weight
        update = next(method.step(some_batch(method, progress=progress)))
        return float((update.loss - update.log["labelled"]).detach())

    whole = more(0.9, 1.0)
    assert whole > 0
    for progress, share in ((0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (0.9, 1.0)):
        assert more(progress, 3.0) == pytest.approx(3 * share * whole, rel=1e-3, abs=1e-6)


@each
def test_on_labelled_images_it_is_cross_entropy(name, made, some_batch):
    method = made(name)
    batch = some_batch(method)
    given = batch.also["labelled"]
    update = next(method.step(batch))
    found = update if isinstance(update, torch.Tensor) else update.loss
    with torch.no_grad():
        expected = F.cross_entropy(method.online(given.views), given.label)
    torch.testing.assert_close(found.detach(), expected)
    near(torch.tensor(method.uniform()), math.log(10))


@each
def test_one_class_is_refused_with_a_sentence(name, made):
    target, data = anatomy(METHODS[name]).target, DataInfo("dull", size=8, length=9, classes=1)
    assert target.needs(made("untrained"), data) == "it tells classes apart, dull has one"


@each
def test_its_weak_view_may_be_turned_off(name, made, some_batch):
    method = made(name, shift=0.0, flip=0.0)
    given = some_batch(method).also["labelled"]
    assert torch.equal(given.views, some_batch.images[: len(given.views)].float() / 255)
