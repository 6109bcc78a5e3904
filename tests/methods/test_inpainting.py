"""Context encoder: what is hidden, what is shown, and what an error there weighs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslbench.methods.inpainting import COLOUR, Hole, critic, opposed

from .helpers import Case, Lent, near, noise

SMALL = {"inpainting.width": 8, "inpainting-adversarial.width": 8}
HOLE = Hole(corner=2, side=4, edge=1, border=10.0)  # of 8 pixels


def looped_error(made, x):
    total = 0
    for b in range(len(x)):
        for c in range(3):
            for i in range(4):
                for j in range(4):
                    weight = 1 if 0 < i < 3 and 0 < j < 3 else 10
                    total = total + weight * (made[b, c, i, j] - 2 * x[b, c, 2 + i, 2 + j] + 1) ** 2
    return total / (len(x) * 3 * 16)


CASES = {"error": Case(HOLE.error, [noise(3, 3, 4, 4), noise(3, 3, 8, 8, seed=1)], looped_error)}


# ---- the hole --------------------------------------------------------------------------------------


def test_the_hidden_part_is_of_the_mean_colour_and_the_border_is_shown():
    x = torch.rand(2, 3, 8, 8)
    cut = HOLE.cut(x, torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1))
    assert (cut[:, 1, 3:5, 3:5] == 0.2).all()
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[3:5, 3:5] = True
    assert torch.equal(cut[:, :, ~hidden], x[:, :, ~hidden])
    filled = HOLE.filled(cut, HOLE.of(x))
    assert torch.equal(filled, x)


def test_an_error_is_none_where_the_square_is_right_whatever_lies_outside():
    x = torch.rand(2, 3, 8, 8)
    near(HOLE.error(2 * x[:, :, 2:6, 2:6] - 1, x), 0.0)
    wrong = 2 * x[:, :, 2:6, 2:6] - 1
    wrong[:, :, 1:3, 1:3] += 1  # 4 of 16 pixels
    near(HOLE.error(wrong, x), 0.25)
    wrong = 2 * x[:, :, 2:6, 2:6] - 1
    wrong[:, :, 0] += 1  # 4 of the border
    near(HOLE.error(wrong, x), 2.5)


def test_the_gradient_outside_the_square_is_none_at_all():
    made, x = noise(2, 3, 4, 4), torch.rand(2, 3, 8, 8, requires_grad=True)
    HOLE.error(made, x).backward()
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:6, 2:6] = True
    assert not x.grad[:, :, ~inside].any()
    assert x.grad[:, :, inside].abs().min() > 0


def test_half_of_the_side_is_foretold_and_a_pixel_less_is_hidden(made):
    method = made("inpainting")  # 32 pixels
    assert (method.hole.outer, method.hole.inner) == (slice(8, 24), slice(9, 23))
    x = torch.rand(2, 3, 32, 32)
    method.colour.fill_(0.5)
    given = []
    method.backbone.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    assert method.filling(x).shape == (2, 3, 16, 16)
    assert (given[0][:, :, 9:23, 9:23] == 0.5).all()


def test_what_lies_in_the_hole_does_not_reach_what_is_foretold(made):
    method, x = made("inpainting").eval(), torch.rand(2, 3, 32, 32)
    other = x.clone()
    other[:, :, 9:23, 9:23] = torch.rand(2, 3, 14, 14)
    assert torch.equal(method.filling(x), method.filling(other))
    rebuilt = method.reconstruct(x)
    assert torch.equal(method.reconstruct(other)[:, :, 9:23, 9:23], rebuilt[:, :, 9:23, 9:23])
    hidden = torch.zeros(32, 32, dtype=torch.bool)
    hidden[9:23, 9:23] = True
    assert torch.equal(rebuilt[:, :, ~hidden], x[:, :, ~hidden])
    expected = (method.filling(x) + 1) / 2
    torch.testing.assert_close(rebuilt[:, :, 9:23, 9:23], expected[:, :, 1:15, 1:15])


def test_the_colour_is_the_mean_of_the_data_and_that_of_the_code_before(made):
    method, x = made("inpainting"), torch.rand(20, 3, 8, 8)
    torch.testing.assert_close(method.colour.flatten(), torch.tensor(COLOUR))
    run = Lent()
    run.features = lambda encoder: encoder(x)
    method.fit(run)
    torch.testing.assert_close(method.colour.flatten(), x.mean((0, 2, 3)))


# ---- the critic ------------------------------------------------------------------------------------


def test_the_critic_is_told_real_from_made_and_the_rest_that_made_is_real(made, batch_of):
    method = made("inpainting", adversarial=0.3).eval()  # norms that know no batch
    batch = batch_of(method)
    first, second = method.step(batch)
    made_of_it, real = method.filling(batch.views), 2 * batch.views[:, :, 8:24, 8:24] - 1
    told_real, told_made = method.critic(real), method.critic(made_of_it)
    one, none = torch.ones(len(real)), torch.zeros(len(real))
    expected = F.binary_cross_entropy_with_logits(told_real, one)
    expected = expected + F.binary_cross_entropy_with_logits(told_made, none)
    near(first.loss, float(expected.detach()))
    assert (first.group, second.group) == ("critic", "main")
    fooled = F.binary_cross_entropy_with_logits(told_made, one)
    error = method.hole.error(made_of_it, batch.views)
    near(second.loss, float((0.7 * error + 0.3 * fooled).detach()))  # weights of sum one
    near(opposed(torch.zeros(3), torch.zeros(3)), 1.386294)


def test_the_groups_hold_every_parameter_once(made):
    for settings in ({}, {"adversarial": 0.1}):
        method = made("inpainting", **settings)
        groups = {name: list(own) for name, own in method.groups().items()}
        held = [id(p) for own in groups.values() for p in own]
        assert sorted(held) == sorted(id(p) for p in method.parameters())
        assert bool(groups["critic"]) == bool(settings)


def test_the_critics_own_step_leaves_the_rest_without_a_gradient(made, batch_of):
    method = made("inpainting", adversarial=0.5)
    update = next(method.step(batch_of(method)))
    update.loss.backward()
    assert all(p.grad is None for p in method.groups()["main"])
    assert all(p.grad is not None for p in method.critic.parameters())


@pytest.mark.parametrize("side", [2, 4, 6, 14, 16, 48, 112])
def test_a_critic_takes_a_square_of_any_even_side(side):
    assert critic(side, 2)(torch.rand(3, 3, side, side)).shape == (3,)


@pytest.mark.parametrize("settings", [{"hole": 0.0}, {"hole": 1.0}, {"overlap": 0.25}])
def test_a_hole_of_nothing_and_of_all_are_refused(settings, made):
    with pytest.raises(ValueError, match=r"some of the image must stay and some go: set a hole"):
        made("inpainting", **settings)
