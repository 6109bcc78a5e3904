"""BYOL: a predictor of what a slowly moving copy makes of the other view."""

from __future__ import annotations

import torch

from sslbench.cells.parameters import anatomy
from sslbench.methods.byol import regression

from .helpers import METHODS, Case, dot, first_loss, near, noise, same, trained

PLAIN = {
    "byol": {
        "optimizer": "adamw",
        "lr": 2e-3,
        "lr_scaling": "none",
        "warmup": 0,
        "crop": 0.8,
        "jitter": 0.0,
        "blur": (0.0, 0.0),
    }
}


def looped_regression(q, z):
    lengths = [(dot(a, a) * dot(b, b)).sqrt() for a, b in zip(q, z, strict=True)]
    losses = [2 - 2 * dot(q[i], z[i]) / lengths[i] for i in range(len(q))]
    return sum(losses) / len(losses)


CASES = {
    "regression": Case(regression, [noise(6, 5), noise(6, 5, seed=1)], looped_regression, swap=True)
}


def test_the_regression_lies_between_0_and_4_whatever_the_lengths():
    z, lengths = noise(6, 5), torch.rand(6, 1) * 9 + 0.1
    near(regression(lengths * z, z), 0)
    near(regression(-lengths * z, z), 4)
    near(regression(torch.eye(4), torch.eye(4).roll(1, 0)), 2)
    near(regression(torch.ones(6, 5), torch.ones(6, 5)), 0)  # a collapse is no worse than perfect


def test_each_views_prediction_is_held_against_the_targets_projection_of_the_other(made, batch_of):
    method = made("byol")
    with torch.no_grad():
        for p in method.target.parameters():  # else both networks agree
            p.add_(torch.randn_like(p), alpha=0.02)
    batch = batch_of(method)
    one, two = batch.views
    _, loss = first_loss(method, batch)
    expected = regression(method.predictor(method.online(one)), method.target(two))
    expected = expected + regression(method.predictor(method.online(two)), method.target(one))
    same(loss, expected)
    same(first_loss(method, batch._replace(views=[two, one]))[1], loss)
    mixed = method.predictor(method.online(torch.cat([one, two]))).chunk(2)
    other = regression(mixed[0], method.target(two)) + regression(mixed[1], method.target(one))
    assert abs(loss - other) > 1e-4  # statistics of both views together are not its own


def test_the_targets_statistics_are_its_own(made, batch_of):
    method = made("byol")
    for name, buffer in method.online.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(1000)
    trained(method, batch_of(method))
    found = dict(method.target.named_buffers())
    for name, buffer in found.items():
        if name.endswith("running_mean"):
            assert buffer.abs().max() < 100
        if name.endswith("num_batches_tracked"):
            assert int(buffer) == 2  # each view by itself, in training mode
    assert any(name.endswith("running_mean") for name in found)


def test_projector_and_predictor_have_one_hidden_layer_with_batch_norm(made):
    method = made("byol", hidden=48, dim=24)
    for head, wide in ((method.online[1], method.backbone.dim), (method.predictor, 24)):
        assert [type(layer).__name__ for layer in head] == [
            "Linear",
            "BatchNorm1d",
            "ReLU",
            "Linear",
        ]
        assert [head[0].in_features, head[0].out_features, head[3].out_features] == [wide, 48, 24]
    assert len(method.target) == 2  # it predicts nothing
    assert method.encoder() is method.backbone is method.online[0]


def test_the_first_view_is_blurred_and_the_second_solarised(made):
    first, second = map(repr, made("byol").view.view)
    assert "GaussianBlur(kernel=3, sigma=(0.1, 2.0), p=1.0)" in first
    assert "Solarize" not in first
    assert "p=0.1" in second[second.index("GaussianBlur") :]
    assert "p=0.2" in second[second.index("Solarize") :]


def test_the_papers_long_schedule_has_its_own_rates():
    long, short = (anatomy(METHODS[name]) for name in ("byol-imagenet", "byol"))
    assert (long.recipe.epochs, long.recipe.lr, long.recipe.weight_decay) == (1000, 0.2, 1.5e-6)
    assert long.defaults["momentum_target"] == 0.996
    assert (short.recipe.epochs, short.recipe.lr, short.recipe.weight_decay) == (100, 0.45, 1e-6)
