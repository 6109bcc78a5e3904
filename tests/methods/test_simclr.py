"""SimCLR: contrast within the batch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sslbench.cells.parameters import anatomy
from sslbench.methods.simclr import nt_xent
from sslbench.train.optim import Optimisation

from .helpers import METHODS, Case, dot, log_share, near, noise, same, with_gradients

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


def test_the_last_norm_of_the_head_has_a_scale_and_no_shift(made):
    for name in ("simclr", "simclr-v2"):
        method = made(name)
        *inner, last = method.head[1::3]
        nt_xent(method.head(noise(8, 96)), 0.5).backward()
        assert last.weight.grad.norm() > 0
        assert last.bias.grad is None
        assert not last.bias.any()
        assert all(norm.bias.grad.norm() > 0 for norm in inner)


def test_its_steps_are_those_of_twice_the_loss_with_a_decay_of_1e_4(made):
    """As the code has it: the sum of both directions, LARS, biases and norms neither scaled nor decayed."""
    method = made("simclr")
    recipe = replace(anatomy(METHODS["simclr"]).recipe, warmup=0, schedule="constant")
    optimisation = Optimisation(method, recipe, steps_per_epoch=1)
    moving = [p for p in method.head.parameters() if p.requires_grad]
    values = [p.detach().clone() for p in moving]
    buffers = [torch.zeros_like(v) for v in values]
    for seed in range(3):
        method.zero_grad()
        nt_xent(method.head(noise(16, 96, seed=seed)), 0.5).backward()
        lr = optimisation.set(seed)
        assert lr == pytest.approx(4.8)
        for i, p in enumerate(moving):
            update = 2 * p.grad
            if p.ndim > 1:
                trust = 1e-3 * values[i].norm() / (update.norm() + 1e-4 * values[i].norm())
                update = trust * (update + 1e-4 * values[i])
            buffers[i] = 0.9 * buffers[i] + update
            values[i] = values[i] - lr * buffers[i]
        optimisation.optimizer.step()
        for p, expected in zip(moving, values, strict=True):
            torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-6)


def test_the_lowest_temperature_in_use_stays_finite_in_float32():
    value, gradients = with_gradients(lambda z: nt_xent(z, 0.01), CASES["nt_xent"].inputs)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_nt_xent_of_two_images_and_of_one():
    z = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    near(nt_xent(z, 0.5), math.log(1 + 2 * math.exp(-2)))
    near(nt_xent(torch.tensor([[1.0, 2], [3, 1]]), 0.5), 0.0)  # nobody to be told from
