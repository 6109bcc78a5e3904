"""Rankings against scikit-learn, torchmetrics and all orders of a tie."""

import itertools
import math
import statistics

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalRPrecision

from sslbench.errors import Unsuited
from sslbench.evaluators import retrieval
from sslbench.evaluators.knn import KNN
from sslbench.evaluators.retrieval import Retrieval

from .helpers import fake


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def values(world):
    return {name: value.value for name, value in world.judged_by(Retrieval()).metrics.items()}


def similarities(world):
    """float64 [M, N], equal where they would be without rounding."""
    units = [F.normalize(part.double(), dim=1) for part in (world.test, world.train)]
    return (units[0] @ units[1].T * 1e9).round() / 1e9


def full_of_ties():
    """A world of corners of a cube: cosines are -1, -.5, 0, .5 or 1."""
    world = fake(90, 40, classes=3)
    for split, labels in world.truth.items():
        corners = torch.randint(2, (len(labels), 4), generator=generator(len(labels)))
        corners[torch.arange(len(labels)) % 2 == 0, 0] = (labels[::2] > 0).long()
        setattr(world, split, 2.0 * corners - 1)
    return world


# ---- the metrics


@pytest.mark.parametrize("world", [fake(spread=4.0), full_of_ties()])
def test_map_is_scikit_learns_average_precision(world):
    right = world.truth["test"][:, None] == world.truth["train"]
    expected = [
        average_precision_score(truth.numpy(), row.numpy())
        for truth, row in zip(right, similarities(world), strict=True)
    ]
    found = world.judged_by(Retrieval()).metrics["map"]
    assert found.value == pytest.approx(statistics.fmean(expected), abs=1e-12)
    assert found.n == len(expected)
    assert found.stderr == pytest.approx(statistics.pstdev(expected) / math.sqrt(found.n))


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("map", RetrievalMAP()),
        ("r_precision", RetrievalRPrecision()),
        ("recall@1", RetrievalHitRate(top_k=1)),
        ("recall@5", RetrievalHitRate(top_k=5)),
        ("recall@10", RetrievalHitRate(top_k=10)),
    ],
)
def test_without_ties_every_metric_is_that_of_torchmetrics(name, oracle):
    world = fake(120, 50, classes=5, spread=5.0)
    world.truth["train"] = world.truth["train"].clone()
    world.truth["train"][:30] = 0  # classes of several sizes
    score = 2 + similarities(world)  # RetrievalMAP drops what scores 0 or less
    right = world.truth["test"][:, None] == world.truth["train"]
    index = torch.arange(50)[:, None].expand_as(score)
    expected = float(oracle(score.flatten(), right.flatten(), indexes=index.flatten()))
    assert 0.1 < expected < 1
    assert values(world)[name] == pytest.approx(expected, abs=1e-6)


def test_map_at_r_is_the_naive_loop_of_its_definition():
    world = fake(120, 50, classes=5, spread=5.0)
    score = similarities(world)
    merits = []
    for row, label in zip(score, world.truth["test"], strict=True):
        ranked = (world.truth["train"] == label)[row.argsort(descending=True)].tolist()
        r = sum(ranked)
        merits.append(sum(sum(ranked[: i + 1]) / (i + 1) for i in range(r) if ranked[i]) / r)
    assert values(world)["map@R"] == pytest.approx(statistics.fmean(merits), abs=1e-12)


def test_recall_and_r_precision_are_means_over_all_orders_of_a_tie():
    # one query; seven gallery images at cosines 1, .6 (four of them), 0 and 0
    world = fake(7, 1, 2, classes=2)
    world.test = torch.tensor([[1.0, 0.0]])
    world.truth["test"] = torch.tensor([1])
    tied = [[3.0, 4.0], [6.0, 8.0], [3.0, -4.0], [0.75, 1.0]]
    world.train = torch.tensor([[2.0, 0.0], *tied, [0.0, 1.0], [0.0, -3.0]])
    score = [1, 0.6, 0.6, 0.6, 0.6, 0, 0]
    for labels in itertools.product((0, 1), repeat=7):
        if not sum(labels):
            continue
        world.truth["train"] = torch.tensor(labels)
        ranked = [
            [labels[i] for i in order]
            for order in itertools.permutations(range(7))
            if all(score[a] >= score[b] for a, b in itertools.pairwise(order))
        ]
        r, found = sum(labels), values(world)
        for name, k in (("recall@1", 1), ("recall@5", 5), ("recall@10", 10)):
            expected = statistics.fmean(any(row[:k]) for row in ranked)
            assert found[name] == pytest.approx(expected, abs=1e-12), labels
        expected = statistics.fmean(sum(row[:r]) / r for row in ranked)
        assert found["r_precision"] == pytest.approx(expected, abs=1e-12), labels


def test_a_tie_that_r_cuts_counts_in_proportion_in_map_at_r():
    # R = 2: one right image at the top, one of a tie of three that the second rank cuts
    world = fake(4, 1, 2, classes=2)
    world.test, world.truth["test"] = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    world.train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, -1.0]])
    world.truth["train"] = torch.tensor([1, 0, 1, 0])
    assert values(world)["map@R"] == pytest.approx((1 + 1 / 3 * (1 + 1 / 3) / 2) / 2)


def test_the_nearest_is_that_of_knn():
    world = fake(spread=4.0)
    found = world.judged_by(Retrieval()).metrics["recall@1"]
    assert found == pytest.approx(world.judged_by(KNN(k=1)).metrics["top1"])


# ---- planted cases


def test_perfect_features_score_one():
    world = fake()
    for split in ("train", "test"):
        setattr(world, split, F.one_hot(world.truth[split], 4).float())
    assert set(values(world).values()) == {1.0}


@pytest.mark.parametrize("value", [0.0, 0.1, -7e5])
@pytest.mark.parametrize("d", [1, 33])
def test_constant_features_score_chance_exactly(value, d):
    world = fake(301, 200, d)
    world.truth["train"] = torch.cat([torch.arange(300) % 4, torch.tensor([3])]).flip(0)
    world.train[:], world.test[:] = value, value
    share = torch.tensor([75, 75, 75, 76]).double() / 301
    expected = {"map": share, "r_precision": share, "map@R": share**2}
    for k in (1, 5, 10):
        wrong = [math.comb(301 - r, k) / math.comb(301, k) for r in (75, 75, 75, 76)]
        expected[f"recall@{k}"] = 1 - torch.tensor(wrong, dtype=torch.float64)
    found = values(world)
    assert found == pytest.approx({n: float(v.mean()) for n, v in expected.items()}, abs=1e-12)


def test_random_features_and_permuted_labels_score_chance():
    world = fake(2000, 1000)
    labels = world.truth["train"]
    assert values(world)["map"] > 0.6
    # of train: a query under another label still finds that class together somewhere
    world.truth["train"] = labels[torch.randperm(2000, generator=generator())]
    permuted = values(world)
    world.truth["train"] = labels
    world.test = torch.randn(1000, 12, generator=generator())
    world.train = torch.randn(2000, 12, generator=generator(1))
    for found in (permuted, values(world)):
        assert found["map"] == pytest.approx(0.25, abs=0.02)
        assert found["map@R"] == pytest.approx(0.0625, abs=0.02)
        assert found["r_precision"] == pytest.approx(0.25, abs=0.02)
        assert found["recall@1"] == pytest.approx(0.25, abs=0.07)
    assert values(world)["recall@10"] == pytest.approx(1 - 0.75**10, abs=0.04)


def test_opposite_features_score_below_chance():
    world = fake()
    for split, sign in (("train", 1), ("test", -1)):
        setattr(world, split, sign * F.one_hot(world.truth[split], 4).float())
    found = values(world)
    assert found["map"] == pytest.approx(0.25)  # the last of all ties: 75 among 300
    assert found["recall@10"] == found["map@R"] == found["r_precision"] == 0


# ---- what must not matter


@pytest.mark.parametrize("world", [fake(spread=4.0), full_of_ties()])
def test_the_order_of_the_gallery_does_not_matter(world):
    expected = world.judged_by(Retrieval())
    order = torch.randperm(len(world.train), generator=generator())
    world.train, world.held_out = world.train[order], world.held_out[order]
    world.truth["train"] = world.truth["train"][order]
    assert world.judged_by(Retrieval()) == expected


def test_a_gallery_given_twice_ranks_as_once():
    world = fake(spread=4.0)
    expected = values(world)
    world.train, world.truth["train"] = world.train.repeat(2, 1), world.truth["train"].repeat(2)
    world.held_out = world.held_out.repeat(2)
    found = values(world)
    for name in ("map", "map@R", "r_precision", "recall@1"):
        assert found[name] == pytest.approx(expected[name], abs=1e-12)
    assert found["recall@10"] == pytest.approx(expected["recall@5"], abs=1e-12)


def test_lengths_and_seeds_do_not_matter():
    world = fake(spread=4.0)
    expected = world.judged_by(Retrieval(), seed=1)
    for split in ("train", "test"):
        features = getattr(world, split)
        powers = torch.randint(-3, 4, (len(features), 1), generator=generator())
        setattr(world, split, features * 2.0**powers)
    assert world.judged_by(Retrieval(), seed=2) == expected


def test_few_similarities_are_held_at_a_time_and_it_does_not_matter(monkeypatch):
    world, held = full_of_ties(), []
    expected = values(world)
    plain = retrieval._sorted
    monkeypatch.setattr(retrieval, "_BLOCK", 200)
    monkeypatch.setattr(retrieval, "_sorted", lambda v: held.append(v.numel()) or plain(v))
    assert values(world) == pytest.approx(expected, abs=1e-12)
    assert max(held) == 180


def test_similarities_of_equal_images_are_equal_to_the_last_bit():
    features = torch.randn(64, 999, generator=generator()).repeat(3, 1)
    unit = retrieval._unit(features, torch.device("cpu"))
    assert torch.allclose(unit, F.normalize(features.double(), dim=1), atol=2**-27)
    found = [unit[i : i + step] @ unit.T for i, step in ((0, 64), (64, 7), (64, 1))]
    assert torch.equal(found[1], found[0][:7])
    assert torch.equal(found[2], found[0][:1])
    assert torch.equal(found[0], (unit.flip(1)[:64] @ unit.flip(1).T))
    assert torch.equal(found[0][:, :64], found[0][:, 64:128])


def test_both_splits_are_read_once():
    world = fake()
    world.judged_by(Retrieval())
    assert sorted(world.reads) == ["test", "train"]


def test_unlabelled_images_take_no_part():
    world = fake(spread=3.0)
    expected = world.judged_by(Retrieval())
    noise, none = torch.randn(50, 12, generator=generator()), torch.full((50,), -1)
    world.train, world.test = torch.cat([noise, world.train]), torch.cat([world.test, noise])
    world.truth["train"] = torch.cat([none, world.truth["train"]])
    world.truth["test"] = torch.cat([world.truth["test"], none])
    world.held_out = torch.cat([none > 0, world.held_out])
    assert world.judged_by(Retrieval()) == expected


# ---- what cannot be asked


def test_queries_without_an_image_of_their_class_are_left_out_and_counted():
    world = fake(spread=3.0)
    keep = world.truth["train"] != 1
    world.train, world.held_out = world.train[keep], world.held_out[keep]
    world.truth["train"] = world.truth["train"][keep]
    judgement = world.judged_by(Retrieval())
    assert judgement.warnings == (
        "50 of 200 test images have no image of their class in train: they were left out",
    )
    keep = world.truth["test"] != 1
    world.test, world.truth["test"] = world.test[keep], world.truth["test"][keep]
    alone = world.judged_by(Retrieval())
    assert alone.metrics == judgement.metrics
    assert alone.metrics["map"].n == 150
    assert alone.warnings == ()


def test_a_class_that_test_lacks_stays_in_the_gallery():
    world = fake(spread=3.0)
    whole = values(world)
    keep = world.truth["test"] != 0
    world.test, world.truth["test"] = world.test[keep], world.truth["test"][keep]
    judgement = world.judged_by(Retrieval())
    assert judgement.warnings == ()
    right = world.truth["test"][:, None] == world.truth["train"]
    expected = [
        average_precision_score(truth.numpy(), row.numpy())
        for truth, row in zip(right, similarities(world), strict=True)
    ]
    assert judgement.metrics["map"].value == pytest.approx(statistics.fmean(expected))
    assert judgement.metrics["map"].value != whole["map"]


def test_splits_that_share_no_class_are_unsuited():
    world = fake()
    world.truth = {"train": world.truth["train"] % 2, "test": world.truth["test"] % 2 + 2}
    with pytest.raises(Unsuited, match="made-up has no class in both; use a dataset"):
        world.judged_by(Retrieval())


def test_features_that_are_not_finite_are_a_sentence():
    world = fake()
    world.train[5, 1] = float("inf")
    with pytest.raises(ValueError, match="1 of 300 rows hold NaN or infinity; train again"):
        world.judged_by(Retrieval())
