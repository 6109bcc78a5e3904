from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sslbench.api import Evaluator
from sslbench.cells.parameters import checked, signature
from sslbench.corruptions import ALL, BENCHMARK
from sslbench.errors import MissingData, Unsuited, UserError
from sslbench.evaluators import corruption
from sslbench.evaluators.corruption import Corruption
from sslbench.evaluators.linear import Linear
from sslbench.names import parse

from .helpers import Fake, pictured
from .sets import corrupted, noisy, uneven, untouched

BASE = uneven(pictured(noise=60))


@pytest.fixture
def subject() -> Fake:
    made = copy.copy(BASE)
    made.corruptions = {}
    corrupted(made, noisy)
    return made


def answers(subject: Fake, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong of clean images [n] and of corrupted ones [19, 5, n], one image at a time."""
    head, truth = subject.probe("linear"), subject.truth["test"]
    blocks = subject.corruptions["official"].blocks

    def right(picture: torch.Tensor, label: torch.Tensor) -> bool:
        with torch.no_grad():
            features = subject.encoder(picture[None].float() / 255)
        return bool(head(features)[0].argmax() == label)

    clean = np.array([right(subject.pictures["test"][i], truth[i]) for i in rows])
    cells = np.array(
        [[[right(blocks[name, s][i], truth[i]) for i in rows] for s in range(1, 6)] for name in ALL]
    )
    return clean, cells


@pytest.fixture(scope="module")
def naive() -> tuple[np.ndarray, np.ndarray]:
    made = copy.copy(BASE)
    made.corruptions = {}
    corrupted(made, noisy)
    return answers(made, list(range(100)))


def test_every_metric_is_that_of_a_loop_over_single_images(subject, naive):
    clean, cells = naive
    main = cells[:15]
    groups = {"noise": (0, 3), "blur": (3, 7), "weather": (7, 11), "digital": (11, 15)}
    expected = {
        "mean15": main.mean(),
        "mean19": cells.mean(),
        "clean": clean.mean(),
        "gap": clean.mean() - main.mean(),
        "relative_gap": 1 - main.mean() / clean.mean(),
        "worst": min(main[c].mean() for c in range(15)),
        **{name: cells[slice(*span)].mean() for name, span in groups.items()},
        **{f"severity{s}": main[:, s - 1].mean() for s in range(1, 6)},
        **{name: cells[c].mean() for c, name in enumerate(ALL)},
        **{
            f"{name}.{s}": cells[c, s - 1].mean() for c, name in enumerate(ALL) for s in range(1, 6)
        },
    }
    found = subject.judged_by(Corruption()).metrics
    assert list(found) == list(expected) == [metric.name for metric in Corruption.metrics]
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-12), name
        assert found[name].n == 100
    assert 0.3 < found["mean15"].value < found["clean"].value - 0.1  # the set does something
    assert cells[15:].mean((1, 2)).min() < expected["worst"] < found["mean15"].value


def test_standard_errors_are_over_images_and_the_gap_is_paired(subject, naive):
    clean, cells = naive
    found = subject.judged_by(Corruption()).metrics
    main = cells[:15].mean((0, 1))  # [n]
    expected = {
        "mean15": main,
        "mean19": cells.mean((0, 1)),
        "clean": clean.astype(float),
        "gap": clean - main,
        "noise": cells[:3].mean((0, 1)),
        "severity2": cells[:15, 1].mean(0),
        "fog": cells[9].mean(0),
        "fog.3": cells[9, 2].astype(float),
    }
    for name, each in expected.items():
        assert found[name].stderr == pytest.approx(each.std() / 10, rel=1e-9), name
    as_if_independent = np.sqrt(found["mean15"].value * (1 - found["mean15"].value) / (75 * 100))
    assert found["mean15"].stderr > 2 * as_if_independent


def test_only_gaps_are_better_when_low():
    assert [m.name for m in Corruption.metrics if not m.higher_is_better] == ["gap", "relative_gap"]


def test_a_set_that_changes_nothing_has_no_gap(subject):
    corrupted(subject, untouched)
    found = subject.judged_by(Corruption()).metrics
    assert found["gap"].value == 0
    assert found["gap"].stderr == 0
    assert {found[m].value for m in found if "gap" not in m} == {found["clean"].value}


class Blind(nn.Module):
    """Sees the upper half alone."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, :, 8:] = 0
        return self.encoder(x)


def test_an_encoder_that_cannot_see_the_noise_has_no_gap_and_one_that_can_has():
    def below(images, c, severity, generator):
        out = images.clone()
        out[:, :, 8:] += 150 * torch.randn(out[:, :, 8:].shape, generator=generator)
        return out

    seeing = pictured()
    corrupted(seeing, below)
    blind = copy.copy(seeing)
    blind.encoder = Blind(seeing.encoder).eval()
    with torch.no_grad():
        blind.train, blind.test = (
            blind.encoder(blind.pictures[split].float() / 255) for split in ("train", "test")
        )
    assert blind.judged_by(Corruption()).metrics["gap"].value == 0
    assert blind.judged_by(Corruption()).metrics["clean"].value > 0.6
    assert seeing.judged_by(Corruption()).metrics["gap"].value > 0.1


def test_permuted_labels_give_chance():
    made = pictured(n=400, m=400, noise=20)
    corrupted(made, untouched)
    assert made.judged_by(Corruption()).metrics["mean15"].value > 0.9
    order = torch.randperm(400, generator=torch.Generator().manual_seed(3))
    made.truth["test"] = made.truth["test"][order]
    found = made.judged_by(Corruption()).metrics["mean15"]
    assert abs(found.value - 0.25) < 4 * found.stderr


def test_images_without_a_label_are_not_judged(subject, naive):
    partly = copy.copy(subject)
    partly.truth = dict(subject.truth, test=subject.truth["test"].clone())
    partly.truth["test"][::3] = -1
    known = partly.truth["test"] >= 0
    found = partly.judged_by(Corruption()).metrics
    assert found["mean15"].n == int(known.sum()) == 66
    assert found["mean19"].value == pytest.approx(naive[1][:, :, known.numpy()].mean())
    assert found["clean"].value == pytest.approx(naive[0][known.numpy()].mean())


@pytest.mark.slow
def test_a_subset_is_class_balanced_nested_fixed_and_the_same_in_every_cell(subject, naive):
    asked = {}
    for images, seed in ((20, 0), (20, 7), (40, 0)):
        made = corrupted(subject, noisy)
        found = subject.judged_by(Corruption(images=images), seed).metrics
        rows = [set(rows.tolist()) for _, _, rows in made.asked]
        assert len(rows) == 95
        assert all(each == rows[0] for each in rows)
        counts = torch.bincount(subject.truth["test"][list(rows[0])])
        assert counts.tolist() == [images // 4] * 4
        chosen = sorted(rows[0])
        assert found["mean15"].value == pytest.approx(naive[1][:15, :, chosen].mean())
        assert found["clean"].value == pytest.approx(naive[0][chosen].mean())
        assert found["gap"].n == images
        asked[images, seed] = rows[0]
    assert asked[20, 0] == asked[20, 7]
    assert asked[20, 0] < asked[40, 0]
    assert asked[20, 0] != set(range(20))


def test_more_images_than_there_are_is_unsuited(subject):
    with pytest.raises(Unsuited, match="101 test images were asked for, 100 have a label"):
        subject.judged_by(Corruption(images=101))


def test_severities_are_those_asked_for(subject, naive):
    made = corrupted(subject, noisy)
    found = subject.judged_by(Corruption(severities="2-3")).metrics
    assert {severity for _, severity, _ in made.asked} == {2, 3}
    assert found["mean15"].value == pytest.approx(naive[1][:15, 1:3].mean())
    assert found["fog.2"].value == pytest.approx(naive[1][9, 1].mean())
    assert found["severity3"].value == pytest.approx(naive[1][:15, 2].mean())
    assert not {"severity1", "severity4", "fog.1", "fog.4"} & set(found)


@pytest.mark.parametrize("asked", [0, 6, "0-3", "3-6", "3-3", "4-2", "1+3", "", "1-", "all", -1])
def test_a_severity_that_is_none_is_refused_with_what_would_work(asked):
    with pytest.raises(UserError, match=r"corruption was given severities=.*such as 1-5"):
        Corruption(severities=asked)


@pytest.mark.parametrize(
    ("text", "severities"), [("5", (5,)), ("1-5", (1, 2, 3, 4, 5)), ("2-3", (2, 3))]
)
def test_a_name_can_say_severities(text, severities):
    hints, _ = signature(Corruption.__init__, what="it")
    given = parse(f"it[severities={text}]").params["severities"]
    value = checked(given, hints["severities"], what="severities")
    assert Corruption(severities=value).severities == severities


def test_memory_holds_a_chunk_of_images_at_a_time(subject, monkeypatch):
    whole = subject.judged_by(Corruption()).metrics
    monkeypatch.setattr(corruption, "CHUNK", 9)
    made = corrupted(subject, noisy)
    assert subject.judged_by(Corruption()).metrics == whole
    assert {len(rows) for _, _, rows in made.asked} == {9, 10}
    first = torch.cat([rows for name, s, rows in made.asked if (name, s) == ("fog", 4)])
    assert sorted(first.tolist()) == list(range(100))


def test_another_set_is_another_answer_and_says_whose(subject):
    corrupted(subject, noisy)
    corrupted(subject, untouched, "regen")
    official, regen = (subject.judged_by(Corruption(set=s)) for s in ("official", "regen"))
    assert official.sources == {"made-up-official": "fingerprint of made-up-official"}
    assert regen.sources == {"made-up-regen": "fingerprint of made-up-regen"}
    assert regen.metrics["gap"].value == 0 < official.metrics["gap"].value


def test_a_block_of_another_size_is_refused(subject):
    made = corrupted(subject, noisy)
    made.blocks["snow", 4] = made.blocks["snow", 4][:, :, :8]
    with pytest.raises(
        ValueError, match=r"made-up-official: snow at severity 4.*\[100, 3, 8, 16\]"
    ):
        subject.judged_by(Corruption())


def test_a_missing_block_is_an_error_not_an_average_of_the_rest(subject):
    made = corrupted(subject, noisy)

    def block(name, severity, rows=None):
        if name == "saturate":
            raise MissingData("saturate.npy is not there")
        return made.blocks[name, severity][rows]

    made.block = block
    with pytest.raises(MissingData, match="saturate"):
        subject.judged_by(Corruption())


def test_features_that_are_no_numbers_are_named(subject):
    made = corrupted(subject, noisy)
    whole = subject.stream

    def stream(images):
        for features in whole(images):
            if torch.equal(images, made.block("frost", 2, made.asked[-1][2])):
                features[0, 0] = torch.nan
            yield features

    broken = copy.copy(subject)
    broken.stream = stream
    with pytest.raises(ValueError, match="frost at severity 2 were to be judged"):
        broken.judged_by(Corruption())


@pytest.mark.parametrize("kind", ["one class", "no labels"])
def test_data_of_which_nothing_can_be_said_is_unsuited(subject, kind):
    odd = copy.copy(subject)
    odd.lenders = {"linear": Lender(odd.probe("linear"))}
    if kind == "one class":
        odd.classes = 1
    else:
        odd.truth = dict(subject.truth, test=torch.full((100,), -1))
    with pytest.raises(Unsuited, match="two or more of each"):
        odd.judged_by(Corruption())


class Lender(Evaluator):
    """Lends a head, and tells how often and of what."""

    def __init__(self, head) -> None:
        self.head, self.asked = head, []

    def __call__(self, subject, data, seed):
        raise AssertionError("only its probe is wanted")

    def probe(self, subject, data, *, nine_tenths=False):
        self.asked.append(nine_tenths)
        return self.head


def test_the_head_is_the_one_that_linear_lends_whole_and_nothing_is_fitted(subject, naive):
    borrowing = copy.copy(subject)
    lender = Lender(Linear().probe(subject, subject))
    borrowing.lenders = {"linear": lender}
    borrowing.reads = []
    found = borrowing.judged_by(Corruption())
    assert lender.asked == [False]
    assert "train" not in borrowing.reads
    assert Corruption.uses == ("linear",)
    assert found.metrics["mean15"].value == pytest.approx(naive[1][:15].mean())
    assert not found.chosen


def test_an_encoder_that_is_never_right_has_no_relative_gap(subject):
    never = copy.copy(subject)
    never.lenders = {"linear": Lender(lambda f: torch.eye(4)[[0]].expand(len(f), -1))}
    never.truth = dict(subject.truth, test=torch.full((100,), 1))
    found = never.judged_by(Corruption()).metrics
    assert found["clean"].value == found["gap"].value == 0
    assert "relative_gap" not in found


def test_the_fifteen_are_those_of_the_benchmark():
    assert len(BENCHMARK) == 15
    assert not {"speckle_noise", "gaussian_blur", "spatter", "saturate"} & set(BENCHMARK)
