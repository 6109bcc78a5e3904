"""SimSiam: two equal networks, and a gradient to one of them."""

from __future__ import annotations

import pytest
import torch

from sslbench.cells.parameters import anatomy
from sslbench.methods.simsiam import distance, spread
from sslbench.train.optim import Optimisation

from .helpers import METHODS, Case, dot, first_loss, near, noise, same, with_gradients

PLAIN = {
    "simsiam": {
        "optimizer": "adamw",
        "lr": 2e-3,
        "lr_scaling": "none",
        "crop": 0.8,
        "jitter_p": 0.0,
        "blur": 0.0,
    }
}


def looped_distance(p, z):
    z = z.detach()
    lengths = [(dot(a, a) * dot(b, b)).sqrt() for a, b in zip(p, z, strict=True)]
    losses = [-dot(p[i], z[i]) / lengths[i] for i in range(len(p))]
    return sum(losses) / len(losses)


CASES = {"distance": Case(distance, [noise(6, 5), noise(6, 5, seed=1)], looped_distance, swap=True)}


def test_the_distance_of_equal_vectors_is_minus_1_whatever_their_lengths():
    z, lengths = noise(6, 5), torch.rand(6, 1) * 9 + 0.1
    near(distance(z, z), -1)
    near(distance(lengths * z, z), -1)
    near(distance(-lengths * z, z), 1)
    near(distance(torch.eye(4), torch.eye(4).roll(1, 0)), 0)


def test_the_distance_has_a_gradient_to_the_prediction_alone():
    _, (of_p, of_z) = with_gradients(distance, CASES["distance"].inputs)
    assert of_z is None
    assert of_p.abs().max() > 1e-3


def test_each_views_prediction_is_held_against_the_projection_of_the_other(made, batch_of):
    method = made("simsiam")
    batch = batch_of(method)
    one, two = batch.views
    _, loss = first_loss(method, batch)
    z1, z2 = (method.projector(method.backbone(view)) for view in (one, two))
    p1, p2 = method.predictor(z1), method.predictor(z2)
    same(loss, (distance(p1, z2) + distance(p2, z1)) / 2)
    same(first_loss(method, batch._replace(views=[two, one]))[1], loss)
    own = (distance(p1, z1) + distance(p2, z2)) / 2
    assert abs(loss - own) > 1e-4
    mixed = method.projector(method.backbone(torch.cat([one, two])))
    z1, z2 = mixed.chunk(2)
    other = (distance(method.predictor(z1), z2) + distance(method.predictor(z2), z1)) / 2
    assert abs(loss - other) > 1e-4  # statistics of both views together are not its own


def test_the_only_way_of_a_gradient_is_through_the_predictor(made, batch_of):
    method = made("simsiam")
    _, loss = first_loss(method, batch_of(method))
    loss.backward()
    assert all(p.grad is not None for p in method.parameters())
    method.predictor.forward = lambda z: z.detach()
    assert not first_loss(method, batch_of(method))[1].requires_grad


@pytest.mark.parametrize("layers", [2, 3])
def test_the_projector_ends_in_a_plain_norm_and_the_predictor_in_none(layers, made):
    method = made("simsiam", layers=layers, hidden=40, dim=24, bottleneck=8)
    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    kinds = [type(layer).__name__ for layer in method.projector]
    assert kinds == hidden * (layers - 1) + ["Linear", "BatchNorm1d"]
    assert method.projector[-1].weight is None
    assert [type(layer).__name__ for layer in method.predictor] == [*hidden, "Linear"]
    assert (method.predictor[0].in_features, method.predictor[0].out_features) == (24, 8)
    assert method.predictor[3].bias is not None
    assert method.encoder() is method.backbone


def test_the_predictors_rate_stays_where_the_others_falls(made):
    method = made("simsiam")
    recipe = anatomy(METHODS["simsiam"]).recipe
    optimisation = Optimisation(method, recipe, steps_per_epoch=1)
    optimisation.set(recipe.epochs - 1)
    predictor = {id(p) for p in method.predictor.parameters()}
    for group in optimisation.optimizer.param_groups:
        inside = {id(p) in predictor for p in group["params"]}
        assert len(inside) == 1
        assert group["lr"] == pytest.approx(0.1 if inside == {True} else 0.1 * 2.467e-4, rel=1e-3)


def test_the_spread_is_1_of_noise_and_0_of_a_collapse(made, batch_of):
    assert float(spread(noise(4096, 64))) == pytest.approx(1, abs=0.02)
    assert float(spread(7 * noise(4096, 64))) == pytest.approx(1, abs=0.02)
    assert float(spread(noise(1, 64).expand(32, 64) * torch.rand(32, 1))) < 1e-5
    method = made("simsiam")
    update = next(method.step(batch_of(method)))
    assert 0.1 < float(update.log["spread"]) < 1.5
    assert not update.log["spread"].requires_grad


def test_the_papers_long_schedule_has_half_the_batch():
    recipe = anatomy(METHODS["simsiam-imagenet"]).recipe
    assert (recipe.epochs, recipe.batch, recipe.lr, recipe.lr_scaling) == (800, 256, 0.05, "linear")
