"""MoCo v3: predicted queries among the batch's keys; on ViTs with patches and positions at rest."""

from __future__ import annotations

import math

import pytest
import torch

from sslbench import testing
from sslbench.cells.parameters import anatomy
from sslbench.errors import UserError
from sslbench.methods.moco_v3 import contrast
from sslbench.testing import Trial
from sslbench.train.optim import Optimisation

from .helpers import (
    METHODS,
    REGISTRY,
    Case,
    dot,
    first_loss,
    log_share,
    near,
    noise,
    same,
    trained,
)

PLAIN = {
    "moco-v3": {
        "optimizer": "adamw",
        "lr": 2e-3,
        "lr_scaling": "none",
        "warmup": 0,
        "crop": 0.8,
        "jitter": 0.0,
        "blur": (0.0, 0.0),
    }
}
BACKBONES = {"moco-v3-vit": "test_vit[patch_size=16]"}
B, D = 6, 5


def of_contrast(q, k):
    return contrast(q, k, 0.2)


def looped_contrast(q, k):
    losses = []
    for i in range(len(q)):
        lengths = [(dot(q[i], q[i]) * dot(key, key)).sqrt() for key in k]
        scores = [dot(q[i], key) / length / 0.2 for key, length in zip(k, lengths, strict=True)]
        losses.append(-2 * 0.2 * log_share(scores, i))
    return sum(losses) / len(losses)


CASES = {"contrast": Case(of_contrast, [noise(B, D), noise(B, D, seed=1)], looped_contrast)}


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_a_collapse_costs_the_logarithm_of_the_batch_times_twice_the_temperature(temperature):
    near(contrast(torch.ones(8, 3), torch.ones(8, 3), temperature), 2 * temperature * math.log(8))


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_equal_views_of_orthogonal_images(temperature):
    expected = 2 * temperature * math.log(1 + 7 * math.exp(-1 / temperature))
    near(contrast(torch.eye(8), 3 * torch.eye(8), temperature), expected)


def test_queries_choose_among_keys_and_not_the_other_way_round():
    q, k = CASES["contrast"].inputs
    assert abs(float(of_contrast(q, k) - of_contrast(k, q))) > 1e-3
    assert abs(float(of_contrast(q, k.roll(1, 0)) - of_contrast(q, k))) > 0.01


def test_a_collapsed_step_costs_4_tau_ln_b(made, batch_of):
    method = made("moco-v3", temperature=0.5)
    for network in (method.predictor, method.target):
        network.forward = lambda x: torch.ones(len(x), 4)
    near(first_loss(method, batch_of(method))[1], 4 * 0.5 * math.log(8))


def test_each_views_query_is_held_against_the_keys_of_the_other(made, batch_of):
    method = made("moco-v3", temperature=0.2)
    with torch.no_grad():
        for p in method.target.parameters():  # else both networks agree
            p.add_(torch.randn_like(p), alpha=0.02)
    batch = batch_of(method)
    one, two = batch.views
    _, loss = first_loss(method, batch)
    expected = of_contrast(method.predictor(method.online(one)), method.target(two))
    expected = expected + of_contrast(method.predictor(method.online(two)), method.target(one))
    same(loss, expected)
    same(first_loss(method, batch._replace(views=[two, one]))[1], loss)
    mixed = method.predictor(method.online(torch.cat([one, two]))).chunk(2)
    other = of_contrast(mixed[0], method.target(two)) + of_contrast(mixed[1], method.target(one))
    assert abs(loss - other) > 1e-4  # statistics of both views together are not its own


def test_heads_of_residual_networks_and_of_vits(made):
    hidden, end = ["Linear", "BatchNorm1d", "ReLU"], ["Linear", "BatchNorm1d"]
    method = made("moco-v3")
    projector, predictor = method.online[1], method.predictor
    assert [type(layer).__name__ for layer in projector] == hidden + end
    assert [type(layer).__name__ for layer in predictor] == [*hidden, "Linear"]
    assert all(head[i].bias is None for head in (projector, predictor) for i in (0, 3))
    assert projector[-1].weight is None
    assert method.encoder() is method.backbone is method.online[0]
    method = made("moco-v3", layers=3, predictor_norm=True)
    assert [type(layer).__name__ for layer in method.online[1]] == hidden * 2 + end
    assert [type(layer).__name__ for layer in method.predictor] == hidden + end
    assert method.predictor[-1].weight is None


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("freeze_patches", "freeze_patches is for .* test_resnet has no patch_embed, a ViT"),
        ("sincos", "test_resnet learns no positions; a ViT"),
    ],
)
def test_what_only_a_vit_has_is_refused_of_others(setting, sentence, made):
    with pytest.raises((ValueError, UserError), match=sentence):
        made("moco-v3", **{setting: True})


# ---- on a ViT --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    return Trial(REGISTRY, "moco-v3-vit", folder, backbone=BACKBONES["moco-v3-vit"])


@pytest.mark.slow
def test_on_a_vit_it_trains_all_it_has_and_resumes(trial):
    testing.builds_from_backbone_and_data_alone(trial)
    testing.trains_all_it_has(trial)
    testing.resumes_exactly(trial)


def test_a_frozen_patch_embedding_stays_as_it_began(trial, batch_of):
    method = trial.bench("built").builder.build(trial.cell())[0].train()
    net = method.backbone.net
    still = {id(p): p.clone() for p in (*net.patch_embed.parameters(), net.pos_embed)}
    assert len(still) == 3
    trained(method, batch_of(method))
    for p in (*net.patch_embed.parameters(), net.pos_embed):
        assert p.grad is None
        assert torch.equal(p, still[id(p)])
    others = [p for p in method.online.parameters() if id(p) not in still]
    assert all(p.requires_grad and p.grad is not None for p in others)


def test_positions_are_sines_and_cosines_of_row_and_column(trial):
    method = trial.bench("built").builder.build(trial.cell())[0]
    table, bands = method.backbone.net.pos_embed[0], 16  # [1 + 2 * 2, 64]
    assert torch.equal(table[0], torch.zeros(64))
    for row in range(2):
        for column in range(2):
            angles = [at / 10000 ** (i / bands) for at in (row, column) for i in range(bands)]
            expected = [*map(math.sin, angles), *map(math.cos, angles)]
            torch.testing.assert_close(table[1 + 2 * row + column], torch.tensor(expected))


def test_the_recipe_of_vits(trial):
    parts = anatomy(METHODS["moco-v3-vit"])
    assert (parts.recipe.optimizer, parts.recipe.weight_decay, parts.recipe.warmup) == (
        "adamw",
        0.1,
        40,
    )
    assert (parts.defaults["temperature"], parts.defaults["crop"]) == (0.2, 0.08)
    method = trial.bench("built").builder.build(trial.cell())[0]
    optimisation = Optimisation(method, parts.recipe, steps_per_epoch=1)
    assert optimisation.set(40) == pytest.approx(1.5e-4 * 16)


def test_the_papers_long_schedule_has_its_own_rates():
    long, short = (anatomy(METHODS[name]) for name in ("moco-v3-imagenet", "moco-v3"))
    assert (long.recipe.epochs, long.recipe.lr, long.recipe.weight_decay) == (1000, 0.3, 1.5e-6)
    assert long.defaults["momentum_target"] == 0.996
    assert (short.recipe.epochs, short.recipe.lr, short.recipe.weight_decay) == (100, 0.6, 1e-6)
    assert short.defaults["momentum_target"] == 0.99
