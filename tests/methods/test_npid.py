"""NPID: a bank of old features, noise-contrastive estimation with a frozen Z."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.cells.parameters import anatomy
from sslbench.methods import npid
from sslbench.methods.npid import estimated_log_z, nce, similarity
from sslbench.train.optim import Optimisation

from .helpers import METHODS, Case, first_loss, near, noise, same, trained, units

PLAIN = {"npid": {"negatives": 0}}  # Z of the first of 96 images' batches misleads
N = 30


def of_nce(log_p):
    return nce(log_p, N)


def looped_nce(log_p):
    total, m = 0.0, log_p.shape[1] - 1
    for row in log_p:
        shares = [p.exp() / (p.exp() + m / N) for p in row]
        total = total - shares[0].log() - sum((1 - share).log() for share in shares[1:])
    return total / len(log_p)


CASES = {"nce": Case(of_nce, [noise(6, 5)], looped_nce)}


def features(method, batch):
    """[B, D] as the next step finds them."""
    return F.normalize(method.head(method.backbone(batch.views)), dim=1).detach()


# ---- the loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [50, 1_281_167])
def test_nce_where_all_images_are_as_likely(n):
    even = torch.full((3, 4097), -math.log(n))
    near(nce(even, n), 9.31789)
    near(nce(even, n), math.log(4097) + 4096 * math.log(1 + 1 / 4096))


def test_nce_falls_with_the_image_and_rises_with_the_noise():
    log_p = noise(4, 9).requires_grad_()
    (gradient,) = torch.autograd.grad(of_nce(log_p), log_p)
    assert (gradient[:, 0] < 0).all()
    assert (gradient[:, 1:] > 0).all()


def test_nce_does_not_mind_the_order_of_the_noise_but_which_is_the_image():
    log_p = noise(4, 9)
    same(of_nce(torch.cat([log_p[:, :1], log_p[:, 1:].flip(1)], dim=1)), of_nce(log_p))
    assert abs(float(of_nce(log_p.roll(1, 1)) - of_nce(log_p))) > 0.01


def test_nce_of_sure_answers_is_finite():
    sure = torch.tensor([[60.0, -90.0], [-90.0, 60.0]])
    near(nce(sure[:1], N), 0.0)
    near(nce(sure[1:], N), 150.0)


def test_z_is_estimated_as_n_times_the_mean_exponential():
    scores = noise(6, 7)
    near(estimated_log_z(scores, N), math.log(N * float(scores.exp().mean())))
    near(estimated_log_z(scores.expand(2, 6, 7) + 100, N) - 100, float(estimated_log_z(scores, N)))


@pytest.mark.parametrize("length", [40, 41])  # of banks on either side of where the road changes
def test_products_with_chosen_rows_are_the_same_by_either_road(length):
    v, bank = units(3, 4), units(length, 4, seed=1)
    rows = torch.randint(length, (3, 5))
    expected = [[float(v[i] @ bank[row]) for row in rows[i]] for i in range(3)]
    torch.testing.assert_close(similarity(v, bank, rows), torch.tensor(expected))


# ---- the step --------------------------------------------------------------------------------------


def test_the_loss_of_a_step_is_that_of_its_features_its_noise_and_z(made, batch_of, monkeypatch):
    method, drawn = made("npid", negatives=50, temperature=0.5), []
    whole = npid.similarity
    monkeypatch.setattr(npid, "similarity", lambda *x: drawn.append(x[2]) or whole(*x))
    batch = batch_of(method)
    bank, v = method.bank.clone(), features(method, batch)
    step, loss = first_loss(method, batch)
    (rows,) = drawn
    assert torch.equal(rows[:, 0], batch.index)
    scores = torch.einsum("bd,brd->br", v, bank[rows]) / 0.5
    log_z = math.log(96 * float(scores.exp().mean()))
    torch.testing.assert_close(loss.detach(), nce(scores - log_z, 96))
    assert next(step, None) is None
    near(method.log_z, log_z)


def test_noise_is_drawn_evenly_and_with_replacement(made, batch_of, monkeypatch):
    method, drawn = made("npid", negatives=3000), []
    whole = npid.similarity
    monkeypatch.setattr(npid, "similarity", lambda *x: drawn.append(x[2][:, 1:]) or whole(*x))
    first_loss(method, batch_of(method))
    counts = torch.bincount(drawn[0].flatten(), minlength=96)  # each 250 times
    assert len(counts) == 96
    assert (counts - 250).abs().max() < 5 * math.sqrt(250)
    assert (drawn[0][3] == 3).any()  # the image itself among its noise
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_z_is_that_of_the_first_batch_ever_after(made, batch_of):
    method = made("npid")
    assert method.log_z == -torch.inf
    first_loss(method, batch_of(method))
    assert method.log_z == -torch.inf  # not before the step is done
    trained(method, batch_of(method))
    first = method.log_z.clone()
    assert first.isfinite()
    trained(method, batch_of(method, seed=1))
    assert torch.equal(method.log_z, first)
    _, loss = first_loss(method, batch_of(method, seed=1))
    method.log_z.add_(3)  # and it is used
    _, other = first_loss(method, batch_of(method, seed=1))
    assert (other - loss).abs() > 0.1


def test_without_noise_it_is_the_softmax_over_all_images(made, batch_of):
    method = made("npid", negatives=0, temperature=0.1)
    batch = batch_of(method)._replace(index=torch.tensor([5, 90, 3, 17, 40, 0, 95, 8]))
    logs = (features(method, batch) @ method.bank.T / 0.1).log_softmax(1)
    _, loss = first_loss(method, batch)
    torch.testing.assert_close(loss.detach(), -logs[torch.arange(8), batch.index].mean())
    method.bank.copy_(method.bank[:1].expand(96, -1))
    near(first_loss(method, batch)[1], math.log(96))


@pytest.mark.parametrize("negatives", [0, 20])
def test_the_bank_takes_up_a_batchs_features_after_its_step_and_keeps_unit_rows(
    negatives, made, batch_of
):
    method, expected = made("npid", negatives=negatives, momentum_bank=0.7), None
    for seed in range(2):
        batch = batch_of(method, seed=seed)._replace(index=torch.arange(8) * (seed + 1))
        before, v = method.bank.clone(), features(method, batch)
        step, loss = first_loss(method, batch)
        assert torch.equal(method.bank, before)
        loss.backward()
        assert next(step, None) is None
        expected = before.clone()
        for row, i in zip(v, batch.index, strict=True):
            mixed = 0.7 * before[i] + 0.3 * row
            expected[i] = mixed / mixed.norm()
        torch.testing.assert_close(method.bank, expected)
        others = torch.ones(96, dtype=torch.bool).index_fill_(0, batch.index, False)
        assert torch.equal(method.bank[others], before[others])
    torch.testing.assert_close(method.bank[~others].norm(dim=1), torch.ones(8))
    assert not method.bank.requires_grad


def test_the_proximal_term_is_the_squared_distance_to_the_old_row(made, batch_of):
    method = made("npid", negatives=0, proximal=3.0)
    batch = batch_of(method)
    _, with_it = first_loss(method, batch)
    method.proximal = 0.0
    _, without = first_loss(method, batch)
    apart = (features(method, batch) - method.bank[batch.index]).square().sum(1).mean()
    torch.testing.assert_close(with_it - without, 3 * apart, rtol=1e-4, atol=1e-4)


# ---- what it is made of ----------------------------------------------------------------------------


def test_the_bank_starts_with_even_numbers_of_unit_rows_on_average_and_takes_4_bytes_each(made):
    bank = made("npid", dim=12).bank
    assert bank.shape == (96, 12)
    assert bank.numel() * bank.element_size() == 96 * 12 * 4
    assert 0.48 < float(bank.abs().max()) <= 0.5  # 1 / sqrt(12 / 3)
    assert float(bank.square().sum(1).mean()) == pytest.approx(1, abs=0.1)
    assert float(bank.norm(dim=1).std()) > 0.05  # none is normalised yet
    assert bank.mean().abs() < 0.05


def test_one_view_passes_one_linear_layer(made, batch_of):
    method = made("npid", dim=20)
    assert isinstance(method.head, torch.nn.Linear)
    assert batch_of(method).views.shape == (8, 3, 32, 32)
    assert method.encoder() is method.backbone


def test_the_loss_of_a_guess(made):
    near(torch.tensor(made("npid", negatives=4096).uniform()), 9.31789)
    near(torch.tensor(made("npid", negatives=0).uniform()), math.log(96))


def test_the_rate_falls_to_a_tenth_after_120_and_160_epochs(made):
    recipe = anatomy(METHODS["npid"]).recipe
    optimisation = Optimisation(made("npid"), recipe, steps_per_epoch=1)
    rates = [optimisation.set(epoch) for epoch in range(recipe.epochs)]
    assert [e for e in range(1, 200) if rates[e] < rates[e - 1]] == [120, 160]
    assert [rates[0], rates[120], rates[160]] == pytest.approx([0.03, 0.003, 0.0003])


class Given(torch.nn.Module):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def forward(self, _):
        return self.x


@pytest.mark.parametrize(("images", "columns"), [(8, 3), (100, 1)])  # all products, or only those
def test_products_with_the_bank_are_taken_in_float32(images, columns):
    v, bank = units(4, 16), units(images, 16, seed=1)
    rows = torch.randint(images, (4, columns))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarity(v, bank, rows)
    assert torch.equal(found, similarity(v, bank, rows))
    torch.testing.assert_close(found, (v[:, None] * bank[rows]).sum(2))


def test_the_exact_softmax_is_taken_in_float32(made, batch_of):
    method = made("npid", negatives=0)
    method.backbone, method.head = Given(noise(8, 64)), torch.nn.Identity()
    batch = batch_of(method)
    _, loss = first_loss(method, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, under = first_loss(method, batch)
    assert torch.equal(under, loss)
