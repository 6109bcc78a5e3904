"""RUC: a clusterer's clean labels teach two networks, which correct the others for each other."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.api import Batch, Method, Stream
from sslbench.cells.parameters import anatomy
from sslbench.methods.ruc import outvoted_by_none, refine, smoothed
from sslbench.nn import mixup, semi_supervised, sharpen
from sslbench.train.feed import orders

from .helpers import METHODS, Case, dot, log_share, near, noise, same

SMALL = {"ruc.confidence": 0.1, "ruc.neighbours": 5}
PLAIN = {"ruc": {"epochs": 4}}  # of two networks on several views each
B, K = 6, 4
KNOWN = torch.tensor([1, 0, 1, 1, 0, 0])
LABEL = torch.tensor([3, 0, 1, 1, 2, 0])


def of_semi(logits, target, known):
    return semi_supervised(logits, target, known, 25.0)


def looped_semi(logits, target, known):
    entropy, error = [], []
    for row, aim, sure in zip(logits, target, known, strict=True):
        logs = [log_share(row, c) for c in range(K)]
        if sure:
            entropy.append(-dot(aim, logs))
        else:
            error.append(sum((log.exp() - a) ** 2 for log, a in zip(logs, aim, strict=True)) / K)
    return sum(entropy) / len(entropy) + 25.0 * sum(error) / len(error)


def of_smoothed(logits, label, known):
    return smoothed(logits, label, known, 0.5)


def looped_smoothed(logits, label, known):
    losses = []
    for row, own, sure in zip(logits, label.tolist(), known, strict=True):
        if sure:
            aim = [0.5 if c == own else 0.5 / (K - 1) for c in range(K)]
            losses.append(-sum(a * log_share(row, c) for c, a in enumerate(aim)))
    return sum(losses) / len(losses)


def names_permuted(logits, target, known):
    ids = torch.tensor([2, 0, 3, 1])
    return logits[:, ids], target[:, ids] if target.ndim == 2 else ids.argsort()[target], known


CASES = {
    "semi_supervised": Case(
        of_semi, [noise(B, K), noise(B, K, seed=1).softmax(1), KNOWN], looped_semi,
        clusters=names_permuted,
    ),
    "smoothed": Case(
        of_smoothed, [noise(B, K), LABEL, KNOWN], looped_smoothed, clusters=names_permuted
    ),
}  # fmt: skip


# ---- losses and labels -----------------------------------------------------------------------------


def test_the_squared_error_of_a_uniform_guess_is_the_mean_over_classes():
    target = torch.eye(10)
    near(semi_supervised(torch.zeros(10, 10), target, torch.zeros(10), 1.0), 0.09)
    near(semi_supervised(torch.zeros(10, 10), target, torch.ones(10), 1.0), math.log(10))


@pytest.mark.parametrize("known", [True, False])
def test_a_batch_without_clean_images_or_without_others_has_a_finite_loss(known):
    logits, label = noise(B, K).requires_grad_(), LABEL
    mask = torch.full((B,), known)
    loss = of_semi(logits, F.one_hot(label, K).float(), mask) + of_smoothed(logits, label, mask)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() > 0


def test_smoothing_leaves_the_label_half_and_spreads_half_over_the_others():
    logits = noise(1, 10).requires_grad_()
    aim = torch.full((1, 10), 0.5 / 9)
    aim[0, 3] = 0.5
    assert float(aim[0, 0]) == pytest.approx(0.0556, abs=1e-4)
    loss = smoothed(logits, torch.tensor([3]), torch.tensor([True]), 0.5)
    same(loss, -(aim * logits.log_softmax(1)).sum())
    same(torch.autograd.grad(loss, logits)[0], logits.detach().softmax(1) - aim)


def test_refining_without_weight_is_the_identity_and_with_all_of_it_the_guess():
    label, guess = F.one_hot(LABEL, K).float(), noise(B, K).softmax(1)
    assert torch.equal(refine(label, guess, torch.zeros(B)), label)
    same(refine(label, guess, torch.ones(B)), guess)
    weight = torch.rand(B)
    refined = refine(label, guess, weight)
    same(refined.sum(1), torch.ones(B))
    same(refined, (1 - weight)[:, None] * label + weight[:, None] * guess)
    same(sharpen(refined, 0.5).sum(1), torch.ones(B))


def test_sharpening_by_one_changes_nothing_and_by_little_leaves_the_largest():
    p = noise(B, K).softmax(1)
    same(sharpen(p, 1.0), p)
    same(sharpen(p, 0.5), p**2 / (p**2).sum(1, keepdim=True))
    same(sharpen(p, 0.01), F.one_hot(p.argmax(1), K).float())


def test_a_batch_is_mixed_in_one_proportion_of_at_least_a_half():
    shares = []
    for seed in range(200):
        torch.manual_seed(seed)
        x, target = torch.eye(8), torch.eye(8)
        one, aim = mixup(x, target, 4.0)
        assert torch.equal(one, aim)  # images and labels alike
        same(one.sum(1), torch.ones(8))
        shares.append(float(one.diagonal().min()))
        moved = one.diagonal() < 1
        assert one.diagonal()[moved].max() - one.diagonal()[moved].min() < 1e-6
    assert min(shares) >= 0.5
    draws = torch.distributions.Beta(4.0, 4.0).sample((20000,))
    expected = float(torch.maximum(draws, 1 - draws).mean())
    assert sum(shares) / 200 == pytest.approx(expected, abs=0.03)


def test_a_label_is_outvoted_where_another_has_more_votes_whatever_the_names():
    label = torch.tensor([0, 0, 1, 1, 2])
    close = torch.tensor([[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 2], [4, 0, 2]])
    expected = torch.tensor([True, False, True, True, True])  # the last is a tie
    assert torch.equal(outvoted_by_none(label, close), expected)
    assert torch.equal(outvoted_by_none(torch.tensor([2, 0, 1])[label], close), expected)


# ---- the clean set ---------------------------------------------------------------------------------


class Clusterer(Method):
    """Predicts what it is given."""

    def __init__(self, backbone, logits):
        super().__init__()
        self.backbone, self.logits = backbone, logits

    def views(self):
        return None

    def step(self, batch):
        yield from ()

    def predict(self, x):
        return self.logits


class Nameless(Clusterer):
    """Predicts nothing."""

    predict = Method.predict


class Lending:
    """A run with a base of these logits [N, K] and a pretext of these features [N, D]."""

    def __init__(self, base, features, epochs=1):
        self.base, self.given, self.number, self.body = base, features, epochs, lambda epoch: None
        self.into, self.both = {}, None

    def pretrain(self, name, into=None):
        self.into[name] = into
        if into is not None:
            with torch.no_grad():
                for p in into.parameters():
                    p.fill_(0.01 if name == "scan" else 0.02)
        return self.base if name == "scan" else Clusterer(self.base.backbone, None)

    def features(self, encoder):
        if encoder == self.base.predict:
            return self.base.logits
        return self.given if encoder is self.base.backbone else self.both

    def epochs(self, method):
        from sslbench.api import Epoch

        for number in range(self.number):
            self.epoch = Epoch(number)
            yield self.epoch
            self.body(self.epoch)


@pytest.fixture
def lending(made):
    def get(kind=Clusterer, epochs=1, classes=10):
        logits, features = 3 * noise(96, classes), noise(96, 6, seed=1)
        return Lending(kind(made("untrained"), logits), features, epochs)

    return get


def chosen(made, run, select, **settings):
    method = made("ruc", select=select, neighbours=7, **{"confidence": 0.7, **settings})
    method.fit(run)
    assert torch.equal(method.clean[0], method.clean[1])
    return method


def test_the_clean_set_is_sure_or_at_home_among_its_neighbours_or_both(made, lending):
    run = lending()
    p, unit = run.base.logits.softmax(1), F.normalize(run.given, dim=1)
    label = p.argmax(1)
    at_home = []
    for i in range(96):
        order = (unit @ unit[i]).argsort(descending=True)[:7]
        votes = torch.bincount(label[order], minlength=10)
        at_home.append(bool(votes[label[i]] == votes.max()))
    sure, home = p.amax(1) >= 0.7, torch.tensor(at_home)
    assert 0 < (sure & home).sum() < min(sure.sum(), home.sum())
    for select, expected in (("confidence", sure), ("metric", home), ("hybrid", sure & home)):
        method = chosen(made, run, select)
        assert torch.equal(method.clean[0], expected)
        assert torch.equal(method.label, label.expand(2, -1))  # the base's own names
        assert not method.sure.any()


def test_the_names_of_clusters_do_not_matter_to_what_is_clean(made, lending):
    run = lending()
    clean = chosen(made, run, "hybrid").clean
    ids = torch.randperm(10)
    run.base.logits = run.base.logits[:, ids]
    assert torch.equal(chosen(made, run, "hybrid").clean, clean)


def test_both_networks_start_from_the_bases_weights_or_the_pretexts_with_other_heads(made, lending):
    for start, name, value in (("base", "scan", 0.01), ("pretext", "simclr", 0.02)):
        run = lending()
        method = chosen(made, run, "confidence", start=start)
        assert run.into[name] is method.backbone
        for net in (method.backbone, method.peer):
            assert all((p == value).all() for p in net.parameters())
        assert method.heads[0].weight.std() > 0
        assert not torch.equal(method.heads[0].weight, method.heads[1].weight)
        assert method.backbone is not method.peer


@pytest.mark.parametrize(
    ("kind", "classes", "settings", "sentence"),
    [
        (Nameless, 10, {}, "scan predicts no class of an image"),
        (Clusterer, 11, {}, "scan has 11 clusters where the data has 10 classes"),
        (Clusterer, 10, {"confidence": 1.0}, "no label of scan is clean .*lower confidence"),
    ],
)
def test_a_base_that_does_not_serve_is_refused_with_a_sentence(
    kind, classes, settings, sentence, made, lending
):
    run = lending(kind, classes=classes)
    run.base.logits = run.base.logits.clamp(max=1)
    with pytest.raises(ValueError, match=sentence):
        chosen(made, run, "hybrid", **{"confidence": 0.1, **settings})


def test_each_network_has_a_stream_of_its_own_over_all_images(made, lending):
    run = lending()
    chosen(made, run, "hybrid")
    assert not run.epoch.main
    assert set(run.epoch.streams) == {"own", "peer"}
    assert all(isinstance(stream, Stream) for stream in run.epoch.streams.values())
    drawn = orders(run.epoch, 96, steps=3, batch=32, origin=("x", 0))
    assert all(torch.equal(o.flatten().sort().values, torch.arange(96)) for o in drawn.values())
    assert not torch.equal(drawn["own"], drawn["peer"])


def test_what_one_network_is_sure_of_joins_the_others_clean_set(made):
    method = made("ruc", refurbish=0.8)
    method.clean[:, :10] = True
    method.label.fill_(5)
    p = torch.full((96, 2, 10), 0.02)
    p[:, 0, 3] = torch.linspace(0.1, 0.82, 96)  # the first network's
    p[:, 1, 7] = torch.linspace(0.82, 0.1, 96)
    clean, sure = method.clean.clone(), p.amax(2)
    method.correct(p, 0.8)
    for i in range(2):
        joins = (sure[:, 1 - i] >= 0.8) & ~clean[i]
        assert torch.equal(method.clean[i], clean[i] | joins)
        name = 3 if i else 7
        assert torch.equal(method.label[i], torch.where(joins, name, 5))
    assert not torch.equal(method.clean[0], method.clean[1])
    same(method.sure[0], torch.linspace(0, 1, 96))
    same(method.sure[1], torch.linspace(1, 0, 96))
    before = method.clean.clone()
    method.correct(torch.full((96, 2, 10), 0.1), 0.8)  # all alike: nobody is surer than others
    assert torch.equal(method.clean, before)  # who is clean stays so
    assert not method.sure.any()


def test_labels_are_corrected_between_epochs_by_a_threshold_that_rises(made, lending):
    method, run, asked = made("ruc", refurbish=0.9, refurbish_rise=0.02), lending(epochs=121), []
    run.both = torch.full((96, 20), 0.1)
    method.correct = lambda p, threshold: asked.append((p.shape, round(threshold, 6)))
    method.fit(run)
    assert len(asked) == 120  # not before the first, when heads are new
    assert asked[0] == ((96, 2, 10), 0.9)
    assert [asked[i - 1][1] for i in (39, 40, 79, 80, 120)] == [0.9, 0.92, 0.92, 0.94, 0.96]


# ---- a step ----------------------------------------------------------------------------------------


def batch_for(method, progress=0.5, size=8):
    streams = {}
    for i, group in enumerate(("own", "peer")):
        index = torch.arange(size) + 20 * i
        views = [torch.rand(size, 3, 32, 32) for _ in range(4)]
        streams[group] = Batch(views, index, torch.full((size,), -1), 0, progress)
    nothing = torch.empty(0, dtype=torch.long)
    return Batch(None, nothing, nothing, 0, progress, streams)


@pytest.fixture
def ready(made):
    """A method with half of its images clean, in eval mode: features of each image alone."""
    torch.manual_seed(3)
    method = made("ruc").eval()
    method.clean.copy_(torch.rand(2, 96) < 0.5)
    method.label.copy_(torch.randint(10, (2, 96)))
    method.sure.copy_(torch.rand(2, 96))
    return method


def test_targets_are_refined_labels_where_clean_and_guesses_of_both_elsewhere(ready):
    batch = batch_for(ready)
    for i, group in enumerate(("own", "peer")):
        given = batch.also[group]
        plain, one, two, _ = given.views
        with torch.no_grad():
            mine = [ready.net(i, v).softmax(1) for v in (one, two)]
            peers = [ready.net(1 - i, v).softmax(1) for v in (plain, one, two)]
        for b, n in enumerate(given.index):
            if ready.clean[i, n]:
                w = ready.sure[1 - i, n]
                aim = (1 - w) * torch.eye(10)[ready.label[i, n]] + w * peers[0][b]
            else:
                aim = (mine[0][b] + mine[1][b] + peers[1][b] + peers[2][b]) / 4
            found = ready.targets_of(given, i)
            same(found[b], aim**2 / (aim**2).sum())
        assert not found.requires_grad


@pytest.mark.parametrize(("progress", "ramp"), [(0.0, 0.1), (0.05, 0.1), (0.5, 0.5), (1.0, 1.0)])
def test_each_network_learns_from_its_own_stream_in_turn(ready, progress, ramp):
    batch = batch_for(ready, progress)
    torch.manual_seed(0)
    updates = [*ready.step(batch)]
    assert [u.group for u in updates] == ["own", "peer"]
    torch.manual_seed(0)
    for i, update in enumerate(updates):
        given = batch.also[update.group]
        clean, label = ready.clean[i, given.index], ready.label[i, given.index]
        _, one, two, strong = given.views
        aim = ready.targets_of(given, i)
        x, aim = mixup(torch.cat([one, two]), torch.cat([aim, aim]), 4.0)
        expected = semi_supervised(ready.net(i, x), aim, clean.repeat(2), 25 * ramp)
        expected += smoothed(ready.net(i, strong), label, clean, 0.5)
        same(update.loss, expected)
        (share,) = update.log.values()
        assert float(share) == pytest.approx(float(clean.float().mean()))


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 96),
    )  # fmt: skip


def test_views_pass_one_by_one_as_in_the_papers_code(ready):
    torch.manual_seed(0)
    ready.backbone, ready.peer = small(), small()
    ready.sure.fill_(0.5)
    ready.train()
    other, batch = copy.deepcopy(ready), batch_for(ready)
    given = batch.also["own"]
    for view, scale in zip(given.views, (1.0, 0.5, 0.2, 0.1), strict=True):
        view.mul_(scale)  # each has statistics of its own
    torch.manual_seed(1)
    update = next(ready.step(batch))
    update.loss.backward(inputs=ready.groups()["own"])

    net = nn.Sequential(other.backbone, other.heads[0])
    peer = nn.Sequential(other.peer, other.heads[1])
    known = other.clean[0, given.index]
    label = F.one_hot(other.label[0, given.index], 10).float()
    first, second, strong = (net(view) for view in given.views[1:])
    with torch.no_grad():
        plain, *guesses = (peer(view).softmax(1) for view in given.views[:3])
        guess = sum([first.softmax(1), second.softmax(1), *guesses]) / 4
        aim = torch.where(known[:, None], 0.5 * label + 0.5 * plain, guess) ** 2
        aim = aim / aim.sum(1, keepdim=True)
    torch.manual_seed(1)
    x, aim = mixup(torch.cat(given.views[1:3]), aim.repeat(2, 1), 4.0)
    logits, both = net(x), known.repeat(2)
    loss = -(aim * logits.log_softmax(1)).sum(1)[both].mean()
    loss = loss + 25 * 0.5 * (logits.softmax(1) - aim)[~both].square().mean()
    smooth = torch.where(label > 0, 0.5, 0.5 / 9)
    loss = loss - (smooth * strong.log_softmax(1)).sum(1)[known].mean()
    loss.backward()
    torch.testing.assert_close(update.loss, loss, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(ready.groups()["own"], other.groups()["own"], strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-5)


def test_a_network_takes_no_gradient_from_the_others_loss(ready):
    own, peer = ready.groups()["own"], ready.groups()["peer"]
    assert {*map(id, own)}.isdisjoint(map(id, peer))
    assert len(own) + len(peer) == len([*ready.parameters()])
    for update in ready.step(batch_for(ready)):
        ready.zero_grad(set_to_none=True)
        update.loss.backward()
        moves, rests = (own, peer) if update.group == "own" else (peer, own)
        assert all(p.grad is not None for p in moves)
        assert all(p.grad is None for p in rests)


def test_the_second_network_is_taught_by_the_first_as_it_now_is(ready):
    batch = batch_for(ready)
    torch.manual_seed(0)
    untouched = [float(u.loss.detach()) for u in ready.step(batch)]
    torch.manual_seed(0)
    step, losses = ready.step(batch), []
    for update in step:
        losses.append(float(update.loss.detach()))
        with torch.no_grad():
            ready.heads[0].bias += torch.arange(10.0)
    assert losses[0] == untouched[0]
    assert losses[1] != untouched[1]


def test_ruc_predicts_the_mean_of_both_networks(ready):
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        p = [
            nn.Sequential(net, head)(x).softmax(1)
            for net, head in zip((ready.backbone, ready.peer), ready.heads, strict=True)
        ]
        same(ready.predict(x).exp(), (p[0] + p[1]) / 2)
        same(ready.both(x), torch.cat(p, dim=1))
    assert ready.encoder() is ready.backbone


def test_views_are_the_image_two_weak_ones_and_a_strong_one(made):
    plain, weak, other, strong = made("ruc").view.view
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    same(plain(images), images.float() / 255)
    assert weak == other
    assert strong.ops[0] == weak
    augment, hole = strong.ops[1:]
    assert (augment.n, augment.m, augment.p, augment.distinct) == (2, 2, 0.5, True)
    assert augment.scale == "offset"
    assert (hole.size, hole.fill, hole.p, hole.least) == (16, 127 / 255, 1.0, None)
    assert len(made("ruc", cutout=0.0).view.view[3].ops) == 2


def test_more_neighbours_than_images_are_refused_before_training(made):
    with pytest.raises(ValueError, match="97 neighbours among the 96 images of digits"):
        made("ruc", neighbours=97)


def test_the_papers_recipe_for_stl10_is_told_apart():
    parts = anatomy(METHODS["ruc-stl10"])
    assert (parts.defaults["unlabelled"], parts.recipe.batch) == (50.0, 100)
    assert round(96 * parts.defaults["cutout"]) == 16
