"""Colours carried through clips: against loops, by encoders that know, do not know, and cannot."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sprites import Sprites
from torch import nn

from sslbench.api import Place
from sslbench.backbones.timm import create
from sslbench.data import open_data
from sslbench.errors import Unsuited, UserError
from sslbench.evaluators.propagation import Frame, Propagation, _beyond
from sslbench.measures import unit
from sslbench.one_cell.subject import Frozen, Inner, JudgedData
from sslbench.plugins import registry
from sslbench.testing.made_up import MadeUp, a_tenth

PLUGIN = Path(sys.modules[Sprites.__module__].__file__ or "")
SIDE, CELL = 16, 4  # pixels
COLOURS = torch.tensor([[200, 30, 30], [30, 200, 30], [30, 30, 200], [220, 220, 40]])


def painted(kinds: torch.Tensor) -> torch.Tensor:
    """Frames uint8 [n, 3, H, W] of cells in the colours of these numbers [n, h, w]."""
    cells = COLOURS[kinds].permute(0, 3, 1, 2)
    return cells.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3).to(torch.uint8)


def film(kinds: torch.Tensor, clips: torch.Tensor, mapped: nn.Module | None) -> MadeUp:
    n = len(kinds)
    images, labels = painted(kinds), torch.zeros(n, dtype=torch.long)
    return MadeUp(
        torch.zeros(n, 2),
        torch.zeros(n, 2),
        {"train": labels, "test": labels},
        1,
        a_tenth(n),
        pictures={"train": images, "test": images},
        sequences={"train": clips, "test": clips},
        mapped=mapped,
    )


class Looks(nn.Module):
    """[n, 3, H, W] -> [n, 4, h, w]: which of the colours' greys a cell has, one-hot."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        luma = torch.tensor([0.2989, 0.587, 0.114])
        greys = (COLOURS / 255 @ luma).view(1, 4, 1, 1)
        cells = nn.functional.avg_pool2d(x[:, :1], CELL)
        return nn.functional.one_hot((cells - greys).abs().argmin(1), 4).permute(0, 3, 1, 2).float()


class Stands(nn.Module):
    """Which cell a cell is, one-hot: it copies."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = (SIDE // CELL) ** 2
        return torch.eye(cells).view(1, cells, SIDE // CELL, -1).expand(len(x), -1, -1, -1)


def rolling() -> tuple[torch.Tensor, torch.Tensor]:
    """Two clips of random cells that move one cell to the right each frame, and one that rests."""
    dice = torch.Generator().manual_seed(0)
    starts = torch.randint(4, (3, 4, 4), generator=dice)
    clips = [torch.stack([start.roll(t, 1) for t in range(5)]) for start in starts[:2]]
    clips.append(starts[2:].expand(3, -1, -1))
    return torch.cat(clips), torch.tensor([0] * 5 + [1] * 5 + [7] * 3)


EASY = {"stride": CELL, "colours": 4}


def test_who_tells_what_moves_carries_every_colour_and_who_does_not_copies():
    kinds, clips = rolling()
    told = film(kinds, clips, Looks()).judged_by(Propagation(**EASY)).metrics
    assert told["accuracy"].value == 1
    assert told["copy"].value < 0.7
    assert told["gap"].value == pytest.approx(1 - told["copy"].value)
    still = film(kinds, clips, Stands()).judged_by(Propagation(**EASY, k=1, temperature=1e-3))
    assert still.metrics["gap"].value == pytest.approx(0, abs=1e-6)


def test_copying_is_scored_frame_by_frame_and_averaged_over_clips():
    kinds, clips = rolling()
    metrics = film(kinds, clips, Looks()).judged_by(Propagation(**EASY)).metrics
    each = [
        np.mean([float((kinds[t] == kinds[first]).float().mean()) for t in range(first + 1, last)])
        for first, last in ((0, 5), (5, 10), (10, 13))
    ]
    assert each[2] == 1
    assert metrics["copy"].value == pytest.approx(np.mean(each))
    assert metrics["copy"].n == 3
    assert metrics["copy"].stderr == pytest.approx(np.std(each, ddof=1) / math.sqrt(3))
    assert metrics["gap"].stderr == pytest.approx(metrics["copy"].stderr)


def looped(frames: list[Frame], kinds: int, judge: Propagation, bound: torch.Tensor | None):
    first, *rest = frames
    known = [(first.features, [[float(c == k) for k in range(kinds)] for c in first.kind.tolist()])]
    answers = []
    for frame in rest:
        given = []
        for p, z in enumerate(frame.features):
            found = [
                (float(z @ other), shares[q])
                for features, shares in known
                for q, other in enumerate(features)
                if bound is None or not bound[p, q]
            ]
            top = sorted(found, key=lambda each: -each[0])[: judge.k]
            weights = [math.exp(cosine / judge.temperature) for cosine, _ in top]
            given.append(
                [
                    sum(w * s[k] for w, (_, s) in zip(weights, top, strict=True)) / sum(weights)
                    for k in range(kinds)
                ]
            )
        answers.append([max(range(kinds), key=row.__getitem__) for row in given])
        known.append((frame.features, given))
        if len(known) > 1 + judge.context:
            del known[1]
    return answers


@pytest.mark.parametrize(
    "of", [{}, {"k": 1}, {"context": 0}, {"context": 2, "temperature": 0.5}, {"radius": 1}]
)
def test_what_is_carried_is_what_a_loop_over_single_places_carries(of):
    dice = torch.Generator().manual_seed(1)
    judge = Propagation(**of)
    frames = [
        Frame(unit(torch.randn(9, 5, generator=dice)), torch.randint(3, (9,), generator=dice))
        for _ in range(6)
    ]
    bound = _beyond(3, judge.radius) if judge.radius else None
    found = [kind.tolist() for kind, _ in judge.carried(frames[0], frames[1:], 3, bound)]
    assert found == looped(frames, 3, judge, bound)


def test_a_radius_is_a_distance_in_places():
    far = _beyond(3, 1)
    assert (~far[4]).nonzero().flatten().tolist() == [1, 3, 4, 5, 7]
    assert not _beyond(3, 3).any()


def test_the_encoder_sees_no_colour():
    kinds, clips = rolling()
    seen = []

    class Watching(Looks):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return super().forward(x)

    film(kinds, clips, Watching()).judged_by(Propagation(**EASY))
    assert all(torch.equal(x[:, :1].expand_as(x), x) for x in seen)


def test_maps_of_another_size_are_brought_to_the_grid():
    kinds, clips = rolling()

    class Fine(Looks):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).repeat_interleave(2, 2).repeat_interleave(2, 3)

    metrics = film(kinds, clips, Fine()).judged_by(Propagation(**EASY)).metrics
    assert metrics["accuracy"].value == 1


def test_neither_the_seed_nor_the_number_of_frames_at_a_time_matters(monkeypatch):
    kinds, clips = rolling()
    one = film(kinds, clips, Looks()).judged_by(Propagation(**EASY))
    monkeypatch.setattr("sslbench.evaluators.propagation.BLOCK", 2)
    assert film(kinds, clips, Looks()).judged_by(Propagation(**EASY), seed=3).metrics == one.metrics


def test_a_clip_of_one_frame_is_left_out():
    kinds, clips = rolling()
    kinds, clips = torch.cat([kinds, kinds[:1]]), torch.cat([clips, torch.tensor([9])])
    assert film(kinds, clips, Looks()).judged_by(Propagation(**EASY)).metrics["gap"].n == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sequences": {}}, "through clips, and the images of made-up are frames of none"),
        ({"mapped": None}, "this encoder has no maps"),
        (
            {"sequences": {"test": torch.arange(13)}},
            "the test split of made-up have one frame each",
        ),
        (
            {"pictures": dict.fromkeys(("train", "test"), torch.zeros(13, 3, 16, 16).byte())},
            "the test images of made-up are grey",
        ),
    ],
)
def test_what_cannot_be_judged_is_unsuited_in_a_sentence(change, sentence):
    subject = film(*rolling(), Looks())
    for key, value in change.items():
        setattr(subject, key, value)
    with pytest.raises(Unsuited, match=sentence):
        subject.judged_by(Propagation(**EASY))


@pytest.mark.parametrize(
    "of",
    [{"stride": 0}, {"colours": 1}, {"k": 0}, {"context": -1}, {"radius": -1}, {"temperature": 0}],
)
def test_a_parameter_out_of_range_is_refused(of):
    with pytest.raises(UserError, match=f"propagation was given {next(iter(of))}="):
        Propagation(**of)


def test_the_sprites_of_the_tests_move_so_far_that_copying_fails_often():
    images = Sprites().load(Place())
    subject = film(*rolling(), None)
    subject.pictures = {"train": images.train.images, "test": images.test.images}
    subject.sequences = {"test": images.test.clips}
    subject.mapped = nn.AvgPool2d(8)  # light and dark alone
    metrics = subject.judged_by(Propagation()).metrics
    assert 0.3 < metrics["copy"].value < 0.95


# ---- the maps of an encoder ------------------------------------------------------------------


@pytest.fixture(scope="module")
def sprites():
    return open_data("sprites", registry(installed=False, files=[PLUGIN]), Place())


def test_an_encoder_gives_its_deepest_map_that_is_large_enough_block_by_block(sprites, monkeypatch):
    monkeypatch.setattr("sslbench.one_cell.subject.DENSE", 20)
    backbone = create("test_resnet", size=32)
    subject = Frozen(backbone, sprites, torch.device("cpu"))
    images = sprites.test.images
    with torch.no_grad():
        whole = backbone.maps(images.float() / 255)
    for side, level in ((4, 2), (5, 1), (1, 4), (99, 0)):
        parts = [*subject.dense(images, side)]
        assert [len(part) for part in parts] == [20, 20, 8]
        torch.testing.assert_close(torch.cat(parts), whole[level], rtol=1e-4, atol=1e-5)
        inner = Inner(subject, sprites)
        assert torch.equal(next(inner.dense(images, side)), parts[0])


def test_an_encoder_that_is_no_backbone_has_no_maps(sprites):
    pooled = nn.Sequential(create("test_resnet", size=32))
    with pytest.raises(Unsuited, match="this encoder is not a bare backbone"):
        next(Frozen(pooled, sprites, torch.device("cpu")).dense(sprites.test.images, 4))


def test_a_network_is_judged_on_clips_and_on_the_held_out_frames_of_train(sprites):
    subject = Frozen(create("test_resnet", size=32), sprites, torch.device("cpu"))
    judgement = Propagation()(subject, JudgedData(sprites), 0)
    assert judgement.metrics["gap"].n == 6
    inner = Inner(subject, sprites)
    assert math.isfinite(Propagation()(inner, inner, 0).metrics["gap"].value)
