"""MAE: what was hidden is rebuilt from what was seen."""

from __future__ import annotations

import math

import pytest
import torch

from sslbench.methods.mae import error, image, patches
from sslbench.nn import sincos, taken

from .helpers import METHODS, Case, first_loss, near, noise, same, trained

SMALL = {"mae.decoder_depth": 2}
BACKBONES = {"mae": "test_vit[patch_size=8]", "mae-imagenet": "test_vit[patch_size=8]"}
B, N, P = 4, 3, 6  # images, hidden patches, numbers of a patch


# ---- the loss --------------------------------------------------------------------------------------


def looped_error(guess, hidden, normalise=True):
    total = 0.0
    for b in range(len(guess)):
        for n in range(N):
            pixels, mean, variance = [*hidden[b, n]], 0.0, 1.0
            if normalise:
                mean = sum(pixels) / P
                variance = sum((x - mean) ** 2 for x in pixels) / (P - 1) + 1e-6
            for k in range(P):
                total = total + (guess[b, n, k] - (pixels[k] - mean) / variance**0.5) ** 2
    return total / (len(guess) * N * P)


def of_pixels(guess, hidden):
    return error(guess, hidden, normalise=False)


def looped_pixels(guess, hidden):
    return looped_error(guess, hidden, normalise=False)


PAIR = [noise(B, N, P), torch.rand(B, N, P, generator=torch.Generator().manual_seed(1))]
CASES = {
    "error": Case(error, PAIR, looped_error),
    "error_of_pixels": Case(of_pixels, PAIR, looped_pixels),
}


def test_zeros_cost_767_of_768_where_patches_are_normalised():
    hidden = torch.rand(5, 147, 768)
    near(error(torch.zeros_like(hidden), hidden), 767 / 768)
    near(error(torch.zeros(5, 7, 48), hidden[:, :7, :48]), 47 / 48)


def test_brightness_and_contrast_of_a_patch_do_not_matter_and_a_flat_one_is_zero():
    guess, hidden = noise(2, 3, 48), torch.rand(2, 3, 48)
    torch.testing.assert_close(
        error(guess, 0.5 * hidden + 0.2), error(guess, hidden), rtol=1e-3, atol=0
    )
    assert error(torch.zeros(2, 3, 48), torch.full((2, 3, 48), 0.7)) == 0
    assert abs(float(of_pixels(guess, hidden) - error(guess, hidden))) > 0.1


# ---- patches ---------------------------------------------------------------------------------------


def test_patches_are_squares_of_the_image_row_by_row_and_go_back():
    x = torch.rand(2, 3, 32, 32)
    cut = patches(x, 8)
    assert cut.shape == (2, 16, 192)
    assert torch.equal(cut[1, 6].view(3, 8, 8), x[1, :, 8:16, 16:24])
    assert torch.equal(image(cut, 8), x)
    assert torch.equal(patches(image(cut, 8), 8), cut)


def test_what_is_taken_in_an_order_goes_back_by_the_orders_order():
    order = torch.rand(5, 16).argsort(1)
    tokens = noise(5, 16, 3)
    assert torch.equal(taken(taken(tokens, order), order.argsort(1)), tokens)
    assert torch.equal(taken(tokens, order)[2, 4], tokens[2, order[2, 4]])


@pytest.mark.parametrize(("masked", "seen"), [(0.75, 4), (0.5, 8), (0.9, 1), (0.0625, 15)])
def test_of_every_image_exactly_that_share_is_masked_and_at_random(masked, seen, made, batch_of):
    method = made("mae", masked=masked)
    assert method.seen == seen
    x, order = batch_of(method).views
    assert x.shape == (8, 3, 32, 32)
    assert torch.equal(order.sort(1).values, torch.arange(16).expand(8, 16))
    assert len(order.unique(dim=0)) == 8
    assert method.guessed(x, order).shape == (8, 16 - seen, 192)


def test_every_patch_is_masked_as_often_as_any_other(made):
    method = made("mae")
    torch.manual_seed(0)
    order = method.view.mask(4000)[0]
    often = order[:, method.seen :].flatten().bincount(minlength=16) / 4000
    torch.testing.assert_close(often, torch.full((16,), 0.75), rtol=0, atol=0.03)


def test_three_quarters_of_196_patches_are_147():
    """As the code's int(196 * (1 - .75)); and a share that floats miss by a hair is meant."""
    for total, masked, seen in [(196, 0.75, 49), (64, 0.75, 16), (50, 0.75, 12), (10, 0.9, 1)]:
        assert math.floor(total * (1 - masked) + 1e-6) == seen


# ---- a step ----------------------------------------------------------------------------------------


def test_the_loss_is_the_error_of_masked_patches_alone(made, batch_of):
    method = made("mae").eval()  # of no dropout: the same
    batch = batch_of(method)
    x, order = batch.views
    whole = torch.full((8, 16, 192), 1e3)  # what would be said of patches that are seen
    guess = method.guessed(x, order)
    whole = whole.scatter(1, order[:, 4:, None].expand_as(guess), guess)
    hidden = torch.ones(8, 16).scatter(1, order[:, :4], 0)
    cut = patches(x, 8)
    target = (cut - cut.mean(2, keepdim=True)) / (cut.var(2, keepdim=True) + 1e-6).sqrt()
    expected = ((whole - target).square().mean(2) * hidden).sum() / hidden.sum()
    torch.testing.assert_close(first_loss(method, batch)[1], expected)


def changed(x, order, places):
    """Other pixels in the patches at these places of the order."""
    cut = patches(x, 8)
    at = order[:, places, None].expand(-1, -1, 192)
    return image(cut.scatter(1, at, torch.rand(at.shape)), 8)


def test_what_is_seen_does_not_depend_on_masked_pixels(made, batch_of):
    method = made("mae").eval()
    x, order = batch_of(method).views
    guess = method.guessed(x, order)
    assert torch.equal(method.guessed(changed(x, order, slice(4, 16)), order), guess)
    assert not torch.equal(method.guessed(changed(x, order, slice(3, 4)), order), guess)


def test_the_order_of_what_is_seen_and_of_what_is_not_does_not_matter(made, batch_of):
    method = made("mae").eval()
    x, order = batch_of(method).views
    guess = method.guessed(x, order)
    same(method.guessed(x, torch.cat([order[:, :4].flip(1), order[:, 4:]], 1)), guess)
    other = torch.cat([order[:, :4], order[:, 4:].flip(1)], 1)
    same(method.guessed(x, other).flip(1), guess)


def test_gradients_reach_the_mask_token_and_seen_pixels_but_no_masked_ones(made, batch_of):
    method = made("mae")
    x, order = batch_of(method).views
    x = x.clone().requires_grad_()
    method.guessed(x, order).square().mean().backward()
    assert method.blank.grad.abs().max() > 0
    moved = patches(x.grad, 8).abs().amax(2)  # [B, T]
    assert not taken(moved[..., None], order[:, 4:]).any()
    assert (taken(moved[..., None], order[:, :4]) > 0).all()


def test_positions_are_fixed_waves_and_stay(made, batch_of):
    method = made("mae")
    table = method.backbone.net.pos_embed
    assert torch.equal(method.positions, sincos((4, 4), 64))
    assert torch.equal(table[0, 1:], sincos((4, 4), 64))
    assert not table[0, 0].any()
    before = table.clone()
    trained(method, batch_of(method))
    assert torch.equal(table, before)
    assert not table.requires_grad


def test_the_decoder_starts_as_the_code_does(made):
    method = made("mae", decoder_depth=3)
    for name, p in method.decoder.state_dict().items():
        if p.dim() == 2:
            fan = sum(p.shape)
            assert float(p.abs().max()) <= math.sqrt(6 / fan) + 1e-6
            assert float(p.std()) == pytest.approx(math.sqrt(2 / fan), rel=0.1)
        else:
            assert (p == (1 if name.endswith("weight") else 0)).all(), name
    weights = [method.decoder[i].linear1.weight for i in range(3)]
    assert not torch.equal(weights[0], weights[1])
    assert float(method.blank.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert method.blank.dim() > 1  # so that it decays, as in the code


# ---- what comes of it ------------------------------------------------------------------------------


def test_rebuilt_images_keep_what_was_seen_and_do_not_depend_on_the_batch(made):
    method, x = made("mae").eval(), torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        built, alone = method.reconstruct(x), method.reconstruct(x[2:3])
    assert built.shape == x.shape
    same(alone[0], built[2])
    assert 0 <= float(built.min()) <= float(built.max()) <= 1
    kept = (patches(built, 8) == patches(x, 8)).all(2)  # [B, T]
    assert kept.sum(1).tolist() == [4] * 5
    assert len(kept.unique(dim=0)) == 1


def test_a_guess_is_scaled_by_the_patch_it_is_of(made):
    method, x = made("mae").eval(), 0.4 + 0.2 * torch.rand(2, 3, 32, 32)
    method.decoder[-1].weight.data.zero_()
    method.decoder[-1].bias.data.zero_()  # so that each guess is the mean
    with torch.no_grad():
        built = patches(method.reconstruct(x), 8)
    cut = patches(x, 8)
    hidden = method.shown[method.seen :]
    same(built[:, hidden], cut.mean(2, keepdim=True).expand_as(cut)[:, hidden])


def test_the_backbone_is_judged_with_all_patches(made):
    method, x = made("mae").eval(), torch.rand(2, 3, 32, 32)
    assert method.encoder() is method.backbone
    assert method.encoder()(x).shape == (2, 64)


def test_the_papers_row_differs_in_its_epochs_alone():
    assert METHODS["mae-imagenet"].load().keywords == {"epochs": 1600}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"masked": 0.0}, r"masked=0.0 shows 16 of 16 patches, .* between 0.062 and 0.94"),
        ({"masked": 1.0}, "masked=1.0 shows 0 of 16 patches"),
        ({"masked": 0.97}, "masked=0.97 shows 0 of 16 patches"),
        ({"decoder_dim": 60}, "decoder_dim=60 .* decoder_heads=16; set it to a multiple of both"),
    ],
)
def test_what_leaves_nothing_to_see_or_to_rebuild_is_refused(settings, sentence, made):
    with pytest.raises(ValueError, match=sentence):
        made("mae", **settings)


def test_a_network_without_tokens_is_refused_with_the_name_of_one(made):
    from sslbench.methods.mae import MAE

    sentence = MAE.needs(made("untrained"), None)
    assert "test_resnet cannot; a ViT can, such as vit_tiny_patch16_224" in sentence
    assert MAE.needs(made("mae").backbone, None) is None
