"""SimCLR: contrast within the batch."""

from __future__ import annotations

import math

import pytest
import torch

from sslbench.methods.simclr import nt_xent

from .helpers import Case, dot, log_share, near, noise, same, with_gradients

B, D = 6, 5


def of_nt_xent(z):
    return nt_xent(z, 0.5)


def looped_nt_xent(z):
    pairs, losses = len(z) // 2, []
    for i in range(2 * pairs):
        others = [j for j in range(2 * pairs) if j != i]
        cosines = [dot(z[i], z[j]) / (dot(z[i], z[i]) * dot(z[j], z[j])).sqrt() for j in others]
        partner = others.index((i + pairs) % (2 * pairs))
        losses.append(-log_share([c / 0.5 for c in cosines], partner))
    return sum(losses) / len(losses)


def views_swapped(z):
    return [z.roll(B, 0)]


def pairs_permuted(z):
    order = torch.arange(B).roll(2).flip(0)
    return [torch.cat([z[:B][order], z[B:][order]])]


CASES = {
    "nt_xent": Case(
        of_nt_xent, [noise(2 * B, D)], looped_nt_xent, swap=views_swapped, permute=pairs_permuted
    )
}


@pytest.mark.parametrize(("temperature", "expected"), [(0.5, 1.06288), (0.1, 6.354e-4)])
def test_nt_xent_of_equal_views_and_orthogonal_images(temperature, expected):
    z = torch.eye(8).repeat(2, 1)
    assert float(nt_xent(z, temperature)) == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(math.log(1 + 14 * math.exp(-1 / temperature)), rel=1e-4)


def test_nt_xent_of_a_collapse_is_ln_15():
    near(nt_xent(torch.ones(16, 3), 0.1), 2.70805)


def test_nt_xent_does_not_mind_the_order_of_views_and_images_nor_lengths():
    z = CASES["nt_xent"].inputs[0]
    order, lengths = torch.randperm(B), torch.rand(2 * B, 1) * 5 + 0.1
    same(of_nt_xent(z.roll(B, 0)), of_nt_xent(z))
    same(of_nt_xent(torch.cat([z[:B][order], z[B:][order]])), of_nt_xent(z))
    same(of_nt_xent(z * lengths), of_nt_xent(z))
    shuffled = torch.cat([z[:B], z[B:].roll(1, 0)])  # other pairs: that must matter
    assert abs(float(of_nt_xent(shuffled) - of_nt_xent(z))) > 0.01


def test_simclr_has_batch_norm_behind_every_layer_of_its_head_and_is_judged_before_it(made):
    method = made("simclr")
    kinds = [type(layer).__name__ for layer in method.head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert method.head[3].out_features == 64
    assert method.encoder() is method.backbone


def test_the_lowest_temperature_in_use_stays_finite_in_float32():
    value, gradients = with_gradients(lambda z: nt_xent(z, 0.01), CASES["nt_xent"].inputs)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_nt_xent_of_two_images_and_of_one():
    z = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    near(nt_xent(z, 0.5), math.log(1 + 2 * math.exp(-2)))
    near(nt_xent(torch.tensor([[1.0, 2], [3, 1]]), 0.5), 0.0)  # nobody to be told from
