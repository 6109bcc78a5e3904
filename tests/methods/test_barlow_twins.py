"""Barlow Twins: a cross-correlation that is to be the identity."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import hadamard

from sslbench.cells.parameters import anatomy
from sslbench.methods.barlow_twins import correlation, decorrelation
from sslbench.train.optim import Optimisation

from .helpers import METHODS, Case, dot, first_loss, near, noise, same

PLAIN = {
    "barlow-twins": {
        "optimizer": "adamw",
        "lr": 2e-3,
        "lr_scaling": "none",
        "warmup": 0,
        "per": {},
        "crop": 0.8,
        "jitter": 0.0,
        "blur": (0.0, 0.0),
    }
}
WEIGHT = 0.3  # large, so that the off-diagonal part shows
PLAIN_COLUMNS = torch.tensor(hadamard(8)[:, 1:], dtype=torch.float)  # [8, 7], mean 0, orthogonal


def of_decorrelation(z1, z2):
    return decorrelation(z1, z2, WEIGHT)


def standard(column):
    mean = sum(column) / len(column)
    variance = sum((x - mean) ** 2 for x in column) / len(column)
    return [(x - mean) / (variance + 1e-5).sqrt() for x in column]


def looped_decorrelation(z1, z2):
    ones, twos = ([standard(column) for column in z.T] for z in (z1, z2))
    loss = 0
    for i, one in enumerate(ones):
        for j, two in enumerate(twos):
            c = dot(one, two) / len(one)
            loss = loss + ((1 - c) ** 2 if i == j else WEIGHT * c**2)
    return loss


CASES = {
    "decorrelation": Case(
        of_decorrelation,
        [noise(6, 4) + 1, noise(6, 4) + 0.5 * noise(6, 4, seed=1)],
        looped_decorrelation,
        swap=True,
    )
}


def test_equal_views_of_uncorrelated_features_cost_nothing():
    near(of_decorrelation(PLAIN_COLUMNS, PLAIN_COLUMNS), 0)


def test_features_in_each_others_place_cost_their_number_and_its_weighted_share():
    near(of_decorrelation(PLAIN_COLUMNS, PLAIN_COLUMNS.roll(1, 1)), 7 + WEIGHT * 7)


def test_a_collapse_costs_the_whole_diagonal():
    near(of_decorrelation(torch.ones(8, 7), torch.ones(8, 7)), 7)


def test_a_feature_correlates_with_itself_by_1_not_by_63_of_64():
    z = noise(64, 5)
    torch.testing.assert_close(correlation(z, z).diagonal(), torch.ones(5), rtol=0, atol=1e-4)
    c = correlation(z, noise(64, 5, seed=1))
    both = torch.corrcoef(torch.cat([z, noise(64, 5, seed=1)], dim=1).T)
    torch.testing.assert_close(c, both[:5, 5:], rtol=0, atol=1e-4)


def test_scale_and_shift_of_a_feature_do_not_matter():
    z1, z2 = noise(64, 5), noise(64, 5, seed=1)
    scaled = z1 * torch.tensor([2.0, 3.0, 5.0, 7.0, 11.0]) + torch.arange(5)
    torch.testing.assert_close(of_decorrelation(scaled, z2), of_decorrelation(z1, z2))


def test_the_batch_is_the_divisor_and_repeating_it_changes_nothing():
    z1, z2 = CASES["decorrelation"].inputs
    same(of_decorrelation(z1.repeat(3, 1), z2.repeat(3, 1)), of_decorrelation(z1, z2))


def test_each_view_passes_by_itself(made, batch_of):
    method = made("barlow-twins", redundancy=WEIGHT)
    batch = batch_of(method)
    one, two = batch.views
    _, loss = first_loss(method, batch)
    z1, z2 = (method.head(method.backbone(view)) for view in (one, two))
    same(loss, of_decorrelation(z1, z2))
    same(first_loss(method, batch._replace(views=[two, one]))[1], loss)
    mixed = method.head(method.backbone(torch.cat([one, two]))).chunk(2)
    assert abs(loss - of_decorrelation(*mixed)) > 1e-4
    loss.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_the_projector_has_three_layers_without_biases_and_no_norm_at_its_end(made):
    method = made("barlow-twins", hidden=40, dim=24)
    kinds = [type(layer).__name__ for layer in method.head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [method.head[i].out_features for i in (0, 3, 6)] == [40, 40, 24]
    assert all(method.head[i].bias is None for i in (0, 3, 6))
    assert method.encoder() is method.backbone


@pytest.mark.parametrize("name", ["barlow-twins", "barlow-twins-imagenet"])
def test_biases_and_norms_move_at_a_rate_of_their_own(name, made):
    recipe = anatomy(METHODS[name]).recipe
    optimisation = Optimisation(made(name), recipe, steps_per_epoch=1)
    optimisation.set(10)  # warm
    rates = {
        p.ndim > 1: (group["lr"], group["weight_decay"], group["always_adapt"])
        for group in optimisation.optimizer.param_groups
        for p in group["params"]
    }
    assert rates[True] == pytest.approx((0.2 * 8, 1e-6, True))
    assert rates[False] == pytest.approx((0.0048 * 8, 0, False))
    assert recipe.lr_end == 0.001
    assert recipe.epochs == (1000 if name.endswith("imagenet") else 300)
