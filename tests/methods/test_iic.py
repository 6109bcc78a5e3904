"""IIC: clusters that tell the most about the clusters of transformed images."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Update
from sslbench.cells.parameters import anatomy
from sslbench.methods.iic import lost_information

from .helpers import METHODS, Case, Lent, first_loss, log_share, near, noise, same, trained

# every pass by the main head, so that losses of one kind are compared
PLAIN = {"iic": {"overclusters": 10, "subheads": 2, "repeats": 2}}
B, K = 6, 4


def of_information(x, y):
    return lost_information(3 * x, 3 * y, 1.0)


def of_weighted(x, y):
    return lost_information(3 * x, 3 * y, 1.5)


def looped(x, y, weight):
    p, q = ([[log_share(row, c).exp() for c in range(K)] for row in 3 * z] for z in (x, y))
    pairs = [
        [sum(a[i] * b[j] for a, b in zip(p, q, strict=True)) for j in range(K)] for i in range(K)
    ]
    joint = [[(pairs[i][j] + pairs[j][i]) / (2 * B) for j in range(K)] for i in range(K)]
    own = [sum(row) for row in joint]
    lost = 0.0
    for i in range(K):
        for j in range(K):
            gain = joint[i][j].log() - weight * (own[i].log() + own[j].log())
            lost = lost - joint[i][j] * gain
    return lost


def clusters_permuted(*inputs):
    return [x[:, torch.tensor([2, 0, 3, 1])] for x in inputs]


CASES = {
    name: Case(
        loss,
        [noise(B, K), noise(B, K, seed=1)],
        lambda x, y, weight=weight: looped(x, y, weight),
        swap=True,
        clusters=clusters_permuted,
        low=False,  # made three times as large beforehand
    )
    for name, loss, weight in (("information", of_information, 1.0), ("weighted", of_weighted, 1.5))
}


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (torch.eye(10).repeat(3, 1), torch.eye(10).repeat(3, 1), -2.302585),  # sure, balanced
        (torch.zeros(30, 10), torch.zeros(30, 10), 0.0),
        (torch.eye(10)[:1].repeat(30, 1), torch.eye(10)[:1].repeat(30, 1), 0.0),  # one cluster
        (torch.eye(10).repeat_interleave(10, 0), torch.eye(10).repeat(10, 1), 0.0),  # independent
    ],
)
def test_information_of_ten_clusters(x, y, expected):
    near(lost_information(1000 * x, 1000 * y, 1.0), expected)


def test_information_is_between_none_and_the_entropy_of_the_clusters():
    for seed in range(20):
        x, y = 5 * noise(30, K, seed=seed), 5 * noise(30, K, seed=seed + 100)
        assert -math.log(K) <= float(lost_information(x, y, 1.0)) <= 1e-6
        assert -math.log(K) <= float(lost_information(x, x, 1.0)) < -0.01


def test_heads_are_measured_one_by_one():
    x, y = noise(3, B, K), noise(3, B, K, seed=1)
    each = [lost_information(*pair, 1.0) for pair in zip(x, y, strict=True)]
    same(lost_information(x, y, 1.0), torch.stack(each))


def test_views_are_a_plain_crop_and_its_transforms(made, batch_of):
    method = made("iic", repeats=3)
    batch = batch_of(method)
    assert [v.shape for v in batch.views] == [(8, 3, 32, 32)] * 4
    plain, *changed = map(repr, method.view.view)
    assert "ColorJitter" not in plain
    assert "flip=0.0" in plain
    assert all("ColorJitter" in one and "flip=0.5" in one for one in changed)


def test_colours_are_jittered_with_the_strength_asked_for(made):
    for strength in (0.5, 1.0):
        colours = made("iic", jitter=strength).view.view[1].ops[1]
        expected = tuple(strength * s for s in (0.4, 0.4, 0.4, 0.125))
        assert (colours.brightness, colours.contrast, colours.saturation, colours.hue) == expected


def test_a_step_pairs_the_plain_crop_with_each_of_its_transforms(made, batch_of):
    method = made(
        "iic", repeats=3, subheads=2, passes=(1, 1)
    ).eval()  # features of each image alone
    for epoch, head, classes in ((0, method.over, 64), (1, method.main, 10)):
        batch = batch_of(method, epoch=epoch)
        logits = [head(method.backbone(v)).unflatten(1, (2, classes)) for v in batch.views]
        expected = []
        for sub in range(2):
            one = torch.cat([logits[0][:, sub]] * 3)
            others = torch.cat([each[:, sub] for each in logits[1:]])
            expected.append(lost_information(one, others, 1.0))
        same(first_loss(method, batch)[1], sum(expected) / 2)


def test_heads_take_turns_and_the_other_head_rests(made, batch_of):
    method = made("iic", passes=(1, 2))
    assert [method.on_main(epoch) for epoch in range(7)] == [False, True, True] * 2 + [False]
    for epoch in range(3):
        weights = {"over": method.over.weight.clone(), "main": method.main.weight.clone()}
        method.zero_grad(set_to_none=True)
        _, loss = first_loss(method, batch_of(method, epoch=epoch))
        loss.backward()
        moves, rests = ("over", "main") if epoch == 0 else ("main", "over")
        assert getattr(method, moves).weight.grad.abs().max() > 0
        assert getattr(method, rests).weight.grad is None
        assert weights[rests].equal(getattr(method, rests).weight)


def test_losses_of_the_main_head_are_summed_over_its_last_pass_alone(made, batch_of):
    method, run = made("iic", passes=(1, 2), subheads=3), Lent(epochs=4)
    kept = []

    def epochs(whole=run.epochs):
        for epoch in whole(method):
            yield epoch
            before = method.loss.clone()
            for seed in range(2):
                trained(method, batch_of(method, epoch=epoch.number, seed=seed), lr=0.01)
            kept.append((before, method.loss.clone()))

    run.epochs = lambda method: epochs()
    method.fit(run)
    (over, main, again, last) = kept
    assert not over[1].any()
    assert not main[0].any()
    assert not again[0].any()  # born anew with each of its passes
    assert main[1].all()
    assert again[1].all()
    assert torch.equal(last[0], again[1])  # the other head's pass leaves it
    assert torch.equal(last[1], again[1])


def test_the_kept_loss_is_each_sub_heads_own(made, batch_of):
    method = made("iic", passes=(1, 1), subheads=3, repeats=1)
    batch = batch_of(method, epoch=1)
    with torch.no_grad():
        one, other = (method.logits(v) for v in batch.views)
    (update,) = method.step(batch)
    assert isinstance(update, Update)
    same(method.loss, lost_information(one, other, 1.0))
    assert float(method.loss.std()) > 0
    same(update.log["loss_main"], method.loss.mean())
    assert not method.loss.requires_grad


def test_iic_predicts_the_clusters_of_the_sub_head_with_the_lowest_loss(made):
    method, x = made("iic").eval(), torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        h = method.encoder()(x)
        for lowest in (0, 3):
            method.loss.copy_(-F.one_hot(torch.tensor(lowest), 5).float())
            rows = slice(10 * lowest, 10 * lowest + 10)
            expected = h @ method.main.weight[rows].T + method.main.bias[rows]
            same(method.predict(x), expected)


def test_the_network_sees_gradients_and_no_colours(made):
    encoder, x = made("iic").eval().encoder(), torch.rand(2, 3, 32, 32)
    assert encoder.net.conv1[0].in_channels == 2
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey = (x * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)  # the code's, of PIL
    torch.testing.assert_close(encoder(grey), encoder(x), rtol=2e-3, atol=2e-3)
    assert (encoder(x[:, [2, 0, 1]]) - encoder(x)).abs().max() > 0.02  # by no means of the mean
    colours = made("iic", sobel=False).encoder()
    assert colours.net.conv1[0].in_channels == 3


def test_a_guess_loses_everything(made):
    assert made("iic").uniform() == 0.0
    assert made("iic", weight=1.5).uniform() is None


def test_more_overclusters_than_images_are_refused_before_training(made):
    with pytest.raises(ValueError, match="97 overclusters of the 96 images of digits"):
        made("iic", overclusters=97)


def test_the_papers_recipe_for_stl10_is_told_apart():
    parts = anatomy(METHODS["iic-stl10"])
    assert (parts.defaults["passes"], parts.defaults["repeats"]) == ((1, 1), 5)
    assert parts.recipe.batch * parts.defaults["repeats"] == 700
