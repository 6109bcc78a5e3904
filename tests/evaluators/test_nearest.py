"""Sheets of nearest images: the right ones, in order, drawn where they belong."""

from __future__ import annotations

import pytest
import torch

from sslbench.errors import UserError
from sslbench.evaluators import nearest
from sslbench.evaluators.nearest import GAP, TILE, Nearest
from sslbench.testing.made_up import MadeUp

SIDE, CELL = 4, 4 + 2 * GAP


def plane(n: int, m: int, *, labels: bool = True, side: int = SIDE) -> MadeUp:
    """Features are angles; an image of train has its row number as grey, of test 200 and more."""

    def angles(count: int, first: float) -> torch.Tensor:
        turns = first + torch.arange(count) / count * 1.5
        return torch.stack([turns.cos(), turns.sin()], 1) * (1 + torch.arange(count)[:, None])

    def greys(count: int, first: int) -> torch.Tensor:
        levels = first + torch.arange(count, dtype=torch.uint8)
        return levels[:, None, None, None].expand(-1, 3, side, side).contiguous()

    truth = {"train": torch.arange(n) * 2 // n, "test": torch.arange(m) * 2 // m}
    if not labels:
        truth = {split: torch.full_like(each, -1) for split, each in truth.items()}
    return MadeUp(
        angles(n, 0.0),
        angles(m, 0.01),
        truth,
        2 if labels else 0,
        torch.zeros(n, dtype=torch.bool),
        pictures={"train": greys(n, 0), "test": greys(m, 200)},
    )


def tile(sheet: torch.Tensor, row: int, column: int, side: int = SIDE) -> int:
    """The grey of an image on the sheet; all of it has that grey."""
    cell = side + 2 * GAP
    left = GAP + column * cell + (3 * GAP if column else 0)
    top = GAP + row * cell
    levels = sheet[:, top : top + side, left : left + side].unique()
    assert len(levels) == 1
    return int(levels)


def test_each_row_has_its_image_and_the_nearest_by_angle() -> None:
    subject = plane(40, 8)
    judgement = subject.judged_by(Nearest(images=8, neighbours=3))
    sheet = judgement.sheet
    assert sheet is not None
    assert sheet.shape == (3, 8 * CELL, 4 * CELL + 3 * GAP)
    assert sheet.dtype == torch.uint8
    turns = [torch.atan2(f[:, 1], f[:, 0]) for f in (subject.train, subject.test)]
    for row in range(8):
        assert tile(sheet, row, 0) == 200 + row
        gaps = [(abs(float(t - turns[1][row])), at) for at, t in enumerate(turns[0])]
        assert [tile(sheet, row, column) for column in (1, 2, 3)] == [
            at for _, at in sorted(gaps)[:3]
        ]


def test_its_numbers_are_those_of_the_sheet() -> None:
    subject = plane(4, 2)
    subject.train = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.7, 0.7]])
    subject.test = torch.tensor([[1.0, 0], [0.8, 0.6]])
    judgement = subject.judged_by(Nearest(images=2, neighbours=2))
    # classes 0 0 1 1: the first has rows 0 and 1, the second (class 1) rows 3 and 1
    assert judgement.metrics["same_class"].value == 0.75
    assert judgement.metrics["same_class"].n == 4
    assert judgement.metrics["distinct"].value == 0.5  # rows 0 and 3


def test_collapsed_features_show_the_same_images_to_all() -> None:
    subject = plane(30, 10)
    subject.train, subject.test = torch.ones(30, 2), torch.ones(10, 2)
    judgement = subject.judged_by(Nearest(images=10))
    assert judgement.metrics["distinct"].value == 0
    assert judgement.sheet is not None
    assert [tile(judgement.sheet, 9, column) for column in range(1, 6)] == [0, 1, 2, 3, 4]


def test_test_images_are_spread_over_the_classes_whatever_the_features() -> None:
    subject = plane(30, 100)
    subject.truth["test"] = torch.arange(100) % 4
    chosen = nearest._spread(subject.truth["test"], 8)
    assert subject.truth["test"][chosen].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(set(chosen.tolist())) == 8
    assert nearest._spread(subject.truth["test"], 500).sort().values.tolist() == list(range(100))


def test_without_labels_there_is_a_sheet_and_no_class() -> None:
    judgement = plane(20, 5, labels=False).judged_by(Nearest())
    assert [*judgement.metrics] == ["distinct"]
    assert judgement.sheet is not None


def test_what_the_method_rebuilds_stands_beside_the_image() -> None:
    subject = plane(20, 5)
    subject.rebuilt = {"test": torch.full((5, 3, SIDE, SIDE), 0.2)}
    subject.rebuilt["test"][1] = 3.0
    sheet = subject.judged_by(Nearest(images=5, neighbours=1)).sheet
    assert sheet is not None
    assert [tile(sheet, row, 1) for row in range(3)] == [51, 255, 51]
    assert sheet.shape[2] == 3 * CELL + 3 * GAP


def test_large_images_are_reduced() -> None:
    sheet = plane(8, 2, side=224).judged_by(Nearest(neighbours=2)).sheet
    assert sheet is not None
    assert sheet.shape == (3, 2 * (TILE + 2 * GAP), 3 * (TILE + 2 * GAP) + 3 * GAP)
    assert tile(sheet, 1, 0, TILE) == 201


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = plane(40, 8)
    whole = subject.judged_by(Nearest())
    monkeypatch.setattr(nearest, "BLOCK", 7)
    again = subject.judged_by(Nearest())
    assert whole.metrics == again.metrics
    assert whole.sheet is not None
    assert again.sheet is not None
    assert whole.sheet.equal(again.sheet)


def test_fewer_images_than_asked_for_are_all_shown() -> None:
    sheet = plane(3, 2).judged_by(Nearest(images=9, neighbours=9)).sheet
    assert sheet is not None
    assert sheet.shape == (3, 2 * CELL, 4 * CELL + 3 * GAP)


def test_counts_below_one_are_refused() -> None:
    from sslbench.cells.protocol import resolve_judge
    from sslbench.plugins import registry

    for setting in ("images=0", "neighbours=0"):
        with pytest.raises(UserError, match="1"):
            resolve_judge(f"nearest[{setting}]", registry(installed=False))
