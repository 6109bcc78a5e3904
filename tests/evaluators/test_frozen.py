"""The judges against scikit-learn, naive loops and what must not matter."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
)

from sslbench import logistic
from sslbench.errors import Unsuited, UserError
from sslbench.evaluators import linear
from sslbench.evaluators.clustering import Clustering, _agreement
from sslbench.evaluators.knn import GRID, KNN
from sslbench.evaluators.linear import Linear
from sslbench.logistic import fit_probes
from sslbench.scores import Labelled, labelled

from .helpers import Fake, fake

JUDGES = [KNN, Linear, Clustering]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- every judge


@pytest.mark.parametrize("judge", JUDGES)
def test_perfect_features_score_one(judge):
    world = fake()
    for split in ("train", "test"):
        setattr(world, split, F.one_hot(world.truth[split], 4).float())
    judgement = world.judged_by(judge())
    assert judgement.metrics[judge.metrics[0].name].value == 1
    assert all(value.n == 200 and value.split == "test" for value in judgement.metrics.values())


@pytest.mark.parametrize("judge", JUDGES)
def test_random_labels_score_chance(judge):
    world = fake(2000, 1000)
    for split, labels in world.truth.items():
        world.truth[split] = labels[torch.randperm(len(labels), generator=generator())]
    judgement = world.judged_by(judge())
    first = judgement.metrics[judge.metrics[0].name]
    assert abs(first.value - 0.25) < 5 * first.stderr
    assert first.stderr == pytest.approx(math.sqrt(first.value * (1 - first.value) / 1000))


@pytest.mark.parametrize("judge", JUDGES)
def test_the_same_seed_gives_the_same_judgement(judge):
    world = fake(spread=3.0)
    assert world.judged_by(judge(), seed=1) == world.judged_by(judge(), seed=1)


@pytest.mark.parametrize("judge", JUDGES)
def test_test_is_read_once_and_after_the_choice(judge):
    world = fake()
    world.judged_by(judge())
    assert world.reads == (["test"] if judge is Clustering else ["train", "test"])


@pytest.mark.parametrize("judge", [KNN, Linear])
def test_nothing_of_test_moves_what_is_chosen(judge):
    world = fake(spread=4.0, seed=2)
    chosen = world.judged_by(judge()).chosen
    world.truth["test"] = world.truth["test"].flip(0)
    assert world.judged_by(judge()).chosen == chosen
    world.test = torch.randn(200, 12, generator=generator())
    assert world.judged_by(judge()).chosen == chosen


@pytest.mark.parametrize(("judge", "name"), [(KNN, "k"), (Linear, "l2")])
def test_what_is_chosen_is_best_on_the_held_out_tenth(judge, name):
    world = fake(spread=4.0, seed=3)
    chosen = world.judged_by(judge()).chosen[name]
    held = world.held_out
    inner = Fake(
        world.train[~held],
        world.train[held],
        {"train": world.truth["train"][~held], "test": world.truth["train"][held]},
        4,
        torch.zeros(int((~held).sum()), dtype=torch.bool),
    )
    grid = [k for k in GRID if k <= len(inner.train)] if judge is KNN else linear.GRID
    scores = {v: inner.judged_by(judge(**{name: v})).metrics["top1"].value for v in grid}
    assert scores[chosen] == max(scores.values())
    assert len(set(scores.values())) > 1


@pytest.mark.parametrize("judge", [KNN, Linear])
def test_a_fixed_choice_is_kept(judge):
    name, value = ("k", 3) if judge is KNN else ("l2", 0.02)
    assert fake().judged_by(judge(**{name: value})).chosen == {name: value}


@pytest.mark.parametrize("judge", [KNN, Linear])
def test_without_a_held_out_tenth_the_default_is_taken_and_said(judge):
    world = fake(8, 8)
    world.held_out[:] = False
    judgement = world.judged_by(judge())
    assert "no held-out tenth" in judgement.warnings[0]
    assert judgement.chosen == ({"k": 8} if judge is KNN else {"l2": linear.DEFAULT})


@pytest.mark.parametrize("judge", [KNN, Linear])
def test_unlabelled_images_take_no_part(judge):
    world = fake(spread=3.0)
    expected = world.judged_by(judge())
    noise = torch.randn(50, 12, generator=generator())
    none = torch.full((50,), -1)
    world.train, world.test = torch.cat([noise, world.train]), torch.cat([world.test, noise])
    world.truth["train"] = torch.cat([none, world.truth["train"]])
    world.truth["test"] = torch.cat([world.truth["test"], none])
    world.held_out = torch.cat([torch.arange(50) % 2 == 0, world.held_out])
    assert world.judged_by(judge()) == expected


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_a_sentence(judge, value):
    world = fake()
    world.train[3, 2] = world.test[5, 1] = value
    with pytest.raises(ValueError, match=r"1 of \d+ rows hold NaN or infinity; train again"):
        world.judged_by(judge())


@pytest.mark.parametrize("judge", JUDGES)
def test_a_split_without_labels_is_a_sentence(judge):
    world = fake()
    world.truth = {split: torch.full_like(labels, -1) for split, labels in world.truth.items()}
    with pytest.raises(Unsuited, match="none of its"):
        world.judged_by(judge())


@pytest.mark.parametrize("judge", JUDGES)
def test_one_class_only_cannot_be_judged(judge):
    with pytest.raises(Unsuited, match="made-up has one class only"):
        fake(classes=1).judged_by(judge())


@pytest.mark.parametrize("judge", [KNN, Linear])
def test_a_class_that_train_never_shows_is_warned_of_and_never_predicted(judge):
    world = fake()
    world.classes, world.truth["test"] = 7, torch.full((200,), 6)
    judgement = world.judged_by(judge())
    assert judgement.metrics["top1"].value == 0
    assert judgement.metrics["top5"].value == 0
    assert "train shows 4 of 7 classes" in judgement.warnings[0]


@pytest.mark.parametrize("judge", [KNN, Linear])
def test_a_class_that_test_never_shows_stands_all_the_same(judge):
    world = fake(classes=8)
    keep = world.truth["test"] < 3
    world.test, world.truth["test"] = world.test[keep], world.truth["test"][keep]
    assert world.judged_by(judge()).metrics["top1"].value > 0.9


@pytest.mark.parametrize("judge", [KNN, Linear])
def test_top5_appears_above_five_classes_and_bounds_top1(judge):
    assert set(fake(classes=5).judged_by(judge()).metrics) == {"top1"}
    metrics = fake(classes=9, spread=6.0).judged_by(judge()).metrics
    assert metrics["top1"].value < metrics["top5"].value < 1


@pytest.mark.parametrize("judge", JUDGES)
def test_collapsed_features_are_judged(judge):
    world = fake()
    world.train[:], world.test[:] = 0.5, 0.5
    assert world.judged_by(judge()).metrics[judge.metrics[0].name].value == 0.25


@pytest.mark.parametrize("judge", JUDGES)
def test_a_handful_of_images_is_judged(judge):
    world = fake(3, 2, classes=3)
    world.held_out = torch.tensor([True, False, False])
    value = world.judged_by(judge()).metrics[judge.metrics[0].name].value
    assert 0 <= value <= 1


@pytest.mark.parametrize(
    ("judge", "parameters"),
    [
        (KNN, {"k": 0}),
        (KNN, {"temperature": 0}),
        (Linear, {"l2": -1.0}),
        (Clustering, {"restarts": 0}),
    ],
)
def test_parameters_that_cannot_be_are_refused(judge, parameters):
    with pytest.raises(UserError, match="give"):
        judge(**parameters)


@pytest.mark.parametrize("judge", JUDGES)
def test_the_first_metric_is_always_there_and_the_others_are_declared(judge):
    metrics = fake(classes=6).judged_by(judge()).metrics
    declared = [metric.name for metric in judge.metrics]
    assert declared[0] in metrics
    assert set(metrics) <= set(declared)


# ---- kNN


def naive_vote(world, k, temperature):
    bank = F.normalize(world.train.double(), dim=1)
    queries = F.normalize(world.test.double(), dim=1)
    right = 0
    for query, truth in zip(queries, world.truth["test"].tolist(), strict=True):
        similar = bank @ query
        scores = [0.0] * world.classes
        for row in similar.argsort(descending=True)[:k].tolist():
            scores[int(world.truth["train"][row])] += math.exp(float(similar[row]) / temperature)
        right += scores.index(max(scores)) == truth
    return right / len(queries)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (50, 0.5), (300, 0.07)])
def test_the_vote_is_that_of_a_naive_loop(k, temperature):
    world = fake(spread=4.0)
    judgement = world.judged_by(KNN(k=k, temperature=temperature))
    assert judgement.metrics["top1"].value == naive_vote(world, k, temperature)


def test_a_temperature_towards_zero_is_one_nearest_neighbour():
    world = fake(spread=4.0)
    cold = world.judged_by(KNN(k=50, temperature=1e-5)).metrics["top1"]
    assert cold == world.judged_by(KNN(k=1)).metrics["top1"]
    assert cold != world.judged_by(KNN(k=50)).metrics["top1"]


def test_a_hot_vote_of_the_whole_bank_elects_the_largest_class():
    world = fake(spread=4.0)
    world.truth["train"][:120] = 2
    judgement = world.judged_by(KNN(k=300, temperature=1e6))
    assert judgement.metrics["top1"].value == float((world.truth["test"] == 2).float().mean())


def test_the_order_of_the_bank_does_not_matter():
    world = fake(spread=4.0)
    expected = world.judged_by(KNN())
    order = torch.randperm(300, generator=generator())
    world.train, world.held_out = world.train[order], world.held_out[order]
    world.truth["train"] = world.truth["train"][order]
    assert world.judged_by(KNN()) == expected


@pytest.mark.parametrize("judge", [KNN, Clustering])
def test_lengths_of_features_do_not_matter(judge):
    world = fake(spread=4.0)
    expected = world.judged_by(judge())
    for split in ("train", "test"):
        features = getattr(world, split)
        powers = torch.randint(-3, 4, (len(features), 1), generator=generator())
        setattr(world, split, features * 2.0**powers)
    assert world.judged_by(judge()).metrics == expected.metrics


@pytest.mark.parametrize("k", [1, 3, 4])
def test_top5_of_fewer_than_five_neighbours_says_what_it_is(k):
    world = fake(classes=9, spread=6.0)
    judgement = world.judged_by(KNN(k=k))
    assert judgement.warnings == (
        f"top5 is the best {k}, for so many neighbours were asked (k={k})",
    )
    if k == 1:
        assert judgement.metrics["top5"] == judgement.metrics["top1"]
    assert world.judged_by(KNN(k=5)).warnings == ()
    assert fake(classes=5).judged_by(KNN(k=k)).warnings == ()


def test_k_of_a_small_bank_is_chosen_among_what_it_holds():
    world = fake(12, 40, spread=3.0)
    assert world.judged_by(KNN()).chosen["k"] in (1, 5, 10)


def test_a_fixed_k_beyond_the_bank_is_refused():
    with pytest.raises(Unsuited, match=r"k=301.* holds 300 labelled .* of at most 300"):
        fake().judged_by(KNN(k=301))


# ---- linear


def objective(features, labels, weight, bias, l2):
    features = features.double()
    points = (features - features.mean(0)) / features.std(0, unbiased=False)
    weight, bias = torch.as_tensor(weight).double(), torch.as_tensor(bias).double()
    loss = F.cross_entropy(points @ weight.T + bias, labels)
    return float(loss + l2 / 2 * weight.square().sum())


@pytest.mark.parametrize(("classes", "spread"), [(2, 2.0), (5, 3.0), (5, 0.8)])
def test_every_probe_is_scikit_learns_logistic_regression(classes, spread):
    world = fake(400, 10, 10, classes, spread=spread)
    x, y = world.train, world.truth["train"]
    points = ((x - x.mean(0)) / x.std(0, unbiased=False)).double().numpy()
    l2s = (1.0, 1e-2, 1e-4)
    for probe, l2 in zip(fit_probes(x, y, l2s, classes), l2s, strict=True):
        theirs = LogisticRegression(C=1 / (l2 * 400), tol=1e-8, max_iter=5000).fit(points, y)
        weight, bias = theirs.coef_, theirs.intercept_
        if classes == 2:  # one score there, two that differ by it here: half the penalty
            theirs = LogisticRegression(C=2 / (l2 * 400), tol=1e-8, max_iter=5000).fit(points, y)
            weight = torch.tensor([[-0.5], [0.5]]).double() @ torch.from_numpy(theirs.coef_)
            bias = torch.tensor([-0.5, 0.5]).double() * float(theirs.intercept_[0])
        lowest = objective(x, y, weight, bias, l2)
        ours = objective(x, y, probe.weight, probe.bias, l2)
        assert probe.converged
        assert probe.objective == pytest.approx(ours, rel=1e-6)
        assert lowest * (1 - 1e-6) <= ours <= lowest * (1 + 1e-6)
        gap = (probe.weight.double() - torch.as_tensor(weight)).abs().max()
        assert gap < 0.02 * float(abs(torch.as_tensor(weight)).max())
        assert (
            float((probe(x).argmax(1) == torch.from_numpy(theirs.predict(points))).float().mean())
            > 0.99
        )


N, CLASSES = 500, 5
KINDS = {
    "easy": lambda centres, draw: 2 * centres + draw(32),
    "hard": lambda centres, draw: 0.15 * centres + draw(32),
    "rows of any length": lambda centres, draw: (
        (0.5 * centres + draw(32)) * draw(1) / draw(1)  # Cauchy's
    ),
    "columns of any scale": lambda centres, draw: (
        (0.5 * centres + draw(32)) * 10 ** torch.linspace(-6, 6, 32)
    ),
    "near duplicates": lambda centres, draw: torch.cat(
        [half := (0.5 * centres + draw(32))[:, :16], half + 1e-3 * draw(16)], dim=1
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_minimum_is_reached_to_a_millionth_or_said_not_to_be(kind):
    draws = generator()
    labels = torch.arange(N) % CLASSES
    centres = torch.randn(CLASSES, 32, generator=draws)[labels]
    x = KINDS[kind](centres, lambda d: torch.randn(N, d, generator=draws))
    points = x.double()
    points = (points - points.mean(0)) / points.std(0, unbiased=False)
    found = list(fit_probes(x, labels, linear.GRID, CLASSES))
    for probe in found[::2]:
        assert probe.converged or probe.l2 < 3e-7  # where all is told apart the objective is 3e-6
        theirs = LogisticRegression(C=1 / (probe.l2 * N), tol=1e-10, max_iter=50_000)
        theirs.fit(points.numpy(), labels.numpy())
        lowest = objective(x, labels, theirs.coef_, theirs.intercept_, probe.l2)
        ours = objective(x, labels, probe.weight, probe.bias, probe.l2)
        assert ours <= lowest * (1 + 1e-6) or not probe.converged
        assert probe.objective == pytest.approx(ours, rel=3e-6)


def test_two_classes_are_scikit_learns_at_twice_its_c():
    """One vector of weights there, two that are opposite here."""
    world = fake(300, 500, 20, classes=2, spread=5.0)
    l2 = 0.02
    probe = next(fit_probes(world.train, world.truth["train"], (l2,), 2))
    assert torch.allclose(probe.weight[0], -probe.weight[1], atol=1e-4)
    points, test = ((x - probe.mean) / probe.scale for x in (world.train, world.test))
    theirs = {
        c: LogisticRegression(C=c / (l2 * 300), tol=1e-8, max_iter=5000).fit(
            points.numpy(), world.truth["train"].numpy()
        )
        for c in (1, 2)
    }
    apart = {
        c: abs(model.decision_function(test.numpy()) - (probe(world.test) @ SIGNS).numpy()).max()
        for c, model in theirs.items()
    }
    assert apart[2] < 0.01 < 0.2 < apart[1]
    assert "C = 2 / (l2 * N) for\n    two classes" in Linear.__doc__


SIGNS = torch.tensor([-1.0, 1.0])


@pytest.mark.parametrize("d", [30, 700])
def test_the_basis_does_not_move_the_answer(monkeypatch, d):
    world = fake(250, 10, d, spread=6.0)
    rotated = list(fit_probes(world.train, world.truth["train"], (0.1, 1e-3), 4))
    monkeypatch.setattr(logistic, "_ROTATED", 0)
    plain = list(fit_probes(world.train, world.truth["train"], (0.1, 1e-3), 4))
    for one, two in zip(rotated, plain, strict=True):
        assert one.objective == pytest.approx(two.objective, rel=1e-4)
        assert torch.allclose(one.weight, two.weight, atol=0.02 * float(one.weight.abs().max()))


@pytest.mark.parametrize(
    ("n", "d", "trials"), [(500, 32, 20), pytest.param(300, 2048, 6, marks=pytest.mark.slow)]
)
def test_the_grid_seldom_ends_where_features_are_noise(n, d, trials):
    chosen = []
    for seed in range(trials):
        draws = generator(seed)
        held = torch.rand(n, generator=draws) < 0.1
        train = Labelled(torch.randn(n, d, generator=draws), torch.arange(n) % 5, held)
        chosen.append(linear._choose(linear._at(fake(), train), 5, linear.GRID)[0])
    assert sum(l2 in (linear.GRID[0], linear.GRID[-1]) for l2 in chosen) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_the_grid_does_not_end_on_digits(seed):
    digits = load_digits()
    features, labels = torch.tensor(digits.data).float(), torch.tensor(digits.target)
    held = torch.rand(len(labels), generator=generator(seed)) < 0.1
    train = linear._at(fake(), Labelled(features, labels, held))
    l2, _, warnings = linear._choose(train, 10, linear.GRID)
    assert linear.GRID[-1] < l2 < linear.GRID[0]
    assert warnings == ()


def test_a_fit_from_the_one_before_is_the_fit_from_zero():
    world = fake(spread=3.0)
    x, y = world.train, world.truth["train"]
    for one in fit_probes(x, y, linear.GRID, 4):
        alone = next(fit_probes(x, y, (one.l2,), 4))
        assert one.objective == pytest.approx(alone.objective, rel=2e-6)


@pytest.mark.parametrize("limit", ["_APART", "_SPARSE"])
def test_a_factor_that_is_shared_or_of_fewer_rows_does_not_move_the_answer(monkeypatch, limit):
    world = fake(2000, 10, 30, spread=3.0)
    x, y = world.train, world.truth["train"]
    plain = list(fit_probes(x, y, (0.1, 1e-3, 1e-5), 4))
    monkeypatch.setattr(logistic, limit, 0)
    for one, two in zip(plain, fit_probes(x, y, (0.1, 1e-3, 1e-5), 4), strict=True):
        assert one.converged
        assert two.converged
        assert one.objective == pytest.approx(two.objective, rel=2e-6)


def test_biases_are_fitted_where_features_say_nothing():
    x, y = torch.randn(4000, 3, generator=generator()), (torch.arange(4000) % 10 == 0).long()
    probe = next(fit_probes(x, y, (1e6,), 2))
    assert probe.converged
    assert probe(x).softmax(1)[:, 1].mean() == pytest.approx(0.1, rel=1e-3)


def test_more_features_than_images_are_fitted():
    draws = generator()
    x, y = torch.randn(60, 500, generator=draws), torch.arange(60) % 3
    x = torch.cat([x, x + 1e-4 * torch.randn(60, 500, generator=draws)], dim=1)
    for probe in fit_probes(x, y, (1.0, 1e-3, 1e-6), 3):
        assert (probe(x).argmax(1) == y).all()


def test_a_fit_that_runs_out_of_products_says_so(monkeypatch):
    world = fake(spread=3.0)
    monkeypatch.setattr(logistic, "PRODUCTS", 3)
    probe = next(fit_probes(world.train, world.truth["train"], (1e-6,), 4))
    assert not probe.converged
    train = linear._at(world, labelled(world, world, "train"))
    assert linear._fit(train, 4, 1e-6)[1] == ("the fit at l2=1e-06 stopped before its minimum",)


def test_scale_and_offset_of_features_do_not_matter():
    world = fake(spread=3.0)
    expected = world.judged_by(Linear())
    scale, offset = torch.tensor(2.0) ** torch.arange(-6, 6), torch.arange(12) * 3.0
    world.train, world.test = world.train * scale + offset, world.test * scale + offset
    judgement = world.judged_by(Linear())
    assert judgement.chosen == expected.chosen
    assert judgement.metrics["top1"].value == pytest.approx(
        expected.metrics["top1"].value, abs=0.011
    )


def test_constant_features_are_ignored():
    world = fake(spread=3.0)
    expected = next(fit_probes(world.train, world.truth["train"], (0.01,), 4))
    wide = torch.cat([world.train, torch.full((300, 3), 7.3)], dim=1)
    found = next(fit_probes(wide, world.truth["train"], (0.01,), 4))
    assert torch.allclose(found.weight[:, :12], expected.weight, atol=5e-3)
    assert found.weight[:, 12:].abs().max() < 1e-4
    assert found.objective == pytest.approx(expected.objective, rel=1e-5)


def test_the_standardisation_is_that_of_the_images_fitted_on():
    world = fake(spread=3.0)
    probe = next(fit_probes(world.train, world.truth["train"], (0.01,), 4))
    assert torch.allclose(probe.mean, world.train.mean(0), atol=1e-5)
    assert torch.allclose(probe.scale, world.train.std(0, unbiased=False), atol=1e-5)


def test_the_head_is_refitted_on_all_of_train():
    world = fake(spread=3.0)
    probe, _ = linear.choose_probe(world, world)
    whole = next(fit_probes(world.train, world.truth["train"], (probe.l2,), 4))
    assert torch.equal(probe.weight, whole.weight)


def test_a_choice_at_the_edge_of_the_grid_is_warned_of():
    world = fake(spread=3.0)
    noise = torch.randn(300, 12, generator=generator())
    world.train = world.train + 60 * noise
    grid = (1e-7, 1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "GRID", grid)
        assert "edge of the grid" in world.judged_by(Linear()).warnings[-1]


@pytest.mark.parametrize(
    ("labels", "l2s"),
    [
        (torch.tensor([0, 4]), (1.0,)),
        (torch.tensor([-1, 0]), (1.0,)),
        (torch.tensor([0, 1]), (0.0,)),
    ],
)
def test_a_probe_of_impossible_labels_or_regularisation_is_refused(labels, l2s):
    with pytest.raises(ValueError, match="labels run from 0 to 3"):
        fit_probes(torch.randn(2, 3), labels, l2s, 4)


def test_a_probe_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one of each"):
        fit_probes(torch.randn(0, 3), torch.zeros(0, dtype=torch.long), (1.0,), 4)


# ---- clustering


def test_agreement_is_scikit_learns_and_acc_the_best_permutation():
    truth = torch.randint(4, (90,), generator=generator(0))
    assignment = torch.where(torch.rand(90, generator=generator(1)) < 0.5, (truth + 1) % 4, truth)
    found = _agreement(truth, assignment, "", 4)
    pair = truth.numpy(), assignment.numpy()
    assert found["nmi"].value == normalized_mutual_info_score(*pair, average_method="arithmetic")
    assert found["ari"].value == adjusted_rand_score(*pair)
    assert found["ami"].value == adjusted_mutual_info_score(*pair)
    best = max(
        float((torch.tensor(order)[assignment] == truth).double().mean())
        for order in itertools.permutations(range(4))
    )
    assert found["acc"].value == pytest.approx(best)


def test_nmi_is_normalised_by_the_arithmetic_mean():
    # geometric would be .7071, the minimum 1, the maximum .5
    found = _agreement(torch.tensor([0, 0, 1, 1]), torch.arange(4), "", 2)
    assert found["nmi"].value == pytest.approx(2 / 3)
    assert found["ari"].value == pytest.approx(0)
    assert found["acc"].value == 0.5


def test_a_methods_own_clusters_are_judged_beside_k_means():
    world = fake(spread=4.0)
    world.logits = F.one_hot((world.truth["test"] + 1) % 4, 4).float()
    metrics = world.judged_by(Clustering()).metrics
    assert metrics["own_acc"].value == metrics["own_nmi"].value == metrics["own_ari"].value == 1
    assert metrics["acc"].value < 1


@pytest.mark.parametrize(("clusters", "acc"), [(8, 0.5), (2, 0.5)])
def test_own_clusters_more_or_fewer_than_classes_are_matched_as_they_are(clusters, acc):
    world = fake()
    own = torch.arange(200) % 8 if clusters == 8 else world.truth["test"] % 2
    world.logits = F.one_hot(own, clusters).float()
    assert world.judged_by(Clustering()).metrics["own_acc"].value == acc


def test_own_logits_that_are_not_finite_are_a_sentence():
    world = fake()
    world.logits = torch.full((200, 4), float("nan"))
    with pytest.raises(ValueError, match="its logits hold NaN; train again"):
        world.judged_by(Clustering())


def test_own_clusters_skip_unlabelled_images():
    world = fake()
    world.logits = F.one_hot(world.truth["test"], 4).float()
    world.truth["test"] = world.truth["test"].clone()
    world.truth["test"][::7] = -1
    assert world.judged_by(Clustering()).metrics["own_acc"] == (1.0, 171, 0.0, "test")


def test_the_clusters_kept_are_those_of_lowest_inertia_whatever_the_labels():
    world = fake(m=400, spread=4.0)
    straight = world.judged_by(Clustering(), seed=4).metrics
    world.truth["test"] = (world.truth["test"] + 1) % 4
    assert world.judged_by(Clustering(), seed=4).metrics == straight


def test_more_classes_than_test_images_are_judged_with_a_warning():
    world = fake(40, 6, classes=6)
    world.classes = 20
    judgement = world.judged_by(Clustering())
    assert judgement.metrics["acc"].value == 1
    assert "6 test images for 20 classes: k=6 was taken" in judgement.warnings
