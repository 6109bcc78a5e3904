"""VICReg: variance, invariance, covariance."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import hadamard

from sslbench.cells.parameters import anatomy
from sslbench.methods.vicreg import redundancy, stillness, vicreg

from .helpers import METHODS, Case, first_loss, near, noise, same, with_gradients

PLAIN = {
    "vicreg": {
        "optimizer": "adamw",
        "lr": 2e-3,
        "lr_scaling": "none",
        "warmup": 0,
        "crop": 0.8,
        "jitter": 0.0,
        "blur": (0.0, 0.0),
    }
}
WEIGHTS = (3.0, 2.0, 5.0)  # all different
APART, STILL, TIED = (1, 0, 0), (0, 1, 0), (0, 0, 1)
UNIT_COLUMNS = torch.tensor(hadamard(8)[:, 1:]) * (7 / 8) ** 0.5  # [8, 7], variance 1, orthogonal


def of_vicreg(z1, z2):
    return vicreg(z1, z2, WEIGHTS)


def covariance(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    return sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / (len(a) - 1)


def looped_vicreg(z1, z2):
    rows, columns = z1.shape
    apart = still = tied = 0
    for i in range(rows):
        for j in range(columns):
            apart = apart + (z1[i, j] - z2[i, j]) ** 2 / (rows * columns)
    for z in (z1.T, z2.T):
        for i in range(columns):
            lack = 1 - (covariance(z[i], z[i]) + 1e-4).sqrt()
            still = still + (lack if lack > 0 else 0) / columns / 2
            for j in range(columns):
                tied = tied + (covariance(z[i], z[j]) ** 2 / columns if i != j else 0)
    return WEIGHTS[0] * apart + WEIGHTS[1] * still + WEIGHTS[2] * tied


CASES = {
    "vicreg": Case(
        of_vicreg,
        # columns on both sides of a deviation of 1
        [noise(6, 4) + 1, noise(6, 4, seed=1) * torch.tensor([0.3, 2.0, 0.5, 1.5])],
        looped_vicreg,
        swap=True,
    )
}


def test_a_constant_output_costs_the_released_codes_24_75_not_twice_that():
    near(vicreg(torch.ones(8, 5), torch.ones(8, 5)), 24.75)


def test_equal_views_of_unit_variance_and_no_covariance_cost_nothing():
    near(vicreg(UNIT_COLUMNS, UNIT_COLUMNS), 0)


def test_disagreement_is_averaged_over_images_and_features():
    near(vicreg(torch.zeros(8, 5), torch.full((8, 5), 0.5), APART), 0.25)
    near(vicreg(torch.zeros(4, 9), torch.full((4, 9), 0.5), APART), 0.25)


def test_the_lack_of_variance_is_averaged_over_features_and_views():
    narrow = UNIT_COLUMNS * 0.5  # deviation 0.5
    near(stillness(narrow), 1 - (0.25 + 1e-4) ** 0.5)
    near(vicreg(narrow, UNIT_COLUMNS, STILL), (1 - (0.25 + 1e-4) ** 0.5) / 2)
    near(vicreg(UNIT_COLUMNS, narrow, STILL), (1 - (0.25 + 1e-4) ** 0.5) / 2)


@pytest.mark.parametrize(("scale", "pulled"), [(0.5, True), (1.0, False), (3.0, False)])
def test_variance_has_no_gradient_once_it_is_1(scale, pulled):
    _, (gradient,) = with_gradients(stillness, [scale * UNIT_COLUMNS])
    assert bool(gradient.abs().max() > 1e-3) == pulled


def test_covariances_are_summed_over_both_views_and_divided_by_the_features():
    z = UNIT_COLUMNS.clone()
    z[:, 1] = z[:, 0]  # one covariance of 1, twice in the matrix
    near(redundancy(z), 2 / 7)
    near(redundancy(2 * z), 2 * 16 / 7)
    near(redundancy(z + 5), 2 / 7)  # means do not matter
    near(vicreg(z, UNIT_COLUMNS, TIED), 2 / 7)
    near(vicreg(z, z, TIED), 4 / 7)


def test_each_view_passes_by_itself_and_each_weight_weighs_its_term(made, batch_of):
    weights = dict(zip(("invariance", "variance", "covariance"), WEIGHTS, strict=True))
    method = made("vicreg", **weights)
    batch = batch_of(method)
    one, two = batch.views
    _, loss = first_loss(method, batch)
    z1, z2 = (method.head(method.backbone(view)) for view in (one, two))
    same(loss, of_vicreg(z1, z2))
    same(first_loss(method, batch._replace(views=[two, one]))[1], loss)
    mixed = method.head(method.backbone(torch.cat([one, two]))).chunk(2)
    assert abs(loss - of_vicreg(*mixed)) > 1e-4
    loss.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_the_expander_has_three_layers_and_no_norm_at_its_end(made):
    method = made("vicreg", hidden=40, dim=24)
    kinds = [type(layer).__name__ for layer in method.head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [method.head[i].out_features for i in (0, 3, 6)] == [40, 40, 24]
    assert method.encoder() is method.backbone
    assert method.weights == (25, 25, 1)


def test_the_papers_long_schedule_has_its_own_rate():
    long, short = (anatomy(METHODS[name]).recipe for name in ("vicreg-imagenet", "vicreg"))
    assert (long.epochs, long.batch, long.lr) == (1000, 2048, 0.2)
    assert (short.epochs, short.batch, short.lr) == (100, 512, 0.3)
    assert (long.lr_end, long.weight_decay, long.warmup) == (0.001, 1e-6, 10)
