"""I-JEPA: a context foretells an average's features of blocks."""

from __future__ import annotations

import pytest
import torch

from sslbench.api import DataInfo
from sslbench.methods.i_jepa import IJEPA, missed
from sslbench.nn import sincos, taken

from .helpers import METHODS, Case, first_loss, near, noise, same, trained

SMALL = {"i-jepa.predictor_depth": 2, "i-jepa.predictor_dim": 48, "i-jepa.predictor_heads": 4}
BACKBONES = {"i-jepa": "test_vit[patch_size=8]", "i-jepa-imagenet": "test_vit[patch_size=8]"}
B, M, K, D = 4, 2, 3, 5


# ---- the loss --------------------------------------------------------------------------------------


def looped_missed(guess, wanted):
    total = 0.0
    for b in range(len(guess)):
        for m in range(M):
            for k in range(K):
                row = [*wanted[b, m, k]]
                mean = sum(row) / D
                variance = sum((x - mean) ** 2 for x in row) / D + 1e-5
                for d in range(D):
                    gap = abs(guess[b, m, k, d] - (row[d] - mean) / variance**0.5)
                    total = total + (0.5 * gap**2 if gap < 1 else gap - 0.5)
    return total / (len(guess) * M * K * D)


CASES = {"missed": Case(missed, [noise(B, M, K, D), 2 * noise(B, M, K, D, seed=1)], looped_missed)}


def test_errors_are_squared_below_one_and_linear_above():
    wanted = torch.tensor([[1.0, -1.0]]).expand(3, 2)  # of deviation 1, but for 1e-5
    near(missed(wanted, 7 * wanted + 3), 0.0)
    near(missed(wanted + 0.5, wanted), 0.125)
    near(missed(wanted - 4.0, wanted), 3.5)


# ---- what is seen ----------------------------------------------------------------------------------


def hand_made(method, batch):
    """The loss image by image and block by block."""
    x, context, targets = batch.views
    losses = []
    for b in range(len(x)):
        whole = method.target.attend(method.target.tokens(x[b : b + 1]))[0, 1:]
        tokens = method.online.tokens(x[b : b + 1])[0]
        seen = method.online.attend(torch.cat([tokens[:1], tokens[1:][context[b]]])[None])[0, 1:]
        p = method.predictor
        for block in targets[b]:
            known = p.narrow(seen) + p.positions[context[b]]
            both = torch.cat([known, p.blank[0] + p.positions[block]])
            guess = p.wide(p.blocks(both[None])[0, len(context[b]) :])
            losses.append(missed(guess, whole[block]))
    return torch.stack(losses).mean()


def test_each_block_is_foretold_from_the_context_alone(made, batch_of):
    method = made("i-jepa")
    with torch.no_grad():
        for p in method.online.parameters():
            p.add_(0.05 * torch.randn_like(p))  # so that target and online differ
    batch = batch_of(method)
    same(first_loss(method, batch)[1], hand_made(method, batch))


def test_pixels_outside_the_context_reach_the_loss_through_the_target_alone(made, batch_of):
    method = made("i-jepa")
    x, context, targets = batch_of(method).views
    x = x.clone().requires_grad_()
    first, tokens = method.online.tokens(x).tensor_split([1], 1)
    seen = method.online.attend(torch.cat([first, taken(tokens, context)], 1))[:, 1:]
    method.predictor(seen, context, targets).square().sum().backward()
    moved = x.grad.unfold(2, 8, 8).unfold(3, 8, 8).abs().amax((1, 4, 5)).flatten(1)  # [B, T]
    inside = torch.zeros_like(moved, dtype=torch.bool).scatter(1, context, True)
    assert (moved[inside] > 0).all()
    assert not moved[~inside].any()


def test_guesses_know_where_they_are_and_of_no_other_block(made, batch_of):
    method = made("i-jepa")
    _, context, targets = batch_of(method).views
    seen, p = noise(8, context.shape[1], 64), method.predictor
    guess = p(seen, context, targets)
    assert guess.shape == (*targets.shape, 64)
    same(p(seen, context, targets[:, 1:3]), guess[:, 1:3])
    moved = p(seen, context, (targets + 1) % 16)
    assert (moved - guess).abs().amax((2, 3)).min() > 1e-4


def test_gradients_reach_all_but_the_target_and_the_positions(made, batch_of):
    method = made("i-jepa")
    first_loss(method, batch_of(method))[1].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())
    for part in (method.online, method.predictor):
        lacking = [name for name, p in part.named_parameters() if p.grad is None]
        assert lacking in ([], ["net.pos_embed"])
    assert method.predictor.blank.grad.abs().max() > 0


def test_positions_are_fixed_waves_in_all_three(made, batch_of):
    method = made("i-jepa")
    trained(method, batch_of(method))
    for network in (method.online, method.target):
        torch.testing.assert_close(network.net.pos_embed[0, 1:], sincos((4, 4), 64))
    assert torch.equal(method.predictor.positions, sincos((4, 4), 48))


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.75])
def test_the_momentum_rises_along_a_line(progress, made, batch_of):
    method = made("i-jepa", momentum_target=0.6)
    before = [p.clone() for p in method.target.parameters()]
    trained(method, batch_of(method)._replace(progress=progress))
    momentum = 0.6 + 0.4 * progress
    for old, target, online in zip(
        before, method.target.parameters(), method.online.parameters(), strict=True
    ):
        same(target, momentum * old + (1 - momentum) * online.detach())


# ---- what comes of it ------------------------------------------------------------------------------


def test_the_mean_of_the_targets_tokens_is_judged(made):
    method, x = made("i-jepa").eval(), torch.rand(3, 3, 32, 32)
    expected = method.target.attend(method.target.tokens(x))[:, 1:].mean(1)
    with torch.no_grad():
        for p in method.online.parameters():
            p.zero_()
    assert torch.equal(method.encoder()(x), expected)
    assert expected.shape == (3, 64)


def test_images_are_cropped_and_not_mirrored(made):
    view = made("i-jepa", crop=0.5).view.view
    assert (view.scale, view.flip) == ((0.5, 1.0), 0.0)


def test_the_predictors_blocks_are_four_times_as_wide_within(made):
    blocks = made("i-jepa").predictor.blocks[:-1]
    assert [block.linear1.out_features for block in blocks] == [4 * 48, 4 * 48]


def test_the_predictor_starts_small(made):
    for name, p in made("i-jepa").predictor.state_dict().items():
        if name.endswith("weight") and p.dim() == 2:
            assert float(p.std()) == pytest.approx(0.02, rel=0.1), name
        elif name.endswith("bias"):
            assert not p.any()


def test_the_papers_row_has_a_deeper_predictor():
    keywords = METHODS["i-jepa-imagenet"].load().keywords
    assert keywords == {"epochs": 300, "predictor_depth": 12, "predictor_heads": 16}


def test_a_network_without_tokens_or_with_too_few_is_refused(made):
    sentence = IJEPA.needs(made("untrained"), DataInfo("few", 32, 96, 10))
    assert "test_resnet cannot; a ViT can, such as vit_tiny_patch16_224" in sentence
    backbone = made("i-jepa").online
    assert IJEPA.needs(backbone, DataInfo("few", 32, 96, 10)) is None
    assert "24 pixels into 3 x 3" in IJEPA.needs(backbone, DataInfo("few", 24, 96, 10))


def test_a_width_that_heads_cannot_share_is_refused(made):
    with pytest.raises(ValueError, match=r"predictor_dim=50 .* predictor_heads=4; set it"):
        made("i-jepa", predictor_dim=50)
