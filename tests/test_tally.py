"""What is added up over an epoch: shares of guesses that are right, of what the method may not see."""

from __future__ import annotations

import pytest
import torch

from sslbench.api import Guesses
from sslbench.plugins import registry
from sslbench.testing.trial import Trial
from sslbench.train.tally import Tally

OURS = registry(installed=False)
CPU = torch.device("cpu")
SHARES = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
HIDDEN = torch.tensor([1, 0, -1, 1, 0])  # the third is known to the method, or to nobody


def judged(*guesses, hidden=HIDDEN):
    tally = Tally("main", CPU)
    for each in guesses:
        tally.judge(each, hidden)
    tally.look()
    return tally.means()


def test_right_are_those_whose_first_class_is_the_hidden_label_and_no_others_count():
    found = judged(Guesses(torch.tensor([1, 0, 2, 3]), SHARES))  # right, right, nobody knows, wrong
    assert found["probe.right"] == pytest.approx(2 / 3)
    assert found["probe.right where sure"] == pytest.approx(2 / 3)
    assert found["mask"] == 1.0
    assert found["confidence"] == pytest.approx((0.9 + 0.8 + 0.6 + 0.7) / 4)


def test_who_is_not_sure_counts_less_and_steps_count_by_their_images():
    sure = torch.tensor([1.0, 0.0, 1.0, 0.5])
    found = judged(
        Guesses(torch.tensor([1, 0, 2, 3]), SHARES, sure),
        Guesses(torch.tensor([0, 4]), SHARES[:2], torch.tensor([True, False])),  # wrong, wrong
    )
    assert found["probe.right"] == pytest.approx(2 / 5)
    assert found["probe.right where sure"] == pytest.approx(1 / 2.5)
    assert found["mask"] == pytest.approx(3.5 / 6)


def test_where_nobody_is_sure_nothing_is_said_of_them():
    found = judged(Guesses(torch.tensor([0, 1]), SHARES[:2], torch.zeros(2)))
    assert "probe.right where sure" not in found
    assert found["mask"] == 0.0


def test_without_hidden_labels_there_is_no_probe():
    found = judged(Guesses(torch.tensor([0, 1]), SHARES[:2]), hidden=None)
    assert sorted(found) == ["confidence", "mask"]


def test_a_guess_that_is_not_finite_is_counted_and_left_out():
    tally = Tally("main", CPU)
    tally.judge(Guesses(torch.tensor([0, 1]), SHARES[:2]), HIDDEN)
    tally.judge(Guesses(torch.tensor([0, 1]), torch.full((2, 2), torch.nan)), HIDDEN)
    tally.look()
    assert tally.means()["confidence"] == pytest.approx(0.85)
    assert tally.not_finite == {"confidence": 1}


@pytest.mark.parametrize(
    ("guesses", "said"),
    [
        (Guesses(torch.tensor([0]), SHARES), r"index \[1\], shares \[4, 2\], sure \[1\]"),
        (Guesses(torch.arange(4), SHARES[:, 0]), r"shares \[4\]"),
        (Guesses(torch.arange(4), SHARES, torch.ones(4, 2)), r"sure \[4, 2\]"),
        (Guesses(torch.arange(4).float(), SHARES), "index"),
    ],
)
def test_shapes_that_do_not_fit_are_a_sentence(guesses, said):
    with pytest.raises(TypeError, match=said):
        Tally("main", CPU).judge(guesses, HIDDEN)


def curves_of(folder, store, stops=()):
    trial = Trial(OURS, "pseudo-label", folder, {"pseudo-label.threshold": 0.12})
    cell = trial.cell()
    for steps in stops:
        trial.fit(store, cell, steps=steps)
    trial.fit(store, cell)
    return trial.bench(store).store.cell(cell.id).current("train", cell.identity()).curves


def test_a_cell_tells_how_many_of_its_guesses_are_right_also_after_an_interruption(tmp_path):
    found = curves_of(tmp_path, "whole")
    assert len(found["probe.right"]) == len(found["loss"]) == 2
    for _, share in found["probe.right"]:
        assert 0 < share < 1
    again = curves_of(tmp_path, "stopped", stops=(1, 3))
    for name in ("mask", "confidence", "probe.right", "probe.right where sure"):
        assert again[name] == found[name]
