"""Jigsaw: tiles are laid in a known order, and nothing else tells which."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sslbench.api import DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.methods.jigsaw import Jigsaw, laid
from sslbench.plugins import registry

from .helpers import METHODS, first_loss, near

CASES = {}  # torch's cross-entropy
# 96 images show four orders often enough
PLAIN = {"jigsaw": {"permutations": 4, "dropout": 0.0, "fc7": 0, "norm": True}}


def backbone_of(name, size=32, **bracket):
    return registry(installed=False).find("backbones", name).load()(name, size=size, **bracket)


def info(size=32):
    return DataInfo("some", size=size, length=96, classes=10)


# ---- orders ----------------------------------------------------------------------------------------


def test_tile_i_of_an_order_lies_at_place_i():
    tiles = torch.rand(3, 9, 3, 4, 4)
    orders = torch.stack([torch.randperm(9) for _ in range(3)])
    found = laid(tiles, orders)
    for image in range(3):
        for place in range(9):
            assert torch.equal(found[image, place], tiles[image, orders[image, place]])


def test_the_identity_changes_nothing_and_an_inverse_undoes():
    tiles, orders = torch.rand(2, 9, 3, 4, 4), torch.stack([torch.randperm(9) for _ in range(2)])
    assert torch.equal(laid(tiles, torch.arange(9).expand(2, 9)), tiles)
    assert torch.equal(laid(laid(tiles, orders), orders.argsort(1)), tiles)


def test_the_orders_are_a_buffer_that_travels_with_the_method(made):
    method = made("jigsaw", permutations=20)
    kept = method.state_dict()["orders"]
    assert kept.shape == (20, 9)
    other = made("jigsaw", permutations=20, permutation_seed=1)
    assert not torch.equal(other.orders, kept)
    kept.fill_(0)  # not those of the cache
    assert made("jigsaw", permutations=20).orders.any()


def test_the_networks_first_layer_sees_standardised_tiles_in_the_drawn_order(made, batch_of):
    method, seen = made("jigsaw"), {}
    batch = batch_of(method)
    method.backbone.register_forward_pre_hook(lambda _, given: seen.update(tiles=given[0]))
    torch.manual_seed(5)
    next(method.step(batch))
    torch.manual_seed(5)
    order = torch.randint(len(method.orders), (8,))
    own = batch.views[torch.arange(8)[:, None], method.orders[order]].flatten(0, 1)
    mean, std = own.mean((2, 3), keepdim=True), own.std((2, 3), keepdim=True, correction=0)
    z = torch.where(std > 1e-5, (own - mean) / std, 0)
    back = (seen["tiles"] - method.standardise.mean) / method.standardise.std
    torch.testing.assert_close(back, z, rtol=1e-3, atol=1e-4)


def test_the_loss_and_the_accuracy_are_those_of_the_drawn_orders(made, batch_of):
    method = made("jigsaw", permutations=2).eval()
    batch = batch_of(method)
    torch.manual_seed(5)
    update = next(method.step(batch))
    torch.manual_seed(5)
    order = torch.randint(len(method.orders), (8,))
    losses, right = [], []
    for image, at in zip(batch.views, order, strict=True):
        tiles = method.standardise(torch.stack([image[i] for i in method.orders[at]]))
        joined = torch.cat([method.fc6(method.backbone(tile[None])) for tile in tiles], dim=1)
        logits = method.head(joined)[0]
        losses.append(-logits.log_softmax(0)[at])
        right.append(float(logits.argmax() == at))
    torch.testing.assert_close(update.loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    assert 0 < sum(right) < 8
    assert float(update.log["accuracy"]) == sum(right) / 8


def test_a_view_is_mirrored_and_its_channels_are_shifted_where_that_is_asked_for(made):
    def steps(**settings):
        return [type(op).__name__ for op in made("jigsaw", **settings).view.ops]

    assert steps(flip=0.0, shift=False) == ["Grayscale", "Tiles"]
    assert steps(flip=0.5, shift=True) == ["HorizontalFlip", "Grayscale", "Tiles", "ShiftChannels"]


def test_a_wrong_order_of_tiles_changes_the_logits(made, batch_of):
    """Features are joined, not averaged: the head knows where a tile lies."""
    method = made("jigsaw").eval()
    z = torch.rand(1, 9, method.fc6[0].out_features)
    gap = method.head(z.flatten(1)) - method.head(z.flip(1).flatten(1))
    assert gap.abs().max() > 1e-4


def test_the_first_loss_is_near_that_of_a_guess(made, batch_of):
    method = made("jigsaw", permutations=1000)
    near(torch.tensor(method.uniform()), 6.90776)
    assert first_loss(method, batch_of(method, 32))[1].item() == pytest.approx(6.908, abs=0.1)


def test_images_of_one_colour_get_one_answer(made):
    method = made("jigsaw", dropout=0.0)
    images = torch.full((64, 3, 32, 32), 90, dtype=torch.uint8)
    method.eval()
    z = method.fc6(method.backbone(method.standardise(method.view(images)).flatten(0, 1)))
    answers = method.head(z.view(64, -1))
    torch.testing.assert_close(answers, answers[:1].expand_as(answers))


@pytest.mark.slow
def test_it_learns_to_order_tiles_that_tell_their_place(made, batch_of):
    method = made("jigsaw", permutations=6, dropout=0.0, fc7=0, norm=True, grey=0.0)
    shade = torch.linspace(0, 1, 9).view(3, 3).repeat_interleave(11, 0).repeat_interleave(11, 1)
    fine = torch.rand(32, 32).round() * shade[:32, :32]  # dots that are sparse in contrast
    ramp = torch.linspace(0, 1, 32)
    image = torch.stack([fine, ramp.expand(32, 32), ramp[:, None].expand(32, 32) ** 4])
    images = (image * 255).to(torch.uint8).expand(32, 3, 32, 32)
    optimiser, found = torch.optim.Adam(method.parameters(), 2e-3), []
    batch = batch_of(method)
    for _ in range(30):
        update = next(method.step(batch._replace(views=method.view(images))))
        optimiser.zero_grad()
        update.loss.backward()
        optimiser.step()
        found.append((update.loss.item(), float(update.log["accuracy"])))
    assert found[-1][0] < 0.5 * found[0][0]
    assert sum(right for _, right in found[-5:]) / 5 > 0.8


# ---- shapes ----------------------------------------------------------------------------------------


def test_the_heads_are_the_papers_and_on_imagenet_vissls(trial_of):
    backbone = backbone_of("test_resnet")
    paper = Jigsaw(backbone, info())
    assert kinds(paper.fc6) == ["Linear", "ReLU", "Dropout"]
    assert kinds(paper.head) == ["Linear", "ReLU", "Dropout", "Linear"]
    assert paper.fc6[0].weight.shape == (1024, backbone.dim)
    assert [paper.head[0].weight.shape, paper.head[3].weight.shape] == [(4096, 9216), (1000, 4096)]
    assert paper.fc6[2].p == paper.head[2].p == 0.5
    parts = anatomy(METHODS["jigsaw-imagenet"])
    theirs = Jigsaw(backbone, info(), **{**parts.defaults, "permutations": 50})
    assert kinds(theirs.fc6) == ["Linear", "BatchNorm1d", "ReLU", "Dropout"]
    assert kinds(theirs.head) == ["Linear"]
    assert theirs.head[0].weight.shape == (50, 9000)
    assert theirs.fc6[3].p == 0
    assert "Shift" not in repr(theirs.view)
    assert isinstance(theirs.standardise, nn.Identity)
    assert parts.defaults["permutations"] == 2000


def kinds(layers):
    return [type(layer).__name__ for layer in layers]


def test_tiles_are_resized_where_that_is_asked_for(made, batch_of):
    method, seen = made("jigsaw", tile=16), {}
    method.backbone.register_forward_pre_hook(lambda _, given: seen.update(tiles=given[0]))
    first_loss(method, batch_of(method))
    assert seen["tiles"].shape == (72, 3, 16, 16)
    assert batch_of(method).views.shape == (8, 9, 3, 8, 8)


def test_a_grid_of_two_by_two_has_24_permutations(made, batch_of):
    method = made("jigsaw", grid=2, permutations=24)
    assert batch_of(method).views.shape == (8, 4, 3, 12, 12)
    assert method.uniform() == pytest.approx(math.log(24))
    assert first_loss(method, batch_of(method))[1].isfinite()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"grid": 2, "permutations": 25}, "25 permutations of 4 tiles .* there are 24"),
        ({"grid": 1}, "a grid of 1 x 1 has one tile"),
        ({"grid": 8}, "tiles of 3 .* a grid of at most 6"),
        ({"share": 0.1}, "leave tiles of 1 at 0.1"),
    ],
)
def test_what_cannot_be_laid_is_refused_in_a_sentence(settings, sentence, made):
    with pytest.raises(ValueError, match=sentence):
        made("jigsaw", **settings)


def test_tiles_that_a_backbone_does_not_take_are_refused_before_training():
    with pytest.raises(ValueError, match="8 pixels in 3 x 3 cells of 2 leave tiles of 2"):
        Jigsaw(backbone_of("test_resnet"), info(8))
    vit = backbone_of("test_vit", patch_size=16)
    with pytest.raises(
        ValueError, match=r"test_vit.* does not take tiles of 8 pixels .*; set tile"
    ):
        Jigsaw(vit, info())
    assert Jigsaw(vit, info(), tile=32, permutations=10).tile == 32
    assert all(module.training for module in vit.modules())


def test_the_schedule_is_the_codes_and_vissls():
    code, vissl = (anatomy(METHODS[name]).recipe for name in ("jigsaw", "jigsaw-imagenet"))
    steps = [share * code.epochs * 5000 for share in code.milestones]
    assert steps == pytest.approx([100_000, 200_000, 300_000])
    assert [round(share * vissl.epochs) for share in vissl.milestones] == [30, 60, 90, 100]
    assert (vissl.lr, vissl.lr_scaling, vissl.weight_decay) == (0.1, "linear", 1e-4)
