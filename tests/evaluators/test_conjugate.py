"""Conjugate pseudo-labels: the labels a loss implies, the heads it fits, and what Tent has in common."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge

from sslbench.errors import Unsuited, UserError
from sslbench.evaluators import conjugate as module
from sslbench.evaluators.adapting import Adapting, entropy
from sslbench.evaluators.conjugate import GRID, Conjugate, conjugate, fit, implied
from sslbench.evaluators.linear import Linear

from .helpers import Fake, fake, pictured
from .sets import brighter, corrupted, noisy, same, uneven, weights

BASE = uneven(pictured(noise=60))
HEAD = Linear().probe(BASE, BASE)
LOGITS = 2 * torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def subject() -> Fake:
    made = copy.copy(BASE)
    made.corruptions = {}
    corrupted(made, noisy)
    return made


def poly(logits, labels, eps):
    """PolyLoss of each row, with labels that need not be one-hot."""
    p = logits.softmax(1)
    return (labels * (eps * (1 - p) - p.log())).sum(1)


# ---- the loss


def test_for_a_cross_entropy_head_it_is_tents_loss_with_its_gradient():
    ours, tents = (LOGITS.clone().requires_grad_(True) for _ in range(2))
    loss, other = conjugate(ours, loss="poly", eps=0.0), entropy(tents)
    assert float(loss.detach()) == pytest.approx(float(other.detach()), abs=1e-12)
    loss.backward()
    other.backward()
    assert torch.allclose(ours.grad, tents.grad, atol=1e-12)
    assert torch.allclose(implied(LOGITS.softmax(1), 0.0), LOGITS.softmax(1), atol=1e-12)


def test_for_a_cross_entropy_head_a_step_is_tents_step():
    follow = functools.partial(conjugate, loss="poly", eps=0.0)
    ours = Adapting(BASE.copy(), HEAD, 0.01, loss=follow)
    tents = Adapting(BASE.copy(), HEAD, 0.01)
    for start in (0, 40):
        x = BASE.pictures["test"][start : start + 40].float() / 255
        assert torch.allclose(ours.step(x, "x"), tents.step(x, "x"), atol=1e-4)
    for one, other in zip(ours.moving, tents.moving, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("eps", [0.5, 6.0])
def test_implied_labels_solve_the_papers_system_and_leave_no_slope(eps):
    p = LOGITS.softmax(1)
    labels = implied(p, eps)
    for row, chances in zip(labels, p, strict=True):
        bent = torch.eye(5).double() + eps * (chances.diag() - chances.outer(chances))
        assert torch.allclose(row, torch.linalg.solve(bent, chances), atol=1e-12)
    logits = LOGITS.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(poly(logits, labels, eps).sum(), [logits])
    assert slope.abs().max() < 1e-12
    assert torch.allclose(labels.sum(1), torch.ones(7).double())


@pytest.mark.parametrize("eps", [0.5, 6.0])
def test_of_polyloss_it_is_the_loss_with_the_implied_labels(eps):
    logits = LOGITS.clone().requires_grad_(True)
    naive = poly(logits, implied(logits.softmax(1), eps), eps).mean()
    found = conjugate(logits, loss="poly", eps=eps)
    assert float(found.detach()) == pytest.approx(float(naive.detach()), abs=1e-12)
    (ours,), (theirs,) = (torch.autograd.grad(each, [logits]) for each in (found, naive))
    assert torch.allclose(ours, theirs, atol=1e-12)
    # labels are a function of the logits, and what is descended: not a constant
    fixed = poly(logits, implied(LOGITS.softmax(1), eps), eps).mean()
    assert torch.autograd.grad(fixed, [logits])[0].abs().max() < 1e-12
    assert ours.abs().max() > 1e-3


def test_of_squares_it_is_minus_half_the_square_of_the_logits():
    logits = LOGITS.clone().requires_grad_(True)
    loss = conjugate(logits, loss="squared", eps=6.0)
    naive = -sum(float(value) ** 2 for row in LOGITS for value in row) / 2 / 7
    assert float(loss.detach()) == pytest.approx(naive, abs=1e-12)
    (slope,) = torch.autograd.grad(loss, [logits])
    assert torch.allclose(slope, -LOGITS / 7, atol=1e-12)


@pytest.mark.parametrize("loss", ["poly", "squared"])
def test_a_class_never_shown_has_no_part(loss):
    wider = torch.cat([LOGITS, torch.full((7, 1), -torch.inf)], dim=1).requires_grad_(True)
    found = conjugate(wider, loss=loss, eps=6.0)
    assert float(found.detach()) == pytest.approx(
        float(conjugate(LOGITS, loss=loss, eps=6.0)), abs=1e-12
    )
    found.backward()
    assert wider.grad.isfinite().all()


# ---- the head


def standardised(world):
    x = world.train.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    return (x - mean) / deviation, (world.test.double() - mean) / deviation


def test_the_squared_head_is_scikit_learns_ridge():
    world = fake(300, 200, spread=3.0)
    head, warnings = fit(world, world, "squared", 6.0)
    x, test = standardised(world)
    model = Ridge(alpha=head.l2 * len(x), solver="svd").fit(
        x.numpy(), F.one_hot(world.truth["train"])
    )
    expected = torch.from_numpy(model.predict(test.numpy())).float()
    assert torch.allclose(head(world.test), expected, atol=1e-4)
    assert head.l2 in GRID
    assert warnings == ()


def test_the_polyloss_head_at_eps_0_is_scikit_learns_logistic_regression():
    world = fake(300, 200, spread=3.0)
    head, _ = fit(world, world, "poly", 0.0)
    x, test = standardised(world)
    model = LogisticRegression(C=1 / (head.l2 * len(x)), tol=1e-8, max_iter=5000)
    expected = model.fit(x.numpy(), world.truth["train"]).predict_proba(test.numpy())
    assert torch.allclose(
        head(world.test).softmax(1), torch.from_numpy(expected).float(), atol=1e-3
    )


@pytest.mark.parametrize("eps", [1.0, 6.0])
def test_the_polyloss_head_has_no_slope_left(eps):
    world = fake(300, 200, spread=3.0)
    head, _ = fit(world, world, "poly", eps)
    x, _ = standardised(world)
    weight, bias = (part.double().requires_grad_(True) for part in (head.weight, head.bias))
    own = F.one_hot(world.truth["train"]).double()
    loss = poly(x @ weight.T + bias, own, eps).mean() + head.l2 / 2 * weight.square().sum()
    assert float(loss.detach()) == pytest.approx(head.objective, rel=1e-4)
    for slope in torch.autograd.grad(loss, [weight, bias]):
        assert slope.abs().max() < 2e-4


def test_l2_is_chosen_on_the_held_out_tenth_alone(monkeypatch):
    world = fake(400, 50, spread=6.0)
    fits = []
    least = module._least

    def recorded(points, start, l2, loss, eps):
        found = least(points, start, l2, loss, eps)
        fits.append((len(points.x), l2, found))
        return found

    monkeypatch.setattr(module, "_least", recorded)
    head, _ = fit(world, world, "squared", 6.0)
    *trials, (whole, chosen, _) = fits
    assert [(n, l2) for n, l2, _ in trials] == [(360, l2) for l2 in GRID]
    assert (whole, chosen) == (400, head.l2)
    x, truth = standardised(world)[0][world.held_out], world.truth["train"][world.held_out]
    right = [int(((x @ w[:, :-1].T + w[:, -1]).argmax(1) == truth).sum()) for *_, w in trials]
    assert right[GRID.index(head.l2)] == max(right)


def test_without_a_held_out_tenth_it_says_what_was_taken():
    world = fake(300, 200)
    world.held_out = torch.zeros(300, dtype=torch.bool)
    head, (warning,) = fit(world, world, "squared", 6.0)
    assert head.l2 == 1e-3
    assert warning == "no held-out tenth to choose l2 on: l2=0.001 was taken"


def test_a_class_that_train_does_not_show_is_never_answered():
    world = fake(300, 200)
    world.truth["train"] = world.truth["train"] % 3
    for loss in ("poly", "squared"):
        logits = fit(world, world, loss, 6.0)[0](world.test)
        assert (logits[:, 3] == -torch.inf).all()
        assert logits[:, :3].isfinite().all()


def test_features_that_never_vary_are_no_reason_to_fail():
    world = fake(300, 200)
    world.train[:, 0], world.test[:, 0] = 7.0, 7.0
    assert fit(world, world, "poly", 6.0)[0](world.test).isfinite().all()


# ---- adapting


def test_a_batch_is_answered_by_what_it_taught(subject):
    made = corrupted(subject, noisy)
    found = subject.judged_by(Conjugate(severities=5, batch=50, lr=0.05)).metrics
    head, _ = fit(BASE, BASE, "poly", 6.0)
    truth, reads = subject.truth["test"], iter(made.asked)
    right = {mode: [] for mode in ("conjugate", "entropy", "norm", "source")}
    for _ in range(15):
        follow = functools.partial(conjugate, loss="poly", eps=6.0)
        ours = Adapting(BASE.copy(), head, 0.05, loss=follow)
        tents, still = (Adapting(BASE.copy(), head, 0.05) for _ in range(2))
        for _ in range(2):
            corruption, severity, rows = next(reads)
            x = made.blocks[corruption, severity][rows].float() / 255
            ours.step(x, "x")
            tents.step(x, "x")
            with torch.no_grad():
                answers = {
                    "conjugate": ours.logits(x, "x"),
                    "entropy": tents.logits(x, "x"),
                    "norm": still.logits(x, "x"),
                    "source": head(BASE.encoder(x)),
                }
            for mode, logits in answers.items():
                right[mode] += (logits.argmax(1) == truth[rows]).tolist()
    for mode, hits in right.items():
        assert found[f"{mode}15"].value == pytest.approx(sum(hits) / len(hits), abs=1e-12), mode
    assert list(found) == [metric.name for metric in Conjugate.metrics]
    assert len({found[f"{mode}15"].value for mode in right}) == 4


def test_at_eps_0_the_conjugate_is_the_entropy_and_at_lr_0_both_are_norm(subject):
    one = subject.judged_by(Conjugate(severities=5, batch=25, eps=0.0, lr=0.02)).metrics
    assert one["conjugate15"].value == pytest.approx(one["entropy15"].value, abs=2e-3)
    still = subject.judged_by(Conjugate(severities=5, batch=25, lr=0.0, loss="squared")).metrics
    assert still["conjugate19"] == still["entropy19"] == still["norm19"] != still["source19"]


def test_its_loss_on_a_fixed_batch_falls():
    for loss in ("poly", "squared"):
        head, _ = fit(BASE, BASE, loss, 6.0)
        follow = functools.partial(conjugate, loss=loss, eps=6.0)
        ours = Adapting(BASE.copy(), head, 1e-3, loss=follow)
        x = BASE.pictures["test"][:50].float() / 255
        found = [float(follow(ours.step(x, "x"))) for _ in range(6)]
        assert found == sorted(found, reverse=True)


def test_what_statistics_undo_is_undone(subject):
    corrupted(subject, brighter)
    found = subject.judged_by(Conjugate(severities=5, batch=50)).metrics
    assert found["conjugate15"].value > found["source15"].value + 0.2


def test_encoder_is_left_as_it_was(subject):
    before = weights(BASE.encoder)
    subject.judged_by(Conjugate(severities=5, batch=25, lr=0.5))
    assert same(before, weights(BASE.encoder))
    assert all(p.grad is None and p.requires_grad for p in BASE.encoder.parameters())


def test_an_encoder_without_batch_norm_is_unsuited(subject):
    subject.encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 24))
    with pytest.raises(Unsuited, match="has no normalisation; use"):
        subject.judged_by(Conjugate())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch": 1}, "conjugate was given batch=1; statistics take at least 2"),
        ({"severities": 6}, "conjugate was given severities=6"),
        ({"loss": "squared", "eps": 2.0}, "conjugate was given eps=2.0, which is PolyLoss's"),
    ],
)
def test_bad_parameters_are_refused_with_what_would_work(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Conjugate(**settings)
