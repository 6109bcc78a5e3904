"""SwAV: each crop predicts the others' balanced codes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.methods.swav import SwAVBatch256, SwAVImageNet, swapped
from sslbench.nn import sinkhorn
from sslbench.views import ColorJitter

from .helpers import (
    Case,
    dot,
    first_loss,
    log_share,
    near,
    noise,
    same,
    trained,
    units,
    with_gradients,
)

SMALL = {
    "swav.prototypes": 12,
    "swav.crops": (2, 1),
    # of 14 pixels the deepest map is a single one, and there oneDNN's bf16 gradients of a 3 x 3
    # convolution are not written but found in memory (torch 2.15, AVX-512)
    "swav.small_size": 20,
    "swav.queue": 64,
    "swav.queue_from": 1,
}
B, K = 6, 4
CODES = [sinkhorn(noise(B, K, seed=10 + i)) for i in range(2)]


def of_swapped(one, two, *scores):
    return swapped([one, two], scores, 0.1)


def looped_swapped(one, two, *scores):
    total, pairs = 0.0, 0
    for i, code in enumerate([one, two]):
        for v, crop in enumerate(scores):
            if v == i:
                continue
            pairs += 1
            for b in range(len(code)):
                logs = [log_share([s / 0.1 for s in crop[b]], c) for c in range(K)]
                total = total - dot(code[b], logs) / len(code)
    return total / pairs


def views_swapped(code, other, one, two, small):
    return other, code, two, one, small


def clusters_permuted(*inputs):
    return [x[:, torch.tensor([2, 0, 3, 1])] for x in inputs]


CASES = {
    "swapped": Case(
        of_swapped,
        [*CODES, *(units(B, K, seed=i) for i in range(3))],
        looped_swapped,
        swap=views_swapped,
        clusters=clusters_permuted,
    )
}


@pytest.mark.parametrize(
    ("prototypes", "expected"), [(3000, 8.00637), (16, 2.77259), (8, 2.07944), (4, 1.38629)]
)
def test_swapped_of_even_predictions_is_ln_of_the_prototypes(prototypes, expected):
    codes = [sinkhorn(noise(5, prototypes, seed=i)) for i in range(2)]
    near(swapped(codes, [torch.zeros(5, prototypes)] * 4, 0.1), expected)


def test_swapped_of_even_codes_and_equal_scores_is_the_entropy_of_the_prediction():
    scores = units(7, 11)
    p = (scores / 0.1).softmax(1)
    assert float(swapped([p, p], [scores, scores], 0.1)) == pytest.approx(
        float(-(p * p.log()).sum(1).mean()), rel=1e-5
    )


def test_swapped_does_not_mind_the_order_of_views_images_prototypes_nor_shifted_scores():
    _, _, one, two, small = CASES["swapped"].inputs
    order, ids = torch.randperm(B), torch.randperm(K)
    whole = swapped(CODES, [one, two, small], 0.1)
    same(swapped(CODES[::-1], [two, one, small], 0.1), whole)
    same(swapped([c[order] for c in CODES], [s[order] for s in (one, two, small)], 0.1), whole)
    same(swapped([c[:, ids] for c in CODES], [s[:, ids] for s in (one, two, small)], 0.1), whole)
    same(swapped(CODES, [one + 3, two, small], 0.1), whole)
    assert abs(float(swapped(CODES[::-1], [one, two, small], 0.1) - whole)) > 0.01


def test_a_code_is_never_held_against_its_own_crop():
    _, _, one, two, _ = CASES["swapped"].inputs
    scores = [one.clone().requires_grad_(), two.clone().requires_grad_()]
    alone, _ = torch.autograd.grad(swapped(CODES[:1], scores, 0.1), scores, allow_unused=True)
    assert alone is None


def test_prototypes_have_unit_rows_before_they_are_used(made, batch_of):
    method = made("swav", queue=0)
    batch = batch_of(method)
    _, loss = first_loss(method, batch)
    with torch.no_grad():
        method.prototypes.weight.mul_(torch.rand(12, 1) * 5 + 0.1)
    _, scaled = first_loss(method, batch)
    torch.testing.assert_close(scaled, loss)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12))


def test_prototypes_rest_while_frozen_and_move_afterwards(made, batch_of):
    method = made("swav", queue=0, freeze=2)
    start = F.normalize(method.prototypes.weight.detach(), dim=1).clone()
    for epoch in (0, 1):
        trained(method, batch_of(method, epoch=epoch))
        torch.testing.assert_close(method.prototypes.weight, start, rtol=0, atol=1e-6)
    trained(method, batch_of(method, epoch=2))
    assert (method.prototypes.weight - start).abs().max() > 1e-4


def features(method, batch):
    """Of every crop, [B, D], as the method's next step finds them."""
    sizes = sorted({v.shape[-1] for v in batch.views}, reverse=True)
    groups = [torch.cat([v for v in batch.views if v.shape[-1] == size]) for size in sizes]
    z = method.head(torch.cat([method.backbone(group) for group in groups]))
    return F.normalize(z, dim=1).detach().split(len(batch.views[0]))


def expected_loss(method, batch, queue=None):
    weight = F.normalize(method.prototypes.weight.detach(), dim=1)
    scores, codes = [z @ weight.T for z in features(method, batch)], []
    for i in range(2):
        old = torch.empty(0, len(weight)) if queue is None else queue[i] @ weight.T
        codes.append(sinkhorn(torch.cat([scores[i], old]))[: len(scores[i])])
    return swapped(codes, scores, 0.1)


def test_a_full_queue_joins_the_codes_and_not_the_loss(made, batch_of):
    method = made("swav", queue=16, queue_from=2)
    for epoch in (0, 1):  # it fills meanwhile
        batch = batch_of(method, epoch=epoch, seed=epoch)
        expected, newest = expected_loss(method, batch), features(method, batch)
        step, loss = first_loss(method, batch)
        torch.testing.assert_close(loss, expected)
        assert next(step, None) is None
        torch.testing.assert_close(method.queue[:, :8], torch.stack(newest[:2]))
    for epoch in (2, 3):
        batch, queue = batch_of(method, epoch=epoch, seed=2), method.queue.clone()
        expected, without = expected_loss(method, batch, queue), expected_loss(method, batch)
        _, loss = first_loss(method, batch)
        torch.testing.assert_close(loss, expected)
        assert abs(loss - without) > 1e-3


def test_a_queue_that_is_not_full_stays_out_of_the_codes(made, batch_of):
    method = made("swav", queue=24, queue_from=0)
    for seed in range(2):
        trained(method, batch_of(method, seed=seed))
    batch = batch_of(method, seed=2)
    expected = expected_loss(method, batch)
    torch.testing.assert_close(first_loss(method, batch)[1], expected)


def test_codes_sum_to_one_and_take_no_gradient_with_a_queue_and_without(made, batch_of):
    method = made("swav", queue=8, queue_from=0)
    scores = F.normalize(torch.randn(6, 12), dim=1).requires_grad_()
    for _ in range(2):
        code = method.code(scores, 0, 0)
        assert code.shape == (6, 12)
        assert not code.requires_grad
        torch.testing.assert_close(code.sum(1), torch.ones(6))
        method.enqueue([F.normalize(torch.randn(8, 64), dim=1)] * 2)


def test_every_crop_is_predicted_and_the_two_large_ones_give_codes(made, batch_of):
    method = made("swav", crops=(2, 3), queue=0)
    sides = [view.shape[-1] for view in batch_of(method).views]
    assert sides == [32, 32, 20, 20, 20]
    codes = []
    whole = method.code
    method.code = lambda scores, crop, epoch: codes.append(crop) or whole(scores, crop, epoch)
    first_loss(method, batch_of(method))
    assert codes == [0, 1]


def test_the_lowest_temperature_in_use_stays_finite_in_float32():
    value, gradients = with_gradients(
        lambda one, two, *scores: swapped([one, two], scores, 0.001), CASES["swapped"].inputs
    )
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_swapped_of_two_images():
    z = torch.tensor([[1.0, 0], [0, 1]])
    even = torch.full((2, 2), 0.5)
    near(swapped([even, even], [z, z], 1.0), math.log(1 + math.e) - 0.5)


def test_frozen_prototypes_have_no_gradient_at_all(made, batch_of):
    method = made("swav", queue=0, freeze=1)
    for epoch, frozen in ((0, True), (1, False)):
        first_loss(method, batch_of(method, epoch=epoch))[1].backward()
        assert (method.prototypes.weight.grad is None) == frozen
        assert all(p.grad is not None for p in method.head.parameters())


def test_the_queue_is_written_after_the_loss_newest_first_and_forgets_the_oldest(made, batch_of):
    method, newest = made("swav", queue=16, queue_from=9), []
    for seed in range(3):
        batch, before = batch_of(method, seed=seed), method.queue.clone()
        newest.insert(0, torch.stack(features(method, batch)[:2]))
        step, _ = first_loss(method, batch)
        assert torch.equal(method.queue, before)
        assert next(step, None) is None
    torch.testing.assert_close(method.queue, torch.cat(newest[:2], dim=1))
    assert not method.queue.requires_grad


def test_crops_of_both_kinds_pass_in_one_batch_each_and_keep_their_order(made, batch_of):
    method, seen = made("swav", crops=(2, 2), queue=0), []
    method.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = batch_of(method)
    expected = expected_loss(method, batch)
    seen.clear()
    torch.testing.assert_close(first_loss(method, batch)[1], expected)
    assert [len(x) for x in seen] == [16, 16]
    assert torch.equal(torch.cat(seen[0].split(8)), torch.cat(batch.views[:2]))
    assert torch.equal(torch.cat(seen[1].split(8)), torch.cat(batch.views[2:]))


def test_codes_are_float32_under_autocast_and_shared_evenly_over_prototypes(made):
    method = made("swav", queue=0, iterations=50)
    scores = F.linear(units(64, 5), units(12, 5, seed=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        code = method.code(scores, 0, 0)
    assert code.dtype == torch.float32
    torch.testing.assert_close(code.sum(1), torch.ones(64))
    torch.testing.assert_close(code.sum(0), torch.full((12,), 64 / 12), rtol=1e-2, atol=0)


def test_scores_are_float32_under_autocast(made, batch_of):
    method = made("swav", queue=0, crops=(2, 2))
    z, batch = noise(32, method.prototypes.in_features), batch_of(method)
    method.head.forward = lambda x: z
    plain = first_loss(method, batch)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = first_loss(method, batch)[1]
    assert torch.allclose(loss, plain, rtol=1e-6)  # bfloat16 would be off by about a thousandth


def test_views_are_the_papers(made):
    settings = {"crops": (3, 4), "jitter": 0.5, "small_size": 0}
    (large, one), (small, two) = made("swav", **settings).views().crops
    assert (one, two) == (3, 4)
    for view, side, scale in ((large, 32, (0.14, 1.0)), (small, 14, (0.05, 0.14))):
        assert (view.ops[0].size, view.ops[0].scale) == (side, scale)
        assert ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8) in view.ops


def test_scores_in_bf16_are_taken_as_float32():
    _, _, *scores = CASES["swapped"].inputs
    low = [s.bfloat16() for s in scores]
    assert torch.equal(swapped(CODES, low, 0.1), swapped(CODES, [s.float() for s in low], 0.1))


def test_clusters_are_cosines_with_the_prototypes_and_a_guess_costs_ln_of_their_number(made):
    method, x = made("swav").eval(), torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        method.prototypes.weight.mul_(3)
        z = method.head(method.encoder()(x))
        expected = F.cosine_similarity(z[:, None], method.prototypes.weight, dim=2)
        torch.testing.assert_close(method.clusters(x), expected)
        torch.testing.assert_close(method.embed(x), F.normalize(z, dim=1))
    near(torch.tensor(method.uniform()), math.log(12))


def test_the_papers_rows_differ_from_the_defaults_in_what_they_name():
    assert SwAVImageNet.keywords == {"epochs": 800}
    asked = SwAVBatch256.keywords
    assert (asked["batch"], asked["queue"], asked["queue_from"]) == (256, 3840, 15)
    assert asked["queue"] % asked["batch"] == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"queue": 97}, "queue of 97 features is longer than the 96 images of digits"),
        ({"crops": (1, 4)}, r"two large crops, crops=\(1, 4\) has 1"),
        ({"small_size": 33}, "small crops of 33 pixels are larger than the images of 32"),
    ],
)
def test_what_the_data_cannot_give_is_refused_before_training(settings, sentence, made):
    with pytest.raises(ValueError, match=sentence):
        made("swav", **settings)
