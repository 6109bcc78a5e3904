"""DCGAN: who is told what, and what is judged."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import DataInfo
from sslbench.backbones.timm import create
from sslbench.methods.dcgan import DCGAN, opposed

from .helpers import Case, near, noise

SMALL = {"dcgan.width": 8}


def looped_opposed(real, made):
    total = 0
    for one, other in zip(real, made, strict=True):
        total = total + (1 + (-one).exp()).log() + (1 + other.exp()).log()
    return total / len(real)


CASES = {"opposed": Case(opposed, [noise(5), noise(5, seed=1)], looped_opposed)}


def test_the_discriminator_is_told_real_from_made_and_the_generator_that_made_is_real(
    made, batch_of
):
    method = made("dcgan").eval()  # norms that know no batch
    batch = batch_of(method)
    with torch.no_grad():  # some images are told right, and some wrong
        known = torch.cat([method.logits(batch.views), method.logits(method.made(8))])
        method.verdict.bias -= known.median()
        method.verdict.weight *= 3
        method.verdict.bias *= 3
    torch.manual_seed(5)
    first, second = method.step(batch)
    torch.manual_seed(5)
    real, false = method.logits(batch.views), method.logits(method.made(8))
    one, none = torch.ones(8), torch.zeros(8)
    expected = F.binary_cross_entropy_with_logits(real, one)
    expected = expected + F.binary_cross_entropy_with_logits(false, none)
    near(first.loss, float(expected.detach()))
    near(second.loss, float(F.binary_cross_entropy_with_logits(false, one).detach()))
    assert (first.group, second.group) == ("main", "generator")
    right = [float(x > 0) for x in real] + [float(x < 0) for x in false]
    assert 0 < sum(right) < 16
    near(first.log["right"], sum(right) / 16)


def test_each_loss_reaches_its_own_side(made, batch_of):
    method = made("dcgan")
    step = method.step(batch_of(method))
    next(step).loss.backward()
    groups = {name: list(own) for name, own in method.groups().items()}
    assert all(p.grad is None for p in groups["generator"])
    assert all(p.grad is not None for p in groups["main"])
    next(step).loss.backward(inputs=groups["generator"])
    assert all(p.grad is not None for p in groups["generator"])
    held = [id(p) for own in groups.values() for p in own]
    assert sorted(held) == sorted(id(p) for p in method.parameters())


def test_the_generator_starts_from_small_weights_and_makes_images(made):
    method = made("dcgan")
    weights = [p.detach() for p in method.generator.parameters() if p.ndim > 1]
    assert all(0.015 < float(p.std()) < 0.025 for p in weights)
    norms = [m for m in method.generator if hasattr(m, "running_mean")]
    assert all(0.9 < m.weight.min() < m.weight.max() < 1.1 for m in norms)
    assert not any(m.bias.any() for m in norms)
    seen = []
    method.generator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = method.made(6)
    assert -1 <= seen[0].min() < -0.98
    assert 0.98 < seen[0].max() <= 1
    assert images.shape == (6, 3, 32, 32)
    assert 0 < images.min() < images.max() < 1


@pytest.mark.parametrize("name", ["dcgan", "wgan-gp"])
def test_what_is_judged_are_all_maps_pooled_to_four_by_four(name, made):
    method, x = made(name).eval(), torch.rand(3, 3, 32, 32)
    maps = method.backbone.maps(x)
    cells = [m if m.shape[2] < 4 else F.adaptive_max_pool2d(m, 4) for m in maps]
    expected = torch.cat([c.flatten(1) for c in cells], 1)
    assert torch.equal(method.encoder()(x), expected)
    assert expected.shape[1] == (32 + 32 + 48) * 16 + 192 * 4 + 96
    method = made(name, grid=0).eval()  # as other methods are judged
    assert torch.equal(method.encoder()(x), method.backbone(x))


def test_a_vit_is_declined_in_a_sentence_and_a_batch_of_one_by_the_class():
    vit = create("test_vit", size=32, patch_size=4)
    info = DataInfo("some", 32, 96, 10)
    assert "grow coarser with depth; those of test_vit" in DCGAN.needs(vit, info)
    assert DCGAN.needs(create("test_resnet", size=32), info) is None
    assert DCGAN.least == 2
