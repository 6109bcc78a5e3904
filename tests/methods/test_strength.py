"""How far strong views change photographs, against the official code on the same ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

from sslbench import views as V

DRAWS = 400  # of each photograph


@pytest.fixture(scope="module")
def photographs():
    """The middle of six photographs at 32 pixels, uint8 [6, 3, 32, 32]."""
    found = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    small = []
    for pixels in (*found, *load_sample_images().images):
        side = min(pixels.shape[:2])
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        middle = Image.fromarray(pixels[top : top + side, left : left + side])
        small.append(np.array(middle.resize((32, 32), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous()


def change(view, images):
    """Mean and median over views of a pixel's mean absolute change."""
    torch.manual_seed(0)
    images = images.repeat(DRAWS, 1, 1, 1)
    far = (view(images) - V.to_float(images)).abs().mean((1, 2, 3))
    return float(far.mean()), float(far.median())


def without_crop(view, kind):
    """The operations of a chain from the first of this kind on."""
    first = next(i for i, op in enumerate(view.ops) if isinstance(op, kind))
    return V.Chain(*view.ops[first:])


# Official figures: 600 draws of each photograph by the code of the paper, in PIL.
def test_rucs_strong_view_changes_a_pixel_as_far_as_its_codes(made, photographs):
    view = without_crop(made("ruc").view.view[3], V.RandAugment)
    assert change(view, photographs) == pytest.approx((0.150, 0.123), rel=0.1)
    view = without_crop(made("ruc", cutout=0.0).view.view[3], V.RandAugment)
    assert change(view, photographs) == pytest.approx((0.122, 0.0905), rel=0.1)


def test_scans_strong_view_changes_a_pixel_as_far_as_its_codes(made, photographs):
    view = without_crop(made("scan").strong, V.RandAugment)
    assert change(view, photographs) == pytest.approx((0.1995, 0.193), rel=0.1)
    view = without_crop(made("scan", cutout=0.0).strong, V.RandAugment)
    assert change(view, photographs) == pytest.approx((0.199, 0.190), rel=0.1)


def test_the_scale_of_torchvision_is_another(photographs):
    assert change(V.RandAugment(2, 2), photographs)[0] == pytest.approx(0.045, rel=0.1)
    assert change(V.RandAugment(2, 9), photographs)[0] == pytest.approx(0.1335, rel=0.1)
