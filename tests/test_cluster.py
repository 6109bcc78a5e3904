"""k-means, neighbours, matching and whitening against scikit-learn and naive loops."""

import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from sslbench import cluster
from sslbench.blocks import Rows
from sslbench.cluster import kmeans, match, neighbours, pca_whiten


def blobs(n=600, d=8, k=6, *, spread=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(k, d, generator=generator)
    truth = torch.arange(n) % k
    return centres[truth] + spread * torch.randn(n, d, generator=generator), truth


def _run(points, start, iterations):
    rows, generator = Rows(points), torch.Generator().manual_seed(0)
    squares = cluster._squares(rows)
    return cluster._lloyd(
        rows, squares, start[None], iterations, spherical=False, generator=generator
    )[0]


def inertia(points, clusters):
    return float((points - clusters.centroids[clusters.assignment]).double().square().sum())


@pytest.mark.parametrize(
    ("n", "d", "k", "spread"), [(600, 8, 6, 0.3), (2000, 16, 10, 2.0), (3000, 12, 100, 1.5)]
)
def test_kmeans_inertia_is_no_worse_than_scikit_learns(n, d, k, spread):
    points, _ = blobs(n, d, k, spread=spread)
    ours = kmeans(points, k, restarts=10, iterations=300, seed=0)
    theirs = KMeans(k, n_init=10, random_state=0).fit(points.numpy())
    assert ours.inertia <= 1.01 * theirs.inertia_
    assert ours.inertia == pytest.approx(inertia(points, ours), rel=1e-5)


@pytest.mark.parametrize("k", [3, 80])
def test_lloyds_steps_are_scikit_learns_from_the_same_start(k):
    points, _ = blobs(1000, 5, 4, spread=1.5)
    start = points[:k].clone()
    ours = _run(points, start, 7)
    model = KMeans(k, init=start.numpy(), n_init=1, max_iter=7, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that seven iterations are few
        theirs = model.fit(points.numpy())
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-4)
    assert torch.allclose(ours.centroids, torch.from_numpy(theirs.cluster_centers_), atol=1e-3)


@pytest.mark.parametrize("k", [5, 80])
def test_kmeans_ends_where_every_point_is_nearest_to_its_own_mean(k):
    points, _ = blobs(900, 6, 5, spread=1.0)
    found = kmeans(points, k, iterations=500, seed=3)
    nearest = torch.cdist(points.double(), found.centroids.double()).argmin(1)
    assert (nearest == found.assignment).float().mean() > 0.999
    for each in range(k):
        own = points[found.assignment == each]
        assert torch.allclose(found.centroids[each], own.mean(0), atol=1e-4)


@pytest.mark.parametrize("k", [6, 70])
def test_more_updates_never_raise_inertia(k):
    points, _ = blobs(800, 4, 6, spread=1.0)
    path = [kmeans(points, k, iterations=steps, seed=1).inertia for steps in range(12)]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(path))
    assert path[-1] < path[0]


@pytest.mark.parametrize("k", [2, 64])
def test_every_point_moves_its_centroid_beyond_256_points_a_cluster(k):
    # a library that samples 256 points a centroid cannot know the mean of all of them
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(k * 600) % k
    centres = 100 * torch.randn(k, 3, generator=generator)
    points = centres[truth] + torch.randn(len(truth), 3, generator=generator)
    found = kmeans(points, k, restarts=5, iterations=100, seed=0)
    means = torch.stack([points[truth == each].mean(0) for each in range(k)])
    gaps = torch.cdist(means.double(), found.centroids.double()).min(1).values
    assert len(found.assignment) == len(points)
    assert float(gaps.median()) < 1e-3  # of a sample of 256 points: about .06


@pytest.mark.parametrize("k", [8, 80])
def test_empty_clusters_take_half_of_a_large_one(k):
    points, _ = blobs(1200, 6, 6, spread=0.5)
    start = points[:1].repeat(k, 1)  # all at one place: all but one are empty
    found = _run(points, start, 50)
    assert torch.bincount(found.assignment, minlength=k).min() > 0
    assert found.inertia < 1.5 * kmeans(points, k, iterations=50, seed=0).inertia


def test_identical_points_do_not_break_kmeans():
    found = kmeans(torch.ones(50, 3), 5, restarts=3, seed=0)
    assert found.inertia == 0
    half = torch.cat([torch.zeros(60, 3), torch.randn(60, 3, generator=_generator(1))])
    found = kmeans(half, 40, iterations=100, seed=0)
    assert len(found.assignment[:60].unique()) == 1
    assert torch.bincount(found.assignment, minlength=40).min() > 0


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def test_points_far_from_the_origin_cluster_as_at_it():
    points, truth = blobs(600, 8, 6)
    far = kmeans(points + 3000, 6, restarts=5, seed=0)
    assert match(truth, far.assignment).accuracy == 1
    assert far.inertia == pytest.approx(inertia(points + 3000, far), rel=1e-2)


def test_spherical_centroids_have_unit_norm_and_ignore_lengths():
    points, _ = blobs(400, 8, 5)
    found = kmeans(points, 5, spherical=True, seed=0)
    assert torch.allclose(found.centroids.norm(dim=1), torch.ones(5), atol=1e-5)
    lengths = 1 + torch.rand(400, 1, generator=_generator(0))
    assert torch.equal(found.assignment, kmeans(points * lengths, 5, spherical=True, seed=0)[0])
    cosine = (F.normalize(points, dim=1) * found.centroids[found.assignment]).sum(1)
    assert found.inertia == pytest.approx(float(2 * (1 - cosine).sum()), rel=1e-3)


@pytest.mark.parametrize("k", [7, 90])
def test_a_seed_fixes_kmeans_and_another_changes_it(k):
    points = torch.randn(1000, 8, generator=_generator(0))
    one, two, other = (kmeans(points, k, restarts=2, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one.assignment, two.assignment)
    assert torch.equal(one.centroids, two.centroids)
    assert not torch.equal(one.assignment, other.assignment)


def test_restarts_keep_the_lowest_inertia():
    points = torch.randn(500, 4, generator=_generator(0))
    many = kmeans(points, 12, restarts=8, iterations=50, seed=0).inertia
    lone = [kmeans(points, 12, iterations=50, seed=seed).inertia for seed in range(8)]
    assert many < sorted(lone)[4]


def test_kmeans_leaves_torchs_generator_and_its_input_alone():
    points = torch.randn(100, 4, generator=_generator(0))
    before, state = points.clone(), torch.get_rng_state()
    kmeans(points, 5, spherical=True, seed=0)
    kmeans(points + 100, 5, seed=0)
    assert torch.equal(points, before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("k", [0, 11])
def test_clusters_that_cannot_be_are_refused(k):
    with pytest.raises(ValueError, match=f"asked for {k} clusters of 10 points; ask for 1 to 10"):
        kmeans(torch.randn(10, 2), k, seed=0)


def test_one_cluster_and_as_many_clusters_as_points():
    points = torch.randn(10, 2, generator=_generator(0))
    assert torch.allclose(kmeans(points, 1, seed=0).centroids[0], points.mean(0), atol=1e-5)
    assert kmeans(points, 10, seed=0).inertia == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    "ask", [lambda x: kmeans(x, 2, seed=0), lambda x: neighbours(x, 2), lambda x: pca_whiten(x, 1)]
)
def test_features_that_are_not_finite_are_a_sentence(ask):
    points = torch.randn(10, 2)
    points[3, 1] = float("nan")
    with pytest.raises(ValueError, match=r"1 of 10 rows hold NaN"):
        ask(points)


@pytest.mark.parametrize("itself", [True, False])
def test_neighbours_are_those_of_a_naive_sort(itself):
    points = torch.randn(60, 5, generator=_generator(0))
    unit = F.normalize(points.double(), dim=1)
    found = neighbours(points, 4, itself=itself)
    for row in range(60):
        order = (unit @ unit[row]).argsort(descending=True).tolist()
        if not itself:
            order.remove(row)
        assert found[row].tolist() == order[:4]


def test_a_row_is_its_own_first_neighbour_among_identical_rows():
    points = torch.ones(30, 4)
    found = neighbours(points, 3)
    assert torch.equal(found[:, 0], torch.arange(30))
    assert all(len(set(row)) == 3 for row in found.tolist())
    others = neighbours(points, 3, itself=False)
    assert not (others == torch.arange(30)[:, None]).any()
    assert all(len(set(row)) == 3 for row in others.tolist())


def test_a_zero_row_is_still_its_own_first_neighbour():
    points = torch.randn(20, 4, generator=_generator(0))
    points[7] = 0
    assert torch.equal(neighbours(points, 2)[:, 0], torch.arange(20))


@pytest.mark.parametrize(("k", "itself", "most"), [(11, True, 10), (10, False, 9), (0, True, 10)])
def test_more_neighbours_than_points_are_refused(k, itself, most):
    with pytest.raises(ValueError, match=f"{k} neighbours .* 10 points; ask for 1 to {most}"):
        neighbours(torch.randn(10, 2), k, itself=itself)


@pytest.mark.parametrize(("classes", "clusters"), [(4, 4), (3, 5), (5, 3)])
def test_matching_is_the_best_of_all_permutations(classes, clusters):
    generator = _generator(0)
    truth = torch.randint(classes, (80,), generator=generator)
    assignment = torch.randint(clusters, (80,), generator=generator)
    size = max(classes, clusters)
    best = max(
        sum(order[a] == t for a, t in zip(assignment.tolist(), truth.tolist(), strict=True))
        for order in itertools.permutations(range(size))
    )
    found = match(truth, assignment, classes=classes, clusters=clusters)
    assert found.accuracy == best / 80
    assert float((found.mapping[assignment] == truth).float().mean()) == pytest.approx(best / 80)
    assert (found.mapping >= 0).sum() == min(classes, clusters)


def test_a_permuted_labelling_matches_wholly():
    truth = torch.arange(50) % 5
    assert match(truth, (truth + 2) % 5).accuracy == 1
    assert match(truth, (truth + 2) % 5).mapping.tolist() == [3, 4, 0, 1, 2]


def test_matching_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match="leave the unlabelled points out"):
        match(torch.tensor([0, -1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="1 assignments were to be matched with 2 labels"):
        match(torch.tensor([0, 1]), torch.tensor([0]))


def test_whitening_makes_the_covariance_the_identity():
    mix = torch.randn(10, 10, generator=_generator(1))
    points = torch.randn(500, 10, generator=_generator(0)) @ mix + 50
    white = pca_whiten(points, 6)
    assert white.shape == (500, 6)
    assert torch.allclose(white.mean(0), torch.zeros(6), atol=1e-3)
    assert torch.allclose(white.T.cov(), torch.eye(6), atol=1e-3)


def test_whitening_spans_the_leading_components():
    generator = _generator(0)
    loud, faint = torch.randn(300, 3, generator=generator), torch.randn(300, 5, generator=generator)
    white = pca_whiten(torch.cat([faint * 0.01, loud * 10], dim=1), 3)
    rest = loud - loud.mean(0)
    rest = rest - white @ torch.linalg.lstsq(white, rest).solution
    assert rest.abs().max() < 0.05


def test_whitening_does_not_amplify_what_has_no_variance():
    line = torch.randn(100, 1, generator=_generator(0)) @ torch.ones(1, 6)
    white = pca_whiten(line, 3)
    assert white[:, 0].std() == pytest.approx(1, abs=1e-3)
    assert white[:, 1:].abs().max() == 0


def test_whitening_into_more_dimensions_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"5 components of 3 points .*; ask for 1 to 3"):
        pca_whiten(torch.randn(3, 8), 5)


def test_a_pass_of_an_accelerator_finds_and_sums_as_a_loop_does(monkeypatch):
    monkeypatch.setattr(cluster, "_BLOCK", 1)
    points, centroids = torch.randn(2500, 7), torch.randn(2, 6, 7)
    assignment, sums, counts = cluster._passed(Rows(points), centroids)
    for own, found, many, centres in zip(assignment, sums, counts, centroids, strict=True):
        assert torch.equal(own, torch.cdist(points, centres).argmin(1))
        assert torch.equal(many, torch.bincount(own, minlength=6))
        loop = torch.stack([points[own == k].double().sum(0) for k in range(6)])
        assert torch.allclose(found, loop, atol=1e-4)
