"""Shared parts against naive loops and the constants of their papers."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from pretending import where_it_works
from sklearn.datasets import load_digits
from torch import nn

from sslbench.nn import (
    PooledMaps,
    copy_frozen,
    decoder,
    deepest,
    ema,
    in_parts,
    mixup,
    mlp,
    normalised,
    sincos,
    sinkhorn,
    taken,
    unrecorded,
    warm,
)
from sslbench.testing.pretend_cuda import pretend_cuda


def kinds(module):
    return [type(layer).__name__ for layer in module]


def test_a_simclr_head_has_a_norm_after_every_layer_and_no_bias_before_one():
    head = mlp(6, 5, 4, last_norm=True)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert head[0].bias is None
    assert head[3].bias is None
    assert head(torch.randn(8, 6)).shape == (8, 4)


def test_a_moco_head_has_no_norm_and_a_swav_head_one_on_the_hidden_layer_only():
    moco, swav = mlp(6, 5, 4, norm=False), mlp(6, 5, 4)
    assert kinds(moco) == ["Linear", "ReLU", "Linear"]
    assert kinds(swav) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert moco[0].bias is not None
    assert swav[0].bias is None
    assert swav[3].bias is not None


def test_the_last_norm_of_an_mlp_may_keep_its_shift_at_zero():
    still, plain = mlp(6, 5, 4, last_norm=True, last_shift=False), mlp(6, 5, 4, last_norm=True)
    assert [p.requires_grad for p in still[-1].parameters()] == [True, False]
    assert all(p.requires_grad for p in [*plain.parameters(), *still[:-1].parameters()])
    assert mlp(6, 5, 4, last_norm=True, last_affine=False, last_shift=False)[-1].bias is None


def test_an_mlp_of_two_widths_is_one_layer_and_of_one_width_an_error():
    assert kinds(mlp(6, 4)) == ["Linear"]
    with pytest.raises(ValueError, match="at least two widths"):
        mlp(6)


@pytest.mark.parametrize("buffers", ["copy", "keep"])
def test_ema_moves_parameters_by_the_formula_and_copies_buffers_or_leaves_them(buffers):
    torch.manual_seed(0)
    online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    target = copy_frozen(online)
    before = copy.deepcopy(target.state_dict())
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(torch.randn_like(parameter))
    online(torch.randn(5, 3))  # moves the running statistics
    ema(target, online, 0.9, buffers=buffers)
    for name, now in target.named_parameters():
        expected = before[name] * 0.9 + online.get_parameter(name).detach() * (1 - 0.9)
        torch.testing.assert_close(now, expected)
    for name, now in target.named_buffers():
        assert torch.equal(now, online.get_buffer(name) if buffers == "copy" else before[name])
        assert not torch.equal(online.get_buffer(name), before[name])


def accuracy(network, images, labels):
    return float((network.eval()(images).argmax(1) == labels).float().mean())


def test_an_average_that_is_judged_needs_the_statistics_of_norms():
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float().div(16).view(-1, 1, 8, 8)
    torch.manual_seed(2)
    online = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    plain, kept = copy_frozen(online), copy_frozen(online)
    optimizer = torch.optim.SGD(online.parameters(), 1.0)
    for _ in range(25):
        some = torch.randint(1300, (64,))
        optimizer.zero_grad()
        F.cross_entropy(online(images[some]), labels[some]).backward()
        optimizer.step()
        ema(plain, online, 0.8)
        ema(kept, online, 0.8, buffers="keep")
    unseen = images[1300:], labels[1300:]
    assert accuracy(kept, *unseen) < 0.25  # chance, or little more
    assert accuracy(plain, *unseen) > 0.5


def test_an_average_is_warmed_up_until_its_momentum_is_reached():
    found = [warm(0.9, steps) for steps in (0, 1, 8, 80, 81, 1000)]
    assert found == pytest.approx([1 / 10, 2 / 11, 9 / 18, 0.9, 0.9, 0.9])
    assert warm(0.999, 80) == pytest.approx(0.9)
    assert warm(0.0, 5) == 0.0
    on_device = [warm(0.9, torch.tensor(steps)) for steps in (0, 1, 8, 80, 81, 1000)]
    assert [float(each) for each in on_device] == pytest.approx(found)


def test_an_average_takes_its_momentum_as_a_number_on_the_device():
    online, plain = nn.Linear(3, 4), nn.Linear(3, 4)
    other = copy.deepcopy(plain)
    ema(plain, online, 0.7)
    ema(other, online, torch.tensor(0.7))
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_a_momentum_on_the_device_gives_the_average_of_one_on_the_host():
    online, one = nn.Linear(3, 4), nn.Linear(3, 4)
    other = copy.deepcopy(one)
    for steps in (0, 1, 5, 10_000):
        known = warm(0.99, steps)
        found = warm(0.99, torch.tensor(steps))
        assert isinstance(found, torch.Tensor)
        assert float(found) == pytest.approx(known)
        ema(one, online, known)
        ema(other, online, found)
        for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_unrecorded_batches_are_normed_by_themselves_and_leave_no_trace():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    own = nn.BatchNorm1d(3, track_running_stats=False)
    network.append(own)
    x = torch.randn(8, 4)
    before = copy.deepcopy(network.state_dict())
    with unrecorded(network):
        hidden = network(x)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    torch.testing.assert_close(hidden, network(x))
    assert not torch.equal(network[1].running_mean, before["1.running_mean"])
    assert not own.track_running_stats
    with pytest.raises(RuntimeError, match="x"), unrecorded(network):
        raise RuntimeError("x")
    assert network[1].track_running_stats


# ---- few labels ----------------------------------------------------------------------------


def test_each_image_is_mixed_in_a_share_of_its_own_of_at_least_a_half():
    torch.manual_seed(0)
    x = torch.eye(400)
    mixed, target = mixup(x.view(400, 1, 20, 20), x, 0.75, each=True)
    assert torch.equal(mixed.flatten(1), target)  # images and labels alike
    torch.testing.assert_close(target.sum(1), torch.ones(400))
    share = target.diagonal()
    assert share.min() >= 0.5
    draws = torch.distributions.Beta(0.75, 0.75).sample((100_000,))
    draws = torch.maximum(draws, 1 - draws)
    moved = share[share < 1]
    for quantile in (0.25, 0.5, 0.75):
        assert float(moved.quantile(quantile)) == pytest.approx(
            float(draws.quantile(quantile)), abs=0.05
        )
    partner = (target - share.diag()).argmax(1)[share < 1]
    assert len(partner.unique()) == len(partner)  # a permutation


def test_without_a_share_of_its_own_each_is_mixed_alike():
    torch.manual_seed(0)
    _, target = mixup(torch.eye(50), torch.eye(50), 4.0)
    share = target.diagonal()[target.diagonal() < 1]
    assert float(share.max() - share.min()) < 1e-6


def test_nothing_is_mixed_where_the_share_is_one(monkeypatch):
    class Ones(torch.distributions.Beta):
        def sample(self, shape=()):
            return torch.ones(shape)

    monkeypatch.setattr(torch.distributions, "Beta", Ones)
    x, target = torch.rand(5, 3, 4, 4), torch.rand(5, 7)
    for each in (True, False):
        found = mixup(x, target, 0.75, each=each)
        assert torch.equal(found[0], x)
        assert torch.equal(found[1], target)


def test_a_momentum_may_be_a_number_on_the_device():
    online, target = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    with torch.no_grad():
        online.weight.copy_(torch.randn(4))
        online.running_mean.copy_(torch.randn(4))
    other = copy.deepcopy(target)
    ema(target, online, 0.7)
    ema(other, online, torch.tensor(0.7))
    for one, two in zip(target.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two)


def test_passes_may_leave_running_statistics_as_they_are():
    frozen = nn.BatchNorm1d(3, track_running_stats=False)
    network, other = nn.Sequential(nn.BatchNorm1d(3), frozen), nn.BatchNorm1d(3)
    before = copy.deepcopy([network.state_dict(), other.state_dict()])
    x = 5 + torch.randn(8, 3)
    plain = copy.deepcopy(network)(x)
    with unrecorded(network, other):
        assert torch.equal(network(x), plain)  # by the statistics of the batch, as in training
        other(x)
    for module, old in zip((network, other), before, strict=True):
        assert all(torch.equal(value, old[key]) for key, value in module.state_dict().items())
    assert [m.track_running_stats for m in (*network, other)] == [True, False, True]
    other(x)
    assert other.num_batches_tracked == 1


def test_ema_of_momentum_one_changes_nothing_and_of_zero_copies():
    online, target = nn.Linear(3, 4), nn.Linear(3, 4)
    before = copy.deepcopy(target.state_dict())
    ema(target, online, 1.0)
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())
    ema(target, online, 0.0)
    assert all(
        torch.equal(p, q) for p, q in zip(target.parameters(), online.parameters(), strict=True)
    )


def test_ema_refuses_networks_of_other_shapes():
    with pytest.raises(ValueError, match="same parameters"):
        ema(nn.Linear(3, 4), nn.Linear(4, 3), 0.9)
    with_norm, without = nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False)
    with pytest.raises(ValueError, match='pass buffers="keep"'):
        ema(with_norm, without, 0.9)
    ema(with_norm, without, 0.9, buffers="keep")
    with pytest.raises(ValueError, match="'copy' or 'keep', got 'mean'"):
        ema(with_norm, with_norm, 0.9, buffers="mean")


def test_a_frozen_copy_shares_nothing_takes_no_gradient_and_keeps_its_mode():
    for mode in (True, False):
        online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train(mode)
        target = copy_frozen(online)
        assert target.training is mode
        assert not any(p.requires_grad for p in target.parameters())
        assert all(p.requires_grad for p in online.parameters())
        assert target[0].weight.data_ptr() != online[0].weight.data_ptr()


def naive_codes(scores, eps, iterations):
    """SwAV's appendix, one number at a time, in double precision."""
    images, prototypes = scores.shape
    q = [[math.exp(float(scores[b, k]) / eps) for k in range(prototypes)] for b in range(images)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        for k in range(prototypes):
            mass = sum(q[b][k] for b in range(images)) * prototypes
            for b in range(images):
                q[b][k] /= mass
        for b in range(images):
            mass = sum(q[b]) * images
            q[b] = [value / mass for value in q[b]]
    return torch.tensor([[value * images for value in row] for row in q])


@pytest.mark.parametrize("iterations", [1, 2, 3, 10])
def test_codes_are_those_of_the_naive_algorithm(iterations):
    scores = torch.rand(12, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = sinkhorn(scores, iterations=iterations)
    expected = naive_codes(scores, 0.05, iterations)
    torch.testing.assert_close(codes, expected.float(), rtol=1e-4, atol=1e-6)


def cosines(images=256, prototypes=20, dim=128):
    generator = torch.Generator().manual_seed(0)
    z = normalised(torch.randn(images, dim, generator=generator))
    return z @ normalised(torch.randn(prototypes, dim, generator=generator)).T


def test_every_code_sums_to_one_and_prototypes_share_the_images_evenly():
    scores = cosines()
    codes = sinkhorn(scores)
    torch.testing.assert_close(codes.sum(1), torch.ones(256), rtol=0, atol=5e-7)
    share = codes.sum(0) * 20 / 256
    assert 0.70 < share.min() < share.max() < 1.27
    share = sinkhorn(scores, iterations=50).sum(0) * 20 / 256
    assert (share - 1).abs().max() < 1e-6


def test_a_large_eps_gives_uniform_codes():
    codes = sinkhorn(cosines(), eps=1e4)
    torch.testing.assert_close(codes, torch.full_like(codes, 1 / 20), rtol=1e-4, atol=0)


def test_permuting_images_or_prototypes_permutes_codes():
    scores, rows, columns = cosines(), torch.randperm(256), torch.randperm(20)
    codes = sinkhorn(scores)
    torch.testing.assert_close(sinkhorn(scores[rows]), codes[rows])
    torch.testing.assert_close(sinkhorn(scores[:, columns]), codes[:, columns])


@pytest.mark.parametrize("spread", [1e2, 1e4, 1e6])
def test_codes_stay_finite_however_far_scores_lie_apart(spread):
    scores = cosines() * spread
    scores[0] -= 10 * spread  # an image far from every prototype
    scores[:, 0] -= 10 * spread  # a prototype far from every image
    codes = sinkhorn(scores, iterations=20)
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(1), torch.ones(256))


def test_codes_are_float32_without_gradient_whatever_comes_in():
    scores = cosines().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = sinkhorn(scores)
    assert codes.dtype == torch.float32
    assert not codes.requires_grad
    torch.testing.assert_close(codes, sinkhorn(scores.detach().float()))
    with pytest.raises(ValueError, match=r"\[B, K\]"):
        sinkhorn(torch.zeros(3))


def test_normalised_rows_have_unit_length_in_float32_even_under_autocast():
    x = torch.randn(4, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = normalised(x.bfloat16())
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(normalised(x), x / x.pow(2).sum(1, keepdim=True).sqrt())


def test_parts_pass_as_one_on_a_device_with_the_statistics_of_each():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 5),
        nn.BatchNorm1d(5, affine=False),
    )
    x = torch.randn(64, 3, 6, 6)
    here, there = copy.deepcopy(net), copy.deepcopy(net)
    expected = in_parts(here, x, 8)
    with where_it_works(), pretend_cuda():
        found = in_parts(there.to("cuda"), x.to("cuda"), 8).cpu()
        buffers = [b.cpu() for b in there.buffers()]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for mine, theirs in zip(buffers, here.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    assert (expected - net(x)).abs().max() > 1e-2  # all as one have other statistics


# ---- tokens --------------------------------------------------------------------------------------


def test_positions_are_sines_and_cosines_of_row_and_column():
    table = sincos((3, 5), 16)
    assert table.shape == (15, 16)
    for row in range(3):
        for column in range(5):
            for k in range(4):
                wave = 10_000 ** -(k / 4)
                expected = [
                    f(place * wave) for f in (math.sin, math.cos) for place in (row, column)
                ]
                found = table[row * 5 + column, k::4].tolist()
                assert found == pytest.approx(expected, abs=1e-6)


def test_positions_have_the_values_of_timms():
    from timm.layers import build_sincos2d_pos_embed

    theirs = build_sincos2d_pos_embed([3, 5], dim=16)
    torch.testing.assert_close(sincos((3, 5), 16), theirs, rtol=0, atol=1e-6)


def test_a_width_that_four_waves_do_not_share_is_a_sentence():
    with pytest.raises(ValueError, match="a width of a multiple of 4, got 18"):
        sincos((2, 2), 18)


def test_tokens_are_taken_from_each_image_at_its_own_places():
    tokens, places = torch.rand(2, 5, 3), torch.tensor([[4, 0], [1, 1]])
    found = taken(tokens, places)
    assert torch.equal(found[0], tokens[0, [4, 0]])
    assert torch.equal(found[1], tokens[1, [1, 1]])


# ---- pictures from vectors and maps ----------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 6, 8, 28, 30, 32, 64, 96, 224])
def test_a_decoder_makes_images_of_any_even_side_of_a_vector_and_of_a_map(size):
    with torch.no_grad():
        assert decoder(5, size, width=2).eval()(torch.randn(2, 5)).shape == (2, 3, size, size)
        for side in {max(1, size // 4), size // 2, 3}:
            made = decoder(5, size, side=side, width=2).eval()(torch.randn(2, 5, side, side))
            assert made.shape == (2, 3, size, size)


def test_stages_of_a_decoder_double_the_side_and_only_the_last_layer_has_no_norm():
    network, sides = decoder(7, 28, width=4), []
    for layer in network:
        layer.register_forward_hook(lambda module, args, out: sides.append(out.shape[-1]))
    network(torch.randn(2, 7))
    assert [*dict.fromkeys(sides[1:])] == [4, 7, 14, 28]
    assert kinds(network)[-2:] == ["ReLU", "Conv2d"]
    convolutions = [m for m in network if isinstance(m, nn.Conv2d)]
    assert [m.in_channels for m in convolutions] == [32, 16, 8, 4]
    assert [m.bias is None for m in convolutions] == [True, True, True, False]
    assert kinds(network).count("BatchNorm2d") == 4


def test_a_decoder_of_a_flat_map_draws_no_checkerboard():
    """Within the border every pixel of a constant map comes out alike, whatever the weights."""
    torch.manual_seed(0)
    out = decoder(6, 32, side=8, width=4).eval()(torch.randn(1, 6, 1, 1).expand(1, 6, 8, 8))
    inner = out[:, :, 12:20, 12:20]
    torch.testing.assert_close(inner, inner[:, :, :1, :1].expand_as(inner), rtol=1e-4, atol=1e-5)


def test_pooled_maps_are_the_largest_of_each_cell_and_small_maps_stay_as_they_are():
    class Maps(nn.Module):
        def maps(self, x):
            return [x, x[:, :2, :2, :2]]

    x = torch.randn(3, 5, 8, 8)
    found = PooledMaps(Maps(), 4)(x)
    assert found.shape == (3, 5 * 16 + 2 * 4)
    cell = x.view(3, 5, 4, 2, 4, 2).amax((3, 5))
    assert torch.equal(found, torch.cat([cell.flatten(1), x[:, :2, :2, :2].flatten(1)], 1))


@pytest.mark.parametrize(
    ("side", "level"), [(1, 3), (2, 3), (3, 2), (4, 2), (4.5, 1), (8, 1), (9, 0), (99, 0)]
)
def test_the_deepest_map_that_is_large_enough(side, level):
    shapes = [(8, 16, 16), (16, 8, 9), (32, 4, 4), (64, 2, 2)]
    assert deepest(shapes, side) == level
    assert deepest([(8, 14, 14)] * 12, side) == 11  # of a ViT's, all of one size
