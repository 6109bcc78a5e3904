"""Episodes against naive loops, and what must not move them."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from sslbench.errors import Unsuited
from sslbench.evaluators import fewshot
from sslbench.evaluators.fewshot import FewShot

from .helpers import fake


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def world_of(n=700, m=420, classes=7, spread=4.0, **more):
    return fake(n, m, classes=classes, spread=spread, **more)


def drawn(judge, world):
    """[episodes, way, query + shot] of a world in which every class has images enough."""
    classes = torch.arange(world.classes)
    return torch.cat(list(judge._episodes(world.truth["test"], classes, world.dim)))


def values(judgement):
    return {name: value.value for name, value in judgement.metrics.items()}


# ---- the draw


def test_an_episode_shows_distinct_images_of_distinct_classes():
    judge, world = FewShot(way=4, shot=3, query=6), world_of()
    episodes = drawn(judge, world)
    assert episodes.shape == (600, 4, 9)
    shown = world.truth["test"][episodes]
    assert (shown == shown[:, :, :1]).all()
    assert all(len(set(row)) == 4 for row in shown[:, :, 0].tolist())
    assert all(len(set(row)) == 36 for row in episodes.flatten(1).tolist())


def test_classes_and_images_are_drawn_evenly_and_in_any_order():
    world = world_of(m=350)
    episodes = drawn(FewShot(way=3, shot=2, query=3, episodes=4000), world)
    for part in (episodes, episodes[:, :, 0], episodes[:, :, -1], episodes[:, 0], episodes[:, 2]):
        counts = torch.bincount(part.flatten(), minlength=350).double()
        mean = part.numel() / 350
        # chi square over 349 degrees of freedom: mean 349, deviation 26
        assert 349 - 5 * 26 < float(((counts - mean) ** 2 / mean).sum()) < 349 + 5 * 26


def test_every_encoder_and_seed_meets_the_same_episodes():
    world, other = world_of(), world_of(seed=5, spread=1.0)
    first = drawn(FewShot(), world)
    torch.manual_seed(99)
    assert torch.equal(first, drawn(FewShot(), other))
    assert world.judged_by(FewShot(), seed=1) == world.judged_by(FewShot(), seed=2)


def test_another_shot_keeps_the_queries_and_the_first_labelled_image():
    world = world_of()
    five, two = drawn(FewShot(shot=5), world), drawn(FewShot(shot=2), world)
    assert torch.equal(five[:, :, :17], two)
    one = world.judged_by(FewShot(shot=1)).metrics
    assert one["k_shot"] == one["one_shot"] == world.judged_by(FewShot()).metrics["one_shot"]


# ---- the score


def by_hand(world, judge, shot, classifier):
    """Accuracies of each episode, by a classifier of scikit-learn."""
    centred = world.test.double() - world.train.double().mean(0)
    points = F.normalize(centred, dim=1).numpy()
    labels = world.truth["test"].numpy()
    found = []
    for episode in drawn(judge, world):
        queries = episode[:, : judge.query].flatten()
        support = episode[:, judge.query : judge.query + shot].flatten()
        model = classifier.fit(points[support], labels[support])
        found.append(model.score(points[queries], labels[queries]))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "shot", "classifier"),
    [
        ("k_shot", 3, NearestCentroid()),
        ("one_shot", 1, KNeighborsClassifier(1)),
    ],
)
def test_episodes_score_as_scikit_learns_classifiers(name, shot, classifier):
    world = world_of(spread=3.0)
    world.train += torch.linspace(-3, 3, 12)  # so that the mean of train is not that of test
    judge = FewShot(way=4, shot=3, query=6, episodes=80)
    found = by_hand(world, judge, shot, classifier)
    metrics = world.judged_by(judge).metrics
    assert 0.3 < metrics[name].value < 0.95
    assert metrics[name].value == pytest.approx(float(found.mean()), abs=1e-12)
    assert metrics[name].n == 80
    assert metrics[name].stderr == pytest.approx(float(found.std()) / math.sqrt(80))
    assert metrics[f"{name}_interval95"].value == 1.96 * metrics[name].stderr
    assert metrics["k_shot"].value > metrics["one_shot"].value


def test_perfect_features_score_one():
    world = world_of()
    for split in ("train", "test"):
        setattr(world, split, F.one_hot(world.truth[split], 7).float())
    assert values(world.judged_by(FewShot())) == {
        "k_shot": 1,
        "one_shot": 1,
        "k_shot_interval95": 0,
        "one_shot_interval95": 0,
    }


@pytest.mark.parametrize("value", [0.0, 0.1, -7e5])
def test_constant_features_score_chance_exactly(value):
    world = world_of()
    world.train[:], world.test[:] = value, value
    metrics = world.judged_by(FewShot()).metrics
    assert metrics["k_shot"].value == pytest.approx(0.2, abs=1e-12)
    assert metrics["one_shot"].value == pytest.approx(0.2, abs=1e-12)
    assert metrics["k_shot"].stderr == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("way", [2, 5])
def test_random_features_and_permuted_labels_score_chance(way):
    world = world_of(m=2100, spread=1.0)
    labels = world.truth["test"]
    world.truth["test"] = labels[torch.randperm(2100, generator=generator())]
    permuted = world.judged_by(FewShot(way=way)).metrics
    world.truth["test"] = labels
    assert world.judged_by(FewShot(way=way)).metrics["k_shot"].value > 0.9
    world.test = torch.randn(2100, 12, generator=generator())
    for metrics in (permuted, world.judged_by(FewShot(way=way)).metrics):
        assert metrics["k_shot"].value == pytest.approx(1 / way, abs=0.02)
        assert metrics["one_shot"].value == pytest.approx(1 / way, abs=0.02)


def test_an_offset_and_a_scale_of_all_features_do_not_matter():
    world = world_of()
    expected = values(world.judged_by(FewShot()))
    world.train, world.test = 4 * world.train + 32, 4 * world.test + 32
    assert values(world.judged_by(FewShot())) == pytest.approx(expected, abs=1e-3)


def test_the_length_of_a_centred_feature_does_not_matter():
    world = world_of()
    world.train = torch.cat([world.train, -world.train])  # its mean is 0
    world.truth["train"] = world.truth["train"].repeat(2)
    world.held_out = world.held_out.repeat(2)
    expected = world.judged_by(FewShot())
    world.test *= 2.0 ** torch.randint(-3, 4, (420, 1), generator=generator())
    assert world.judged_by(FewShot()) == expected


def test_how_many_episodes_are_held_at_a_time_does_not_matter(monkeypatch):
    world = world_of()
    expected = world.judged_by(FewShot())
    monkeypatch.setattr(fewshot, "_BLOCK", 3000)
    assert world.judged_by(FewShot()) == expected


def test_images_are_read_once_and_labels_of_train_are_of_no_use():
    world = world_of()
    expected = world.judged_by(FewShot())
    assert world.reads == ["train", "test"]
    world.truth["train"] = world.truth["train"].flip(0)
    assert world.judged_by(FewShot()) == expected


def test_unlabelled_images_take_no_part():
    world = world_of()
    expected = world.judged_by(FewShot())
    noise, none = torch.randn(50, 12, generator=generator()), torch.full((50,), -1)
    world.train, world.test = torch.cat([noise, world.train]), torch.cat([noise, world.test])
    world.truth = {split: torch.cat([none, labels]) for split, labels in world.truth.items()}
    world.held_out = torch.cat([none > 0, world.held_out])
    assert world.judged_by(FewShot()) == expected


# ---- what cannot be asked


def test_classes_with_too_few_images_are_in_no_episode_and_named():
    world = world_of()
    test = world.truth["test"]
    keep = (test != 2) | (torch.arange(420) < 133)  # 19 images are left of class 2
    world.test, world.truth["test"] = world.test[keep], test[keep]
    judgement = world.judged_by(FewShot())
    assert judgement.warnings == (
        "1 of 7 classes have fewer than 20 test images: no episode shows them",
    )
    rest = world.truth["test"] != 2
    world.test, world.truth["test"] = world.test[rest], world.truth["test"][rest]
    assert world.judged_by(FewShot()).metrics == judgement.metrics
    world.judged_by(FewShot(query=14))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"way": 8}, r"of 8 classes .* 7 of 7 classes of made-up have 20 labelled test images"),
        ({"shot": 46}, r"46 labelled and 15 other .* 0 of 7 classes .* have 61 .* smaller way"),
    ],
)
def test_too_few_classes_or_images_are_unsuited(asked, sentence):
    with pytest.raises(Unsuited, match=sentence):
        world_of().judged_by(FewShot(**asked))


def test_as_many_classes_and_images_as_there_are_can_be_asked_for():
    world = world_of(spread=0.1)
    judgement = world.judged_by(FewShot(way=7, shot=45, query=15, episodes=2))
    assert judgement.metrics["k_shot"].value == 1
    assert judgement.warnings == ()


def test_features_that_are_not_finite_are_a_sentence():
    world = world_of()
    world.test[5, 1] = float("nan")
    with pytest.raises(ValueError, match="1 of 420 rows hold NaN or infinity; train again"):
        world.judged_by(FewShot())
