"""PSNR and SSIM against torchmetrics and scikit-image, and cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from sslbench.errors import Unsuited
from sslbench.evaluators import reconstruction
from sslbench.evaluators.reconstruction import Reconstruction, ssim

from .helpers import fake


def pictures(n, high, wide, seed=0):
    """Smooth pictures with some noise, uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (high, wide), mode="bicubic")
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=generator)
    return (255 * noisy).clamp(0, 255).to(torch.uint8)


def world_of(m=12, high=24, wide=20, *, wrong=0.1):
    world = fake(20, m)
    generator = torch.Generator().manual_seed(1)
    for split in ("train", "test"):
        world.pictures[split] = images = pictures(len(world.truth[split]), high, wide)
        noise = wrong * torch.randn(images.shape, generator=generator)
        world.rebuilt[split] = (images.float() / 255 + noise).clamp(0, 1)
    return world


def test_psnr_and_ssim_are_those_of_torchmetrics_and_scikit_image():
    world = world_of()
    found = world.judged_by(Reconstruction()).metrics
    made, real = world.rebuilt["test"].double(), world.pictures["test"].double() / 255
    psnr = peak_signal_noise_ratio(
        made, real, data_range=(0.0, 1.0), dim=(1, 2, 3), reduction="none"
    )
    full = structural_similarity_index_measure(
        made, real, data_range=1.0, reduction="none", return_full_image=True
    )[1]
    similar = full[:, :, 5:-5, 5:-5].mean((1, 2, 3))  # it also mirrors the border
    for name, expected in (("psnr", psnr), ("ssim", similar)):
        assert found[name].value == pytest.approx(float(expected.mean()), abs=1e-6)
        assert found[name].stderr == pytest.approx(float(expected.std()) / math.sqrt(12), abs=1e-6)
        assert (found[name].n, found[name].split) == (12, "test")
    assert found["mse"].value == pytest.approx(float((made - real).square().mean()), rel=1e-9)
    other = structural_similarity(
        made[0].numpy(),
        real[0].numpy(),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        win_size=11,
    )
    assert float(ssim(made[:1], real[:1])) == pytest.approx(float(np.asarray(other)), abs=1e-6)


def test_an_image_rebuilt_to_the_last_bit_has_100_db_and_a_similarity_of_one():
    found = world_of(wrong=0.0).judged_by(Reconstruction()).metrics
    assert found["psnr"].value == pytest.approx(100.0)
    assert found["ssim"].value == pytest.approx(1.0)
    assert found["mse"].value < 1e-14


def test_an_error_of_a_tenth_everywhere_has_20_db():
    world = world_of()
    world.pictures["test"] = torch.full((12, 3, 24, 20), 51, dtype=torch.uint8)
    world.rebuilt["test"] = torch.full((12, 3, 24, 20), 0.3)
    found = world.judged_by(Reconstruction()).metrics
    assert found["psnr"].value == pytest.approx(20.0, abs=1e-4)
    assert found["ssim"].value == pytest.approx((2 * 0.06 + 1e-4) / (0.04 + 0.09 + 1e-4), abs=1e-4)
    assert found["psnr"].stderr == pytest.approx(0.0, abs=1e-5)


def test_what_is_nearer_scores_higher_and_what_lies_outside_is_cut_off():
    far, near = (world_of(wrong=w).judged_by(Reconstruction()).metrics for w in (0.2, 0.05))
    assert near["psnr"].value > far["psnr"].value + 6
    assert near["ssim"].value > far["ssim"].value + 0.1
    world = world_of()
    white = world.pictures["test"] = torch.full((12, 3, 24, 20), 255, dtype=torch.uint8)
    world.rebuilt["test"] = white.float() / 255 + 5
    assert world.judged_by(Reconstruction()).metrics["psnr"].value == pytest.approx(100.0)


def test_blocks_make_no_difference(monkeypatch):
    world = world_of()
    whole = world.judged_by(Reconstruction()).metrics
    monkeypatch.setattr(reconstruction, "_BLOCK", 5 * 3 * 24 * 20)
    for name, value in world.judged_by(Reconstruction()).metrics.items():
        assert value.value == pytest.approx(whole[name].value, rel=1e-12)
        assert value.stderr == pytest.approx(whole[name].stderr, rel=1e-9)


def test_labels_do_not_matter_and_need_not_be_there():
    world = world_of()
    before = world.judged_by(Reconstruction()).metrics
    world.truth["test"] = torch.full_like(world.truth["test"], -1)
    assert world.judged_by(Reconstruction()).metrics == before


def test_images_smaller_than_a_window_have_no_ssim_and_one_image_no_error():
    judgement = world_of(high=10).judged_by(Reconstruction())
    assert judgement.metrics.keys() == {"psnr", "mse"}
    assert judgement.warnings == ("images of less than 11 pixels have no ssim",)
    found = world_of(m=1, high=11, wide=11).judged_by(Reconstruction()).metrics
    assert found["ssim"].n == 1
    assert found["ssim"].stderr is None


def test_what_cannot_be_compared_is_said_in_a_sentence():
    world = world_of()
    rebuilt = world.rebuilt.pop("test")
    with pytest.raises(Unsuited, match=r"this method rebuilds nothing; leave it out"):
        world.judged_by(Reconstruction())
    world.rebuilt["test"] = rebuilt[:, :, :-1]
    with pytest.raises(ValueError, match=r"is \[12, 3, 23, 20\] where they are \[12, 3, 24, 20\]"):
        world.judged_by(Reconstruction())
    world.rebuilt["test"] = rebuilt.clone()
    world.rebuilt["test"][3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"1 of 12 images of it hold NaN or infinity"):
        world.judged_by(Reconstruction())
