"""All weights trained: what learns, on which images, at which rates, and what stays untouched."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.errors import Unsuited
from sslbench.evaluators import finetune
from sslbench.evaluators.finetune import FineTune, _Task, _task, _Tuned
from sslbench.evaluators.linear import Linear

from .helpers import pictured


@pytest.fixture
def short(monkeypatch):
    """Fits of few steps, for what does not depend on how well they learn."""
    monkeypatch.setattr(finetune, "LEAST", 4)
    monkeypatch.setattr(finetune, "SHARES", {10: 2, 1: 2, 100: 1})


@pytest.fixture
def fits(monkeypatch):
    """Every fit: positions learned from, learning rate, epochs, model."""
    found = []
    fit = _Task._fit

    def recorded(self, rows, rate, epochs):
        model = fit(self, rows, rate, epochs)
        found.append((rows, rate, epochs, model))
        return model

    monkeypatch.setattr(_Task, "_fit", recorded)
    return found


def accuracy(model, images, labels):
    with torch.no_grad():
        return float((model(images.float() / 255).argmax(1) == labels).double().mean())


# ---- what it learns


@pytest.mark.slow
def test_bars_that_an_untrained_encoder_blurs_are_learned():
    world = pictured(noise=200)
    frozen = world.judged_by(Linear()).metrics["top1"].value
    metrics = world.judged_by(FineTune()).metrics
    assert metrics["top1_100"].value > 0.95
    assert metrics["top1_100"].value > frozen + 0.02
    assert metrics["top1_100"].value > metrics["top1_10"].value > 0.3
    assert metrics["top1_10"].n == 100


@pytest.mark.parametrize("split", ["train", "test"])
def test_permuted_labels_score_chance(short, split):
    world = pictured(400, 400)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    world.truth[split] = world.truth[split][order]
    if split == "train":  # where there is a bar, all with one would get the same wrong answer
        generator = torch.Generator().manual_seed(1)
        shape = world.pictures["test"].shape
        world.pictures["test"] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    for value in world.judged_by(FineTune()).metrics.values():
        assert abs(value.value - 0.25) < 5 * value.stderr


def test_top5_appears_above_five_classes(short):
    few = pictured(classes=4).judged_by(FineTune()).metrics
    assert set(few) == {"top1_10", "top1_100"}
    many = pictured(classes=8).judged_by(FineTune()).metrics
    assert set(many) == {"top1_10", "top5_10", "top1_100", "top5_100"}
    assert many["top5_100"].value > many["top1_100"].value
    assert next(iter(finetune.SHARES)) == 10
    assert FineTune.metrics[0].name == "top1_10"


def test_the_subject_keeps_its_weights_and_its_statistics(short, fits):
    world = pictured()
    before = copy.deepcopy(world.encoder.state_dict())
    world.judged_by(FineTune())
    for name, tensor in world.encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    tuned = fits[-1][3].encoder.state_dict()
    assert all(not torch.equal(tuned[name], before[name]) for name in before)  # all of them move


# ---- on which images


def test_subsets_are_balanced_nested_and_free_of_the_held_out_tenth():
    world = pictured(1200, 4)
    task = _task(world, world, 0)
    one, ten = task.drawn(1), task.drawn(10)
    assert len(one) == 12
    assert len(ten) == 120
    assert task.labels[one].bincount().tolist() == [3, 3, 3, 3]
    assert task.labels[ten].bincount().tolist() == [30, 30, 30, 30]
    assert set(one.tolist()) < set(ten.tolist())
    assert not world.held_out[ten].any()
    assert torch.equal(task.drawn(100), (~world.held_out).nonzero()[:, 0])


def test_every_encoder_and_every_seed_learns_from_the_same_images():
    one, two = pictured(600, 4, seed=0), pictured(600, 4, seed=1)
    assert not torch.equal(one.train, two.train)
    for share in (1, 10):
        drawn = _task(one, one, 0).drawn(share)
        assert torch.equal(drawn, _task(two, two, 0).drawn(share))
        assert torch.equal(drawn, _task(one, one, 5).drawn(share))


def test_the_held_out_tenth_is_learned_from_only_once_its_rate_is_chosen(short, fits):
    world = pictured()
    world.judged_by(FineTune())
    assert [len(rows) for rows, *_ in fits] == [20] * 3 + [180] * 3 + [200]
    assert not any(world.held_out[rows].any() for rows, *_ in fits[:-1])
    assert fits[-1][0].tolist() == list(range(200))


def test_unlabelled_images_take_no_part(short):
    world = pictured()
    expected = world.judged_by(FineTune())
    none = torch.full((30,), -1)
    for split in ("train", "test"):
        world.truth[split] = torch.cat([none, world.truth[split]])
        noise = torch.randint(256, (30, 3, 16, 16), dtype=torch.uint8)
        world.pictures[split] = torch.cat([noise, world.pictures[split]])
        setattr(world, split, torch.cat([torch.randn(30, 24), getattr(world, split)]))
    world.held_out = torch.cat([torch.arange(30) % 2 == 0, world.held_out])
    assert world.judged_by(FineTune()) == expected


class Spy(nn.Module):
    """An encoder that notes what it is shown, and in which mode."""

    shown: list = []  # noqa: RUF012 - shared by all copies, on purpose

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        Spy.shown.append((self.training, torch.is_grad_enabled(), x.clone()))
        return self.encoder(x)


def test_it_learns_from_shifted_images_and_is_judged_on_whole_ones(short):
    world = pictured(60, 20, noise=70)
    world.encoder = Spy(world.encoder)
    Spy.shown.clear()
    world.judged_by(FineTune())
    learned = torch.cat([x for training, _, x in Spy.shown if training])
    judged = torch.cat([x for training, _, x in Spy.shown if not training])
    whole = {split: images.float() / 255 for split, images in world.pictures.items()}
    padded = F.pad(whole["train"], (2, 2, 2, 2))
    shifted = {
        padded[:, :, top : top + 16, left : left + 16][row].numpy().tobytes(): (top, left)
        for top in range(5)
        for left in range(5)
        for row in range(60)
    }
    found = {shifted.get(x.numpy().tobytes()) for x in learned}
    assert None not in found
    assert len(found) == 25
    known = {x.numpy().tobytes() for images in whole.values() for x in images}
    assert {x.numpy().tobytes() for x in judged} <= known
    assert all(training == grad for training, grad, _ in Spy.shown)


# ---- how


def test_the_first_step_moves_the_head_ten_rates_and_the_second_the_encoder(short, monkeypatch):
    world = pictured()
    task = _task(world, world, 0)
    before = world.encoder.state_dict()

    def moved(steps):
        monkeypatch.setattr(finetune, "LEAST", steps)
        model = task._fit(task.drawn(100), 1e-3, 0)
        after = model.encoder.state_dict()
        gaps = [(after[name] - before[name]).abs() for name in ("0.weight", "5.weight")]
        return model.head.weight.detach().abs(), gaps

    head, gaps = moved(1)
    assert head.median() == pytest.approx(1e-2, rel=1e-3)
    assert max(gap.max() for gap in gaps) == 0  # the head was zero: nothing came through
    # by then the cosine is at a half; Adam's means saw nothing, then this gradient
    expected = 5e-4 * (0.1 / (1 - 0.9**2)) / math.sqrt(0.001 / (1 - 0.999**2))
    _, gaps = moved(2)
    for gap in gaps:
        assert gap.median() == pytest.approx(expected, rel=1e-3)


def test_a_fit_takes_its_epochs_and_never_fewer_than_its_steps(monkeypatch):
    count = 0
    step = torch.optim.Adam.step

    def counted(self, *rest):
        nonlocal count
        count += 1
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    monkeypatch.setattr(finetune, "BATCH", 10)
    monkeypatch.setattr(finetune, "LEAST", 19)
    world = pictured(400, 8)
    world.judged_by(FineTune())
    # 40 images: 10 epochs of 4; 4: the least; 360: one epoch; 400: 5 epochs
    assert count == 3 * 40 + 3 * 20 + 3 * 36 + 200


def test_the_features_are_centred_and_divided_by_their_one_deviation():
    world = pictured()
    task = _task(world, world, 0)
    features = world.train[~world.held_out]
    model = _Tuned(world.copy(), task.size, 4)
    nn.init.eye_(model.head.weight)
    with torch.no_grad():
        found = model(world.pictures["train"][~world.held_out].float() / 255)
    expected = (features - features.mean(0)) / (features - features.mean(0)).square().mean().sqrt()
    assert torch.allclose(found, expected[:, :4], atol=1e-4)


def test_the_scale_of_features_does_not_matter(short):
    world = pictured()
    expected = world.judged_by(FineTune())

    class Louder(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def forward(self, x):
            return self.encoder(x) * 1024

    world.encoder = Louder(world.encoder)
    world.train, world.test = world.train * 1024, world.test * 1024
    assert world.judged_by(FineTune()) == expected


# ---- what is chosen


def test_what_is_chosen_is_best_on_the_held_out_tenth_and_is_what_test_sees(fits):
    world = pictured(noise=90)
    judgement = world.judged_by(FineTune())
    held = world.held_out
    images, labels = world.pictures["train"][held], world.truth["train"][held]
    scores = [accuracy(model, images, labels) for *_, model in fits]
    rates = [rate for _, rate, *_ in fits]
    for first, share in ((0, 10), (3, 100)):
        tried = dict(zip(rates[first : first + 3], scores[first : first + 3], strict=True))
        assert set(tried) == set(finetune.RATES)
        assert tried[judgement.chosen[f"lr_{share}"]] == max(tried.values())
    assert len(set(scores)) > 2
    assert rates[6] == judgement.chosen["lr_100"]
    tuned = next(m for _, rate, _, m in fits[:3] if rate == judgement.chosen["lr_10"])
    for model, share in ((tuned, 10), (fits[6][3], 100)):
        right = accuracy(model, world.pictures["test"], world.truth["test"])
        assert judgement.metrics[f"top1_{share}"].value == right


def test_nothing_of_test_moves_what_is_chosen_and_test_is_read_last(short, fits):
    world = pictured(noise=90)
    chosen = world.judged_by(FineTune()).chosen
    world.truth["test"] = world.truth["test"].flip(0)
    world.pictures["test"] = 255 - world.pictures["test"]
    assert world.judged_by(FineTune()).chosen == chosen
    fits.clear()
    del world.truth["test"], world.pictures["test"]
    with pytest.raises(KeyError, match="test"):
        world.judged_by(FineTune())
    assert len(fits) == 7


def test_the_same_seed_gives_the_same_judgement_whatever_was_drawn_before(short, fits):
    world = pictured()
    first = world.judged_by(FineTune(), seed=1)
    torch.rand(3)
    assert world.judged_by(FineTune(), seed=1) == first
    world.judged_by(FineTune(), seed=2)
    heads = [model.head.weight for *_, model in fits[::7]]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_without_a_held_out_tenth_the_default_is_taken_and_said(short, fits):
    world = pictured()
    world.held_out[:] = False
    judgement = world.judged_by(FineTune())
    assert judgement.chosen == {"lr_10": finetune.DEFAULT, "lr_100": finetune.DEFAULT}
    assert "no held-out tenth" in judgement.warnings[0]
    assert len(fits) == 2


def test_a_rate_that_diverges_is_never_chosen(short, monkeypatch):
    monkeypatch.setattr(finetune, "RATES", (1e30, 1e-3))
    chosen = pictured().judged_by(FineTune()).chosen
    assert set(chosen.values()) == {1e-3}
    monkeypatch.setattr(finetune, "RATES", (1e30,))
    with pytest.raises(ValueError, match="NaN or infinite at every learning rate"):
        pictured().judged_by(FineTune())


# ---- what it declines


def test_a_share_with_fewer_images_than_classes_is_left_out_and_said(short):
    judgement = pictured(200).judged_by(FineTune())
    assert judgement.warnings == (
        "1 % of the 200 labelled images of made-up are 2, too few to show each of 4 classes: "
        "this share was left out",
    )
    assert "lr_1" not in judgement.chosen
    assert {"top1_1", "top1_10", "top1_100"} == set(pictured(400).judged_by(FineTune()).metrics)


def test_too_few_images_for_the_share_that_ranks_are_declined():
    with pytest.raises(Unsuited, match=r"10 % of the 34 .* are 3, too few to show each of 4"):
        pictured(34).judged_by(FineTune())


def test_an_encoder_without_weights_is_declined():
    world = pictured()
    world.encoder = nn.Flatten()
    with pytest.raises(Unsuited, match="to be trained, and it has none"):
        world.judged_by(FineTune())


def test_a_collapsed_encoder_is_trained_all_the_same(short):
    world = pictured()
    world.train, world.test = torch.ones(200, 24), torch.ones(100, 24)
    assert _task(world, world, 0).size.spread == 1
    assert 0 <= world.judged_by(FineTune()).metrics["top1_100"].value <= 1
