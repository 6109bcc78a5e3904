"""Tiles of a grid, what hides their neighbours from them, and the orders in which they are laid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretending import where_it_works
from scipy.spatial.distance import pdist

from sslbench import views as V
from sslbench.nn import Standardise
from sslbench.testing.pretend_cuda import pretend_cuda
from sslbench.views.tiles import GREY_LEVEL

CHAINS = [
    V.Tiles(3, 8),
    V.Tiles(2, 16, 0.0),
    V.Chain(V.HorizontalFlip(), V.Grayscale(0.3), V.Tiles(3, 8), V.ShiftChannels(9)),
    V.Chain(V.Tiles(3, 7, 0.3), V.Coarsen(9, 0.5), V.DropChannels(9)),
]


def pictures(count, side=32):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def corners_of(images, tiles):
    """The place of each tile, [B, T, 2], in images that hold their own positions."""
    return torch.stack([tiles[:, :, 0, 0, 0], tiles[:, :, 1, 0, 0]], 2).mul(255).round().long()


def places(count, side):
    """Images whose first channel is a pixel's row and whose second is its column."""
    row = torch.arange(side, dtype=torch.uint8)[:, None].expand(side, side)
    return torch.stack([row, row.T, row]).expand(count, 3, side, side)


# ---- tiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "grid", "side"), [(32, 3, 8), (33, 3, 11), (28, 2, 9), (64, 5, 9)]
)
def test_each_tile_is_a_window_of_its_own_cell_and_none_overlap(size, grid, side):
    torch.manual_seed(0)
    view, images = V.Tiles(grid, side), places(500, size)
    tiles = view(images)
    assert tiles.shape == (500, grid**2, 3, side, side)
    corners, cell = corners_of(images, tiles), size // grid
    for tile in range(grid**2):
        for at, (top, left) in zip(tiles[:20, tile], corners[:20, tile].tolist(), strict=True):
            assert torch.equal(at * 255, images[0, :, top : top + side, left : left + side].float())
    rows = corners.view(500, grid, grid, 2)
    assert (rows[:, 1:, :, 0] - rows[:, :-1, :, 0] > side - 1).all()
    assert (rows[:, :, 1:, 1] - rows[:, :, :-1, 1] > side - 1).all()
    assert corners.min() >= 0
    assert corners.max() <= size - side
    spare = size - grid * cell
    first = corners[:, 0].amin(0)
    assert (first <= spare + cell - side).all()
    assert corners[:, 0].amax() == spare + cell - side  # any place of its cell, any of the grid
    assert corners[:, 0].amin() == 0


def test_jitter_is_around_the_middle_of_a_cell():
    for jitter, allowed in ((0.0, {1}), (0.5, {0, 1}), (1.0, {0, 1, 2})):
        torch.manual_seed(0)
        images = places(200, 30)
        corners = corners_of(images, V.Tiles(3, 8, jitter)(images))
        assert set((corners % 10).flatten().tolist()) == allowed


def test_the_relative_patches_of_the_paper_move_by_7_of_144_pixels():
    torch.manual_seed(0)
    images = torch.zeros(300, 3, 432, 432, dtype=torch.uint8)
    (drawn,) = V.Tiles(3, 96, 14 / 48).draw(len(images), (432, 432))
    assert (drawn % 144).unique().tolist() == [*range(17, 32)]


def test_tiles_too_large_for_their_cells_are_refused():
    with pytest.raises(
        ValueError, match=r"tiles of 11 pixels .* 3 x 3 cells of 10, which are small"
    ):
        V.Tiles(3, 11)(pictures(2))
    with pytest.raises(ValueError, match="one pixel or more"):
        V.Tiles(3, 0)
    with pytest.raises(ValueError, match="0 to 1, got 2"):
        V.Tiles(3, 8, 2)


@pytest.mark.parametrize(
    ("size", "grid", "share", "side"),
    [(255, 3, 64 / 85, 64), (32, 3, 64 / 85, 8), (224, 3, 64 / 85, 56), (432, 3, 2 / 3, 96)],
)
def test_the_side_of_a_tile_is_its_share_of_a_cell(size, grid, share, side):
    assert V.tile_side(size, grid, share) == side


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ((8, 3, 0.75), r"8 pixels in 3 x 3 cells of 2 leave tiles of 2 .* take larger images"),
        ((32, 8, 0.75), r"cells of 4 leave tiles of 3 at 0.75 of a cell.* a grid of at most 6"),
        ((2, 3, 1.0), r"3 x 3 cells of 0 leave tiles of 0"),
        ((32, 1, 0.75), r"1 x 1 has one tile"),
        ((32, 3, 0.1), r"tiles of 1 at 0.1 of a cell.* larger tiles"),
    ],
)
def test_grids_that_leave_hardly_a_pixel_are_refused(asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        V.tile_side(*asked)
    if "at most" in sentence:
        assert V.tile_side(asked[0], 6, asked[2]) >= 4


# ---- what hides the neighbours ---------------------------------------------------------------------


def test_one_channel_of_a_tile_is_kept_and_the_others_are_nearly_grey():
    torch.manual_seed(0)
    tiles, images = V.Tiles(3, 8, 0.0), pictures(200)
    images[images == 127] = 126
    images[images == 128] = 129
    whole = tiles(images[:, :, 1:31, 1:31])
    dropped = V.Chain(tiles, V.DropChannels(9))(images[:, :, 1:31, 1:31])
    same = (whole == dropped).flatten(3).all(3)
    assert (same.sum(2) == 1).all()
    others = dropped[~same]
    assert (others - 0.5).abs().max() <= GREY_LEVEL / 2 + 1e-7
    assert others.std() > 0.2 * GREY_LEVEL
    counts = same.sum((0, 1))
    assert counts.sum() == 1800
    assert (counts - 600).abs().max() < 5 * math.sqrt(400)


def test_each_channel_of_each_tile_is_shifted_by_2_grey_levels_down_to_1_up():
    torch.manual_seed(0)
    tiles = V.Tiles(3, 8, 0.0)
    images = pictures(200)[:, :, 1:31, 1:31].contiguous()
    shift = (V.Chain(tiles, V.ShiftChannels(9))(images) - tiles(images)) * 255
    inside = (tiles(images) > 2.5 / 255) & (tiles(images) < 253.5 / 255)
    for channel, within in zip(shift.flatten(0, 2)[:500], inside.flatten(0, 2), strict=False):
        assert channel[within].round().unique().numel() == 1
    found, counts = shift[inside].round().unique(return_counts=True)
    assert found.tolist() == [-2, -1, 0, 1]
    assert (counts / counts.sum() - 0.25).abs().max() < 0.02
    dark = V.Chain(tiles, V.ShiftChannels(9))(torch.zeros(8, 3, 30, 30, dtype=torch.uint8))
    assert dark.min() == 0
    assert dark.max() == pytest.approx(1 / 255)


@pytest.mark.parametrize("fewer", [2, 5, 10, 17, 48, 49])
def test_a_coarse_tile_is_one_that_was_shrunk_and_enlarged(fewer):
    torch.manual_seed(0)
    image = torch.rand(1, 3, 49, 49)
    small = F.interpolate(image, (fewer, fewer), mode="bilinear")
    wanted = F.interpolate(small, (49, 49), mode="bilinear")
    torch.testing.assert_close(
        V.coarsened(image, torch.tensor([float(fewer)])), wanted, rtol=0, atol=1e-5
    )


def test_a_third_of_the_tiles_is_coarse_by_an_area_that_is_uniform():
    torch.manual_seed(0)
    (fewer,) = V.Coarsen(9).draw(5000, (96, 96))
    coarse = fewer[fewer < 96]
    assert len(coarse) / fewer.numel() == pytest.approx(1 / 3, abs=0.01)
    assert coarse.min() == 10
    assert coarse.max() == 94
    area = (coarse + 0.5) ** 2
    assert float(area.mean()) == pytest.approx((95**2 + 10**2) / 2, rel=0.02)
    whole = V.Tiles(3, 8)(pictures(8))
    assert torch.equal(V.Coarsen(9, 0.0).on_host(whole, V.Coarsen(9, 0.0).draw(8, (8, 8))), whole)
    assert V.Coarsen(9).draw(99, (8, 8))[0].min() == 2


def test_standardised_tiles_have_the_mean_and_deviation_that_backbones_take_off():
    torch.manual_seed(0)
    tiles = V.Tiles(3, 8)(pictures(6))
    tiles[0, 0] = 0.3  # a constant one
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    z = (Standardise()(tiles) - mean) / std
    assert z.mean((3, 4)).abs().max() < 1e-5
    assert z[0, 0].abs().max() < 1e-5
    rest = z.flatten(0, 1)[1:]
    torch.testing.assert_close(rest.std((2, 3), correction=0), torch.ones(53, 3))
    together = (Standardise(each=False)(tiles) - mean) / std
    assert together.mean((3, 4)).abs().max() < 1e-5
    rest = together.flatten(0, 1)[1:]
    torch.testing.assert_close(rest.square().mean((1, 2, 3)), torch.ones(53))
    deviations = tiles.flatten(0, 1)[1:].std((2, 3), correction=0)
    ratio = rest.std((2, 3), correction=0) / deviations
    torch.testing.assert_close(ratio, ratio[:, :1].expand(-1, 3))


def test_standardising_undoes_brightness_and_contrast_and_a_shift_of_channels():
    torch.manual_seed(0)
    tiles = torch.rand(4, 9, 3, 8, 8) * 0.4 + 0.3
    shift = torch.randint(-2, 2, (4, 9, 3, 1, 1)) / 255
    for each in (True, False):
        known = Standardise(each=each)(tiles)
        torch.testing.assert_close(Standardise(each=each)(tiles * 0.7 + shift), known)


# ---- as every view ---------------------------------------------------------------------------------


@pytest.mark.parametrize("view", CHAINS, ids=repr)
@pytest.mark.parametrize("count", [1, 3, 32])
def test_a_gpu_gives_the_same_tiles_and_never_waits(view, count):
    torch.manual_seed(1)
    images = pictures(count)
    torch.manual_seed(0)
    wanted = view(images)
    state = torch.get_rng_state()
    with where_it_works(), pretend_cuda() as gpu:
        torch.manual_seed(0)
        there = images.to("cuda")
        with gpu.watched() as seen:
            found = view(there)
        assert [seen.waits, seen.blocking, seen.mixed, seen.half] == [{}] * 4
        assert float((found.cpu() - wanted).abs().max()) <= 4e-6
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("view", CHAINS, ids=repr)
def test_tiles_are_in_0_to_1_differ_between_images_and_are_made_by_a_printable_value(view):
    images = pictures(1).expand(16, 3, 32, 32)
    before = images.clone()
    made = view(images)
    assert made.dtype == torch.float32
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert torch.equal(images, before)
    if view != CHAINS[1]:  # two cells fill the image
        assert len(made.flatten(1).unique(dim=0)) > 1
    assert eval(repr(view), vars(V)) == view
    assert view(images.to("meta")).device.type == "meta"


# ---- orders ----------------------------------------------------------------------------------------


def distances(orders):
    """Places in which two of them differ, of each pair."""
    return pdist(orders.numpy(), "hamming") * orders.shape[1]


def test_a_hundred_of_nine_differ_in_six_places_or_more_by_the_smallest_distance():
    found = [distances(V.far_apart(9, 100, "maximin", seed)) for seed in range(2)]
    assert [each.min().round() for each in found] == [6, 6]
    assert all(each.mean() > 8.02 for each in found)


def test_a_hundred_of_nine_differ_in_8_08_places_by_the_mean_and_some_in_few():
    found = [distances(V.far_apart(9, 100, "mean", seed)) for seed in range(2)]
    assert [each.mean() for each in found] == pytest.approx([8.08, 8.08], abs=0.005)
    assert min(each.min() for each in found) < 5


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["maximin", "mean"])
def test_a_thousand_permutations_are_distinct_and_those_of_another_seed_are_others(rule):
    orders = V.far_apart(9, 1000, rule)
    assert len(orders.unique(dim=0)) == 1000
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(1000, 9))
    assert torch.equal(orders[:50], V.far_apart(9, 50, rule))  # one by one
    assert not torch.equal(orders[:50], V.far_apart(9, 50, rule, 1))
    assert orders is V.far_apart(9, 1000, rule)  # not searched twice


def test_permutations_are_for_ever_the_same_and_leave_generators_alone():
    torch.manual_seed(3)
    np.random.seed(3)
    state = torch.get_rng_state()
    V.far_apart.cache_clear()
    orders = V.far_apart(9, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == np.random.RandomState(3).get_state()[1].tolist()
    assert orders.tolist() == GOLDEN


GOLDEN = [[6, 4, 1, 8, 2, 0, 5, 3, 7], [4, 6, 7, 3, 5, 1, 0, 8, 2], [5, 0, 8, 1, 4, 7, 3, 2, 6]]


@pytest.mark.parametrize("rule", ["maximin", "mean"])
def test_each_next_permutation_is_the_farthest(rule):
    every = np.array([*itertools.permutations(range(4))])
    orders = V.far_apart(4, 24, rule).numpy()
    assert len(np.unique(orders, axis=0)) == 24
    for count in range(1, 24):
        known = orders[:count]
        left = [p for p in every if not (known == p).all(1).any()]
        apart = np.array([(known != p).sum(1) for p in left])  # [rest, count]
        least = apart.min(1) if rule == "maximin" else np.zeros(len(left))
        best = max(zip(least, apart.mean(1), strict=True))
        mine = (orders[count] != known).sum(1)
        assert (mine.min() if rule == "maximin" else 0, mine.mean()) == pytest.approx(best)


def test_more_permutations_than_there_are_is_a_sentence():
    with pytest.raises(ValueError, match=r"25 permutations of 4 tiles .* there are 24; set perm"):
        V.far_apart(4, 25)
    with pytest.raises(ValueError, match="65,536"):
        V.far_apart(16, 100_000)


def test_of_many_tiles_a_draw_is_searched():
    orders = V.far_apart(16, 20)
    assert torch.equal(orders.sort(1).values, torch.arange(16).expand(20, 16))
    assert distances(orders).min() >= 14
