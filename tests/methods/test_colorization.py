"""Colorization: soft codes of 313 bins, rare ones weighing more, means of colours as they sharpen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from skimage.color import rgb2lab

from sslbench.api import Batch, DataInfo
from sslbench.backbones.timm import create
from sslbench.cells.parameters import anatomy
from sslbench.methods import colorization
from sslbench.methods.colorization import (
    Colorization,
    annealed,
    colours,
    rarity,
    rebalanced,
    soft,
)
from sslbench.views import gamut, to_lab

from .helpers import METHODS, Case, first_loss, log_share, near, noise, trained

DATASETS = {"colorization": "sprites"}
B, Q, H, W = 3, 12, 2, 3
BINS = 20 * noise(Q, 2, seed=5)
WEIGHT = 0.5 + torch.rand(Q, generator=torch.Generator().manual_seed(6))
INFO = DataInfo("many", size=32, length=1000, classes=10)


def of_rebalanced(logits, ab):
    return rebalanced(logits, ab, BINS, WEIGHT, neighbours=4, sigma=5.0)


def looped_rebalanced(logits, ab):
    bins, weight = BINS.tolist(), WEIGHT.tolist()
    total, counted = 0.0, 0
    for image in range(B):
        if not any(abs(float(v)) > 5 for v in ab[image].detach().flatten()):
            continue
        counted += H * W
        for y in range(H):
            for x in range(W):
                a, b = ab[image, :, y, x]
                far = [(a - one) ** 2 + (b - two) ** 2 for one, two in bins]
                close = sorted(range(Q), key=lambda q: float(far[q].detach()))[:4]
                gauss = [(-far[q] / 50).exp() for q in close]
                scores = [*logits[image, :, y, x]]
                for q, share in zip(close, gauss, strict=True):
                    total -= weight[close[0]] * share / sum(gauss) * log_share(scores, q)
    return total / counted


AB = 12 * noise(B, 2, H, W, seed=2)
AB[1] = AB[1].clamp(-5, 5)  # without colour
CASES = {"rebalanced": Case(of_rebalanced, [noise(B, Q, H, W), AB], looped_rebalanced)}


def test_soft_codes_are_shares_of_the_nearest_bins_of_which_the_first_is_the_nearest():
    ab = 60 * noise(2, 2, 5, 5)
    bins = gamut()
    close, share = soft(ab, bins, 10, 5.0)
    assert share.shape == (2, 5, 5, 10)
    torch.testing.assert_close(share.sum(-1), torch.ones(2, 5, 5))
    assert (share.diff(dim=-1) <= 0).all()
    far = torch.cdist(ab.permute(0, 2, 3, 1).reshape(-1, 2), bins)
    assert torch.equal(close[..., 0].flatten(), far.argmin(1))
    one = soft(torch.tensor([3.0, -4.0]).view(1, 2, 1, 1), bins, 2, 5.0)
    assert bins[one[0].flatten()].tolist() == [[0, 0], [0, -10]]  # at 5 and sqrt(45)
    near(one[1].flatten()[0], 1 / (1 + math.exp(-(45 - 25) / 50)))


def test_a_blind_guess_costs_ln_313(made):
    method = made("colorization")
    torch.nn.init.zeros_(method.head[-1].weight)
    torch.nn.init.zeros_(method.head[-1].bias)
    batch = Batch(torch.rand(4, 3, 32, 32), torch.arange(4), torch.full((4,), -1), 0, 0.0)
    near(first_loss(method, batch)[1], 5.74620)
    assert method.uniform() == pytest.approx(5.74620, abs=1e-4)


def test_weights_are_1_in_the_mean_over_the_prior_and_fall_with_it():
    prior = torch.tensor([0.7, 0.2, 0.1, 0.0])
    weight = rarity(prior, 0.5)
    near((prior * weight).sum(), 1)
    mixed = 0.5 * prior + 0.125
    torch.testing.assert_close(weight * mixed, (weight * mixed)[:1].expand(4))
    assert rarity(prior, 1.0).tolist() == pytest.approx([1] * 4)
    near((prior * rarity(prior, 0.0)).sum(), 1)
    assert rarity(prior, 0.0).isfinite().all()  # though one bin never occurs


@pytest.mark.parametrize(
    ("temperature", "shares"), [(1.0, (0.665, 0.245, 0.090)), (0.38, (0.928, 0.067, 0.005))]
)
def test_the_mean_of_colours_sharpens_towards_the_mode(temperature, shares):
    logits = torch.tensor([2.0, 1, 0]).view(1, 3, 1, 1)
    bins = torch.tensor([[1.0, 0], [0, 1], [0, 0]])
    found = annealed(logits, bins, temperature).flatten().tolist()
    assert found == pytest.approx(shares[:2], abs=1e-3)
    assert annealed(logits, bins, 1e-3).flatten().tolist() == pytest.approx([1, 0])
    mean = (torch.tensor(shares)[:, None] * bins).sum(0)
    assert found == pytest.approx(mean.tolist(), abs=1e-3)


def test_grey_images_count_for_nothing_however_many():
    logits, ab = CASES["rebalanced"].inputs
    few = of_rebalanced(logits[[0, 2]], ab[[0, 2]])
    near(of_rebalanced(logits, ab), float(few))
    assert float(of_rebalanced(logits, ab.clamp(-5, 5))) == 0.0
    ab = torch.zeros_like(ab)
    ab[0, 1, 0, 0] = -5.01  # one pixel is enough, of either sign
    assert float(of_rebalanced(logits, ab)) > 0


def test_targets_are_every_fourth_pixel_without_an_average():
    x = torch.rand(2, 3, 10, 10)
    theirs = torch.from_numpy(rgb2lab(x[:, :, ::4, ::4].double().permute(0, 2, 3, 1).numpy()))
    ours = colours(x)
    assert ours.shape == (2, 2, 3, 3)
    torch.testing.assert_close(
        ours.double(), theirs[..., 1:].permute(0, 3, 1, 2), rtol=0, atol=1e-3
    )


def recoloured(x):
    """Other colours of the same lightness, as far as sRGB has them."""
    lab = to_lab(x)
    return colorization.from_lab(torch.cat([lab[:, :1], lab[:, 1:].flip(1)], 1))


def test_it_sees_no_colour_and_gives_the_lightness_back(made):
    method = made("colorization").eval()
    x = 0.4 + 0.2 * torch.rand(3, 3, 32, 32)  # whose recoloured ones are in sRGB too
    with torch.no_grad():
        for look in (method.encoder(), method.logits):
            torch.testing.assert_close(look(recoloured(x)), look(x), rtol=1e-3, atol=1e-3)
        painted = method.reconstruct(x)
    assert painted.shape == x.shape
    assert 0 <= float(painted.min()) <= float(painted.max()) <= 1
    torch.testing.assert_close(to_lab(painted)[:, :1], to_lab(x)[:, :1], rtol=0, atol=1.0)


def test_a_reconstruction_has_the_colour_that_was_foretold(made):
    method = made("colorization").eval()
    torch.nn.init.zeros_(method.head[-1].weight)
    torch.nn.init.zeros_(method.head[-1].bias)
    chosen = method.bins.tolist().index([40, 20])
    method.head[-1].bias.data[chosen] = 50
    painted = to_lab(method.reconstruct(torch.full((1, 3, 32, 32), 0.6)).detach())
    assert painted.mean((0, 2, 3)).tolist() == pytest.approx([63.2, 40, 20], abs=0.5)


def test_what_is_judged_is_the_mean_of_the_map_that_the_loss_trains(made):
    method = made("colorization").eval()
    x = torch.rand(2, 3, 32, 32)
    deep = method.backbone.maps(x)[-1]
    assert deep.shape[2:] == (4, 4)  # 32 / 8
    torch.testing.assert_close(method.encoder()(x), deep.mean((2, 3)))
    assert method.logits(x).shape == (2, 313, 8, 8)
    fine = made("colorization", stride=4).backbone
    assert fine.maps(x)[-1].shape[2:] == (8, 8)
    assert made("colorization", stride=64).backbone.dim == made("untrained").dim  # it is whole


class Counted:
    """A run over some images, of one epoch from that number on."""

    def __init__(self, images, first=0):
        self.images, self.first = images, first

    def epochs(self, method):
        from sslbench.api import Epoch

        yield Epoch(self.first)

    def features(self, encoder):
        return torch.cat([encoder(part) for part in self.images.split(2)])


def test_its_weights_come_from_the_colours_of_the_data_and_are_kept_when_it_goes_on(made):
    method = made("colorization")
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(6, 3, 32, 32).clone()
    red[0, :, :, ::8] = torch.tensor([0.2, 0.2, 0.9]).view(3, 1, 1)  # half the places of one
    method.fit(Counted(red))
    prior = method.census(red).mean(0)
    near(prior.sum(), 1)
    near((prior * method.weight).sum(), 1)
    of_red, of_blue = (
        int(soft(colours(image[None]), method.bins, 1, 5.0)[0][0, 0, 0, 0])
        for image in (red[1], red[0])
    )
    near(
        method.weight[of_blue] / method.weight[of_red],
        float(mix(prior[of_red]) / mix(prior[of_blue])),
    )
    assert method.weight[of_blue] > 2 * method.weight[of_red]
    before = method.weight.clone()
    method.fit(Counted(1 - red, first=1))  # resumed: the buffer is in the checkpoint
    assert torch.equal(method.weight, before)


def mix(share):
    return 0.5 * share + 0.5 / 313


def test_at_the_second_step_every_weight_has_a_gradient(made):
    method = made("colorization")
    batch = Batch(torch.rand(8, 3, 32, 32), torch.arange(8), torch.full((8,), -1), 0, 0.0)
    for _ in range(2):  # the last norm of a block may start at zero, before which nothing moves
        trained(method, batch)
    assert all(p.grad.any() for p in method.parameters())


def test_what_it_cannot_use_it_refuses_in_a_sentence(made):
    grey = DataInfo("digits", size=32, length=1000, classes=10, grey=True)
    assert Colorization.needs(made("untrained"), grey) == (
        "it learns from colours, and the images of digits are grey"
    )
    assert Colorization.needs(made("untrained"), INFO) is None
    with pytest.raises(ValueError, match="400 bins were to share a colour, and there are 313; set"):
        made("colorization", neighbours=400)


@pytest.mark.parametrize("name", ["colorization", "split-brain", "video-colorization"])
def test_methods_of_colour_take_a_vit_too(name, made):
    vit = create("test_vit", size=32, patch_size=4)
    info = replace(INFO, clips=10)
    target = anatomy(METHODS[name]).target
    assert target.needs(vit, info) is None
    method = target(vit, info)
    rows = torch.arange(4)
    also = {"before": Batch(torch.rand(4, 3, 32, 32), rows, rows, 0, 0.0)}
    batch = Batch(torch.rand(4, 3, 32, 32), rows, rows, 0, 0.0, also)
    first_loss(method, batch)[1].backward()
    assert method.encoder()(torch.rand(2, 3, 32, 32)).shape[0] == 2
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
