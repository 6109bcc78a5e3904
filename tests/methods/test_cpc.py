"""CPC: rows above foretell rows below, and nothing else tells of them."""

from __future__ import annotations

import itertools
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import sslbench
from sslbench.api import Backbone
from sslbench.methods.cpc import (
    CPC,
    Patches,
    RowContext,
    foretold,
)
from sslbench.nn import replace_batch_norms
from sslbench.nn.norms import _layer_norm
from sslbench.plugins import registry

from .helpers import Case, dot, first_loss, log_share, near, noise

SMALL = {"cpc.grid": 4, "cpc.steps": 3, "cpc.depth": 2}
B, R, C, D = 3, 4, 2, 5


def of_foretold(guesses, z):
    return foretold(guesses, z, 2)


def looped_foretold(guesses, z):
    patches, losses = [z[b][r][c] for b, r, c in places()], []
    for b, r, c in itertools.product(range(len(z)), range(R - 2), range(C)):
        scores = [dot(guesses[b][r][c], patch) for patch in patches]
        losses.append(-log_share(scores, places().index((b, r + 2, c))))
    return sum(losses) / len(losses)


def places():
    return list(itertools.product(range(B), range(R), range(C)))


CASES = {"foretold": Case(of_foretold, [noise(B, R - 2, C, D), noise(B, R, C, D)], looped_foretold)}


# ---- the loss --------------------------------------------------------------------------------------


def test_a_guess_among_equal_scores_costs_the_logarithm_of_the_number_of_patches():
    near(of_foretold(torch.zeros(B, R - 2, C, D), noise(B, R, C, D)), math.log(B * R * C))


def test_patches_are_foretold_from_their_own_column_so_many_rows_above():
    z = torch.eye(B * R * C).view(B, R, C, -1) * 30
    near(foretold(z[:, 2:], z, 2), 0.0)
    near(foretold(z[:, 1:], z, 1), 0.0)
    near(foretold(z[:, 2:].flip(2), z, 2), 900.0)
    near(foretold(z[:, 1:-1], z, 2), 900.0)


def test_the_loss_of_a_step_is_the_mean_over_the_rows_that_are_not_skipped(made, batch_of):
    method = made("cpc", grid=5, steps=4, skip=1)
    batch = batch_of(method)
    z = method.read.latents(batch.views)
    context = method.context(z)
    expected = []
    for k, w in zip((2, 3, 4), method.foretell, strict=True):
        expected.append(foretold(w(context[:, : 5 - k]), z, k))
    torch.testing.assert_close(first_loss(method, batch)[1], sum(expected) / 3)
    assert len(made("cpc", steps=3, skip=0).foretell) == 3


def test_the_gradient_reaches_what_is_foretold_and_what_foretells():
    guesses, z = (x.clone().requires_grad_() for x in CASES["foretold"].inputs)
    assert all(
        g.abs().max() > 1e-3 for g in torch.autograd.grad(of_foretold(guesses, z), [guesses, z])
    )


# ---- who knows what --------------------------------------------------------------------------------


def test_a_rows_context_does_not_change_by_a_bit_with_the_rows_below():
    torch.manual_seed(0)
    network, z = RowContext(6, 8, 5), noise(2, 7, 7, 6)
    context = network(z)
    for row in range(6):
        other = z.clone()
        other[:, row + 1 :] = noise(2, 6 - row, 7, 6, seed=row) * 100
        assert torch.equal(network(other)[:, : row + 1], context[:, : row + 1])


def test_a_rows_context_knows_its_own_row_and_those_above():
    torch.manual_seed(0)
    network, z = RowContext(6, 8, 5), noise(1, 5, 5, 6).requires_grad_()
    for row in range(5):
        (gradient,) = torch.autograd.grad(network(z)[:, row].sum(), z)
        reached = gradient.abs().amax((0, 2, 3)) > 0
        assert reached.tolist() == [above <= row for above in range(5)]


def leak(network, size=12):
    """Whether another patch in its place changes the features of the others, in training."""
    torch.manual_seed(0)
    patches = torch.rand(10, 3, size, size)
    other = patches.clone()
    other[4] = 1 - other[4]
    network.train()
    with torch.no_grad():
        one, two = network(patches), network(other)
    rest = torch.arange(10) != 4
    assert not torch.equal(one[4], two[4])
    return not torch.equal(one[rest], two[rest])


def test_no_patch_leaks_into_the_features_of_another(made):
    assert leak(made("untrained"))  # as batch norm does
    assert not leak(made("cpc").backbone)


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet10t", "test_convnext"])
def test_networks_lose_their_batch_norms_and_keep_what_stood_behind_them(name):
    torch.manual_seed(0)
    network = replace_batch_norms(timm.create_model(name, num_classes=0))
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    assert not leak(network, 32)


def test_a_layer_norm_takes_over_scale_and_shift_and_activation():
    norm = timm.layers.BatchNormAct2d(6, eps=1e-3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = noise(4, 6, 3, 3)
    flat = (x - x.mean((1, 2, 3), keepdim=True)) / (
        x.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-3
    ).sqrt()
    expected = F.relu(flat * norm.weight[:, None, None] + norm.bias[:, None, None])
    torch.testing.assert_close(_layer_norm(norm)(x), expected)
    assert _layer_norm(nn.BatchNorm2d(6, affine=False)).weight is None


def test_a_norm_over_the_batch_that_it_cannot_replace_is_named(made):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_var", torch.ones(3))

    backbone = made("untrained")
    assert CPC.needs(backbone, None) is None
    backbone.net.odd = Odd()
    assert "has Odd" in CPC.needs(backbone, None)


# ---- patches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "grid", "stride"), [(32, 7, 4), (30, 4, 6), (256, 7, 32)])
def test_patches_overlap_by_half(side, grid, stride):
    image = torch.arange(side * side).view(1, 1, side, side).expand(2, 3, side, side).float()
    patches = Patches(grid)(image)
    assert patches.shape == (2, grid, grid, 3, 2 * stride, 2 * stride)
    for row, column in itertools.product(range(grid), range(grid)):
        top, left = row * stride, column * stride
        window = image[:, :, top : top + 2 * stride, left : left + 2 * stride]
        assert torch.equal(patches[:, row, column], window)


def test_a_trimmed_patch_is_a_window_at_a_random_place_in_the_middle_of_black():
    torch.manual_seed(0)
    image = torch.rand(40, 3, 32, 32)
    whole, trimmed = Patches(3)(image), Patches(3, edge=1)(image)
    assert trimmed.shape == whole.shape == (40, 3, 3, 3, 16, 16)
    border = F.pad(torch.zeros(14, 14), (1,) * 4, value=1).bool()
    assert not trimmed[..., border].any()
    inner, counts = trimmed[..., 1:-1, 1:-1], torch.zeros(3, 3)
    for top, left in itertools.product(range(3), range(3)):
        window = whole[..., top : top + 14, left : left + 14]
        counts[top, left] = (inner == window).flatten(3).all(3).sum()
    assert counts.sum() == 360
    assert (counts - 40).abs().max() < 5 * math.sqrt(40)


def test_images_of_any_side_are_cut_into_the_grid(made, batch_of):
    method = made("cpc", grid=4)  # 32 pixels: steps of 6, an image of 30
    assert batch_of(method).views.shape == (8, 4, 4, 3, 12, 12)
    assert made("cpc", grid=7, steps=5, patch=16).read.patch == 16
    for side in (28, 32, 33):
        assert method.eval().encoder()(torch.rand(2, 3, side, side)).shape == (
            2,
            method.backbone.dim,
        )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"grid": 16}, "32 pixels have no 16 x 16 patches .* a grid of at most 15"),
        ({"grid": 4, "steps": 4}, "rows 2 to 4 below .* a grid of 4 rows"),
        ({"grid": 4, "skip": 3}, "rows 4 to 3 below"),
        ({"trim": 1.0}, "leaves nothing of a patch"),
    ],
)
def test_a_grid_that_the_image_does_not_have_is_refused(settings, sentence, made):
    with pytest.raises(ValueError, match=sentence):
        made("cpc", **settings)


def test_a_finest_grid_is_allowed(made):
    assert made("cpc", grid=15, patch=8).read.side == 32


# ---- what is judged --------------------------------------------------------------------------------


def test_the_encoder_is_the_mean_over_the_patches_of_the_grey_image(made):
    method = made("cpc", grid=7, steps=5, grey=1.0).eval()
    encoder, x = method.encoder(), torch.rand(3, 3, 32, 32)
    assert not isinstance(encoder, Backbone)  # so that nobody takes its weights into another
    grey = (x * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    grey = grey.expand(-1, 3, -1, -1)
    total = torch.zeros(3, method.backbone.dim)
    with torch.no_grad():
        for row, column in itertools.product(range(0, 28, 4), range(0, 28, 4)):
            total += method.backbone(grey[:, :, row : row + 8, column : column + 8])
        torch.testing.assert_close(encoder(x), total / 49, rtol=1e-4, atol=1e-5)
        coloured = made("cpc", grid=7, steps=5, grey=0.5).eval().encoder()
        assert (coloured(x) - coloured(grey)).abs().max() > 1e-4


@pytest.mark.slow
def test_the_encoder_comes_back_from_the_store(trial_of):
    trial = trial_of("cpc")
    assert trial.fitted.done.status == "ok"
    encoder = sslbench.load(trial.cell().id, trial.folder / "whole")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder(x), trial.module.encoder()(x))


def test_patches_that_the_backbone_does_not_take_are_refused_before_training():
    backbones = registry(installed=False)
    create = backbones.find("backbones", "test_vit").load()
    backbone = create("test_vit", size=32, patch_size=4)
    info = sslbench.api.DataInfo("some", size=32, length=96, classes=10)
    assert CPC(backbone, info, patch=12).read.patch == 12
    with pytest.raises(Exception, match="patches of 4 pixels, which 10"):
        CPC(backbone, info, patch=10)


def test_images_and_patches_of_other_sizes_are_resized_before_they_are_read(made):
    method, x = made("cpc", grid=4, steps=3, patch=16, grey=0.5).eval(), torch.rand(2, 3, 32, 32)
    whole = F.interpolate(x, (30, 30), mode="bilinear", antialias=True)  # 5 strides of 6
    total = 0
    for row in range(4):
        for column in range(4):
            cut = whole[:, :, 6 * row : 6 * row + 12, 6 * column : 6 * column + 12]
            total = total + method.backbone(F.interpolate(cut, (16, 16), mode="bilinear"))
    torch.testing.assert_close(method.encoder()(x), total / 16, rtol=1e-4, atol=1e-5)


def test_trying_the_patches_leaves_the_backbone_in_training(trial_of):
    trial = trial_of("cpc")
    assert trial.bench("built").builder.build(trial.cell())[0].backbone.training


def test_layers_of_the_context_add_to_what_they_are_given(made):
    context, z = made("cpc", grid=7, steps=5, depth=2).context, torch.randn(2, 7, 7, 96)
    c = z.permute(0, 3, 1, 2)
    for layer in context.layers:
        c = c + layer(c)
    torch.testing.assert_close(context(z), c.clamp_min(0).permute(0, 2, 3, 1))
