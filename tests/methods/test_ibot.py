"""iBOT: a student matches its moving average in whole images and in masked patches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Backbone
from sslbench.methods.ibot import IBOT, rebuilt
from sslbench.nn import PrototypeHead, distilled, stepped
from sslbench.views import ColorJitter

from .helpers import METHODS, Case, first_loss, log_share, near, noise, same, trained

SMALL = {
    "ibot.prototypes": 24,
    "ibot.hidden": 32,
    "ibot.bottleneck": 16,
    "ibot.crops": (2, 1),
}
PLAIN = {"ibot": {"epochs": 4}}  # as dino's
BACKBONES = {"ibot": "test_vit[patch_size=8]", "ibot-imagenet": "test_vit[patch_size=8]"}
B, N, K = 6, 3, 4
SHARP = {"sharp": 0.1, "soft": 0.2}


# ---- the losses ------------------------------------------------------------------------------------


def crossed(teacher, student, centre):
    sharp = [(t - c) / 0.1 for t, c in zip(teacher, centre, strict=True)]
    soft = [s / 0.2 for s in student]
    return -sum(log_share(sharp, k).exp() * log_share(soft, k) for k in range(K))


def of_distilled(one, two, first, second, small, centre):
    return distilled([one, two], [first, second, small], centre, **SHARP)


def looped_distilled(one, two, first, second, small, centre):
    pairs = [(one, second), (one, small), (two, first), (two, small)]
    return sum(
        sum(crossed(t[b], s[b], centre) for b in range(len(t))) / len(t) for t, s in pairs
    ) / len(pairs)


def views_swapped(one, two, first, second, small, centre):
    return two, one, second, first, small, centre


MASKED = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 0]]).bool()


def of_rebuilt(teacher, student, centre, masked):
    return rebuilt(teacher, student, masked, centre, **SHARP)


def looped_rebuilt(teacher, student, centre, masked):
    total = 0.0
    for b in range(len(teacher)):
        there = [n for n in range(N) if masked[b, n]]
        if there:
            costs = [crossed(teacher[b, n], student[b, n], centre) for n in there]
            total = total + sum(costs) / len(there)
    return total / len(teacher)


def clusters_permuted(*inputs):
    order = torch.tensor([2, 0, 3, 1])
    return [x[..., order] if x.is_floating_point() else x for x in inputs]


CASES = {
    "distilled": Case(
        of_distilled,
        [*(0.3 * noise(B, K, seed=i) for i in range(5)), 0.3 * noise(K, seed=5)],
        looped_distilled,
        swap=views_swapped,
        clusters=clusters_permuted,
    ),
    "rebuilt": Case(
        of_rebuilt,
        [0.3 * noise(B, N, K), 0.3 * noise(B, N, K, seed=1), 0.3 * noise(K, seed=2), MASKED.long()],
        looped_rebuilt,
        clusters=clusters_permuted,
    ),
}


@pytest.mark.parametrize(("prototypes", "expected"), [(8192, 9.01091), (16, 2.77259)])
def test_zero_logits_give_ln_of_the_prototypes_for_images_and_for_patches(prototypes, expected):
    zero = torch.zeros(2, 3, prototypes)
    near(distilled([*zero], [*zero], zero[0, 0], sharp=0.04, soft=0.1), expected)
    some = torch.tensor([[True, False, True], [True, True, True]])
    near(rebuilt(zero, zero, some, zero[0, 0], sharp=0.07, soft=0.1), expected)


def test_a_patch_that_is_not_masked_and_a_crop_without_masks_do_not_count():
    teacher, student, centre, _ = CASES["rebuilt"].inputs
    masked = MASKED
    whole = of_rebuilt(teacher, student, centre, masked)
    other = torch.where(masked[..., None], student, noise(B, N, K, seed=9))
    same(of_rebuilt(teacher, other, centre, masked), whole)
    some = masked.any(1)
    same(of_rebuilt(teacher[some], student[some], centre, masked[some]) * 4 / 6, whole)
    assert of_rebuilt(teacher, student, centre, torch.zeros_like(masked)) == 0


# ---- a step ----------------------------------------------------------------------------------------


def hand_made(method, batch, sharp=(0.04, 0.04)):
    """The loss of the next step, of all patches times their mask."""
    crops, masks = batch.views
    body, head = method.online
    whose, total = method.target, 0.0
    teachers = [whose[0].attend(whose[0].tokens(x)) for x in crops[:2]]
    students = [
        body.attend(body.tokens(x, masks[:, v], method.blank)) for v, x in enumerate(crops[:2])
    ]
    images = [head(tokens[:, 0]) for tokens in students] + [head(body(x)) for x in crops[2:]]
    one = [whose[1](tokens[:, 0]) for tokens in teachers]
    total = distilled(one, images, method.centre[0], sharp=sharp[0], soft=0.1)
    for v in range(2):
        patches = [h(t[v][:, 1:]) for h, t in ((whose[1], teachers), (head, students))]
        centre = method.centre[1]
        total = total + rebuilt(*patches, masks[:, v], centre, sharp=sharp[1], soft=0.1) / 2
    return total


def test_the_student_sees_large_crops_masked_and_small_ones_whole(made, batch_of):
    method = made("ibot", crops=(2, 3))
    method.centre.copy_(0.1 * noise(2, 24))
    with torch.no_grad():
        for p in (*method.online.parameters(), method.blank):
            p.add_(0.02 * torch.randn_like(p))  # so that target and online differ
    batch = batch_of(method)
    crops, masks = batch.views
    assert [x.shape[-1] for x in crops] == [32, 32, 16, 16, 16]
    assert masks.shape == (8, 2, 16)
    assert masks.any()
    same(first_loss(method, batch)[1], hand_made(method, batch))


def test_the_teacher_is_sharpened_by_the_temperatures_of_the_epoch(made, batch_of):
    method = made("ibot", temperature_target=0.06, temperature_patches=0.1, temperature_warmup=3)
    for epoch, sharp in enumerate([(0.04, 0.04), (0.05, 0.07), (0.06, 0.1), (0.06, 0.1)]):
        batch = batch_of(method, epoch=epoch)
        same(first_loss(method, batch)[1], hand_made(method, batch, sharp))


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_a_temperature_warms_up_in_equal_steps_and_stays(epochs):
    found = [stepped(0.04, 0.07, epochs, epoch) for epoch in range(epochs + 3)]
    assert found[:epochs] == pytest.approx(torch.linspace(0.04, 0.07, epochs).tolist())
    assert found[epochs:] == [0.07] * 3


def test_masked_pixels_reach_the_loss_through_the_teacher_alone(made, batch_of):
    method = made("ibot")
    crops, masks = batch_of(method).views
    x, body = crops[0].clone().requires_grad_(), method.online[0]
    body.attend(body.tokens(x, masks[:, 0], method.blank)).square().sum().backward()
    moved = x.grad.unfold(2, 8, 8).unfold(3, 8, 8).abs().amax((1, 4, 5)).flatten(1)  # [B, T]
    assert not moved[masks[:, 0]].any()
    assert (moved[~masks[:, 0]] > 0).all()
    assert method.blank.grad.abs().max() > 0


def test_the_teacher_takes_no_gradient_and_all_of_the_student_does(made, batch_of):
    method = made("ibot", freeze=0)
    first_loss(method, batch_of(method))[1].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())
    lacking = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []


def test_both_centres_follow_the_teachers_means_after_the_loss(made, batch_of):
    method, centre = made("ibot", momentum_centre=0.8), torch.zeros(2, 24)
    for seed in range(2):
        batch = batch_of(method, seed=seed)
        body, head = method.target
        with torch.no_grad():
            tokens = body.attend(body.tokens(torch.cat(batch.views[0][:2])))
            means = torch.stack([head(tokens[:, 0]).mean(0), head(tokens[:, 1:]).mean((0, 1))])
        step, loss = first_loss(method, batch)
        loss.backward()
        same(method.centre, centre)
        assert next(step, None) is None
        centre = 0.8 * centre + 0.2 * means
        same(method.centre, centre)
    assert centre.abs().amax(1).min() > 1e-4


def test_the_last_layer_rests_at_first_and_moves_afterwards(made, batch_of):
    method = made("ibot", freeze=2)
    last = method.online[1].last.weight
    start = last.detach().clone()
    for epoch in (0, 1):
        trained(method, batch_of(method, epoch=epoch))
        assert torch.equal(last, start)
    trained(method, batch_of(method, epoch=2))
    assert not torch.equal(last, start)
    assert torch.equal(method.online[1].length, torch.ones(24, 1))


def test_lengths_of_the_last_layer_are_learned_only_where_asked(made, batch_of):
    method = made("ibot", unit=False, freeze=0)
    trained(method, batch_of(method), lr=1.0)
    assert not torch.equal(method.online[1].length, torch.ones(24, 1))


def test_the_head_compares_unit_vectors_with_weights_of_set_lengths():
    torch.manual_seed(0)
    head, x = PrototypeHead(5, 64, 16, 24, unit=True), torch.randn(7, 3, 5)
    expected = F.cosine_similarity(head.mlp(x)[..., None, :], head.last.weight, dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(head(x), expected)
        head.length.mul_(3)
        torch.testing.assert_close(head(x), 3 * expected)
    assert float(head.mlp[2].weight.std().detach()) == pytest.approx(0.02, rel=0.1)
    assert not head.mlp[2].bias.any()


# ---- what comes of it ------------------------------------------------------------------------------


def test_the_teacher_is_judged(made):
    method, x = made("ibot").eval(), torch.rand(3, 3, 32, 32)
    method.centre.copy_(noise(2, 24))
    assert isinstance(method.encoder(), Backbone)
    assert method.encoder() is method.target[0]
    with torch.no_grad():
        same(method.clusters(x), method.target(x) - method.centre[0])
        same(method.embed(x), method.target[1].mlp(method.encoder()(x)))
    near(torch.tensor(method.uniform()), 1.5 * math.log(24))


def test_half_of_the_large_crops_are_masked_each_by_itself(made):
    mask = made("ibot", masked=0.5, share=(0.3, 0.5)).view.mask
    torch.manual_seed(0)
    (hidden,) = mask(2000)
    assert hidden.shape == (2000, 2, 16)
    assert float(hidden.any(2).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(hidden.any(2).all(1).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert int(hidden.sum(2).max()) <= made("ibot").most == 8


def test_large_crops_are_drawn_like_byols_and_small_ones_are_never_solarised(made):
    settings = {"crops": (2, 4), "blur": 0.5, "jitter": 0.5}
    (first, one), (second, two), (small, three) = made("ibot", **settings).view.view.crops
    assert (one, two, three) == (1, 1, 4)
    assert ["Solarize" in repr(view) for view in (first, second, small)] == [False, True, False]
    for view in (first, second, small):
        colour = next(op for op in view.ops if isinstance(op, ColorJitter))
        assert colour == ColorJitter(0.2, 0.2, 0.1, 0.05, p=0.8)


def test_without_small_crops_there_are_large_ones_alone(made, batch_of):
    method = made("ibot", crops=(2, 0))
    batch = batch_of(method)
    assert len(batch.views[0]) == 2
    same(first_loss(method, batch)[1], hand_made(method, batch))


def test_the_papers_row_has_small_crops_and_learned_lengths():
    keywords = METHODS["ibot-imagenet"].load().keywords
    assert keywords["crops"] == (2, 10)
    assert keywords["unit"] is False


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"crops": (1, 4)}, r"two large crops or more .* crops=\(1, 4\) has 1"),
        ({"share": (0.5, 0.1)}, r"a rising share of 4 x 4 patches .* share=\(0.5, 0.1\)"),
        ({"share": (0.01, 0.05)}, r"share=\(0.01, 0.05\) is 0 patches at most"),
        ({"masked": 0.0}, "with a chance of masked=0.0"),
    ],
)
def test_what_masks_nothing_is_refused_before_training(settings, sentence, made):
    with pytest.raises(ValueError, match=sentence):
        made("ibot", **settings)


def test_a_network_without_tokens_is_refused_with_the_name_of_one(made):
    assert "a ViT has, such as vit_tiny_patch16_224" in IBOT.needs(made("untrained"), None)
    assert IBOT.needs(made("ibot").target[0], None) is None
