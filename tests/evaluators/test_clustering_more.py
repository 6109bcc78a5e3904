"""Over-clustering and stability against scikit-learn and planted clusters."""

import itertools

import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from sslbench.evaluators import clustering
from sslbench.evaluators.clustering import Clustering, many_to_one

from .helpers import fake

MANY = [f"many_to_one_x{f}" for f in (1, 2, 5, 10)]
AMI = [f"ami_x{f}" for f in (2, 5, 10)]


def values(world, seed=0, **parameters):
    judgement = world.judged_by(Clustering(**parameters), seed=seed)
    return {name: each.value for name, each in judgement.metrics.items()}


@pytest.fixture
def runs(monkeypatch):
    """What k-means was asked for and answered."""
    found = []

    def kept(features, k, **how):
        clusters = kmeans(features, k, **how)
        found.append((k, how, clusters))
        return clusters

    kmeans = clustering.kmeans
    monkeypatch.setattr(clustering, "kmeans", kept)
    return found


def test_more_columns_leave_the_others_and_the_identity_as_they_were():
    world = fake(spread=4.0)
    plain = world.judged_by(Clustering())
    assert set(plain.metrics) == {"acc", "nmi", "ari", "ami"}
    more = world.judged_by(Clustering(over=True, stability=True))
    assert {name: more.metrics[name] for name in plain.metrics} == plain.metrics
    assert set(more.metrics) == {*plain.metrics, *MANY, *AMI, "stability"}
    assert set(more.metrics) <= {metric.name for metric in Clustering.metrics}
    assert more == world.judged_by(Clustering(over=True, stability=True))
    assert dict(Clustering.added) == {"over": False, "stability": False}
    assert set(values(world, over=True)) == {*plain.metrics, *MANY, *AMI}
    assert set(values(world, stability=True)) == {*plain.metrics, "stability"}


# ---- over-clustering


def test_many_to_one_is_purity():
    truth = torch.randint(4, (300,), generator=torch.Generator().manual_seed(0))
    assignment = torch.randint(9, (300,), generator=torch.Generator().manual_seed(1)) * 2
    table = contingency_matrix(truth, assignment)
    found = many_to_one(truth, assignment)
    assert found.value == table.max(axis=0).sum() / 300
    assert found.n == 300
    assert many_to_one(truth, torch.arange(300)).value == 1
    assert many_to_one(torch.tensor([0, 0, 2]), torch.tensor([3, 3, 3])).value == 2 / 3


def test_each_level_is_k_means_at_that_many_clusters(runs):
    world = fake(m=400, spread=4.0)
    found = values(world, over=True, seed=7, restarts=3)
    truth = world.truth["test"]
    assert [k for k, _, _ in runs] == [4, 8, 20, 40]
    assert all(how["restarts"] == 3 and how["seed"] == 7 for _, how, _ in runs)
    for factor, (_, _, clusters) in zip((1, 2, 5, 10), runs, strict=True):
        table = contingency_matrix(truth, clusters.assignment)
        assert found[f"many_to_one_x{factor}"] == table.max(axis=0).sum() / 400
        if factor > 1:
            ami = adjusted_mutual_info_score(truth.numpy(), clusters.assignment.numpy())
            assert found[f"ami_x{factor}"] == pytest.approx(ami)
    assert found["many_to_one_x1"] >= found["acc"]


def test_classes_of_several_clusters_each_are_found_by_more_clusters():
    world = fake(m=400, d=12)
    part = torch.arange(400) % 8  # two clusters far apart in each of four classes
    world.test = 10 * torch.eye(12)[part] + torch.randn(
        400, 12, generator=torch.Generator().manual_seed(0)
    )
    world.truth["test"] = part % 4
    found = values(world, over=True)
    assert found["acc"] < 0.7
    assert found["many_to_one_x2"] == found["many_to_one_x10"] == 1


def test_random_labels_have_no_ami_and_a_purity_that_grows_with_k():
    world = fake(m=1000, spread=4.0)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    world.truth["test"] = world.truth["test"][order]
    found = values(world, over=True)
    assert [found[name] for name in AMI] == pytest.approx([0, 0, 0], abs=0.02)
    assert 0.25 <= found["many_to_one_x1"] < 0.32 < found["many_to_one_x10"] < 0.5


def test_a_level_with_more_clusters_than_images_is_left_out_and_said():
    judgement = fake(m=30).judged_by(Clustering(over=True))
    assert {"many_to_one_x5", "ami_x5"} <= set(judgement.metrics)
    assert not {"many_to_one_x10", "ami_x10"} & set(judgement.metrics)
    assert judgement.warnings == ("10 x 4 clusters of 30 test images were left out",)
    assert set(values(fake(m=40), over=True)) >= {*MANY, *AMI}


# ---- stability


def test_stability_is_the_mean_agreement_of_runs_with_seeds_of_their_own(runs):
    world = fake(spread=4.0)
    found = values(world, stability=True, seed=3)
    first, *rest = runs
    assert first[1]["restarts"] == 10
    assert [k for k, _, _ in rest] == [4] * 5
    assert all(how.get("restarts", 1) == 1 for _, how, _ in rest)
    assert len({how["seed"] for _, how, _ in runs}) == 6
    pairs = list(itertools.combinations([c.assignment.numpy() for _, _, c in rest], 2))
    assert len(pairs) == 10
    expected = sum(adjusted_rand_score(*pair) for pair in pairs) / 10
    assert found["stability"] == pytest.approx(expected)


def test_clusters_far_apart_are_stable_and_noise_is_not():
    assert values(fake(spread=0.3), stability=True)["stability"] == 1
    noise = fake()
    noise.test = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    assert values(noise, stability=True)["stability"] < 0.7


def test_stability_sees_no_label():
    world = fake(spread=4.0)
    before = values(world, stability=True)
    world.truth["test"] = world.truth["test"][
        torch.randperm(200, generator=torch.Generator().manual_seed(0))
    ]
    after = values(world, stability=True)
    assert after["stability"] == before["stability"]
    assert after["acc"] < before["acc"]
