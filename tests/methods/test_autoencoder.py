"""Autoencoder: a code that rebuilds, from the image or from what is left of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslbench.methods.autoencoder import damaged, squared_error

from .helpers import Case, first_loss, near, noise

SMALL = {"autoencoder.width": 8, "denoising-autoencoder.width": 8}


def looped_squared_error(rebuilt, x):
    pairs = list(zip(rebuilt.flatten(), x.flatten(), strict=True))
    return sum((a - b) ** 2 for a, b in pairs) / len(pairs)


CASES = {
    "squared_error": Case(
        squared_error,
        [noise(3, 3, 2, 2), noise(3, 3, 2, 2, seed=1)],
        looped_squared_error,
        swap=True,
    )
}


def test_the_error_is_the_mean_over_pixels_and_images():
    x = torch.rand(4, 3, 5, 5)
    near(squared_error(x + 0.5, x), 0.25)
    near(squared_error(x, x), 0.0)


def linear_residual(code):
    """The error that a linear autoencoder of so short a code ends with, on Gaussian data."""
    torch.manual_seed(0)
    deviations = torch.tensor([3.0, 2.0, 1.5, 1.0, 0.5, 0.2])
    x = torch.randn(500, 6) * deviations @ torch.linalg.qr(torch.randn(6, 6))[0]
    x = (x - x.mean(0))[:, :, None, None]  # as images of a pixel and six channels
    network = nn.Sequential(nn.Linear(6, code, bias=False), nn.Linear(code, 6, bias=False))
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = squared_error(network(x.flatten(1))[:, :, None, None], x)
        loss.backward()
        return loss

    optimizer.step(closure)
    eigenvalues = torch.linalg.eigvalsh(x.flatten(1).T @ x.flatten(1) / 500)  # rising
    return float(closure().detach()), float(eigenvalues[: 6 - code].sum() / 6)


@pytest.mark.parametrize("code", [1, 2, 4, 6])
def test_a_linear_autoencoder_ends_with_what_pca_leaves(code):
    found, left = linear_residual(code)
    assert found == pytest.approx(left, rel=1e-3, abs=1e-5)


def test_noise_has_the_deviation_asked_for_and_leaves_no_image_out():
    torch.manual_seed(0)
    x = torch.full((64, 3, 16, 16), 0.5)
    change = damaged(x, 0.3, 0.0) - x
    assert float(change.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(change.mean())) < 0.01
    assert (change.flatten(1).std(1) > 0.2).all()


def test_a_masked_pixel_is_black_in_all_channels_and_the_others_stay():
    torch.manual_seed(0)
    x = torch.rand(64, 3, 16, 16) + 0.1
    left = damaged(x, 0.0, 0.25)
    black = (left == 0).all(1)
    assert float(black.float().mean()) == pytest.approx(0.25, abs=0.01)
    kept = ~black[:, None].expand_as(x)
    assert torch.equal(left[kept], x[kept])
    assert damaged(x, 0.0, 0.0) is x


@pytest.mark.parametrize("settings", [{}, {"sigma": 0.4}, {"masked": 0.5}])
def test_what_is_to_be_rebuilt_is_the_clean_image(settings, made, batch_of):
    method = made("autoencoder", **settings)
    batch, seen = batch_of(method), []
    method.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    out = method.decoder.register_forward_hook(lambda module, args, found: seen.append(found))
    torch.manual_seed(3)
    loss = first_loss(method, batch)[1]
    out.remove()
    given, made_of_it = seen
    assert torch.equal(given, batch.views) == (not settings)
    near(loss, float((torch.sigmoid(made_of_it.detach()) - batch.views).square().mean()))


def test_noise_is_drawn_anew_in_each_step(made, batch_of):
    method = made("autoencoder", sigma=0.5)
    batch, seen = batch_of(method), []
    method.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for _ in range(2):
        first_loss(method, batch)
    assert not torch.equal(*seen)


def test_images_are_rebuilt_at_their_size_within_their_range_and_without_noise(made):
    method, x = made("autoencoder", sigma=0.5).eval(), torch.rand(3, 3, 32, 32)
    rebuilt = method.reconstruct(x).detach()
    assert rebuilt.shape == x.shape
    assert 0 < rebuilt.min() < rebuilt.max() < 1
    assert torch.equal(method.reconstruct(x), rebuilt)


def test_what_is_judged_is_the_backbone_and_a_whole_mask_is_refused(made):
    method = made("denoising-autoencoder")
    assert method.encoder() is method.backbone
    assert (method.masked, method.sigma) == (0.25, 0.0)
    with pytest.raises(ValueError, match=r"masked=1 leaves nothing .* a smaller share"):
        made("autoencoder", masked=1.0)
