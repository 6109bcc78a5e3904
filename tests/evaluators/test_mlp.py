"""The probe with a hidden layer, against plain torch and against what it must and cannot find."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.evaluators import mlp
from sslbench.evaluators.linear import Linear
from sslbench.evaluators.mlp import MLP, fit_heads
from sslbench.scores import Labelled, labelled

from .helpers import Fake, a_tenth, fake


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(mlp, "LEAST", 60)


def ringed(n=300, m=400):
    """Two rings around one centre: no direction tells them apart."""
    generator = torch.Generator().manual_seed(0)
    made, truth = {}, {}
    for split, count in (("train", n), ("test", m)):
        truth[split] = torch.arange(count) % 2
        angle = 2 * math.pi * torch.rand(count, generator=generator)
        radius = 1 + 2.0 * truth[split]
        made[split] = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return Fake(made["train"], made["test"], truth, 2, a_tenth(n))


def plain_loop(train, rate, decay, *, width, classes, seed, steps):
    """The same head by the book: modules of torch, alone in its optimiser."""
    n, d = train.features.shape
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.Linear(width, classes))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            bound = 1 / math.sqrt(layer.in_features)
            across = torch.rand(layer.in_features, layer.out_features, generator=generator)
            layer.weight.copy_((across.T * 2 - 1) * bound)
            level = torch.rand(1, layer.out_features, generator=generator)
            layer.bias.copy_((level[0] * 2 - 1) * bound)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    points = train.features - train.features.mean(0)
    points = points / train.features.std(0, unbiased=False)
    each = min(mlp.BATCH, n)
    order = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        if len(order) < each:
            order = torch.randperm(n, generator=generator).tolist()
        rows, order = order[:each], order[each:]
        optimizer.zero_grad()
        F.cross_entropy(model(points[rows]), train.labels[rows]).backward()
        optimizer.step()
    return model


def test_heads_trained_together_are_plain_heads_trained_alone(monkeypatch):
    monkeypatch.setattr(mlp, "LEAST", 30)
    monkeypatch.setattr(mlp, "BATCH", 128)
    world = fake(300, 50, 6, 3, spread=3.0)
    train = labelled(world, world, "train")
    grid = [(1e-3, 0.01), (1e-2, 1.0), (3e-2, 0.01)]
    heads = fit_heads(train, grid, 16, 3, seed=4)
    logits = heads(world.test)
    for r, (rate, decay) in enumerate(grid):
        model = plain_loop(train, rate, decay, width=16, classes=3, seed=4, steps=40)
        into, shift, out, level = heads.weights[r]
        assert torch.allclose(into.T, model[0].weight, atol=1e-4)
        assert torch.allclose(shift[0], model[0].bias, atol=1e-4)
        assert torch.allclose(out.T, model[2].weight, atol=1e-4)
        assert torch.allclose(level[0], model[2].bias, atol=1e-4)
        points = (world.test - train.features.mean(0)) / train.features.std(0, unbiased=False)
        assert torch.allclose(logits[r], model(points), atol=1e-3)
    assert (heads.weights[0][0] - heads.weights[2][0]).abs().max() > 0.01


def test_a_fit_takes_its_epochs_and_never_fewer_than_its_steps(monkeypatch):
    count = 0
    step = torch.optim.AdamW.step

    def counted(self, *rest):
        nonlocal count
        count += 1
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    for n, expected in ((40, 300), (10 * 512, 300), (20 * 512 + 30, 400)):
        count = 0
        part = Labelled(torch.randn(n, 2), torch.arange(n) % 2, torch.zeros(n, dtype=torch.bool))
        fit_heads(part, [(1e-3, 0.0)], 2, 2, seed=0)
        assert count == expected


def test_rings_are_told_apart_that_no_direction_tells_apart(short):
    world = ringed()
    assert world.judged_by(Linear()).metrics["top1"].value < 0.65
    assert world.judged_by(MLP()).metrics["top1"].value > 0.98


def test_perfect_features_score_one(short):
    world = fake()
    for split in ("train", "test"):
        setattr(world, split, F.one_hot(world.truth[split], 4).float())
    assert world.judged_by(MLP()).metrics["top1"] == (1.0, 200, 0.0, "test")


@pytest.mark.parametrize("split", ["train", "test"])
def test_permuted_labels_score_chance(short, split):
    world = fake(1000, 1000)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    world.truth[split] = world.truth[split][order]
    top1 = world.judged_by(MLP()).metrics["top1"]
    assert abs(top1.value - 0.25) < 5 * top1.stderr


def test_what_is_chosen_is_best_on_the_held_out_tenth(short, monkeypatch):
    world = fake(spread=4.0, seed=3)
    chosen = world.judged_by(MLP(), seed=5).chosen
    held = world.held_out
    inner = Fake(
        world.train[~held],
        world.train[held],
        {"train": world.truth["train"][~held], "test": world.truth["train"][held]},
        4,
        torch.zeros(int((~held).sum()), dtype=torch.bool),
    )
    scores = {}
    for point in mlp.GRID:
        monkeypatch.setattr(mlp, "DEFAULT", point)
        scores[point] = inner.judged_by(MLP(), seed=5).metrics["top1"].value
    assert scores[chosen["lr"], chosen["weight_decay"]] == max(scores.values())
    assert len(set(scores.values())) > 1
    assert set(scores) == set(itertools.product(mlp.RATES, mlp.DECAYS))


def test_the_head_is_trained_anew_on_all_of_train(short):
    world = fake(spread=3.0)
    judgement = world.judged_by(MLP(), seed=2)
    point = judgement.chosen["lr"], judgement.chosen["weight_decay"]
    head = fit_heads(labelled(world, world, "train"), [point], 256, 4, seed=2)
    right = head(world.test)[0].argmax(1) == world.truth["test"]
    assert judgement.metrics["top1"].value == float(right.double().mean())


def test_nothing_of_test_moves_what_is_chosen(short):
    world = fake(spread=4.0, seed=2)
    chosen = world.judged_by(MLP()).chosen
    world.truth["test"] = world.truth["test"].flip(0)
    world.test = torch.randn(200, 12)
    assert world.judged_by(MLP()).chosen == chosen
    assert world.reads == ["train", "test"] * 2


def test_the_same_seed_gives_the_same_judgement_whatever_was_drawn_before(short):
    world = fake(spread=4.0)
    first = world.judged_by(MLP(), seed=1)
    torch.rand(3)
    assert world.judged_by(MLP(), seed=1) == first
    train = labelled(world, world, "train")
    one, two = (fit_heads(train, [(0.01, 0.01)], 8, 4, seed=seed) for seed in (1, 2))
    assert not torch.equal(one.weights[0][0], two.weights[0][0])


def test_unlabelled_images_take_no_part(short):
    world = fake(spread=3.0)
    expected = world.judged_by(MLP())
    noise, none = 9 * torch.randn(50, 12), torch.full((50,), -1)
    world.train, world.test = torch.cat([noise, world.train]), torch.cat([world.test, noise])
    world.truth["train"] = torch.cat([none, world.truth["train"]])
    world.truth["test"] = torch.cat([world.truth["test"], none])
    world.held_out = torch.cat([torch.arange(50) % 2 == 0, world.held_out])
    assert world.judged_by(MLP()) == expected


def test_scale_offset_and_constant_features_do_not_matter(short):
    world = fake(spread=3.0)
    train = labelled(world, world, "train")
    plain = fit_heads(train, [(0.01, 0.01)], 16, 4, seed=0)
    stretched = fit_heads(
        train._replace(features=train.features * 64 + 3), [(0.01, 0.01)], 16, 4, seed=0
    )
    assert torch.allclose(plain(world.test), stretched(world.test * 64 + 3), atol=1e-3)
    world.train[:, 3], world.test[:, 3] = 7.3, 900.0  # nothing was learned of it
    dead = fit_heads(labelled(world, world, "train"), [(0.01, 0.01)], 16, 4, seed=0)
    moved = world.test.clone()
    moved[:, 3] = -5.0
    assert torch.equal(dead(world.test), dead(moved))
    assert dead(world.test).isfinite().all()


def test_the_width_is_that_of_the_hidden_layer(short):
    world = fake()
    heads = fit_heads(labelled(world, world, "train"), [(0.01, 0.01)], 5, 4, seed=0)
    assert [tuple(w.shape) for w in heads.weights[0]] == [(12, 5), (1, 5), (5, 4), (1, 4)]
    single = world.judged_by(MLP(width=1)).metrics["top1"].value
    assert single < world.judged_by(MLP()).metrics["top1"].value


def test_without_a_held_out_tenth_the_default_is_taken_and_said(short):
    world = fake(40, 20)
    world.held_out[:] = False
    judgement = world.judged_by(MLP())
    assert judgement.chosen == {"lr": mlp.DEFAULT[0], "weight_decay": mlp.DEFAULT[1]}
    assert judgement.warnings == (
        "no held-out tenth to choose on: rate=0.01 and decay=1.0 were taken",
    )


def test_top5_appears_above_five_classes(short):
    assert set(fake(classes=5).judged_by(MLP()).metrics) == {"top1"}
    metrics = fake(classes=9, spread=6.0).judged_by(MLP()).metrics
    assert metrics["top1"].value < metrics["top5"].value < 1
