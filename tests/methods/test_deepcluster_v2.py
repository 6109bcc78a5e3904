"""DeepCluster-v2: the last epoch's centroids are this epoch's prototypes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from sslbench.cluster import kmeans
from sslbench.methods.deepcluster_v2 import DeepClusterV2ImageNet, named
from sslbench.views import ColorJitter

from .helpers import Case, Lent, dot, first_loss, log_share, near, noise, units

SMALL = {  # what fits 96 images
    "deepcluster-v2.clusters": 8,
    "deepcluster-v2.dim": 16,
    "deepcluster-v2.hidden": 32,
    "deepcluster-v2.crops": (2, 1),
    # below 16 pixels the deepest map is a single one; see test_swav.py
    "deepcluster-v2.small_size": 20,
}
PLAIN = {  # its names change with every epoch, so that one has to do
    "deepcluster-v2": {"epochs": 1, "batch": 8, "lr": 0.003, "optimizer": "adamw", "crop": 0.8}
    | {"lr_scaling": "none", "warmup": 0, "smallest": 0.5, "jitter": 0, "blur": 0},
}
B, D, K, H = 6, 5, 4, 3


def of_named(one, two, cluster, prototypes):
    """`cluster` [B, H], so that rows are images."""
    return named(torch.cat([one, two]), prototypes, cluster.T, 0.1)


def looped_named(one, two, cluster, prototypes):
    losses = []
    for h, heads in enumerate(prototypes):
        for crop in (one, two):
            for z, names in zip(crop, cluster, strict=True):
                losses.append(-log_share([dot(z, c) / 0.1 for c in heads], int(names[h])))
    return sum(losses) / len(losses)


def clusters_permuted(one, two, cluster, prototypes):
    order = torch.tensor([2, 0, 3, 1])  # new place -> old name
    return one, two, order.argsort()[cluster], prototypes[:, order]


CLUSTER = torch.randint(K, (B, H), generator=torch.Generator().manual_seed(3))
CASES = {
    "named": Case(
        of_named,
        [units(B, D), units(B, D, seed=1), CLUSTER, units(H, K, D, seed=2)],
        looped_named,
        swap=True,
        clusters=clusters_permuted,
    )
}


@pytest.mark.parametrize(("clusters", "expected"), [(3000, 8.00637), (8, 2.07944)])
def test_scores_of_zero_give_ln_of_the_clusters(clusters, expected):
    cluster = torch.arange(2 * B).view(2, B) % clusters
    near(named(torch.zeros(3 * B, D), noise(2, clusters, D), cluster, 0.1), expected)


def test_a_centroid_is_closer_to_its_own_name_than_to_any_other():
    prototypes = units(1, K, D)
    own = [named(prototypes[0, [k]], prototypes, torch.tensor([[k]]), 0.1) for k in range(K)]
    for k in range(K):
        for other in range(K):
            if other != k:
                assert named(prototypes[0, [k]], prototypes, torch.tensor([[other]]), 0.1) > own[k]


def test_every_crop_of_an_image_has_its_name():
    prototypes, cluster = torch.eye(D)[None], torch.tensor([[0, 3]])
    crops = torch.eye(D)[[0, 3]].repeat(4, 1)  # crop by crop
    assert float(named(crops, prototypes, cluster, 0.01)) < 1e-6
    assert float(named(crops.roll(1, 0), prototypes, cluster, 0.01)) > 1


# ---- clustering ------------------------------------------------------------------------------------


def planted(seed):
    """[96, 16] around 8 directions, and which."""
    names = torch.randint(8, (96,), generator=torch.Generator().manual_seed(seed))
    return F.normalize(torch.eye(16)[names] + 0.02 * noise(96, 16, seed=seed), dim=1), names


def as_one(found, names):
    return len(torch.unique(found * 8 + names)) == len(torch.unique(names))


def test_heads_cluster_the_two_crops_in_turn_and_centroids_become_prototypes(made):
    method = made("deepcluster-v2", heads=3)
    (one, first), (two, second) = planted(0), planted(1)
    method.fit(Lent(features=torch.cat([one, two], dim=1)))
    assert torch.equal(method.bank, torch.stack([one, two]))
    torch.testing.assert_close(method.prototypes.norm(dim=2), torch.ones(3, 8))
    for head, (z, names, others) in enumerate(
        [(one, first, second), (two, second, first), (one, first, second)]
    ):
        found, prototypes = method.cluster[head], method.prototypes[head]
        assert as_one(found, names)
        assert not as_one(found, others)
        assert torch.equal(found, (z @ prototypes.T).argmax(1))
        means = torch.stack([z[found == k].mean(0) for k in range(8)])
        torch.testing.assert_close(prototypes, F.normalize(means, dim=1))


def test_each_epoch_clusters_anew_what_the_last_one_left_and_only_the_first_looks(made):
    method, (start, _), (later, names) = made("deepcluster-v2"), planted(0), planted(1)
    run, before = Lent(features=start.repeat(1, 2), epochs=2), []
    whole = method.recluster

    def reclustering():
        before.append(method.cluster.clone())
        whole()
        method.bank.copy_(later.expand(2, 96, 16))

    method.recluster = reclustering
    method.fit(run)
    assert [asked for asked, _ in run.asked] == ["epochs", "features"]
    assert len(before) == 2
    assert not as_one(before[1][0], names)
    assert as_one(method.cluster[0], names)


def test_the_first_embeddings_are_of_two_large_crops(made):
    method = made("deepcluster-v2").eval()
    with torch.no_grad():
        one, two = method.looked(torch.rand(5, 3, 32, 32)).split(16, dim=1)
    torch.testing.assert_close(one.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(two.norm(dim=1), torch.ones(5))
    assert (one - two).abs().max() > 1e-4


def test_more_rounds_of_k_means_never_lower_the_cosines():
    z = units(200, 16)
    cosines = []
    for iterations in range(1, 8):
        found = kmeans(z, 12, iterations=iterations, spherical=True, seed=0)
        cosines.append(float((z * found.centroids[found.assignment]).sum(1).mean()))
    assert all(after >= before - 1e-6 for before, after in pairwise(cosines))


# ---- the step --------------------------------------------------------------------------------------


@pytest.fixture
def ready(made):
    """A method with names and prototypes."""
    method = made("deepcluster-v2", crops=(2, 2))
    method.fit(Lent(features=torch.cat([planted(0)[0], planted(1)[0]], dim=1)))
    return method


def embedded(method, batch):
    """[4, B, D] as the next step finds them."""
    with torch.no_grad():
        parts = [method.backbone(torch.cat(part)) for part in (batch.views[:2], batch.views[2:])]
        return F.normalize(method.head(torch.cat(parts)), dim=1).unflatten(0, (4, -1))


INDEX = torch.tensor([5, 90, 3, 31, 17, 40, 0, 95])


def test_every_crop_predicts_the_cluster_of_its_image_in_every_head(ready, batch_of):
    batch = batch_of(ready)._replace(index=INDEX)
    assert [view.shape[-1] for view in batch.views] == [32, 32, 20, 20]
    logs = (embedded(ready, batch) @ ready.prototypes[:, None].mT / 0.1).log_softmax(3)
    losses = [
        -logs[h, v, b, ready.cluster[h, INDEX[b]]]
        for h in range(3)
        for v in range(4)
        for b in range(8)
    ]
    torch.testing.assert_close(first_loss(ready, batch)[1], torch.stack(losses).mean())


def test_the_bank_takes_the_large_crops_after_the_step_and_names_rest(ready, batch_of):
    names, prototypes = ready.cluster.clone(), ready.prototypes.clone()
    for seed, index in enumerate((INDEX, torch.arange(50, 58))):
        batch, bank = batch_of(ready, seed=seed)._replace(index=index), ready.bank.clone()
        z = embedded(ready, batch)
        step, loss = first_loss(ready, batch)
        loss.backward()
        assert torch.equal(ready.bank, bank)
        assert next(step, None) is None
        bank[:, index] = z[:2]
        assert not ready.bank.requires_grad
        torch.testing.assert_close(ready.bank, bank)
    assert torch.equal(ready.cluster, names)
    assert torch.equal(ready.prototypes, prototypes)


def test_prototypes_take_no_gradient_and_all_else_does(ready, batch_of):
    first_loss(ready, batch_of(ready))[1].backward()
    assert not ready.prototypes.requires_grad
    assert all(p.grad is not None for p in ready.parameters())
    assert {name.partition(".")[0] for name, _ in ready.named_parameters()} == {"backbone", "head"}


def test_clusters_are_cosines_with_the_first_heads_prototypes(ready):
    x = torch.rand(3, 3, 32, 32)
    ready.eval()
    with torch.no_grad():
        found = ready.clusters(x)
        z = F.normalize(ready.head(ready.encoder()(x)), dim=1)
        torch.testing.assert_close(found, z @ ready.prototypes[0].T)
        torch.testing.assert_close(ready.embed(x), z)
    assert ready.encoder() is ready.backbone
    near(torch.tensor(ready.uniform()), math.log(8))


def test_views_are_swavs(made):
    settings = {"crops": (3, 4), "jitter": 0.5, "small_size": 0}
    (large, one), (small, two) = made("deepcluster-v2", **settings).views().crops
    assert (one, two) == (3, 4)
    for view, side, scale in ((large, 32, (0.14, 1.0)), (small, 14, (0.05, 0.14))):
        assert (view.ops[0].size, view.ops[0].scale) == (side, scale)
        assert ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8) in view.ops


def test_the_papers_row_is_its_longest_schedule():
    assert DeepClusterV2ImageNet.keywords == {"epochs": 800}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"clusters": 97}, "97 clusters of the 96 images of digits"),
        ({"crops": (1, 4)}, r"two large crops are clustered, crops=\(1, 4\) has 1"),
        ({"small_size": 33}, "small crops of 33 pixels are larger than the images of 32"),
    ],
)
def test_what_the_data_cannot_give_is_refused_before_training(settings, sentence, made):
    with pytest.raises(ValueError, match=sentence):
        made("deepcluster-v2", **settings)


def test_as_many_clusters_as_images_are_allowed(made):
    made("deepcluster-v2", clusters=96)
