"""VAE: the bound of the likelihood, with nothing averaged that is to be summed."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from sslbench.api import DataInfo
from sslbench.methods.vae import VAE, divergence

from .helpers import Case, near, noise, with_gradients

SMALL = {"vae.width": 8}


def of_divergence(mean, logvar):
    return divergence(mean, logvar).sum()


def looped_divergence(mean, logvar):
    pairs = zip(mean.flatten(), logvar.flatten(), strict=True)
    return sum(0.5 * (m * m + v.exp() - v - 1) for m, v in pairs)


CASES = {"divergence": Case(of_divergence, [noise(4, 3), noise(4, 3, seed=1)], looped_divergence)}


# ---- the divergence --------------------------------------------------------------------------------


def test_the_divergence_of_the_card_and_of_the_prior_itself():
    near(divergence(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, -1.0]]))[0], 2.75830)
    near(divergence(torch.zeros(1, 7), torch.zeros(1, 7))[0], 0.0)


def test_the_divergence_is_that_of_torchs_distributions_and_of_many_samples():
    mean, logvar = noise(5, 4), noise(5, 4, seed=1)
    posterior = Independent(Normal(mean, (logvar / 2).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    torch.testing.assert_close(divergence(mean, logvar), kl_divergence(posterior, prior))
    torch.manual_seed(0)
    drawn = posterior.sample((200_000,))
    sampled = (posterior.log_prob(drawn) - prior.log_prob(drawn)).mean(0)
    torch.testing.assert_close(divergence(mean, logvar), sampled, rtol=0.01, atol=0.01)


def test_the_gradients_of_the_divergence():
    mean, logvar = noise(3, 4), noise(3, 4, seed=1)
    _, (by_mean, by_logvar) = with_gradients(of_divergence, [mean, logvar])
    torch.testing.assert_close(by_mean, mean)
    torch.testing.assert_close(by_logvar, (logvar.exp() - 1) / 2)


# ---- the likelihood --------------------------------------------------------------------------------


@pytest.fixture
def vae(made):
    def get(*, grey=False, **settings):
        backbone = made("untrained")
        return VAE(backbone, DataInfo("some", 32, 96, 10, grey=grey), width=8, **settings)

    return get


def test_a_bernoulli_likelihood_is_summed_over_pixels_and_channels(vae):
    out, x = noise(4, 3, 32, 32), torch.rand(4, 3, 32, 32)
    expected = -Bernoulli(logits=out, validate_args=False).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(vae().missed(out, x), expected)
    near(vae().missed(torch.zeros(1, 3, 32, 32), x[:1])[0], 3072 * math.log(2))


def test_a_gaussian_likelihood_is_a_density_summed_over_pixels_and_channels(vae):
    out, x = noise(4, 3, 32, 32), torch.rand(4, 3, 32, 32)
    expected = -Normal(torch.sigmoid(out), 0.2).log_prob(x).sum((1, 2, 3))
    found = vae(likelihood="gaussian", sigma=0.2).missed(out, x)
    torch.testing.assert_close(found, expected)


def test_a_grey_image_counts_once_and_not_for_each_of_its_channels(vae):
    out = noise(4, 1, 32, 32).expand(-1, 3, -1, -1)
    x = torch.rand(4, 1, 32, 32).expand(-1, 3, -1, -1)
    expected = -Bernoulli(logits=out, validate_args=False).log_prob(x)[:, 0].sum((1, 2))
    torch.testing.assert_close(vae(grey=True).missed(out, x), expected)


# ---- a step ----------------------------------------------------------------------------------------


def taken(method, batch, progress):
    torch.manual_seed(7)
    (update,) = method.step(batch._replace(progress=progress))
    return update._replace(log={key: value.detach() for key, value in update.log.items()})


def test_the_weight_of_the_divergence_rises_to_beta_in_the_share_asked_for(made, batch_of):
    method = made("vae", beta=4.0, anneal=0.2)
    batch = batch_of(method)
    for progress, share in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)):
        update = taken(method, batch, progress)
        kl, bound = update.log["kl"], update.log["bound"]
        near(update.loss / 100, float(bound + (4 * share - 1) * kl) / 100)
    at_once = made("vae", anneal=0.0)
    update = taken(at_once, batch, 0.0)
    near(update.loss, float(update.log["bound"]))


def test_the_bound_is_that_of_a_drawn_code_and_a_mean_over_images(made, batch_of):
    method = made("vae", likelihood="gaussian", sigma=0.5)
    batch = batch_of(method)
    found = taken(method, batch, 1.0)
    torch.manual_seed(7)
    with torch.no_grad():
        backbone, to_mean = method.encode
        h = backbone(batch.views)
        mean, logvar = to_mean(h), method.spread(h)
        code = mean + (logvar / 2).exp() * torch.randn_like(mean)
        out = torch.sigmoid(method.decoder(code))
    share = method.channels / 3  # a grey image counts once
    rows = [
        -share * Normal(one, 0.5).log_prob(x).sum()
        + kl_divergence(Normal(m, s), Normal(0.0, 1.0)).sum()
        for one, x, m, s in zip(out, batch.views, mean, (logvar / 2).exp(), strict=True)
    ]
    torch.testing.assert_close(found.log["bound"], sum(rows) / len(rows), rtol=1e-5, atol=1e-2)


def test_a_code_is_drawn_with_its_own_deviation(made, batch_of, monkeypatch):
    method, seen = made("vae"), []
    batch = batch_of(method)
    method.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    torch.manual_seed(1)
    torch.nn.init.normal_(method.spread.weight, std=0.05)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    taken(method, batch, 1.0)
    h = method.encode[0](batch.views)
    expected = method.encode[1](h) + (method.spread(h) / 2).exp()
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)


def test_a_variance_beyond_reason_stays_finite(made, batch_of):
    method = made("vae")
    torch.nn.init.constant_(method.spread.bias, 1e4)
    update = taken(method, batch_of(method), 1.0)
    assert update.loss.isfinite()
    each = update.log["kl"] / method.spread.out_features
    assert float(each) == pytest.approx((math.exp(10) - 11) / 2, rel=1e-3)


def test_what_is_judged_and_rebuilt_from_is_the_mean_and_draws_nothing(made):
    method, x = made("vae").eval(), torch.rand(3, 3, 32, 32)
    mean = method.encode[1](method.encode[0](x))
    assert torch.equal(method.encoder()(x), mean)
    rebuilt = method.reconstruct(x)
    assert torch.equal(rebuilt, torch.sigmoid(method.decoder(mean)))
    assert torch.equal(rebuilt, method.reconstruct(x))
    assert rebuilt.shape == x.shape
