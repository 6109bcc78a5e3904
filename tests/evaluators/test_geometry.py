"""Geometry against closed forms, numpy and naive loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.evaluators import geometry
from sslbench.evaluators.geometry import Geometry
from sslbench.measures import rankme

from .helpers import pictured

BY_CLASS = {"class_variance", "nc1", "equiangularity"}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def judged(features, labels=None, *, classes=4, **parameters):
    """Metrics by name, and warnings, of those features of test."""
    world = pictured(classes=4)
    world.test, world.classes = features, classes
    world.truth["test"] = torch.arange(len(features)) % classes if labels is None else labels
    judgement = world.judged_by(Geometry(**parameters))
    return {name: each.value for name, each in judgement.metrics.items()}, judgement.warnings


# ---- ranks


def test_rankme_has_its_closed_forms():
    x = noise(4000, 64)
    assert judged(x)[0]["rankme"] == pytest.approx(63.87, abs=0.02)
    assert rankme(torch.linalg.qr(x)[0]) == pytest.approx(64, abs=0.01)
    assert rankme(x[:, :1] @ noise(1, 64)) == pytest.approx(1.0001, abs=1e-4)
    assert rankme(x[:20]) <= 20.01


def test_rankme_is_the_entropy_of_singular_values_of_features_as_they_come():
    x = noise(300, 12) * torch.arange(1, 13) + 3
    shares = np.linalg.svd(x.double().numpy(), compute_uv=False)
    shares = shares / shares.sum() + 1e-7
    assert judged(x)[0]["rankme"] == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize("shape", [(300, 12), (12, 40)])
def test_effective_rank_is_the_entropy_of_the_eigenvalues_of_the_covariance(shape):
    x = noise(*shape) * torch.arange(1, shape[1] + 1) + 3
    values = np.linalg.eigvalsh(np.cov(x.double().numpy().T)).clip(1e-12)
    shares = values / values.sum()
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert judged(x)[0]["effective_rank"] == pytest.approx(expected, rel=1e-5)


def test_an_offset_that_all_share_lowers_rankme_alone():
    x = noise(500, 16)
    plain, moved = judged(x)[0], judged(x + 5)[0]
    assert moved["effective_rank"] == pytest.approx(plain["effective_rank"], rel=1e-4)
    assert moved["rankme"] < plain["rankme"] - 1


def test_turning_and_scaling_all_features_moves_nothing_but_views():
    x = noise(300, 12) * torch.arange(1, 13)
    turn = torch.linalg.qr(noise(12, 12, seed=1))[0]
    plain, turned = judged(x)[0], judged(8 * x @ turn)[0]
    assert turned == pytest.approx(plain, rel=1e-4)


# ---- uniformity


@pytest.mark.parametrize(("d", "expected"), [(64, -3.875), (128, -3.9374)])
def test_uniformity_of_a_random_sphere_is_known(d, expected):
    assert judged(7 * noise(4000, d))[0]["uniformity"] == pytest.approx(expected, abs=0.003)


def test_uniformity_of_two_opposite_points_is_that_of_their_distance():
    found = judged(torch.tensor([[3.0, 0.0], [-1.0, 0.0]]))[0]
    assert found["uniformity"] == pytest.approx(-8)  # -2 * 2^2, and no pair of one point


def test_uniformity_is_that_of_a_naive_loop_in_blocks_of_any_size(monkeypatch):
    x = noise(70, 5)
    unit = F.normalize(x.double(), dim=1)
    pairs = [math.exp(-2 * float((a - b).square().sum())) for a in unit for b in unit]
    expected = math.log((sum(pairs) - 70) / (70 * 69))
    assert judged(x)[0]["uniformity"] == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(geometry, "_BLOCK", 70 * 16)
    assert judged(x)[0]["uniformity"] == pytest.approx(expected, abs=1e-6)


# ---- alignment


class Signed(nn.Module):
    """Features whose sign is that of the call: one view's are the opposite of the other's."""

    def __init__(self, sign):
        super().__init__()
        self.sign, self.calls = sign, 0

    def forward(self, x):
        self.calls += 1
        return x.new_tensor([[1.0, 2.0, 0.5]]).expand(len(x), 3) * self.sign**self.calls


@pytest.mark.parametrize(("sign", "expected"), [(1, 0), (-1, 4)])
def test_alignment_is_0_for_equal_views_and_4_for_opposite_ones(sign, expected):
    world = pictured(m=60)  # one call a view
    world.encoder = Signed(sign)
    found = world.judged_by(Geometry()).metrics["alignment"]
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert (found.n, found.stderr) == (60, pytest.approx(0, abs=1e-6))


def test_alignment_is_the_mean_squared_distance_of_two_views_that_differ():
    world = pictured()
    found = world.judged_by(Geometry()).metrics["alignment"]
    draws = generator(geometry.VIEWS_SEED)
    one, two = (
        F.normalize(torch.cat(list(world.stream(geometry.view(world.pictures["test"], draws)))))
        for _ in range(2)
    )
    each = [float((a - b).square().sum()) for a, b in zip(one, two, strict=True)]
    assert found.value == pytest.approx(np.mean(each), rel=1e-5)
    assert found.stderr == pytest.approx(np.std(each, ddof=1) / 10, rel=1e-4)
    assert found.value > 0.001


def test_the_seed_moves_nothing():
    world = pictured()
    assert world.judged_by(Geometry(), seed=1) == world.judged_by(Geometry(), seed=2)


def test_a_view_moves_an_image_by_an_eighth_and_lights_it_by_a_fifth_at_most():
    images = torch.zeros(400, 3, 24, 32, dtype=torch.uint8)
    images[:, :, 12, 16] = 200
    seen = geometry.view(images, generator())
    assert seen.dtype == torch.uint8
    assert seen.shape == images.shape
    place = seen[:, 0].flatten(1).argmax(1)
    assert set((place // 32 - 12).tolist()) == set(range(-3, 4))
    assert set((place % 32 - 16).tolist()) == set(range(-3, 4))
    assert len({(int(p) // 32 - 12, int(p) % 32 - 16) for p in place}) == 49
    light = seen.amax((1, 2, 3))
    assert 160 <= light.min() < 165
    assert 235 < light.max() <= 240
    assert (seen[:, 0] == seen[:, 2]).all()


def test_a_view_has_no_border_of_its_own():
    images = torch.full((50, 3, 16, 16), 100, dtype=torch.uint8)
    seen = geometry.view(images, generator()).flatten(1)
    assert (seen == seen[:, :1]).all()
    ramp = torch.arange(16, dtype=torch.uint8).expand(50, 3, 16, 16) * 10
    rows = geometry.view(ramp, generator())[
        :, 0, 0
    ]  # one step back at most: reflected, not wrapped
    assert int((rows.int().diff().abs()).max()) <= 12


def test_an_image_of_one_pixel_has_views():
    assert geometry.view(torch.ones(2, 3, 1, 1, dtype=torch.uint8), generator()).shape[2:] == (1, 1)


# ---- classes


def papyan(x, labels):
    """tr(W pinv(B)) / C, the share of variance between and the cosines, by the definitions."""
    x, classes = x.double().numpy(), int(labels.max()) + 1
    parts = [x[labels.numpy() == c] for c in range(classes)]
    means = np.stack([part.mean(0) for part in parts])
    within = sum(np.cov(part.T, bias=True) for part in parts) / classes
    apart = means - means.mean(0)
    between = apart.T @ apart / classes
    cosines = np.corrcoef(np.concatenate([apart, -apart], axis=1))  # mean 0: angles
    angle = cosines[~np.eye(classes, dtype=bool)] + 1 / (classes - 1)
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-9)) / classes,
        "class_variance": np.trace(between) / np.trace(between + within),
        "equiangularity": np.abs(angle).mean(),
    }


@pytest.mark.parametrize(("classes", "d"), [(5, 12), (7, 3), (2, 4)])
def test_class_separation_is_that_of_its_definition(classes, d):
    labels = torch.arange(210) % classes
    x = noise(210, d) + 2 * noise(classes, d, seed=1)[labels] + 4
    found = judged(x, labels, classes=classes)[0]
    assert {name: found[name] for name in BY_CLASS} == pytest.approx(papyan(x, labels), rel=1e-5)


def test_features_that_are_their_class_are_fully_collapsed():
    labels = torch.arange(200) % 4
    found = judged(F.one_hot(labels).float(), labels)[0]
    assert found["class_variance"] == pytest.approx(1)
    assert found["nc1"] == pytest.approx(0, abs=1e-12)
    assert found["equiangularity"] == pytest.approx(0, abs=1e-12)


def test_permuted_labels_have_the_separation_of_chance_and_move_nothing_else():
    labels = torch.arange(4000) % 4
    x = noise(4000, 8) + 3 * noise(4, 8, seed=1)[labels]
    told = judged(x, labels)[0]
    permuted = judged(x, labels[torch.randperm(4000, generator=generator())])[0]
    assert told["class_variance"] > 0.5
    assert permuted["class_variance"] < 0.01
    assert permuted["nc1"] > 100 > 1 > told["nc1"]
    others = told.keys() - BY_CLASS
    assert {name: told[name] for name in others} == {name: permuted[name] for name in others}


def test_every_class_counts_alike():
    labels = torch.arange(80) % 4
    x = noise(80, 6) + 2 * noise(4, 6, seed=1)[labels]
    again = labels == 2
    more = judged(torch.cat([x, x[again], x[again]]), torch.cat([labels, labels[again].repeat(2)]))[
        0
    ]
    plain = judged(x, labels)[0]
    assert {n: more[n] for n in BY_CLASS} == pytest.approx({n: plain[n] for n in BY_CLASS})


def test_a_class_with_one_image_takes_no_part_and_that_is_said():
    labels = torch.arange(80) % 4
    x = noise(80, 6) + 2 * noise(4, 6, seed=1)[labels]
    expected = judged(x, labels, classes=6)[0]
    found, warnings = judged(
        torch.cat([x, torch.full((1, 6), 9.0)]), torch.cat([labels, torch.tensor([5])]), classes=6
    )
    assert {n: found[n] for n in BY_CLASS} == pytest.approx({n: expected[n] for n in BY_CLASS})
    assert warnings == ("1 classes with one test image took no part in their separation",)
    found, warnings = judged(x[:4], labels[:4])
    assert not BY_CLASS & found.keys()
    assert "0 classes have two test images" in warnings[0]


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_collapsed_features_are_said_to_have_no_separation(value):
    found, warnings = judged(torch.full((100, 8), value))
    assert found["uniformity"] == pytest.approx(0, abs=1e-6)
    assert found["effective_rank"] == 1
    assert found["rankme"] == pytest.approx(1.0001, abs=1e-3)
    assert not BY_CLASS & found.keys()
    assert warnings == ("the means of all classes are the same: their separation is not defined",)


def test_an_offset_hides_neither_classes_nor_directions():
    labels = torch.arange(210) % 5
    x = (16 * (noise(210, 12) + 2 * noise(5, 12, seed=1)[labels])).round() / 16
    plain, warnings = judged(x, labels, classes=5)
    for offset in (1e4, 1e6):  # at which float32 still tells sixteenths
        found, more = judged(x + offset, labels, classes=5)
        centred = BY_CLASS | {"effective_rank"}
        assert more == warnings == ()
        assert {n: found[n] for n in centred} == pytest.approx({n: plain[n] for n in centred})


def test_what_rounding_leaves_of_collapsed_features_is_no_direction():
    x = torch.full((100, 8), 1e6) + torch.randint(2, (100, 8), generator=generator()) / 16
    found, warnings = judged(x)
    assert found["effective_rank"] == 1
    assert not BY_CLASS & found.keys()
    assert "the means of all classes are the same" in warnings[0]


def test_without_labels_what_needs_none_is_measured():
    x = noise(200, 8)
    told = judged(x)[0]
    found, warnings = judged(x, torch.full((200,), -1))
    assert found == {name: told[name] for name in told.keys() - BY_CLASS}
    assert warnings[0].startswith("class_variance, nc1, equiangularity were left out: the test")
    assert "one class only" in judged(x, classes=1)[1][0]


def test_unlabelled_images_among_others_take_no_part():
    x, labels = noise(200, 8), torch.arange(200) % 4
    some = torch.cat([labels, torch.full((50,), -1)])
    assert judged(torch.cat([x, 50 * noise(50, 8, seed=1)]), some) == judged(x, labels)


# ---- bounds


def test_a_part_of_many_images_is_evenly_spaced():
    labels = torch.arange(400) // 100  # one class after the other
    x = noise(400, 6) + 2 * noise(4, 6, seed=1)[labels]
    found = judged(x, labels, images=40)
    assert found == judged(x[::10], labels[::10])
    assert found[0].keys() >= BY_CLASS
    world = pictured()
    assert world.judged_by(Geometry(pairs=30)).metrics["alignment"].n == 30


def test_what_is_lower_when_better_says_so():
    lower = {metric.name for metric in Geometry.metrics if not metric.higher_is_better}
    assert lower == {"uniformity", "alignment", "nc1", "equiangularity"}
    assert Geometry.metrics[0].name == "rankme"
    assert set(judged(noise(100, 8))[0]) == {metric.name for metric in Geometry.metrics}


def test_features_that_are_not_finite_are_a_sentence():
    x = noise(100, 8)
    x[3, 2] = float("nan")
    with pytest.raises(ValueError, match="1 of 100 rows hold NaN or infinity"):
        judged(x)
