"""Video colorization: places point at earlier frames of their own clip, and copy colours."""

from __future__ import annotations

import math

import pytest
import torch

from sslbench.api import Batch, DataInfo, Epoch
from sslbench.methods.video_colorization import (
    VideoColorization,
    averaged,
    before,
    has_one_before,
    pointed,
)
from sslbench.train.feed import orders
from sslbench.views import to_lab

from .helpers import Case, dot, near, noise, same

DATASETS = {"video-colorization": "sprites"}
B, P, R, D, K = 3, 4, 10, 5, 3
WANTED = torch.randint(K, (B, P), generator=torch.Generator().manual_seed(1))
FOUND = torch.randint(K, (B, R), generator=torch.Generator().manual_seed(2))
WANTED[1, 2] = K  # a colour that no reference has


def of_pointed(target, reference, wanted, found):
    return pointed(target, reference, wanted, found, 0.7)


def looped_pointed(target, reference, wanted, found):
    losses = []
    for b in range(len(target)):
        for p in range(P):
            scores = [dot(target[b, p], reference[b, r]) / 0.7 for r in range(R)]
            weights = [s.exp() for s in scores]
            mixture = sum(w for w, r in zip(weights, found[b], strict=True) if r == wanted[b, p])
            if bool((found[b] == wanted[b, p]).any()):
                losses.append(-(mixture / sum(weights)).log())
    return sum(losses) / len(losses)


CASES = {
    "pointed": Case(
        of_pointed, [noise(B, P, D), noise(B, R, D, seed=1), WANTED, FOUND], looped_pointed
    )
}


def test_even_weights_give_the_histogram_of_the_references():
    found = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2, 2]])
    for kind, share in ((0, 0.3), (1, 0.2), (2, 0.5)):
        wanted = torch.full((1, 4), kind)
        near(pointed(torch.zeros(1, 4, 3), noise(1, 10, 3), wanted, found, 1.0), -math.log(share))


def test_even_weights_over_a_flat_histogram_of_16_colours_cost_ln_16():
    found = torch.arange(32).view(1, 32) % 16
    wanted = torch.arange(8).view(1, 8)
    near(pointed(torch.zeros(1, 8, 3), noise(1, 32, 3), wanted, found, 1.0), 2.77259)


def test_the_same_frame_of_orthonormal_places_copies_itself_when_cold():
    z, kinds = torch.eye(6)[None], torch.tensor([[0, 1, 2, 0, 1, 2]])
    near(pointed(z, z, kinds, kinds, 1e-3), 0.0)
    others = kinds.roll(1, 1)  # every place now has another colour than what it points at
    assert float(pointed(z, z, kinds, others, 1e-2)) > 90


def test_it_is_the_mixture_that_is_scored_and_no_second_softmax_of_it():
    z, wanted = torch.zeros(1, 1, 3), torch.zeros(1, 1, dtype=torch.long)
    found = torch.tensor([[0, 0, 0, 1]])
    near(pointed(z, noise(1, 4, 3), wanted, found, 1.0), -math.log(0.75))


def test_all_references_share_one_softmax():
    target, wanted = noise(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)
    one, two = noise(2, 5, 4, seed=1), 3 + noise(2, 5, 4, seed=2)
    kinds = torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    loss = pointed(target, torch.cat([one, two], 1), wanted, torch.cat(kinds, 1), 1.0)
    scores = target @ torch.cat([one, two], 1).mT
    same(loss, -scores.softmax(2)[:, :, :5].sum(2).log().mean())
    swapped = pointed(target, torch.cat([two, one], 1), wanted, torch.cat(kinds[::-1], 1), 1.0)
    same(swapped, loss)  # nor does their order matter


def test_without_one_place_of_its_colour_nothing_is_learned_and_nothing_breaks():
    target = noise(1, 2, 3).requires_grad_()
    kinds = torch.zeros(1, 4, dtype=torch.long)
    loss = pointed(target, noise(1, 4, 3), torch.ones(1, 2, dtype=torch.long), kinds, 1.0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not target.grad.any()


def test_scores_of_any_size_keep_a_gradient():
    """The colour has a share of e^-500 of the mixture: no float32 holds it, its logarithm does."""
    target = torch.tensor([[[500.0]]], requires_grad=True)
    reference, found = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[0, 1]])
    loss = pointed(target, reference, torch.ones(1, 1, dtype=torch.long), found, 1.0)
    loss.backward()
    near(loss, 500)
    near(target.grad, 1)


# ---- clips -----------------------------------------------------------------------------------------

CLIPS = torch.tensor([4] * 6 + [9] + [2] * 3 + [0] * 12)


def test_earlier_frames_are_of_the_same_clip_and_as_far_as_it_has_them():
    for gap in (1, 4, 9):
        rows = before(CLIPS, gap)
        assert rows.shape == (len(CLIPS), 1)
        for at, row in enumerate(rows[:, 0].tolist()):
            first = CLIPS.tolist().index(CLIPS[at])
            assert CLIPS[row] == CLIPS[at]
            assert row == max(at - gap, first)


def test_targets_are_frames_with_one_before_them():
    firsts = {0, 6, 7, 10}
    assert [i for i, one in enumerate(has_one_before(CLIPS)) if not one] == sorted(firsts)


class Film:
    """A run over frames, of two epochs from that number on."""

    def __init__(self, images, clips, first=0):
        self.images, self.own, self.first = images, clips, first

    def clips(self):
        return self.own

    def epochs(self, method):
        for number in range(self.first, 2):
            self.epoch = Epoch(number)
            yield self.epoch

    def features(self, encoder):
        return encoder(self.images)


def frames(count):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_no_stream_ever_crosses_a_clip_nor_shows_a_frame_to_itself(made):
    method = made("video-colorization")
    run = Film(frames(len(CLIPS)), CLIPS)
    method.fit(run)
    assert [*run.epoch.streams] == ["19 before", "14 before", "9 before"]  # 4 + 4 + 8 left out
    drawn = orders(run.epoch, len(CLIPS), steps=40, batch=5, origin=("x", 0))
    main = drawn.pop("main")
    for rows in drawn.values():
        assert torch.equal(CLIPS[rows], CLIPS[main])
        assert (rows < main).all()


def test_the_palette_is_made_of_the_colours_of_the_data_and_kept_when_it_goes_on(made):
    method = made("video-colorization", palette=3)
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.9]])
    images = colours.repeat(4, 1)[:, :, None, None].expand(12, 3, 32, 32)
    method.fit(Film(images, torch.arange(12) // 4))
    wanted = to_lab(colours[:, :, None, None])[:, 1:, 0, 0]
    assert torch.cdist(method.palette, wanted).amin(0).max() < 1e-2
    kept = method.palette.clone()
    method.fit(Film(1 - images, torch.arange(12) // 4, first=1))  # resumed
    assert torch.equal(method.palette, kept)


def test_fewer_colours_than_the_palette_has_are_no_trouble(made):
    method = made("video-colorization")
    method.fit(Film(torch.full((6, 3, 32, 32), 0.3), torch.zeros(6, dtype=torch.long)))
    assert method.palette.isfinite().all()


def test_a_step_compares_the_target_with_all_its_references(made):
    method = made("video-colorization", skips=[0, 1]).eval()
    method.palette.copy_(40 * noise(16, 2))
    x = frames(9).split(3)
    index = torch.arange(3)
    also = {name: Batch(v, index, index, 0, 0.0) for name, v in zip("ab", x, strict=False)}
    loss = next(method.step(Batch(x[2], index, index, 0, 0.0, also)))
    z = [method.head(method.backbone.maps(v)[-1]).flatten(2).mT for v in x]
    kinds = [torch.cdist(averaged(v, (4, 4)).flatten(2).mT, method.palette).argmin(2) for v in x]
    same(loss, pointed(z[2], torch.cat(z[:2], 1), kinds[2], torch.cat(kinds[:2], 1), 1.0))
    assert z[0].shape == (3, 16, 64)


def test_it_sees_no_colour(made):
    method = made("video-colorization").eval()
    x = frames(2)
    grey = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    lightness = to_lab(grey)
    lightness[:, 1:] += 5
    from sslbench.views import from_lab

    tinted = from_lab(lightness)
    torch.testing.assert_close(
        method.encoder()(tinted), method.encoder()(grey), rtol=1e-3, atol=1e-3
    )


def needs(made, **of):
    info = DataInfo("film", **{"size": 32, "length": 60, "classes": 3, "clips": 5, **of})
    return VideoColorization.needs(made("untrained"), info)


def test_what_it_cannot_use_it_refuses_in_a_sentence(made):
    assert needs(made) is None
    assert needs(made, grey=True) == "it learns from colours, and the images of film are grey"
    assert needs(made, clips=0) == "it learns from clips, and the images of film are frames of none"
    assert needs(made, clips=60) == (
        "it points at earlier frames, and the clips of film have one frame each"
    )
    with pytest.raises(ValueError, match=r"skips=\(\) leaves no frame to point at"):
        VideoColorization(made("untrained"), DataInfo("film", 32, 60, 3, clips=5), skips=())
