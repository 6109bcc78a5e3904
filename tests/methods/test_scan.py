"""SCAN: neighbours agree on a cluster, then confident images label themselves."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, Stream
from sslbench.cells.parameters import anatomy
from sslbench.cluster import neighbours
from sslbench.methods.scan import Agree, agreement, mean_colour, self_labelled, statistics
from sslbench.testing import Trial
from sslbench.train.feed import orders

from .helpers import (
    METHODS,
    REGISTRY,
    Case,
    Lent,
    dot,
    first_loss,
    log_share,
    near,
    noise,
    same,
    trained,
    units,
    with_gradients,
)

SMALL = {"scan.confidence": 0.1, "scan.neighbours": 5}
# strong views are another task each time, and at an entropy of 5 a guess is nearly the lowest loss
PLAIN = {"scan": {"operations": 0, "cutout": 0.0, "entropy": 1.0, "epochs": 20}}
B, K = 6, 4


def of_agreement(anchor, neighbour):
    return agreement(anchor, neighbour, 5.0)


def looped_agreement(anchor, neighbour):
    p, q = ([[log_share(row, c).exp() for c in range(K)] for row in x] for x in (anchor, neighbour))
    apart = -sum(dot(one, two).log() for one, two in zip(p, q, strict=True)) / len(p)
    mean = [sum(row[c] for row in p) / len(p) for c in range(K)]
    return apart - 5.0 * -sum(m * m.log() for m in mean)


def of_self_labelled(logits, label):
    return self_labelled(logits, label, balance=True)


def looped_self_labelled(logits, label):
    names = sorted(set(label.tolist()))
    means = []
    for name in names:
        own = [-log_share(row, name) for row, it in zip(logits, label, strict=True) if it == name]
        means.append(sum(own) / len(own))
    return sum(means) / len(names)


def names_permuted(logits, label):
    ids = torch.tensor([2, 0, 3, 1])
    return logits[:, ids], ids.argsort()[label]


def clusters_permuted(*inputs):
    return [x[:, torch.tensor([2, 0, 3, 1])] for x in inputs]


CASES = {
    "agreement": Case(
        of_agreement,
        [noise(B, K), noise(B, K, seed=1)],
        looped_agreement,
        clusters=clusters_permuted,
    ),
    "self_labelled": Case(
        of_self_labelled,
        [noise(B, K), torch.tensor([3, 1, 1, 0, 3, 1])],
        looped_self_labelled,
        clusters=names_permuted,
    ),
}


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        (torch.eye(10).repeat(3, 1) * 1000, -11.51293),  # sure, balanced, agreed
        (torch.zeros(30, 10), -9.21034),  # uniform
        (torch.eye(10)[:1].repeat(30, 1) * 1000, 0.0),  # one cluster holds all
    ],
)
def test_agreement_of_ten_clusters(logits, expected):
    near(agreement(logits, logits, 5.0), expected)


def test_agreement_does_not_mind_the_order_of_images_and_clusters_nor_shifted_logits():
    p, q = CASES["agreement"].inputs
    order, ids = torch.randperm(B), torch.randperm(K)
    same(of_agreement(p[order], q[order]), of_agreement(p, q))
    same(of_agreement(p[:, ids], q[:, ids]), of_agreement(p, q))
    same(of_agreement(p + noise(B, 1), q), of_agreement(p, q))
    same(agreement(p, q, 0.0), agreement(q, p, 0.0))  # the entropy alone tells them apart
    assert abs(float(of_agreement(p, q.roll(1, 0)) - of_agreement(p, q))) > 0.01


@pytest.mark.parametrize("gap", [20.0, 50.0, 80.0])
def test_a_confident_disagreement_still_pulls(gap):
    anchor, neighbour = torch.tensor([[gap, 0.0]]), torch.tensor([[0.0, gap]])
    value, gradients = with_gradients(lambda p, q: agreement(p, q, 0.0), [anchor, neighbour])
    near(value, gap - math.log(2))
    for gradient, sign in zip(gradients, (1, -1), strict=True):
        near(gradient[0, 0], 0.5 * sign)


def test_scan_goes_from_pretext_to_neighbours_to_agreement_to_its_own_labels(made):
    method = made("scan", neighbours=3)
    x = torch.randn(96, 5)
    run = Lent(features=x)
    method.fit(run)
    words = [word for word, _ in run.asked]
    assert words == ["pretrain simclr", "features", "fit agree", "epochs"]
    (_, into), (_, encoder), (_, agree), (_, last) = run.asked
    assert into is encoder is agree.backbone is method.backbone
    assert agree.heads is method.heads
    assert last is method
    unit = F.normalize(x, dim=1)
    nearest = (unit @ unit.T).topk(1 + 3, dim=1).indices  # itself is none of the three
    assert torch.equal(agree.near.sort(1).values, nearest.sort(1).values)


def test_a_partner_is_one_of_the_images_neighbours(made):
    method = made("scan")
    near = torch.randint(96, (96, 5))
    stage, run = Agree(method.backbone, method.heads, near, entropy=5, view=method.strong), Lent()
    stage.fit(run)
    assert run.epoch.main
    assert isinstance(run.epoch.streams["near"], Stream)
    drawn = orders(run.epoch, 96, steps=3, batch=32, origin=("x", 0))
    for image, partner in zip(drawn["main"].flatten(), drawn["near"].flatten(), strict=True):
        assert partner in near[image]


def test_scan_starts_from_its_pretexts_weights_and_sees_no_label(tmp_path, monkeypatch):
    trial, seen = Trial(REGISTRY, "scan", tmp_path, SMALL), []
    fit, step = Agree.fit, Agree.step

    def fitting(self, run):
        seen.append({k: v.clone() for k, v in self.backbone.state_dict().items()})
        fit(self, run)

    def stepping(self, batch):
        partner = batch.also["near"]
        assert (batch.label == -1).all()
        assert (partner.label == -1).all()
        assert (self.near[batch.index] == partner.index[:, None]).any(1).all()
        yield from step(self, batch)

    monkeypatch.setattr(Agree, "fit", fitting)
    monkeypatch.setattr(Agree, "step", stepping)
    cell = trial.cell()
    assert trial.fit("store", cell).done.status == "ok"
    pretext = trial.bench("store").store.cell(cell.pretexts["simclr"].id)
    saved, _ = pretext.load("encoder")
    (start,) = seen
    assert saved.keys() == start.keys()
    assert all(torch.equal(saved[key], start[key]) for key in saved)
    untrained = made_of("untrained", trial).state_dict()
    assert any(not torch.equal(saved[key], untrained[key]) for key in saved)


def made_of(name, trial):
    other = Trial(trial.registry, name, trial.folder)
    return other.bench("built").builder.build(other.cell())[0]


def sure_of(method, logits):
    """Makes the method see these logits: first its weak views', then its strong views'."""
    given = iter(logits)
    method.online.forward = lambda x: next(given)


def test_only_confident_images_label_themselves_each_class_with_the_same_weight(made, batch_of):
    method = made("scan", confidence=0.9)
    weak = torch.zeros(8, 10)
    weak[torch.arange(6), torch.tensor([3, 3, 3, 3, 7, 7])] = 20.0  # the last two are not sure
    strong = torch.randn(8, 10)
    sure_of(method, [weak, strong])
    _, loss = first_loss(method, batch_of(method))
    logs = strong.log_softmax(1)
    expected = -(logs[:4, 3].mean() + logs[4:6, 7].mean()) / 2
    torch.testing.assert_close(loss, expected)


def test_the_share_of_confident_images_is_logged(made, batch_of):
    method = made("scan", confidence=0.0)
    assert float(next(method.step(batch_of(method))).log["confident"]) == 1.0


def test_where_nobody_is_confident_no_step_is_taken(made, batch_of):
    method = made("scan", confidence=0.9)
    sure_of(method, [torch.zeros(8, 10), torch.zeros(8, 10)])
    assert list(method.step(batch_of(method))) == []


def test_own_labels_take_no_gradient_through_the_weak_view(made, batch_of):
    method = made("scan", confidence=0.9)
    weak = (20.0 * torch.eye(10)[:8]).requires_grad_()
    strong = torch.randn(8, 10, requires_grad=True)
    sure_of(method, [weak, strong])
    _, loss = first_loss(method, batch_of(method))
    through, own = torch.autograd.grad(loss, [weak, strong], allow_unused=True)
    assert through is None
    assert own.abs().sum() > 0


def test_rare_labels_may_count_less():
    logits, label = CASES["self_labelled"].inputs
    plain = self_labelled(logits, label, balance=False)
    same(plain, F.cross_entropy(logits, label))
    assert abs(float(plain - of_self_labelled(logits, label))) > 1e-3


def test_scan_predicts_the_clusters_of_its_chosen_head(made):
    method, x = made("scan", heads=3).eval(), torch.rand(3, 3, 32, 32)
    weight, bias = method.heads.linear.weight, method.heads.linear.bias
    with torch.no_grad():
        h = method.encoder()(x)
        for chosen in (0, 2):
            method.heads.chosen.fill_(chosen)
            rows = slice(10 * chosen, 10 * chosen + 10)
            same(method.predict(x), h @ weight[rows].T + bias[rows])


# ---- several heads ---------------------------------------------------------------------------------


def stage_of(method, **settings):
    near = torch.arange(96)[:, None].repeat(1, 5)
    settings = {"entropy": 5.0, "view": method.strong, **settings}
    return Agree(method.backbone, method.heads, near, **settings)


def pair_of(method, size=8, seed=0):
    """A batch and its neighbours, as the stage sees them."""
    torch.manual_seed(seed)
    both = [
        Batch(torch.rand(size, 3, 32, 32), torch.arange(size), torch.full((size,), -1), 0, 0.0)
        for _ in range(2)
    ]
    return both[0]._replace(also={"near": both[1]})


def test_all_heads_learn_as_if_alone_and_each_ones_loss_is_kept(made):
    method = made("scan", heads=3)
    stage = stage_of(method, head_only=True)
    stage.backbone.eval()  # the same features in both passes
    batch = pair_of(method)
    _, loss = first_loss(stage, batch)
    h = [method.backbone(x) for x in (batch.views, batch.also["near"].views)]
    each = [agreement(*pair, 5.0) for pair in zip(*map(method.heads.every, h), strict=True)]
    same(loss, sum(each))
    assert len({float(e.detach()) for e in each}) == 3
    gradient = torch.autograd.grad(each[1], method.heads.linear.weight)[0][10:20]
    loss.backward()
    same(method.heads.linear.weight.grad[10:20], gradient)
    for _ in range(2):
        assert len([*stage.step(batch)]) == 1
    same(method.heads.loss, 2 * torch.stack(each).detach())
    assert not stage.heads.loss.requires_grad


def test_images_and_neighbours_pass_one_by_one_as_in_the_papers_code(made):
    method = made("scan", heads=2)
    torch.manual_seed(0)
    method.backbone = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 96),
    )  # fmt: skip
    other, batch = copy.deepcopy(method), pair_of(method)
    batch.also["near"].views.mul_(0.3)  # other statistics
    _, loss = first_loss(stage_of(method), batch)
    loss.backward()

    anchors = other.heads.every(other.backbone(batch.views))
    neighbors = other.heads.every(other.backbone(batch.also["near"].views))
    total = 0.0
    for one, two in zip(anchors, neighbors, strict=True):
        p, q = one.softmax(1), two.softmax(1)
        mean = p.mean(0)
        total = total - (p * q).sum(1).log().mean() + 5.0 * (mean * mean.log()).sum()
    total.backward()
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(method.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lowest", [0, 1, 2])
def test_the_head_with_the_lowest_loss_over_the_last_epoch_is_chosen(lowest, made):
    method = made("scan", heads=3)
    stage, run = stage_of(method), Lent(epochs=2)

    def epochs(whole=run.epochs):
        for epoch in whole(stage):
            yield epoch
            assert not method.heads.loss.any()  # born anew each epoch
            worse = torch.tensor([-100.0, -200.0, -300.0])
            method.heads.loss += worse.roll(epoch.number - 1)
            method.heads.loss[lowest] -= 300.0 * epoch.number

    run.epochs = lambda method: epochs()
    stage.fit(run)
    assert int(method.heads.chosen) == lowest


def test_with_the_backbone_at_rest_heads_alone_learn_and_its_statistics_stay(made):
    method = made("scan", heads=2, head_only=True)
    run, frozen = Lent(features=torch.randn(96, 5)), []
    run.fit = lambda stage, name: frozen.append(
        (stage, [p.requires_grad for p in stage.backbone.parameters()])
    )
    method.fit(run)
    ((stage, flags),) = frozen
    assert not any(flags)
    assert all(p.requires_grad for p in method.parameters())  # afterwards
    stage.fit(Lent())
    before = {k: v.clone() for k, v in method.backbone.state_dict().items()}
    weight = method.heads.linear.weight.detach().clone()
    trained(stage, pair_of(method))
    assert all(torch.equal(v, before[k]) for k, v in method.backbone.state_dict().items())
    assert not torch.equal(weight, method.heads.linear.weight)
    method.train()
    stage_of(method).fit(Lent())
    assert method.backbone.training  # the network learns where it may


def test_statistics_of_neighbours_are_those_of_a_loop():
    features = noise(20, 6)
    near, unit = neighbours(features, 4), F.normalize(features, dim=1)
    pairs = [(i, int(j)) for i in range(20) for j in near[i, 1:]]
    found = statistics(features, near)
    same(found["similarity"], sum(unit[i] @ unit[j] for i, j in pairs) / len(pairs))
    mutual = sum(i in near[j].tolist() for i, j in pairs) / len(pairs)
    assert 0 < mutual < 1
    assert float(found["mutual"]) == pytest.approx(mutual)
    assert statistics(features, near[:, :1]) == {}


def test_statistics_of_neighbours_are_logged_while_they_agree(made):
    method = made("scan", neighbours=3)
    run = Lent(features=units(96, 5))
    method.fit(run)
    stage = dict(run.asked)["fit agree"]
    (update,) = stage.step(pair_of(method))
    assert set(update.log) == {"similarity", "mutual"}
    assert all(-1 <= float(value) <= 1 for value in update.log.values())


def test_a_guess_has_the_loss_that_the_stage_says(made):
    method = made("scan", heads=3)
    stage = stage_of(method)
    with torch.no_grad():
        method.heads.linear.weight.zero_()
        method.heads.linear.bias.zero_()
    near(first_loss(stage, pair_of(method))[1], 3 * -9.21034)
    assert stage.uniform() == pytest.approx(3 * -9.21034, abs=1e-3)
    assert method.uniform() == pytest.approx(math.log(10))


# ---- labels of an average --------------------------------------------------------------------------


def test_the_average_starts_where_the_stage_ended_and_moves_by_the_formula(made, batch_of):
    method = made("scan", momentum_target=0.9, confidence=0.0)
    with torch.no_grad():
        for p in method.online.parameters():
            p.add_(0.01)
        method.heads.chosen.fill_(0)
    method.fit(Lent(features=torch.randn(96, 5)))
    before = [p.clone() for p in method.target.parameters()]
    for old, p in zip(before, method.online.parameters(), strict=True):
        assert torch.equal(old, p)
    trained(method, batch_of(method))
    pairs = zip(before, method.target.parameters(), method.online.parameters(), strict=True)
    for old, target, online in pairs:
        torch.testing.assert_close(target, 0.9 * old + 0.1 * online.detach(), rtol=1e-6, atol=1e-8)
        assert not target.requires_grad
    assert (method.heads.linear.weight - before[-2]).abs().max() > 1e-6


def test_the_average_names_and_is_judged_and_the_network_learns(made, batch_of):
    method = made("scan", momentum_target=0.9, confidence=0.9)
    names = torch.arange(8) % 10
    method.target.forward = lambda x: 20.0 * torch.eye(10)[names]
    batch = batch_of(method)
    _, loss = first_loss(method, batch)
    same(loss, F.cross_entropy(method.online(batch.views[1]), names))
    assert method.encoder() is method.target[0]
    assert torch.equal(method.predict(batch.views[0]), 20.0 * torch.eye(10)[names])
    plain = made("scan")
    assert plain.target is None
    assert plain.encoder() is plain.backbone


def test_the_average_is_judged_by_statistics_that_it_gathered_from_weak_views(made, batch_of):
    method = made("scan", momentum_target=0.9, confidence=0.0)
    batch = batch_of(method)
    norm = next(m for m in method.target.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].mean((0, 2, 3))))
    before = norm.running_mean.clone()
    trained(method, batch)
    (mean,) = seen  # of the weak views alone
    same(norm.running_mean, before + norm.momentum * (mean - before))


@pytest.mark.slow
def test_scan_with_heads_and_average_trains_stops_and_resumes_alike(tmp_path):
    settings = {**SMALL, "scan.heads": 3, "scan.head_only": True, "scan.momentum_target": 0.5}
    trial = Trial(REGISTRY, "scan", tmp_path, {**settings, "simclr.epochs": 0})
    whole = trial.fitted
    assert not whole.warnings
    for _ in whole.losses:
        fit = trial.fit("parts", trial.cell(), steps=5)
        if fit.done.status != "interrupted":
            break
    assert all(torch.equal(v, fit.weights[k]) for k, v in whole.weights.items())


# ---- settings --------------------------------------------------------------------------------------


def test_the_papers_recipe_for_imagenet_is_told_apart(tmp_path):
    parts = anatomy(METHODS["scan-imagenet"])
    assert (parts.defaults["pretext"], parts.defaults["heads"]) == ("moco-imagenet", 10)
    assert parts.defaults["head_only"]
    stage = Trial(REGISTRY, "scan-imagenet", tmp_path).cell(epochs=100).stages["agree"][1]
    assert (stage.optimizer, stage.lr, stage.weight_decay) == ("sgd", 5.0, 0.0)
    assert (parts.recipe.optimizer, parts.recipe.lr, parts.recipe.epochs) == ("sgd", 0.03, 25)


def test_strong_views_have_a_hole_and_the_stage_may_see_milder_ones(made):
    method = made("scan", agree_views="contrastive", cutout=0.0)
    assert "Cutout" not in repr(method.strong)
    assert "ColorJitter" in repr(method.agreeing)
    plain = made("scan")
    hole = plain.strong.ops[-1]
    assert (hole.size, hole.least, hole.p) == (16, 1, 1.0)
    colour = torch.tensor(hole.fill).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    black = plain.backbone._fed(colour)  # what the network sees of it
    same(black, torch.zeros_like(black))
    plain.backbone.mean = None
    assert mean_colour(plain.backbone) == (0.5, 0.5, 0.5)
    plain.backbone.mean = torch.tensor([[[0.1]], [[0.2]], [[0.3]]])
    assert mean_colour(plain.backbone) == (0.1, 0.2, 0.3)
    plain.backbone.mean = torch.tensor([0.1])  # of grey images
    assert mean_colour(plain.backbone) == (0.5, 0.5, 0.5)
    assert "RandAugment(n=4" in repr(plain.strong)
    assert "scale='drawn'" in repr(plain.strong)
    assert plain.agreeing is plain.strong


def test_agreement_of_two_images_in_two_clusters():
    near(agreement(*[torch.eye(2) * 1000] * 2, 5.0), -5 * math.log(2))


def test_more_neighbours_than_images_are_refused_before_training(made):
    with pytest.raises(
        ValueError, match=r"96 neighbours among the 96 images of digits.*95 or less"
    ):
        made("scan", neighbours=96)
    assert made("scan", neighbours=95).neighbours == 95
