"""DeepCluster: k-means names the images, the network learns the names."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from sslbench.cells.parameters import anatomy
from sslbench.cluster import Clusters
from sslbench.methods import deepcluster
from sslbench.methods.deepcluster import nmi
from sslbench.testing import Trial
from sslbench.train.feed import main_order
from sslbench.train.loop import Loop
from sslbench.train.optim import Optimisation

from .helpers import METHODS, REGISTRY, Lent, first_loss

SMALL = {"deepcluster.clusters": 8, "deepcluster.whiten": 16}
PLAIN = {  # its targets move with every epoch, so that one has to do
    "deepcluster": {"epochs": 1, "batch": 8, "whiten": 2, "crop": 0.9},
}
CASES = {}  # torch's cross-entropy


def test_images_are_drawn_evenly_over_clusters(made):
    method = made("deepcluster", clusters=4, whiten=2)
    centres = torch.tensor([0] * 60 + [1] * 24 + [2] * 9 + [3] * 3)
    run = Lent(features=torch.eye(96)[centres] + 0.01 * torch.rand(96, 96))
    method.fit(run)
    assert float(nmi(method.cluster, centres)) == pytest.approx(1)
    drawn = main_order(96, steps=1000, batch=32, epoch=run.epoch, seed=0)
    counts = torch.bincount(method.cluster[drawn.flatten()], minlength=4)
    chance = math.sqrt(32000 * 0.25 * 0.75)
    assert (counts - 8000).abs().max() < 4 * chance
    inside = torch.bincount(drawn.flatten(), minlength=96)[centres == 0]
    assert (inside - 8000 / 60).abs().max() < 5 * math.sqrt(8000 / 60)


def test_a_targets_names_are_its_clusters(made, batch_of):
    method = made("deepcluster")
    method.cluster.copy_(torch.randint(8, (96,)))
    batch = batch_of(method)._replace(index=torch.tensor([5, 90, 3, 3, 17, 40, 0, 95]))
    _, loss = first_loss(method, batch)
    logs = method.head(method.backbone(batch.views)).log_softmax(1)
    expected = -logs[torch.arange(8), method.cluster[batch.index]].mean()
    torch.testing.assert_close(loss, expected)


def test_every_epoch_starts_with_a_new_head_that_the_optimiser_does_not_know(
    trial_of, monkeypatch, tmp_path
):
    forgotten, heads = [], []
    forget, finish = Optimisation.forget, Loop._finish_epoch

    def forgetting(self, module):
        forgotten.append(module)
        forget(self, module)

    def looking(self):
        head = self.method.head
        assert forgotten[-1] is head
        heads.append(head.weight.detach().clone())
        assert float(heads[-1].std()) == pytest.approx(0.01, rel=0.1)
        assert not head.bias.any()
        assert bool(self.optimisation.optimizer.state[next(self.method.parameters())]) == (
            self._at.epoch.number > 0
        )
        finish(self)

    monkeypatch.setattr(Optimisation, "forget", forgetting)
    monkeypatch.setattr(Loop, "_finish_epoch", looking)
    trial = Trial(REGISTRY, "deepcluster", tmp_path, SMALL)
    assert trial.fitted.done.status == "ok"
    assert len(forgotten) == len(heads) == 2
    assert not torch.equal(*heads)
    for epoch in range(2):  # of three steps each
        assert trial.fitted.losses[3 * epoch][1] == pytest.approx(math.log(8), abs=0.1)


def test_nmi_of_renamed_clusters_is_one_and_of_any_two_that_of_sklearn():
    torch.manual_seed(0)
    one, two = torch.randint(7, (500,)), torch.randint(4, (500,))
    two = torch.where(torch.rand(500) < 0.5, one % 4, two)
    assert nmi(one, torch.randperm(7)[one]) == pytest.approx(1)
    for a, b in ((one, two), (two, one), (one, torch.arange(500)), (one, one * 0)):
        theirs = normalized_mutual_info_score(a, b, average_method="geometric")
        assert nmi(a, b) == pytest.approx(theirs, abs=1e-9)
    assert nmi(torch.tensor([0, 0, 1, 1]), torch.arange(4)) == pytest.approx(0.7071, abs=1e-4)


def test_sobel_hides_colours_from_the_network_and_is_kept_for_judging(made):
    encoder = made("deepcluster", sobel=True).eval().encoder()
    assert encoder.net.conv1[0].in_channels == 2
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(x[:, [2, 0, 1]]), encoder(x))
    plain = made("deepcluster").eval().encoder()
    assert (plain(x[:, [2, 0, 1]]) - plain(x)).abs().max() > 1e-3


def test_more_clusters_than_images_are_refused_before_training(made):
    with pytest.raises(ValueError, match="97 clusters of the 96 images of digits"):
        made("deepcluster", clusters=97)
    made("deepcluster", clusters=96)


def test_k_means_sees_whitened_rows_of_unit_length_and_another_seed_each_epoch(made, monkeypatch):
    method, seen = made("deepcluster", whiten=5), []

    def noting(features, k, **settings):
        seen.append((features, k, settings))
        return Clusters(torch.arange(96) % 8, None, 0.0)

    monkeypatch.setattr(deepcluster, "kmeans", noting)
    torch.manual_seed(0)
    given = torch.randn(96, 30) * torch.linspace(1, 20, 30)
    method.fit(Lent(features=given, epochs=2))
    whitened = deepcluster.pca_whiten(given, 5)
    torch.testing.assert_close(whitened.T.cov(), torch.eye(5), rtol=0, atol=1e-3)
    for features, k, settings in seen:
        torch.testing.assert_close(features, whitened / whitened.norm(dim=1, keepdim=True))
        assert (k, settings["iterations"]) == (8, 20)
    assert seen[0][2]["seed"] != seen[1][2]["seed"]


def test_how_far_the_clusters_are_those_of_the_epoch_before_is_logged(made, batch_of, monkeypatch):
    method, torn = made("deepcluster"), torch.arange(96) // 12
    found = iter([torch.arange(96) % 8, torn, torn.flip(0)])
    monkeypatch.setattr(deepcluster, "kmeans", lambda *_, **__: Clusters(next(found), None, 0.0))
    run = Lent(features=torch.rand(96, 20), epochs=3)
    logged, epochs = [], run.epochs

    def walking(method):
        for epoch in epochs(method):
            yield epoch
            logged.append(float(next(method.step(batch_of(method))).log["nmi"]))

    run.epochs = walking
    method.fit(run)
    expected = normalized_mutual_info_score(torch.arange(96) % 8, torn, average_method="geometric")
    assert logged == pytest.approx([0, expected, 1], abs=1e-5)


def test_whitening_keeps_no_more_than_there_is(made):
    assert made("deepcluster", whiten=256).whiten == 96


def test_its_head_forgets_its_momentum_and_has_none(made):
    recipe = anatomy(METHODS["deepcluster"]).recipe
    method = made("deepcluster")
    optimizer = Optimisation(method, recipe, steps_per_epoch=1).optimizer
    momentum = {p: group["momentum"] for group in optimizer.param_groups for p in group["params"]}
    assert {momentum[p] for p in method.head.parameters()} == {0.0}
    assert {momentum[p] for p in method.backbone.parameters()} == {0.9}


def test_clusters_are_those_of_the_head_and_a_guess_among_them_costs_their_logarithm(made):
    method, x = made("deepcluster").eval(), torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(method.clusters(x), method.head(method.backbone(x)))
    assert method.predict(x) is None
    assert method.uniform() == pytest.approx(math.log(8))


def test_the_papers_setting_has_a_name():
    parts = anatomy(METHODS["deepcluster-imagenet"])
    assert parts.defaults["sobel"]
    assert (parts.defaults["clusters"], parts.recipe.epochs) == (10000, 500)
