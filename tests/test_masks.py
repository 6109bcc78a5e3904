"""Masks of patches: exact counts, shares as distributions, and the same on a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from pretending import where_it_works

from sslbench.testing.pretend_cuda import pretend_cuda
from sslbench.views import (
    Blockwise,
    ContextAndTargets,
    Masked,
    MultiCrop,
    RandomOrder,
    boxes,
    crop_flip,
)
from sslbench.views.graphs import compiled

GRID = (14, 14)
MASKS = [RandomOrder(16), ContextAndTargets((8, 8)), Blockwise((8, 8), 2)]


def drawn(mask, count, seed=0):
    torch.manual_seed(seed)
    return mask(count)


def test_a_box_is_the_patches_between_its_corners():
    found = boxes((3, 4), torch.tensor([[1, 2], [0, 0]]), torch.tensor([[2, 1], [1, 4]]))
    assert found[0].nonzero().flatten().tolist() == [6, 10]
    assert found[1].nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_every_image_has_an_order_of_all_patches_of_its_own():
    (order,) = drawn(RandomOrder(49), 200)
    assert torch.equal(order.sort(1).values, torch.arange(49).expand(200, 49))
    assert len(order.unique(dim=0)) == 200


# ---- context and targets ---------------------------------------------------------------------


def hidden_of(places, patches):
    return torch.zeros(len(places), patches, dtype=torch.bool).scatter(1, places, True)


@pytest.mark.parametrize("seed", range(5))
def test_a_context_shares_no_patch_with_its_targets(seed):
    context, targets = drawn(ContextAndTargets(GRID), 32, seed)
    seen, hidden = hidden_of(context, 196), hidden_of(targets.flatten(1), 196)
    assert not (seen & hidden).any()
    assert (seen.sum(1) == context.shape[1]).all()  # none twice
    assert context.shape[1] >= 11


@pytest.mark.parametrize("seed", range(8))
def test_targets_are_rectangles_of_one_size_of_the_share_and_aspect_asked_for(seed):
    _, targets = drawn(ContextAndTargets(GRID), 16, seed)
    assert targets.shape[:2] == (16, 4)
    rows, columns = targets // 14, targets % 14
    height, width = (x.amax(2) - x.amin(2) + 1 for x in (rows, columns))
    assert (height * width == targets.shape[2]).all()
    assert len(height.unique()) == len(width.unique()) == 1
    assert 0.13 <= targets.shape[2] / 196 <= 0.22  # .15 to .2, sides rounded
    assert 0.6 <= float(height[0, 0] / width[0, 0]) <= 1.75
    assert len(targets[:, :, 0].unique()) > 20  # at places of their own


def test_blocks_reach_every_border_of_the_grid():
    found = [drawn(ContextAndTargets(GRID), 64, seed) for seed in range(4)]
    hidden = torch.cat([hidden_of(t.flatten(1), 196) for _, t in found]).view(-1, 14, 14).any(0)
    seen = torch.cat([hidden_of(c, 196) for c, _ in found]).view(-1, 14, 14).any(0)
    assert hidden.all()
    assert seen[0].any()
    assert seen[:, 0].any()
    assert seen[:, 13].any()


def test_contexts_are_cut_to_the_smallest_of_the_batch_at_the_end():
    mask = ContextAndTargets(GRID, least=1)
    torch.manual_seed(3)
    target, square = mask._size(mask.scale, mask.aspect), mask._size(mask.context, (1, 1))
    whole = mask._draw(16, target, square)[1]
    context, _ = drawn(mask, 16, 3)
    assert context.shape[1] == whole.sum(1).min()
    for places, row in zip(context, whole, strict=True):
        assert torch.equal(places, row.nonzero().flatten()[: context.shape[1]])


def test_a_context_of_too_few_patches_is_drawn_again():
    free, held = ContextAndTargets(GRID, least=1), ContextAndTargets(GRID, least=60, tries=200)
    small = [drawn(free, 64, seed)[0].shape[1] for seed in range(6)]
    assert min(small) < 60
    assert min(drawn(held, 64, seed)[0].shape[1] for seed in range(6)) >= 60


def test_targets_that_leave_nothing_of_the_context_are_a_sentence():
    mask = ContextAndTargets((2, 2), targets=40, scale=(0.3, 0.5), aspect=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"40 target blocks of 1 x 1 .* grid of 2 x 2; smaller"):
        mask(64)


# ---- blocks ----------------------------------------------------------------------------------


def test_half_of_the_views_are_whole_and_of_others_a_tenth_to_a_half_is_hidden():
    (hidden,) = drawn(Blockwise(GRID, 2), 2000)
    share = hidden.float().mean(2)  # [B, V]
    some = share > 0
    assert float(some.float().mean()) == pytest.approx(0.5, abs=0.03)
    both = some.all(1).float().mean()
    assert float(both) == pytest.approx(0.25, abs=0.03)  # views draw for themselves
    assert float(share.max()) <= 0.5
    assert float(share[some].mean()) == pytest.approx(0.3, abs=0.015)
    assert float(share[some].std()) == pytest.approx(0.4 / math.sqrt(12), abs=0.015)


def test_the_share_that_is_asked_for_is_nearly_filled_and_never_exceeded():
    mask = Blockwise(GRID)
    most = torch.linspace(10, 98, 200)
    torch.manual_seed(0)
    count = mask._filled(most).sum(1)
    assert (count <= most).all()
    assert float((most - count).mean()) < 3
    assert not mask._filled(torch.zeros(5)).any()


def test_what_is_hidden_hangs_together():
    """A hidden patch has hidden neighbours far more often than where patches are drawn singly."""
    (hidden,) = drawn(Blockwise(GRID, share=(0.3, 0.3), p=1.0), 200)
    grid = hidden.view(-1, *GRID).float()
    beside = (grid[:, :, 1:] * grid[:, :, :-1]).sum() / grid[:, :, 1:].sum()
    assert float(beside) > 0.6


@pytest.mark.parametrize("grid", [(2, 2), (3, 3), (4, 4), (7, 5)])
def test_small_grids_have_blocks_too(grid):
    (hidden,) = drawn(Blockwise(grid, share=(0.5, 0.5), p=1.0), 50)
    assert hidden.any(2).float().mean() > 0.9
    assert float(hidden.float().mean(2).max()) <= 0.5


# ---- beside images ---------------------------------------------------------------------------


@pytest.mark.parametrize("mask", MASKS, ids=repr)
@pytest.mark.parametrize("count", [1, 5])
def test_masks_come_with_the_images_and_on_a_gpu_alike_without_a_wait(mask, count):
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    view = Masked(crop_flip(32), mask)
    torch.manual_seed(1)
    x, *masks = view(images)
    assert x.shape == (count, 3, 32, 32)
    assert {each.dtype for each in masks} <= {torch.int64, torch.bool}
    with where_it_works(), pretend_cuda() as gpu:
        there = images.to("cuda:0")
        torch.manual_seed(1)
        with gpu.watched() as seen:
            y, *others = view(there)
        assert not seen.waits
        assert not seen.blocking
        torch.testing.assert_close(y.cpu(), x, rtol=0, atol=4e-6)
        for one, other in zip(masks, others, strict=True):
            assert other.device.type == "cuda"
            assert torch.equal(other.cpu(), one)


def test_the_view_within_is_compiled():
    view = Masked(MultiCrop(((crop_flip(32), 2),)), RandomOrder(4))
    inner = compiled(view).view.crops[0][0]
    assert inner.ops == (crop_flip(32),)
    assert compiled(view).mask == RandomOrder(4)


@pytest.mark.parametrize("make", [Blockwise, ContextAndTargets])
def test_a_share_beyond_one_is_refused(make):
    key = "share" if make is Blockwise else "scale"
    with pytest.raises(ValueError, match="0 to 1"):
        make(GRID, **{key: (0.2, 1.5)})
