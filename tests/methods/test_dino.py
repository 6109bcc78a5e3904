"""DINO: a student matches its own moving average, centred and sharpened."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.api import Backbone
from sslbench.cells.parameters import anatomy
from sslbench.methods.dino import DINOImageNet, DINOResNet
from sslbench.nn import PrototypeHead, distilled, stepped
from sslbench.testing import Trial, trains_all_it_has
from sslbench.train.optim import Optimisation
from sslbench.views import ColorJitter

from .helpers import METHODS, REGISTRY, Case, first_loss, log_share, near, noise, same, trained

SMALL = {  # what fits 96 images
    "dino.prototypes": 24,
    "dino.hidden": 32,
    "dino.bottleneck": 16,
    "dino.crops": (2, 1),
    # below 16 pixels the deepest map is a single one; see test_swav.py
    "dino.small_size": 20,
}
PLAIN = {
    "dino": {"epochs": 4}
}  # its target sharpens and evens out as it goes: a short way is plain
B, K = 6, 4


# ---- the loss --------------------------------------------------------------------------------------


def of_distilled(one, two, first, second, small, centre):
    return distilled([one, two], [first, second, small], centre, sharp=0.1, soft=0.2)


def looped_distilled(one, two, first, second, small, centre):
    total, pairs = 0.0, 0
    for i, teacher in enumerate([one, two]):
        for v, student in enumerate([first, second, small]):
            if v == i:
                continue
            pairs += 1
            for b in range(len(teacher)):
                sharp = [(t - c) / 0.1 for t, c in zip(teacher[b], centre, strict=True)]
                soft = [s / 0.2 for s in student[b]]
                for k in range(K):
                    total = total - log_share(sharp, k).exp() * log_share(soft, k) / len(teacher)
    return total / pairs


def views_swapped(one, two, first, second, small, centre):
    return two, one, second, first, small, centre


def clusters_permuted(*inputs):
    return [x[..., torch.tensor([2, 0, 3, 1])] for x in inputs]


CASES = {
    "distilled": Case(
        of_distilled,
        [*(0.3 * noise(B, K, seed=i) for i in range(5)), 0.3 * noise(K, seed=5)],
        looped_distilled,
        swap=views_swapped,
        clusters=clusters_permuted,
    )
}


@pytest.mark.parametrize(("prototypes", "expected"), [(65536, 11.09035), (16, 2.77259)])
def test_zero_logits_on_both_sides_give_ln_of_the_prototypes(prototypes, expected):
    zero = torch.zeros(2, prototypes)
    near(distilled([zero] * 2, [zero] * 3, zero[0], sharp=0.04, soft=0.1), expected)


def test_a_constant_added_to_teacher_and_centre_does_not_matter_and_to_one_of_them_does():
    one, two, *students, centre = CASES["distilled"].inputs
    whole, add = of_distilled(one, two, *students, centre), noise(K, seed=9)
    same(of_distilled(one + add, two + add, *students, centre + add), whole)
    assert abs(of_distilled(one, two, *students, centre + add) - whole) > 0.01


def test_a_teacher_that_says_the_same_of_every_image_is_even_once_centred():
    centre, students = noise(K), [noise(B, K, seed=i) for i in (1, 2)]
    logs = torch.stack([(s / 0.1).log_softmax(1) for s in students])
    found = distilled([centre.expand(B, K)] * 2, students, centre, sharp=0.04, soft=0.1)
    near(found, -float(logs.mean()))


def test_the_loss_is_the_teachers_entropy_where_the_student_agrees_and_larger_elsewhere():
    teacher, centre = 0.2 * noise(B, K), 0.2 * noise(K, seed=1)
    p = ((teacher - centre) / 0.04).softmax(1)
    entropy = -float((p * p.log()).sum(1).mean())
    agreeing = (teacher - centre) * 0.1 / 0.04
    near(distilled([teacher] * 2, [agreeing] * 4, centre, sharp=0.04, soft=0.1), entropy)
    for seed in range(5):
        other = agreeing + 0.1 * noise(B, K, seed=seed)
        assert distilled([teacher] * 2, [other] * 4, centre, sharp=0.04, soft=0.1) > entropy


def test_a_lower_temperature_of_the_teacher_sharpens_its_targets():
    teacher, even = [noise(B, K)] * 2, torch.zeros(K)
    follow = [10 * t for t in teacher]
    losses = [distilled(teacher, follow, even, sharp=s, soft=1.0) for s in (0.1, 1.0, 10.0)]
    assert losses == sorted(losses)


def test_a_crop_is_never_held_against_itself():
    one, _, first, second, _, centre = CASES["distilled"].inputs
    students = [first.clone().requires_grad_(), second.clone().requires_grad_()]
    loss = distilled([one], students, centre, sharp=0.1, soft=0.1)
    alone, other = torch.autograd.grad(loss, students, allow_unused=True)
    assert alone is None
    assert other.abs().sum() > 0


# ---- schedules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_the_teachers_temperature_warms_up_in_equal_steps_and_stays(epochs):
    found = [stepped(0.04, 0.07, epochs, epoch) for epoch in range(epochs + 3)]
    assert found[:epochs] == pytest.approx(torch.linspace(0.04, 0.07, epochs).tolist())
    assert found[epochs:] == [0.07] * 3


def test_without_warm_up_the_temperature_is_the_last_one_from_the_start():
    assert [stepped(0.04, 0.07, 0, epoch) for epoch in range(3)] == [0.07] * 3


def test_weight_decay_rises_and_each_gradient_is_clipped_by_itself(made):
    method, recipe = made("dino"), anatomy(METHODS["dino"]).recipe
    assert recipe.clip == 3.0
    assert recipe.clip_each
    optimisation = Optimisation(method, recipe, steps_per_epoch=1)
    decays = []
    for step in (0, 50, 99):
        optimisation.set(step)
        decays.append(max(group["weight_decay"] for group in optimisation.optimizer.param_groups))
    assert decays == pytest.approx([0.04, 0.22, 0.4], abs=1e-3)


# ---- teacher and student ---------------------------------------------------------------------------


def hand_made(method, batch, sharp=0.04):
    """The loss of the next step."""
    with torch.no_grad():
        teacher = method.target(torch.cat(batch.views[:2])).chunk(2)
        body, head = method.online
        large, small = torch.cat(batch.views[:2]), torch.cat(batch.views[2:])
        student = head(torch.cat([body(large), body(small)])).split(len(batch.index))
    return distilled(teacher, student, method.centre, sharp=sharp, soft=0.1)


def test_the_teacher_sees_the_large_crops_and_the_student_all(made, batch_of):
    method = made("dino", crops=(2, 3))
    method.centre.copy_(0.1 * noise(24))
    batch = batch_of(method)
    assert [view.shape[-1] for view in batch.views] == [32, 32, 20, 20, 20]
    seen = []
    method.target.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    expected = hand_made(method, batch)
    torch.testing.assert_close(first_loss(method, batch)[1], expected)
    assert seen == [(16, 3, 32, 32)] * 2


def test_the_teacher_is_sharpened_by_the_temperature_of_the_epoch(made, batch_of):
    settings = {"temperature_start": 0.02, "temperature_target": 0.06, "temperature_warmup": 3}
    method = made("dino", **settings)
    for epoch, sharp in enumerate([0.02, 0.04, 0.06, 0.06]):
        batch = batch_of(method, epoch=epoch)
        expected = hand_made(method, batch, sharp)
        torch.testing.assert_close(first_loss(method, batch)[1], expected)


def test_the_teacher_takes_no_gradient_and_all_of_the_student_does(made, batch_of):
    method = made("dino", freeze=0)
    first_loss(method, batch_of(method))[1].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())
    lacking = [name for name, p in method.online.named_parameters() if p.grad is None]
    assert lacking == ["1.length"]


def test_the_centre_follows_the_teachers_mean_after_the_loss(made, batch_of):
    method, centre = made("dino", momentum_centre=0.8), torch.zeros(24)
    for seed in range(2):
        batch = batch_of(method, seed=seed)
        with torch.no_grad():
            logits = method.target(torch.cat(batch.views[:2]))
        step, loss = first_loss(method, batch)
        loss.backward()
        torch.testing.assert_close(method.centre, centre)
        assert next(step, None) is None
        centre = 0.8 * centre + 0.2 * logits.sum(0) / 16
        torch.testing.assert_close(method.centre, centre, rtol=1e-5, atol=1e-7)
    assert centre.abs().max() > 1e-3


def test_the_last_layer_rests_at_first_and_moves_afterwards(made, batch_of):
    method = made("dino", freeze=2)
    last, first = method.online[1].last.weight, method.online[1].mlp[0].weight
    start, below = last.detach().clone(), first.detach().clone()
    for epoch in (0, 1):
        trained(method, batch_of(method, epoch=epoch))
        assert last.grad is None
        assert torch.equal(last, start)
    assert not torch.equal(first, below)
    trained(method, batch_of(method, epoch=2))
    assert not torch.equal(last, start)
    assert torch.equal(method.online[1].length, torch.ones(24, 1))


def test_lengths_of_the_last_layer_are_learned_only_where_asked(made, batch_of):
    method = made("dino", unit=False, freeze=1)
    trained(method, batch_of(method, epoch=0))
    assert torch.equal(method.online[1].length, torch.ones(24, 1))
    trained(method, batch_of(method, epoch=1), lr=1.0)
    assert not torch.equal(method.online[1].length, torch.ones(24, 1))


def test_the_head_compares_unit_vectors_with_weights_of_set_lengths():
    torch.manual_seed(0)
    head, x = PrototypeHead(5, 32, 16, 24, unit=True), torch.randn(7, 5)
    assert [type(layer).__name__ for layer in head.mlp] == ["Linear", "GELU"] * 2 + ["Linear"]
    assert [p.shape[0] for p in head.parameters() if p.ndim == 2] == [24, 32, 32, 16, 24]
    expected = F.cosine_similarity(head.mlp(x)[:, None], head.last.weight, dim=2)
    with torch.no_grad():
        torch.testing.assert_close(head(x), expected)
        head.last.weight.mul_(torch.rand(24, 1) + 0.1)
        torch.testing.assert_close(head(x), expected)
        head.length.mul_(3)
        torch.testing.assert_close(head(x), 3 * expected)
    normed = PrototypeHead(5, 32, 16, 24, norm=True, unit=True).mlp
    kinds = ["Linear", "BatchNorm1d", "GELU"] * 2 + ["Linear"]
    assert [type(layer).__name__ for layer in normed] == kinds


def test_the_head_starts_with_small_weights_and_no_biases():
    torch.manual_seed(0)
    for layer in PrototypeHead(64, 64, 64, 24, norm=False, unit=True).mlp:
        if isinstance(layer, nn.Linear):
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
            assert not layer.bias.any()


def test_the_teacher_is_judged(made):
    method = made("dino").eval()
    x = torch.rand(3, 3, 32, 32)
    assert isinstance(method.encoder(), Backbone)
    assert method.encoder() is method.target[0]
    before = method.encoder()(x)
    with torch.no_grad():
        for p in method.online.parameters():
            p.zero_()
        assert torch.equal(method.encoder()(x), before)


def test_clusters_are_the_teachers_centred_outputs_and_a_guess_costs_ln_of_their_number(made):
    method, x = made("dino").eval(), torch.rand(3, 3, 32, 32)
    method.centre.copy_(noise(24))
    with torch.no_grad():
        torch.testing.assert_close(method.clusters(x), method.target(x) - method.centre)
        torch.testing.assert_close(method.embed(x), method.target[1].mlp(method.encoder()(x)))
    near(torch.tensor(method.uniform()), math.log(24))


def test_large_crops_are_drawn_like_byols_and_small_ones_are_never_solarised(made):
    settings = {"crops": (2, 4), "blur": 0.5, "jitter": 0.5}
    (first, one), (second, two), (small, three) = made("dino", **settings).views().crops
    assert (one, two, three) == (1, 1, 4)
    shown = [repr(view) for view in (first, second, small)]
    assert ["Solarize" in each for each in shown] == [False, True, False]
    chances = [next(op.p for op in v.ops if "Blur" in repr(op)) for v in (first, second, small)]
    assert chances == pytest.approx([0.5, 0.05, 0.25])
    for view in (first, second, small):
        colour = next(op for op in view.ops if isinstance(op, ColorJitter))
        assert colour == ColorJitter(0.2, 0.2, 0.1, 0.05, p=0.8)


@pytest.mark.parametrize(
    ("backbone", "side"),
    [("test_resnet", 14), ("test_vit[patch_size=4]", 12), ("test_vit[patch_size=8]", 16)],
)
def test_small_crops_have_three_sevenths_of_the_side_in_whole_patches(backbone, side, tmp_path):
    trial = on(backbone, tmp_path)
    method = trial.bench("built").builder.build(trial.cell())[0]
    views = method.views()(trial.data.train.images[:2])
    assert [view.shape[-1] for view in views] == [32, 32, side]


# ---- backbones -------------------------------------------------------------------------------------


def on(backbone, folder, **settings):
    small = {key: value for key, value in SMALL.items() if key != "dino.small_size"}
    dotted = {f"dino.{key}": value for key, value in settings.items()}
    return Trial(REGISTRY, "dino", folder, small | dotted, backbone=backbone)


def test_a_vision_transformer_trains_on_small_crops_of_whole_patches(tmp_path):
    trial = on("test_vit[patch_size=8]", tmp_path)
    trains_all_it_has(trial)


def test_drop_path_thins_the_student_alone(tmp_path):
    trial = on("test_vit[drop_path_rate=0.5,patch_size=8]", tmp_path)
    method = trial.bench("built").builder.build(trial.cell())[0].train()
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(method.target(x), method.target(x))
        assert not torch.equal(method.online(x), method.online(x))
    method.eval()
    torch.testing.assert_close(method.target(x), method.online(x))


def test_norms_of_the_teacher_take_statistics_of_the_batch(made):
    method, x = made("dino"), torch.rand(8, 3, 32, 32)
    norm = next(m for m in method.target.modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    with torch.no_grad():
        method.target(x)
    assert not torch.equal(norm.running_mean, before)


def test_the_papers_rows_differ_from_the_defaults_in_what_they_name():
    assert DINOImageNet.keywords["crops"] == (2, 10)
    assert DINOImageNet.keywords["temperature_target"] == 0.07
    assert DINOResNet.keywords["optimizer"] == "sgd"
    assert DINOResNet.keywords["weight_decay_end"] is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"crops": (1, 4)}, r"two large crops or more, crops=\(1, 4\) has 1"),
        ({"small_size": 33}, "small crops of 33 pixels are larger than the images of 32"),
    ],
)
def test_what_the_data_cannot_give_is_refused_before_training(settings, sentence, made):
    with pytest.raises(ValueError, match=sentence):
        made("dino", **settings)
