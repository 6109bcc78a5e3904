"""Lab against scikit-image, both ways; the bins against every colour of sRGB."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from sslbench.views import distances, from_lab, gamut, lightness, quantised, to_lab


def theirs(change, images: torch.Tensor) -> torch.Tensor:
    """What scikit-image makes of images [B, C, H, W], in float64."""
    return torch.from_numpy(change(images.double().permute(0, 2, 3, 1).numpy())).permute(0, 3, 1, 2)


def every_colour(step: int = 15) -> torch.Tensor:
    """A grid over sRGB with black, white, primaries and dark greys: [1, 3, n, n * n]."""
    v = torch.arange(0, 256, step) / 255
    grid = torch.stack(torch.meshgrid(v, v, v, indexing="ij"))
    dark = torch.linspace(0, 0.05, len(v) ** 2).expand(3, 1, -1)
    return torch.cat([grid.flatten(2), dark], 1)[None]


@pytest.mark.parametrize("images", [every_colour(), torch.rand(2, 3, 9, 7)])
def test_lab_is_that_of_scikit_image(images):
    ours, lab = to_lab(images), theirs(rgb2lab, images)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), lab, rtol=0, atol=1e-3)
    torch.testing.assert_close(lightness(images), ours[:, :1], rtol=0, atol=1e-5)


def test_bytes_are_taken_too():
    images = torch.randint(256, (2, 3, 5, 5), dtype=torch.uint8)
    torch.testing.assert_close(to_lab(images), to_lab(images.float() / 255))


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")  # of blues beyond its reach
def test_the_way_back_is_that_of_scikit_image_inside_and_outside_srgb():
    images = every_colour()
    torch.testing.assert_close(from_lab(to_lab(images)), images, rtol=0, atol=1e-4)
    lab = torch.rand(2, 3, 16, 16) * torch.tensor([100.0, 200, 200]).view(3, 1, 1)
    lab -= torch.tensor([0.0, 100, 100]).view(3, 1, 1)
    rgb = from_lab(lab)
    torch.testing.assert_close(rgb.double(), theirs(lab2rgb, lab).clamp(0, 1), rtol=0, atol=1e-3)
    assert 0 <= float(rgb.min()) < float(rgb.max()) <= 1


def test_white_black_and_greys_are_where_they_belong():
    grey = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(-1, 3, -1, -1)
    light, *colour = to_lab(grey).unbind(1)
    assert light.flatten().tolist() == pytest.approx([0, 53.389, 100], abs=2e-3)
    assert all(float(part.abs().max()) < 0.02 for part in colour)


@pytest.mark.parametrize("change", [to_lab, from_lab])
def test_gradients_are_finite_everywhere_and_right_inside(change):
    """Black and white included, where a cube root or its branch is steep."""
    images = every_colour(51).clone().requires_grad_()
    change(to_lab(images) if change is from_lab else images).sum().backward()
    assert images.grad.isfinite().all()
    inside = 0.2 + 0.6 * torch.rand(1, 3, 2, 2)
    at = (to_lab(inside) if change is from_lab else inside).double()
    ours = torch.autograd.functional.jacobian(lambda x: change(x.float()).sum((0, 2, 3)), at)
    for channel in range(3):
        step = torch.zeros_like(at)
        step[:, channel] = 1e-2
        slope = (change((at + step).float()) - change((at - step).float())).sum((0, 2, 3)) / 2e-2
        torch.testing.assert_close(
            ours[:, :, channel].sum((1, 2, 3)), slope.double(), rtol=1e-2, atol=1e-2
        )


def test_autocast_does_not_round_colours():
    images = torch.rand(1, 3, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = to_lab(images), from_lab(to_lab(images))
    assert torch.equal(found[0], to_lab(images))
    assert torch.equal(found[1], from_lab(to_lab(images)))


def test_there_are_313_bins_among_them_all_corners_of_cells_with_a_colour():
    bins = {(a, b) for a, b in gamut().long().tolist()}
    assert len(bins) == len(gamut()) == 313
    faces = torch.cartesian_prod(*[torch.linspace(0, 1, 256)] * 2)
    cube = [
        torch.cat([faces[:, :axis], torch.full((len(faces), 1), end), faces[:, axis:]], 1)
        for axis in range(3)
        for end in (0.0, 1.0)
    ]
    ab = to_lab(torch.cat(cube).T[None, :, None])[0, 1:, 0].T.numpy() / 10
    # what lies inside is found in a coarse grid
    inner = to_lab(every_colour(5))[0, 1:].flatten(1).T.numpy() / 10
    cells = np.unique(np.floor(np.concatenate([ab, inner])).astype(int), axis=0)
    corners = {(10 * (a + i), 10 * (b + j)) for a, b in cells for i in (0, 1) for j in (0, 1)}
    assert len(corners) == 309
    assert bins - corners == {(40, 90), (100, -90), (100, -10), (100, 0)}
    assert not corners - bins


def test_the_nearest_colour_of_a_palette():
    palette = torch.tensor([[0.0, 0], [10, 0], [0, -10]])
    colours = torch.tensor([[4.0, 1], [6, 1], [1, -6], [-50, 0]]).T.view(1, 2, 2, 2)
    assert quantised(colours, palette).flatten().tolist() == [0, 1, 2, 0]
    assert distances(colours, palette)[0, 0, 1].tolist() == [37, 17, 157]
