"""Relative patch: all pairs of neighbours, both ways, each with its side."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sslbench.api import DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.methods.relative_patch import RelativePatch, neighbours
from sslbench.plugins import registry

from .helpers import METHODS, first_loss, near

CASES = {}  # torch's cross-entropy


def backbone_of(name, size=32, **bracket):
    return registry(installed=False).find("backbones", name).load()(name, size=size, **bracket)


def info(size=32):
    return DataInfo("some", size=size, length=96, classes=10)


# ---- pairs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [2, 3, 4])
def test_neighbours_are_all_that_touch_with_the_side_on_which_the_second_lies(grid):
    sides = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
    expected = []
    for row in range(grid):
        for column in range(grid):
            for label, (down, right) in enumerate(sides):
                other = row + down, column + right
                if min(other) >= 0 and max(other) < grid:
                    place = row * grid + column, other[0] * grid + other[1]
                    expected.append((*place, label))
    found = torch.stack(neighbours(grid, centre=False), 1)
    assert sorted(map(tuple, found.tolist())) == sorted(expected)


def test_the_side_is_the_opposite_one_seen_from_the_other():
    first, second, label = neighbours(3, centre=False)
    known = {(a, b): side for a, b, side in torch.stack([first, second, label], 1).tolist()}
    assert len(known) == 40
    assert all(side == 7 - known[b, a] for (a, b), side in known.items())


def test_the_middle_has_each_side_once():
    first, second, label = neighbours(3, centre=True)
    assert first.tolist() == [4] * 8
    assert second.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert label.tolist() == [*range(8)]


def test_the_loss_and_the_accuracy_are_those_of_single_pairs(made, batch_of):
    method = made("relative-patch").eval()
    batch = batch_of(method, 3)
    update = next(method.step(batch))
    losses, right = [], []
    for image in batch.views:
        z = [method.backbone(method.standardise(patch[None])) for patch in image]
        pairs = zip(*(b.tolist() for b in (method.first, method.second, method.label)), strict=True)
        for a, b, side in pairs:
            logits = method.head(torch.cat([z[a], z[b]], dim=1))[0]
            losses.append(-logits.log_softmax(0)[side])
            right.append(float(logits.argmax() == side))
    torch.testing.assert_close(update.loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    assert float(update.log["accuracy"]) == pytest.approx(sum(right) / 120)


# ---- losses ----------------------------------------------------------------------------------------


def test_the_first_loss_is_near_that_of_a_guess(made, batch_of):
    method = made("relative-patch", centre=True)
    near(torch.tensor(method.uniform()), 2.07944)
    assert first_loss(method, batch_of(method, 32))[1].item() == pytest.approx(2.079, abs=0.2)


def test_a_guess_knows_that_corners_have_fewer_neighbours(made):
    expected = -(4 * 6 / 40 * math.log(6 / 40) + 4 * 4 / 40 * math.log(4 / 40))
    assert made("relative-patch").uniform() == pytest.approx(expected)


def test_patches_of_one_colour_stay_at_chance(made):
    images = torch.full((16, 3, 32, 32), 90, dtype=torch.uint8)
    for drop in (True, False):
        method = made("relative-patch", centre=True, drop=drop).eval()
        patches = method.standardise(method.view(images))
        z = method.backbone(patches.flatten(0, 1)).unflatten(0, (16, 9))
        logits = method.head(torch.cat([z[:, method.first], z[:, method.second]], 2).flatten(0, 1))
        shares = logits.softmax(1).unflatten(0, (16, 8)).mean(0)  # by side
        if not drop:
            torch.testing.assert_close(shares, shares[:1].expand_as(shares))
        gap = (shares - shares.mean(0)).abs().max()
        assert gap < 0.05  # which channel is kept differs, by chance


def test_it_learns_where_patches_of_a_known_picture_lie(made, batch_of):
    method = made("relative-patch", drop=False, crop=1.0, coarse=0.0, layers=1)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8).expand(16, 3, 32, 32)
    optimiser, found = torch.optim.Adam(method.parameters(), 2e-3), []
    batch = batch_of(method)
    for _ in range(30):
        update = next(method.step(batch._replace(views=method.view(images))))
        optimiser.zero_grad()
        update.loss.backward()
        optimiser.step()
        found.append((update.loss.item(), float(update.log["accuracy"])))
    assert found[-1][0] < 0.5 * found[0][0]
    assert found[-1][1] > 0.8


def test_its_step_passes_each_patch_once(made, batch_of):
    method, seen = made("relative-patch"), []
    method.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    first_loss(method, batch_of(method))
    assert seen == [(72, 3, 7, 7)]


def test_patches_are_resized_where_that_is_asked_for(made, batch_of):
    method, seen = made("relative-patch", tile=16), []
    method.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    first_loss(method, batch_of(method))
    assert seen == [(72, 3, 16, 16)]


def test_a_view_has_the_steps_that_are_asked_for(made):
    def steps(**settings):
        return [type(op).__name__ for op in made("relative-patch", **settings).view.ops]

    assert steps(crop=1.0, coarse=0.0, drop=False) == ["Tiles"]
    every = ["RandomResizedCrop", "Grayscale", "Tiles", "Coarsen", "DropChannels"]
    assert steps(crop=0.5, grey=0.5, coarse=0.5, drop=True) == every


# ---- shapes ----------------------------------------------------------------------------------------


def test_the_heads_are_the_codes_and_on_imagenet_mmselfsups():
    backbone = backbone_of("test_resnet")
    code = RelativePatch(backbone, info())
    assert kinds(code.head) == [
        *("Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear")
    ]
    assert code.head[0].weight.shape == (4096, 2 * backbone.dim)
    assert code.head[4].weight.shape == (4096, 4096)
    assert code.head[7].out_features == 8
    assert "DropChannels" in repr(code.view)
    assert "Coarsen" in repr(code.view)
    noise = torch.rand(4, 3, 7, 7) * torch.tensor([0.1, 0.2, 1.0]).view(3, 1, 1)
    spread = code.standardise(noise).std((2, 3)).mean(0)
    assert spread[2] > 2 * spread[0]  # channels keep their contrast to one another
    theirs = RelativePatch(backbone, info(), **anatomy(METHODS["relative-patch-imagenet"]).defaults)
    assert kinds(theirs.head) == ["Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    assert theirs.head[3].p == 0.5
    assert theirs.view.ops[-1].side == 8
    assert "Grayscale(p=0.66)" in repr(theirs.view)
    assert "Drop" not in repr(theirs.view)
    assert isinstance(theirs.standardise, nn.Identity)


def kinds(layers):
    return [type(layer).__name__ for layer in layers]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"grid": 4, "centre": True}, "4 x 4 has no patch in the middle; set an odd grid"),
        ({"grid": 1}, "a grid of 1 x 1 has one tile"),
        ({"grid": 8}, "leave tiles of 3 .* a grid of at most 5"),
        ({"share": 0.0}, "leave tiles of 0 at 0 of a cell"),
    ],
)
def test_what_has_no_neighbours_is_refused_in_a_sentence(settings, sentence, made):
    with pytest.raises(ValueError, match=sentence):
        made("relative-patch", **settings)


def test_patches_that_a_backbone_does_not_take_are_refused_before_training():
    vit = backbone_of("test_vit", patch_size=16)
    with pytest.raises(ValueError, match=r"does not take patches of 7 pixels .*; set tile"):
        RelativePatch(vit, info())
    assert RelativePatch(vit, info(), tile=16).tile == 16


def test_a_batch_of_the_code_has_as_many_patches():
    recipe = anatomy(METHODS["relative-patch"]).recipe
    assert recipe.batch * 9 == pytest.approx(512, abs=4)
    assert recipe.epochs * 1_281_167 / recipe.batch == pytest.approx(1.7e6, rel=0.02)
    recipe = anatomy(METHODS["relative-patch-imagenet"]).recipe
    assert [round(share * recipe.epochs) for share in recipe.milestones] == [30, 50]
