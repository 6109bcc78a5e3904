"""Losses of the methods: constants of the papers, loops over single numbers, what must not matter."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.methods.moco import info_nce
from sslbench.methods.scan import agreement
from sslbench.methods.simclr import nt_xent
from sslbench.methods.swav import swapped
from sslbench.nn import sinkhorn


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def units(*shape, seed=0):
    return F.normalize(noise(*shape, seed=seed), dim=-1)


def near(value, expected):
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4, abs=1e-4)


# ---- each loss on the numbers it is tested with: inputs, and the loss of these inputs --------------

B, D, K, Q = 6, 5, 4, 9
CODES = [sinkhorn(noise(B, K, seed=10 + i)) for i in range(2)]


def of_nt_xent(z):
    return nt_xent(z, 0.5)


def of_info_nce(q, k, queue):
    return info_nce(q, k, queue, 0.2)


def of_agreement(anchor, neighbour):
    return agreement(anchor, neighbour, 5.0)


def of_swapped(*scores):
    return swapped(CODES, scores, 0.1)


CASES = {
    "nt_xent": (of_nt_xent, [noise(2 * B, D)]),
    "info_nce": (of_info_nce, [units(B, D), units(B, D, seed=1), units(Q, D, seed=2)]),
    "agreement": (of_agreement, [noise(B, K), noise(B, K, seed=1)]),
    "swapped": (of_swapped, [units(B, K, seed=i) for i in range(3)]),
}


# ---- the same in loops over single numbers ---------------------------------------------------------


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def log_share(scores, chosen):
    """Logarithm of the softmax of one of some numbers."""
    top = max(float(s.detach()) for s in scores)
    return scores[chosen] - top - torch.stack([(s - top).exp() for s in scores]).sum().log()


def looped_nt_xent(z):
    pairs, losses = len(z) // 2, []
    for i in range(2 * pairs):
        others = [j for j in range(2 * pairs) if j != i]
        cosines = [dot(z[i], z[j]) / (dot(z[i], z[i]) * dot(z[j], z[j])).sqrt() for j in others]
        partner = others.index((i + pairs) % (2 * pairs))
        losses.append(-log_share([c / 0.5 for c in cosines], partner))
    return sum(losses) / len(losses)


def looped_info_nce(q, k, queue):
    losses = []
    for i in range(len(q)):
        scores = [dot(q[i], k[i]) / 0.2, *(dot(q[i], key) / 0.2 for key in queue)]
        losses.append(-log_share(scores, 0))
    return sum(losses) / len(losses)


def looped_agreement(anchor, neighbour):
    p, q = ([[log_share(row, c).exp() for c in range(K)] for row in x] for x in (anchor, neighbour))
    apart = -sum(dot(one, two).log() for one, two in zip(p, q, strict=True)) / len(p)
    mean = [sum(row[c] for row in p) / len(p) for c in range(K)]
    return apart - 5.0 * -sum(m * m.log() for m in mean)


def looped_swapped(*scores):
    total, pairs = 0.0, 0
    for i, code in enumerate(CODES):
        for v, crop in enumerate(scores):
            if v == i:
                continue
            pairs += 1
            for b in range(B):
                logs = [log_share([s / 0.1 for s in crop[b]], c) for c in range(K)]
                total = total - dot(code[b].double(), logs) / B
    return total / pairs


LOOPS = {
    "nt_xent": looped_nt_xent,
    "info_nce": looped_info_nce,
    "agreement": looped_agreement,
    "swapped": looped_swapped,
}


def with_gradients(loss, inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    value = loss(*inputs)
    return value, torch.autograd.grad(value, inputs, allow_unused=True)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_a_loop_over_single_numbers(name):
    loss, inputs = CASES[name]
    value, gradients = with_gradients(loss, inputs)
    expected, theirs = with_gradients(LOOPS[name], [x.double() for x in inputs])
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=1e-5)
    for gradient, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(gradient, other.float(), rtol=1e-5, atol=1e-5)
        assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_same_under_bf16_autocast(name):
    loss, inputs = CASES[name]
    value, gradients = with_gradients(loss, inputs)
    inputs = [x.clone().requires_grad_() for x in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = loss(*inputs)
    assert under.dtype == torch.float32
    assert torch.equal(under, value)
    for gradient, other in zip(torch.autograd.grad(under, inputs), gradients, strict=True):
        assert torch.equal(gradient, other)


@pytest.mark.parametrize("name", ["nt_xent", "agreement"])
def test_what_a_network_gives_in_bf16_is_taken_as_float32(name):
    loss, inputs = CASES[name]
    low = [x.bfloat16() for x in inputs]
    assert torch.equal(loss(*low), loss(*(x.float() for x in low)))


# ---- constants -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "expected"), [(0.5, 1.06288), (0.1, 6.354e-4)])
def test_nt_xent_of_equal_views_and_orthogonal_images(temperature, expected):
    z = torch.eye(8).repeat(2, 1)
    assert float(nt_xent(z, temperature)) == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(math.log(1 + 14 * math.exp(-1 / temperature)), rel=1e-4)


def test_nt_xent_of_a_collapse_is_ln_15():
    near(nt_xent(torch.ones(16, 3), 0.1), 2.70805)


def test_info_nce_of_the_papers_queue():
    q = torch.eye(2)[:1].expand(4, 2)
    orthogonal = torch.eye(2)[1:].expand(65536, 2)
    near(info_nce(q, q, orthogonal, 0.07), 0.040135)
    near(info_nce(q, q, q[:1].expand(65536, 2), 0.07), 11.0904)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        (torch.eye(10).repeat(3, 1) * 1000, -11.51293),  # sure, balanced, agreed
        (torch.zeros(30, 10), -9.21034),  # uniform
        (torch.eye(10)[:1].repeat(30, 1) * 1000, 0.0),  # one cluster holds all
    ],
)
def test_agreement_of_ten_clusters(logits, expected):
    near(agreement(logits, logits, 5.0), expected)


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


# ---- what must not matter --------------------------------------------------------------------------


def same(one, two):
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_nt_xent_does_not_mind_the_order_of_views_and_images_nor_lengths():
    z = CASES["nt_xent"][1][0]
    order, lengths = torch.randperm(B), torch.rand(2 * B, 1) * 5 + 0.1
    same(of_nt_xent(z.roll(B, 0)), of_nt_xent(z))
    same(of_nt_xent(torch.cat([z[:B][order], z[B:][order]])), of_nt_xent(z))
    same(of_nt_xent(z * lengths), of_nt_xent(z))
    shuffled = torch.cat([z[:B], z[B:].roll(1, 0)])  # other pairs: that must matter
    assert abs(float(of_nt_xent(shuffled) - of_nt_xent(z))) > 0.01


def test_info_nce_does_not_mind_the_order_of_images_and_of_the_queue():
    q, k, queue = CASES["info_nce"][1]
    order = torch.randperm(B)
    same(of_info_nce(q[order], k[order], queue), of_info_nce(q, k, queue))
    same(of_info_nce(q, k, queue[torch.randperm(Q)]), of_info_nce(q, k, queue))
    assert abs(float(of_info_nce(q, k.roll(1, 0), queue) - of_info_nce(q, k, queue))) > 0.01


def test_agreement_does_not_mind_the_order_of_images_and_clusters_nor_shifted_logits():
    p, q = CASES["agreement"][1]
    order, ids = torch.randperm(B), torch.randperm(K)
    same(of_agreement(p[order], q[order]), of_agreement(p, q))
    same(of_agreement(p[:, ids], q[:, ids]), of_agreement(p, q))
    same(of_agreement(p + noise(B, 1), q), of_agreement(p, q))
    same(agreement(p, q, 0.0), agreement(q, p, 0.0))  # the entropy alone tells them apart
    assert abs(float(of_agreement(p, q.roll(1, 0)) - of_agreement(p, q))) > 0.01


def test_swapped_does_not_mind_the_order_of_views_images_prototypes_nor_shifted_scores():
    one, two, small = CASES["swapped"][1]
    order, ids = torch.randperm(B), torch.randperm(K)
    whole = swapped(CODES, [one, two, small], 0.1)
    same(swapped(CODES[::-1], [two, one, small], 0.1), whole)
    same(swapped([c[order] for c in CODES], [s[order] for s in (one, two, small)], 0.1), whole)
    same(swapped([c[:, ids] for c in CODES], [s[:, ids] for s in (one, two, small)], 0.1), whole)
    same(swapped(CODES, [one + 3, two, small], 0.1), whole)
    assert abs(float(swapped(CODES[::-1], [one, two, small], 0.1) - whole)) > 0.01


def test_a_code_is_never_held_against_its_own_crop():
    one, two, _ = CASES["swapped"][1]
    scores = [one.clone().requires_grad_(), two.clone().requires_grad_()]
    alone, _ = torch.autograd.grad(swapped(CODES[:1], scores, 0.1), scores, allow_unused=True)
    assert alone is None


# ---- edges -----------------------------------------------------------------------------------------


def test_a_batch_of_two_images():
    z = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    near(nt_xent(z, 0.5), math.log(1 + 2 * math.exp(-2)))
    near(info_nce(z[:2], z[:2], z[:2], 0.5), math.log(2 + math.exp(-2)))  # each key queued too
    near(agreement(z[:2] * 1000, z[:2] * 1000, 5.0), -5 * math.log(2))
    even = torch.full((2, 2), 0.5)
    near(swapped([even, even], [z[:2], z[2:]], 1.0), math.log(1 + math.e) - 0.5)


def test_one_image_has_nobody_to_be_told_from():
    near(nt_xent(torch.tensor([[1.0, 2], [3, 1]]), 0.5), 0.0)
    near(info_nce(*torch.eye(2)[:, None], torch.empty(0, 2), 0.5), 0.0)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("name", CASES)
def test_equal_features_everywhere_give_a_finite_loss_and_gradient(name, value):
    loss, inputs = CASES[name]
    found, gradients = with_gradients(loss, [torch.full_like(x, value) for x in inputs])
    assert found.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("gap", [20.0, 50.0, 80.0])
def test_a_confident_disagreement_still_pulls(gap):
    anchor, neighbour = torch.tensor([[gap, 0.0]]), torch.tensor([[0.0, gap]])
    value, gradients = with_gradients(lambda p, q: agreement(p, q, 0.0), [anchor, neighbour])
    near(value, gap - math.log(2))
    for gradient, sign in zip(gradients, (1, -1), strict=True):
        near(gradient[0, 0], 0.5 * sign)


@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "swapped"])
def test_the_lowest_temperatures_in_use_stay_finite_in_float32(name):
    case = {
        "nt_xent": lambda z: nt_xent(z, 0.01),
        "info_nce": lambda *x: info_nce(*x, 0.01),
        "swapped": lambda *scores: swapped(CODES, scores, 0.001),
    }[name]
    value, gradients = with_gradients(case, CASES[name][1])
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
