"""VQ-VAE: who is nearest, who moves on which term, and how the book follows."""

from __future__ import annotations

import math

import pytest
import torch

from sslbench.api import Batch, DataInfo
from sslbench.backbones.timm import create
from sslbench.methods.vq_vae import (
    EPS,
    VQVAE,
    drawn,
    level_of,
    nearest,
    perplexity,
    straight_through,
)

from .helpers import Case, Lent, near, noise

SMALL = {"vq-vae.width": 8}


def both_drawn(z, chosen):
    return drawn(z, chosen, 0.25, both=True)


def looped_drawn(z, chosen):
    total = 0
    for a, b in zip(z.flatten(), chosen.flatten(), strict=True):
        total = total + 0.25 * (a - b.detach()) ** 2 + (a.detach() - b) ** 2
    return total / z.numel()


CASES = {
    "drawn": Case(both_drawn, [noise(3, 4), noise(3, 4, seed=1)], looped_drawn),
}
INFO = DataInfo("some", 32, 96, 10)


def vq_vae(made, **settings):
    return VQVAE(made("untrained"), INFO, **{"codes": 12, "dim": 5, "width": 8, **settings})


# ---- the nearest code ------------------------------------------------------------------------------


def test_the_nearest_code_is_that_of_least_distance(monkeypatch):
    z, book = noise(3, 4, 4, 6), noise(9, 6, seed=1)
    expected = torch.cdist(z.flatten(0, 2), book).argmin(1).view(3, 4, 4)
    assert torch.equal(nearest(z, book), expected)
    monkeypatch.setattr("sslbench.methods.vq_vae.ROWS", 7)  # in parts: the same
    assert torch.equal(nearest(z, book), expected)


def test_the_gradient_passes_straight_through_to_the_bit():
    z, chosen = noise(4, 6).requires_grad_(), noise(4, 6, seed=1).requires_grad_()
    weights = noise(4, 6, seed=2)
    passed = straight_through(z, chosen)
    torch.testing.assert_close(passed, chosen)
    (passed.tanh() * weights).sum().backward()
    direct = passed.detach().requires_grad_()
    (direct.tanh() * weights).sum().backward()
    assert torch.equal(z.grad, direct.grad)
    assert chosen.grad is None


# ---- the loss --------------------------------------------------------------------------------------


def parts(method, x):
    """Update, and by hand: error, distance of vectors and codes."""
    torch.manual_seed(0)
    update = next(method.step(Batch(x, torch.arange(len(x)), torch.arange(len(x)), 0, 0.0)))
    z = method.vectors(x)
    chosen = method.book[nearest(z, method.book)]
    return update, float((z - chosen).detach().square().mean())


@pytest.mark.parametrize("average", [True, False])
def test_the_loss_is_the_error_over_the_variance_and_a_quarter_of_the_commitment(made, average):
    method, x = vq_vae(made, average=average), torch.rand(4, 3, 32, 32)
    method.variance.fill_(0.25)
    update, apart = parts(method, x)
    share = 0.25 if average else 1.25  # the codes' own term has the same value
    near(update.loss, float(update.log["mse"].detach()) / 0.25 + share * apart)
    chosen = method.book[nearest(method.vectors(x), method.book)]
    out = 0.5 + method.decoder(chosen.movedim(-1, 1))
    near(update.log["mse"].detach(), float((out - x).square().mean().detach()))


def gradients_of(method, x, what):
    update, _ = parts(method, x)
    return torch.autograd.grad(update.loss, what, allow_unused=True)


def test_each_term_moves_its_own_side(made):
    x = torch.rand(4, 3, 32, 32)
    method = vq_vae(made, average=False, beta=0.0)
    method.variance.fill_(torch.inf)  # no error: what is left pulls codes alone
    encoder, book = gradients_of(method, x, [method.to_code.weight, method.book])
    assert not encoder.any()
    assert book.abs().max() > 1e-4
    method = vq_vae(made, average=True, beta=0.25)
    method.variance.fill_(torch.inf)
    assert gradients_of(method, x, [method.to_code.weight])[0].abs().max() > 1e-5
    assert not method.book.requires_grad
    method = vq_vae(made, average=False, beta=0.0)
    with_codes = gradients_of(method, x, [method.book])[0]
    method.variance.fill_(torch.inf)  # the error gives codes nothing
    torch.testing.assert_close(gradients_of(method, x, [method.book])[0], with_codes)


def test_the_variance_is_that_of_all_pixels_of_the_data(made):
    method, x = vq_vae(made), torch.rand(50, 3, 8, 8)
    run = Lent()
    run.features = lambda encoder: encoder(x)
    method.fit(run)
    near(method.variance, float(x.var(correction=0)))


def gathered(z, index):
    """[12, D + 1]: of each of 12 codes the sum of its vectors, and how many they are."""
    one_hot = torch.eye(12)[index]
    return torch.cat([one_hot.T @ z, one_hot.sum(0)[:, None]], 1)


# ---- the book --------------------------------------------------------------------------------------


def test_perplexity_counts_the_codes_that_are_used_equally():
    near(perplexity(torch.full((7,), 3.0)), 7.0)
    near(perplexity(torch.tensor([5.0, 0, 0])), 1.0)
    near(perplexity(torch.tensor([1.0, 1, 2])), math.exp(1.5 * math.log(2)))


def test_without_memory_a_step_is_one_of_k_means(made):
    method, z = vq_vae(made, memory=0.0), noise(200, 5)
    before = method.book.clone()
    index = torch.cdist(z, before).argmin(1)
    method.follow(z, gathered(z, index))
    for k in range(12):
        own = z[index == k]
        expected = own.mean(0) if len(own) else before[k]
        torch.testing.assert_close(method.book[k].detach(), expected, rtol=1e-4, atol=1e-4)


def test_codes_start_evenly_and_of_variance_one_over_all_their_numbers(made):
    method = made("vq-vae", codes=64, dim=32)
    dim = method.book.shape[1]
    bound = math.sqrt(3 / dim)  # of a uniform number whose variance is 1 / dim
    assert 0.98 * bound < float(method.book.abs().max()) <= bound
    assert float(method.book.square().sum(1).mean()) == pytest.approx(1.0, rel=0.1)


def test_averages_are_those_of_the_card_with_the_start_corrected(made):
    method, steps = vq_vae(made, memory=0.9), 4
    hidden_n, hidden_m = torch.zeros(12), torch.zeros(12, 5)
    for t in range(1, steps + 1):
        z = noise(100, 5, seed=t)
        index = torch.randint(12, (100,))
        one_hot = torch.eye(12)[index]
        method.follow(z, gathered(z, index))
        hidden_n = 0.9 * hidden_n + 0.1 * one_hot.sum(0)
        hidden_m = 0.9 * hidden_m + 0.1 * one_hot.T @ z
    n, m = hidden_n / (1 - 0.9**steps), hidden_m / (1 - 0.9**steps)
    n = (n + 1e-5) / (n.sum() + 12 * 1e-5) * n.sum()
    torch.testing.assert_close(method.book.detach(), m / n[:, None], rtol=1e-4, atol=1e-5)
    assert EPS == 1e-5


def test_a_code_that_none_ever_chose_stays_or_starts_anew_at_a_vector(made):
    z, index = noise(50, 5) + 9, torch.zeros(50, dtype=torch.long)
    method = vq_vae(made)
    before = method.book.clone()
    method.follow(z, gathered(z, index))
    assert torch.equal(method.book[1:], before[1:])
    method = vq_vae(made, restart=1.0)
    method.follow(z, gathered(z, index))
    there = (method.book.detach()[1:, None] == z).all(2)  # [K - 1, 50]
    assert there.any(1).all()
    assert there.any(0).sum() > 3  # and not all at the same one
    torch.testing.assert_close(method.book.detach()[0], z.mean(0), rtol=1e-4, atol=1e-4)
    moved = method.book.clone()
    index = torch.arange(50) % 12  # all are used: none starts anew
    z = moved[index].detach()
    method.follow(z, gathered(z, index))
    torch.testing.assert_close(method.book[1:], moved[1:], rtol=1e-3, atol=1e-3)


def test_a_book_that_learns_by_its_loss_is_not_moved_by_averages(made):
    method = vq_vae(made, average=False)
    before = method.book.clone()
    z = noise(50, 5)
    method.follow(z, gathered(z, torch.zeros(50, dtype=torch.long)))
    assert torch.equal(method.book, before)
    assert method.book.requires_grad


# ---- where codes stand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [("test_resnet", 32, (1, 8)), ("test_resnet", 28, (1, 7)), ("resnet10t", 64, (1, 16))],
)
def test_codes_stand_on_the_deepest_map_of_a_quarter_of_the_side(name, size, expected):
    assert level_of(create(name, size=size), size, 4) == expected


def test_what_is_judged_is_the_mean_of_that_map(made):
    method, x = vq_vae(made).eval(), torch.rand(2, 3, 32, 32)
    assert method.encoder() is method.backbone
    torch.testing.assert_close(method.backbone(x), method.backbone.maps(x)[-1].mean((2, 3)))
    rebuilt = method.reconstruct(x)
    assert rebuilt.shape == x.shape
    assert 0 <= rebuilt.min() <= rebuilt.max() <= 1


def test_a_book_larger_than_the_data_and_patches_too_coarse_are_refused(made):
    few = DataInfo("few", 32, 2, 10)
    with pytest.raises(ValueError, match=r"codes=129 are more than the 128 vectors of 2 images"):
        VQVAE(made("untrained"), few, codes=129)
    vit = create("test_vit", size=32, patch_size=16)
    with pytest.raises(
        ValueError, match=r"4 x 4 of 32 pixels, .* maps of 2 to 2 a side; set a stride near 16"
    ):
        VQVAE(vit, INFO)
    assert (
        VQVAE(create("test_vit", size=32, patch_size=4), INFO, codes=9).decoder[0].in_channels == 64
    )


def test_a_network_that_cannot_be_cut_is_refused_in_a_sentence(monkeypatch):
    network = create("test_resnet", size=32)
    assert VQVAE.needs(network, INFO) is None
    monkeypatch.delattr(type(network.net), "prune_intermediate_layers")
    assert "test_resnet cannot be cut after one" in VQVAE.needs(network, INFO)
