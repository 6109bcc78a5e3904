"""MoCo: keys of a slowly moving copy, queued after the loss."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.cells.parameters import anatomy
from sslbench.methods.moco import info_nce
from sslbench.train.optim import Optimisation

from .helpers import (
    METHODS,
    Case,
    dot,
    first_loss,
    log_share,
    near,
    same,
    trained,
    units,
    with_gradients,
)

SMALL = {"moco.splits": 2}
PLAIN = {"moco": {"queue": 32, "momentum_target": 0.9}}
B, D, Q = 6, 5, 9


def of_info_nce(q, k, queue):
    return info_nce(q, k, queue, 0.2)


def looped_info_nce(q, k, queue):
    losses = []
    for i in range(len(q)):
        scores = [dot(q[i], k[i]) / 0.2, *(dot(q[i], key) / 0.2 for key in queue)]
        losses.append(-log_share(scores, 0))
    return sum(losses) / len(losses)


CASES = {
    "info_nce": Case(
        of_info_nce,
        [units(B, D), units(B, D, seed=1), units(Q, D, seed=2)],
        looped_info_nce,
        low=False,  # its keys and queue are float32
    )
}


def test_info_nce_of_the_papers_queue():
    q = torch.eye(2)[:1].expand(4, 2)
    orthogonal = torch.eye(2)[1:].expand(65536, 2)
    near(info_nce(q, q, orthogonal, 0.07), 0.040135)
    near(info_nce(q, q, q[:1].expand(65536, 2), 0.07), 11.0904)


def test_info_nce_does_not_mind_the_order_of_images_and_of_the_queue():
    q, k, queue = CASES["info_nce"].inputs
    order = torch.randperm(B)
    same(of_info_nce(q[order], k[order], queue), of_info_nce(q, k, queue))
    same(of_info_nce(q, k, queue[torch.randperm(Q)]), of_info_nce(q, k, queue))
    assert abs(float(of_info_nce(q, k.roll(1, 0), queue) - of_info_nce(q, k, queue))) > 0.01


def test_keys_are_queued_after_the_loss_and_never_among_their_own_negatives(made, batch_of):
    method = made("moco", queue=16, temperature=0.2)
    batch = batch_of(method)
    keys = F.normalize(torch.randn(8, 64), dim=1)
    method.keys = lambda x: 3 * keys  # unit only once normalised
    queue = method.queue.clone()
    step, loss = first_loss(method, batch)
    assert torch.equal(method.queue, queue)
    q = F.normalize(method.online(batch.views[0]), dim=1)
    scores = torch.cat([(q * keys).sum(1, keepdim=True), q @ queue.T], dim=1) / 0.2
    torch.testing.assert_close(loss, -scores.log_softmax(1)[:, 0].mean())
    assert next(step, None) is None
    torch.testing.assert_close(method.queue[:8], keys)
    assert torch.equal(method.queue[8:], queue[8:])


def test_the_queue_begins_with_unit_rows_and_keys_are_of_the_second_view(made, batch_of):
    method = made("moco", splits=1)
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(64))
    batch = batch_of(method)
    with torch.no_grad():
        keys = F.normalize(method.target(batch.views[1]), dim=1)
    trained(method, batch)
    torch.testing.assert_close(method.queue[:8], keys, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("queue", "size"), [(20, 8), (16, 8), (8, 8), (5, 8)])
def test_the_queue_is_a_ring_that_forgets_the_oldest(queue, size, made):
    method, fed = made("moco", queue=queue), []
    for step in range(6):
        keys = torch.full((size, 64), float(step)) + torch.arange(size)[:, None] / 100
        method.enqueue(keys)
        fed.append(keys)
        if queue >= size:
            assert int(method.oldest) == (step + 1) * size % queue
    newest = torch.cat(fed)[-queue:]
    assert torch.equal(method.queue[:, 0].sort().values, newest[:, 0])
    order = (torch.arange(queue) + method.oldest) % queue  # from the oldest on
    assert torch.equal(method.queue[order], newest)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 17])
def test_shuffled_keys_come_back_in_order(size, made):
    method = made("moco", splits=8)
    method.target.eval()  # no statistics of a part
    x = torch.rand(size, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(method.keys(x), method.target(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("splits", [1, 2, 8])
def test_keys_pass_in_shuffled_parts_of_two_images_or_more(splits, made):
    method, parts = made("moco", splits=splits), []
    method.target.register_forward_pre_hook(lambda _, given: parts.append(given[0][:, 0, 0, 0]))
    for size in range(2, 20):
        parts.clear()
        method.keys(torch.arange(size).view(-1, 1, 1, 1).expand(-1, 3, 32, 32) / 20)
        assert len(parts) == min(splits, size // 2)
        assert min(map(len, parts)) >= 2
        passed = torch.cat(parts)
        assert torch.equal(passed.sort().values, torch.arange(size) / 20)
    assert not torch.equal(passed, torch.arange(19) / 20)


def test_the_first_version_has_a_linear_head_and_drops_its_rate_in_steps(made, trial_of):
    first, second = made("moco-v1"), made("moco")
    assert [type(layer).__name__ for layer in first.online[1]] == ["Linear"]
    assert [type(layer).__name__ for layer in second.online[1]] == ["Linear", "ReLU", "Linear"]
    assert (first.temperature, second.temperature) == (0.07, 0.2)
    recipe = anatomy(METHODS["moco-v1"]).recipe
    assert recipe.schedule == "step"
    optimisation = Optimisation(first, recipe, steps_per_epoch=1)
    rates = [optimisation.set(epoch) for epoch in range(recipe.epochs)]
    drops = [epoch for epoch in range(1, 200) if rates[epoch] < rates[epoch - 1]]
    assert drops == [120, 160]
    assert [rates[0], rates[120], rates[160]] == pytest.approx([0.03, 0.003, 0.0003])
    assert "GaussianBlur" in repr(second.view)
    assert "GaussianBlur" not in repr(first.view)


def test_the_lowest_temperature_in_use_stays_finite_in_float32():
    value, gradients = with_gradients(lambda *x: info_nce(*x, 0.01), CASES["info_nce"].inputs)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_info_nce_of_two_images_and_of_one():
    z = torch.eye(2)
    near(info_nce(z, z, z, 0.5), math.log(2 + math.exp(-2)))  # each key queued too
    near(info_nce(*z[:, None], torch.empty(0, 2), 0.5), 0.0)  # nobody to be told from


def test_a_queue_longer_than_the_data_is_refused_before_training(made):
    with pytest.raises(ValueError, match="queue of 97 keys is longer than the 96 images of digits"):
        made("moco", queue=97)
    made("moco", queue=96)


def test_the_loss_of_a_guess_is_the_logarithm_of_all_keys_it_could_be(made):
    method = made("moco", queue=64)
    assert method.uniform() == pytest.approx(math.log(65))
    near(info_nce(*(torch.ones(3, 1),) * 2, torch.ones(64, 1), 0.1), method.uniform())


def test_it_names_its_queue_and_its_target(made):
    method = made("moco", queue=32)
    assert [getattr(method, name).shape for name in method.queues] == [(32, 64)]
    assert [getattr(method, name) for name in method.targets] == [method.target]


def test_the_papers_longest_schedule_has_a_name():
    assert anatomy(METHODS["moco-imagenet"]).recipe.epochs == 800
    assert anatomy(METHODS["moco-imagenet"]).defaults == anatomy(METHODS["moco"]).defaults
