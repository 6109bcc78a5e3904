"""Judges within a budget of labels: what they see, how they choose, and under which name."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sslbench.cells.protocol import resolve_judge
from sslbench.errors import Unsuited, UserError
from sslbench.evaluators import finetune, linear
from sslbench.evaluators.finetune import FineTune, _Task
from sslbench.evaluators.knn import GRID, KNN
from sslbench.evaluators.linear import Linear
from sslbench.plugins import registry
from sslbench.scores import folds
from sslbench.testing.made_up import MadeUp

from .helpers import fake, pictured

FOUND = registry(installed=False)
JUDGES = [Linear, KNN, FineTune]


@pytest.fixture
def short(monkeypatch):
    """Fits of few steps, for what does not depend on how well they learn."""
    monkeypatch.setattr(finetune, "LEAST", 4)


def budgeted(labels, seed: int = 0) -> tuple[MadeUp, torch.Tensor]:
    """A world of images that keeps showing the same rows, whatever becomes of other labels."""
    world = pictured(240, 120, noise=90)
    rows = world.shown(labels, seed)
    world.shown = lambda *_: rows  # type: ignore[method-assign]
    return world, rows


# ---- what it sees


@pytest.mark.parametrize("kind", JUDGES)
@pytest.mark.parametrize("labels", ["1/class", "5/class", 42])
def test_labels_outside_the_budget_move_no_bit(short, kind, labels):
    world, rows = budgeted(labels)
    before = world.judged_by(kind(labels=labels))
    hidden = torch.ones(240, dtype=torch.bool)
    hidden[rows] = False
    truth = world.truth["train"]
    shuffled, gone = truth.clone(), truth.clone()
    order = torch.randperm(int(hidden.sum()), generator=torch.Generator().manual_seed(0))
    shuffled[hidden] = truth[hidden][order]
    gone[hidden] = -1
    assert not shuffled.equal(truth)
    for other in (shuffled, gone):
        world.truth["train"] = other
        after = world.judged_by(kind(labels=labels))
        assert after.metrics == before.metrics
        assert after.chosen == before.chosen
        assert after.predictions == before.predictions


@pytest.mark.parametrize("kind", JUDGES)
def test_labels_within_the_budget_do(short, kind):
    world, rows = budgeted("5/class")
    before = world.judged_by(kind(labels="5/class"))
    world.truth["train"][rows] = (world.truth["train"][rows] + 1) % 4
    assert world.judged_by(kind(labels="5/class")).predictions != before.predictions


@pytest.mark.parametrize("kind", JUDGES)
def test_no_image_of_the_held_out_tenth_is_in_a_part(short, kind):
    world, rows = budgeted("5/class")
    assert not world.held_out[rows].any()
    before = world.judged_by(kind(labels="5/class"))
    world.held_out = torch.zeros_like(world.held_out)
    assert world.judged_by(kind(labels="5/class")).metrics == before.metrics


def test_a_budget_is_the_protocol_of_a_train_split_with_no_more_images():
    world = fake(300, 200, spread=3.0)
    rows = world.shown("5/class", 0)
    small = fake(300, 200, spread=3.0)
    small.train, small.truth["train"] = world.train[rows], world.truth["train"][rows]
    small.held_out = torch.zeros(20, dtype=torch.bool)
    for one, other in (
        (Linear(l2=0.1, labels="5/class"), Linear(l2=0.1)),
        (KNN(k=3, labels="5/class"), KNN(k=3)),
    ):
        assert world.judged_by(one).metrics == small.judged_by(other).metrics


def test_the_rows_are_those_of_the_cells_seed():
    world = fake(300, 200, spread=3.0)
    found = []
    for seed in (0, 1):
        world.seed = seed
        found.append(world.judged_by(KNN(labels="2/class")).predictions)
        assert world.shown("2/class").equal(world.shown("2/class", seed))
    assert found[0] != found[1]


def test_a_probe_within_a_budget_is_lent_as_it_is_judged():
    world = fake(300, 200, spread=3.0)
    judge = Linear(labels="5/class")
    said = judge.probe(world, world)(world.test).argmax(1)
    assert said.equal(world.judged_by(judge).predictions.predicted)


# ---- how it chooses


@pytest.mark.parametrize(
    ("sizes", "count"), [([7, 7, 7], 5), ([5, 9], 5), ([3, 4], 3), ([2, 9], 2)]
)
def test_parts_and_their_rests_show_each_class_evenly(sizes, count):
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.full((n,), 2 * c) for c, n in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    parts = folds(labels)
    assert len(parts) == count
    assert (torch.stack(parts).sum(0) == 1).all()
    for part in parts:
        for c, n in enumerate(sizes):
            own = int((labels[part] == 2 * c).sum())
            assert n // count <= own <= -(-n // count)
            assert own < n


def test_l2_is_the_one_with_most_right_answers_over_the_parts():
    world = fake(400, 300, 10, spread=6.0)
    rows = world.shown("9/class", 0)
    x, y = world.train[rows].double(), world.truth["train"][rows]
    place = torch.tensor([int((y[:i] == y[i]).sum()) for i in range(len(y))]) % 5
    right = {}
    for l2 in linear.GRID[:13]:  # to 1e-4, where less has long been worse
        right[l2] = 0
        for part in range(5):
            rest, judged = x[place != part], x[place == part]
            mean, deviation = rest.mean(0), rest.std(0, unbiased=False)
            rest, judged = (rest - mean) / deviation, (judged - mean) / deviation
            model = LogisticRegression(C=1 / (l2 * len(rest)), solver="newton-cholesky")
            said = model.fit(rest.numpy(), y[place != part].numpy()).predict(judged.numpy())
            right[l2] += int((torch.from_numpy(said) == y[place == part]).sum())
    judgement = world.judged_by(Linear(labels="9/class"))
    assert right[judgement.chosen["l2"]] == max(right.values())
    assert len(set(right.values())) > 2
    assert judgement.warnings == ()


def test_k_is_the_one_with_most_right_answers_over_the_parts():
    world = fake(400, 300, 10, spread=4.0)
    rows = world.shown("9/class", 0)
    points, y = torch.nn.functional.normalize(world.train[rows]), world.truth["train"][rows]
    place = torch.tensor([int((y[:i] == y[i]).sum()) for i in range(len(y))]) % 5
    right = {k: 0 for k in GRID if k <= 28}
    for k in right:
        for i, point in enumerate(points):
            bank, known = points[place != place[i]], y[place != place[i]]
            near = (bank @ point).topk(k)
            votes = torch.zeros(4)
            for at, similarity in zip(near.indices, near.values, strict=True):
                votes[known[at]] += (similarity / 0.07).exp()
            right[k] += int(votes.argmax() == y[i])
    best = max(right.values())
    chosen = world.judged_by(KNN(labels="9/class")).chosen["k"]
    assert chosen == min(k for k, many in right.items() if many == best)
    assert len(set(right.values())) > 1


def test_layers_choose_within_the_budget_too():
    world, rows = budgeted("5/class")
    world.levels = {
        "train": [world.train[:, :8], world.train],
        "test": [world.test[:, :8], world.test],
    }
    before = world.judged_by(Linear(labels="5/class", layers=True))
    assert before.metrics["layer2"] == before.metrics["top1"]
    assert before.chosen["l2_layer2"] == before.chosen["l2"]
    hidden = torch.ones(240, dtype=torch.bool)
    hidden[rows] = False
    world.truth["train"][hidden] = 0
    after = world.judged_by(Linear(labels="5/class", layers=True))
    assert (after.metrics, after.chosen) == (before.metrics, before.chosen)


def test_rates_are_compared_on_parts_that_the_fit_did_not_see(short, monkeypatch):
    fits, judged = [], []
    fit, merit = _Task._fit, _Task._merit

    def recorded(self, rows, rate, epochs):
        fits.append((rows, rate, epochs))
        return fit(self, rows, rate, epochs)

    def looked(self, model, held_out):
        judged.append(held_out)
        return merit(self, model, held_out)

    monkeypatch.setattr(_Task, "_fit", recorded)
    monkeypatch.setattr(_Task, "_merit", looked)
    world, _ = budgeted("5/class")
    chosen = world.judged_by(FineTune(labels="5/class")).chosen["lr"]
    *trials, (last, rate, epochs) = fits
    assert [r for _, r, _ in trials] == [r for r in finetune.RATES for _ in range(5)]
    for (seen, _, short_of), held in zip(trials, judged, strict=True):
        assert torch.cat([seen, held]).sort().values.equal(torch.arange(20))
        assert short_of == finetune.EPOCHS / finetune.TRIAL
    assert last.equal(torch.arange(20))
    assert (rate, epochs) == (chosen, finetune.EPOCHS)


def test_the_rate_with_most_right_answers_stays(short, monkeypatch):
    right = iter([1, 2, 1, 2, 2, 2, 2, 2, 2, 2, 3, 0, 3, 0, 3])
    monkeypatch.setattr(_Task, "_merit", lambda *_: (next(right), -1.0))
    world, _ = budgeted("5/class")
    assert world.judged_by(FineTune(labels="5/class")).chosen["lr"] == finetune.RATES[1]
    one_broken = iter([(1, -1.0)] * 5 + [(9, -1.0)] * 4 + [None] + [(2, -1.0)] * 5)
    monkeypatch.setattr(_Task, "_merit", lambda *_: next(one_broken))
    assert world.judged_by(FineTune(labels="5/class")).chosen["lr"] == finetune.RATES[2]
    monkeypatch.setattr(_Task, "_merit", lambda *_: None)
    with pytest.raises(ValueError, match="NaN or infinite at every learning rate"):
        world.judged_by(FineTune(labels="5/class"))


@pytest.mark.parametrize(
    ("kind", "chosen"), [(Linear, {"l2": 1e-3}), (KNN, {"k": 4}), (FineTune, {"lr": 1e-3})]
)
def test_one_label_of_a_class_chooses_nothing_and_says_so(short, kind, chosen):
    world, _ = budgeted("1/class")
    judgement = world.judged_by(kind(labels="1/class"))
    assert judgement.chosen == chosen
    (warning,) = judgement.warnings
    assert warning.startswith("one label of a class in a budget of 1/class to choose")
    assert warning.endswith("was taken")


@pytest.mark.slow
def test_bars_are_learned_from_five_labels_a_class():
    world = pictured(240, 120, noise=90)
    few, more = (
        world.judged_by(FineTune(labels=labels)).metrics["top1"].value
        for labels in ("1/class", "20/class")
    )
    assert 0.25 < few < more
    assert more > 0.9


# ---- under which name


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("linear", "linear-2"),
        ("linear[labels=4/class]", "linear-2[labels=4/class]"),
        ("knn[labels=40]", "knn-1[labels=40]"),
        ("knn[labels=40,k=5]", "knn-1[k=5,labels=40]"),
        ("finetune", "finetune-1"),
        ("finetune[labels=10%]", "finetune-1[labels=10%]"),
    ],
)
def test_a_budget_stands_in_the_protocol_and_its_absence_does_not(name, protocol):
    judge = resolve_judge(name, FOUND)[0]
    assert judge.protocol == protocol
    assert ("labels" in judge.identity()["params"]) == ("labels" in name)


def test_a_budget_ranks_by_its_own_metric():
    assert resolve_judge("finetune[labels=40]", FOUND)[1].metrics[0].name == "top1"
    assert resolve_judge("finetune", FOUND)[1].metrics[0].name == "top1_10"
    assert FineTune.metrics[0].name == "top1_10"


@pytest.mark.parametrize("name", ["linear", "knn", "finetune"])
@pytest.mark.parametrize("labels", ["0", "many", "-4", "101%", "1.5/class"])
def test_another_budget_is_refused_before_anything_runs(name, labels):
    with pytest.raises(
        UserError, match=f"{name} was given labels={labels}: .*40, 4/class, 10% or all"
    ):
        resolve_judge(f"{name}[labels={labels}]", FOUND)


@pytest.mark.parametrize("kind", JUDGES)
@pytest.mark.parametrize("labels", [3, "61/class", 1000])
def test_what_the_data_cannot_give_is_left_out_with_a_sentence(kind, labels):
    world = pictured(240, 120)
    with pytest.raises(Unsuited, match=r"label budget of .* was asked for"):
        world.judged_by(kind(labels=labels))


def test_more_neighbours_than_the_budget_has_labels_are_refused():
    with pytest.raises(Unsuited, match="the bank holds 20 labelled images"):
        pictured(240, 120).judged_by(KNN(k=21, labels="5/class"))
