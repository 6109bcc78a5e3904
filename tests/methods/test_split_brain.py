"""Split-brain: neither half sees what it foretells, and they share nothing."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, DataInfo
from sslbench.backbones.timm import create
from sslbench.methods import split_brain
from sslbench.methods.split_brain import SplitBrain, binned, classified, subsampled
from sslbench.views import gamut, to_lab

from .helpers import Case, first_loss, log_share, near, noise, trained

DATASETS = {"split-brain": "sprites"}
LABEL = torch.randint(7, (3, 2, 2), generator=torch.Generator().manual_seed(1))


def looped(logits, label):
    rows = [
        (*logits[b, :, y, x], label[b, y, x]) for b in range(3) for y in range(2) for x in range(2)
    ]
    return sum(-log_share(scores, int(own)) for *scores, own in rows) / len(rows)


CASES = {"classified": Case(classified, [noise(3, 7, 2, 2), LABEL], looped)}


def batch_of(x):
    return Batch(x, torch.arange(len(x)), torch.full((len(x),), -1), 0, 0.0)


def halves(method):
    return (
        [method.of_light, method.to_colour],
        [method.of_colour, method.to_light],
    )


def test_neither_half_has_a_gradient_at_what_it_is_not_to_see(made, monkeypatch):
    """The Lab images are the leaves here, in place of RGB: a channel that is not seen gets zero."""
    method = made("split-brain")
    lab = to_lab(torch.rand(4, 3, 32, 32)).requires_grad_()
    monkeypatch.setattr(split_brain, "to_lab", lambda x: x)
    method.of_light.front = lambda x: x[:, :1] / 50 - 1
    colours, lights = method.logits(lab)
    label = torch.zeros(4, *colours.shape[2:], dtype=torch.long)
    (of_colour,) = torch.autograd.grad(classified(colours, label), lab, retain_graph=True)
    (of_light,) = torch.autograd.grad(classified(lights, label), lab)
    assert of_colour[:, 0].any()
    assert not of_colour[:, 1:].any()
    assert of_light[:, 1:].any()
    assert not of_light[:, 0].any()


def test_the_inputs_are_lightness_and_colour_of_the_image():
    x = torch.rand(2, 3, 8, 8)
    lab = to_lab(x)
    torch.testing.assert_close(split_brain.signed_lightness(x), lab[:, :1] / 50 - 1)
    torch.testing.assert_close(split_brain.colour(x), lab[:, 1:] / 110)


def test_no_parameter_is_in_both_halves_and_each_loss_moves_its_own(made):
    method = made("split-brain")
    one, other = ({p for part in half for p in part.parameters()} for half in halves(method))
    assert not one & other
    assert one | other == set(method.parameters())
    colours, lights = method.logits(torch.rand(4, 3, 32, 32))
    label = torch.zeros(4, *colours.shape[2:], dtype=torch.long)
    for logits, own, their in ((colours, one, other), (lights, other, one)):
        method.zero_grad()
        classified(logits, label).backward()
        assert all(p.grad is not None for p in own)
        assert all(p.grad is None for p in their)


def test_its_features_are_those_of_both_halves_and_as_wide_as_the_backbones(made):
    method = made("split-brain", stride=32).eval()
    x = torch.rand(2, 3, 32, 32)
    found = method.encoder()(x)
    assert found.shape == (2, made("untrained").dim)
    parts = [half.maps(x)[-1].mean((2, 3)) for half in (method.of_light, method.of_colour)]
    torch.testing.assert_close(found, torch.cat(parts, 1))
    assert made("split-brain").of_light.maps(x)[-1].shape[2:] == (2, 2)  # 32 / 16


def test_the_loss_is_the_sum_of_both_halves_against_quantised_channels(made):
    method = made("split-brain", levels=50).eval()
    x = torch.rand(4, 3, 32, 32)
    yielded = next(method.step(batch_of(x)))
    colours, lights = method.logits(x)
    lab = to_lab(x)[:, :, 8::16, 8::16]  # the middle of each of 2 x 2 positions
    bin_of = torch.cdist(lab[:, 1:].permute(0, 2, 3, 1).reshape(-1, 2), gamut()).argmin(1)
    one = F.cross_entropy(colours.permute(0, 2, 3, 1).flatten(0, 2), bin_of)
    two = F.cross_entropy(
        lights.permute(0, 2, 3, 1).flatten(0, 2), (lab[:, 0] / 2).flatten().long()
    )
    near(yielded.loss, float((one + two).detach()))
    assert {key: float(v.detach()) for key, v in yielded.log.items()} == pytest.approx(
        {"colour": float(one.detach()), "lightness": float(two.detach())}, rel=1e-4
    )


def test_blind_guesses_cost_the_logarithms_of_the_bins(made):
    method = made("split-brain", levels=16)
    for last in (method.to_colour[-1], method.to_light[-1]):
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    loss = first_loss(method, batch_of(torch.rand(4, 3, 32, 32)))[1]
    near(loss, 5.74620 + 2.77259)
    assert method.uniform() == pytest.approx(math.log(313) + math.log(16))


def test_bins_of_lightness_are_equal_parts_with_black_and_white_in_the_outer_ones():
    light = torch.tensor([[[-1e-4, 0.0, 0.99, 1.0, 50.0, 99.99, 100.0, 100.0001]]])
    assert binned(light, 100).flatten().tolist() == [0, 0, 0, 1, 50, 99, 99, 99]
    assert binned(light, 2).flatten().tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_targets_are_pixels_not_means():
    x = torch.rand(1, 3, 12, 12)
    small = subsampled(x, (3, 3))
    assert torch.equal(small, x[:, :, 2::4, 2::4])


def test_halves_of_a_grouped_convolution_are_two_convolutions():
    """As in the paper: what is side by side here is a network of two groups there."""
    x = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    one, two = (torch.nn.Conv2d(k, 4, 3, dtype=torch.float64) for k in (1, 2))
    weight = torch.zeros(8, 4, 3, 3, dtype=torch.float64)
    weight[:4, :1], weight[4:, 2:] = one.weight.detach(), two.weight.detach()
    given = torch.cat([x[:, :1], torch.zeros_like(x[:, :1]), x[:, 1:]], 1)
    grouped = F.conv2d(
        given,
        torch.cat([weight[:4, :2], weight[4:, 2:]]),
        torch.cat([one.bias, two.bias]),
        groups=2,
    )
    apart = torch.cat([one(x[:, :1]), two(x[:, 1:])], 1)
    torch.testing.assert_close(grouped, apart, rtol=0, atol=1e-14)


def test_at_the_second_step_every_weight_has_a_gradient(made):
    method = made("split-brain")
    for _ in range(2):  # the last norm of a block may start at zero, before which nothing moves
        trained(method, batch_of(torch.rand(8, 3, 32, 32)))
    assert all(p.grad.any() for p in method.parameters())


def test_what_it_cannot_use_it_refuses_in_a_sentence(made):
    info = DataInfo("digits", size=32, length=1000, classes=10, grey=True)
    sentence = SplitBrain.needs(made("untrained"), info)
    assert sentence == "one half learns from colours, and the images of digits are grey"
    colour = DataInfo("many", size=32, length=1000, classes=10)
    assert SplitBrain.needs(made("untrained"), colour) is None
    alone = create("test_efficientnet", size=32)
    assert "has no twin of half its width" in SplitBrain.needs(alone, colour)
