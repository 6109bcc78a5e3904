"""Optimisers, groups and schedules against torch's own and naive formulas."""

import json
import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from sslbench.api import Recipe
from sslbench.cells.settings import Context, Settings, resolve
from sslbench.errors import UnknownName, UserError
from sslbench.plugins import registry
from sslbench.train.optim import Optimisation, scaled_lr

REG = registry(installed=False)


def network():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 5),
    )
    return layers.to(memory_format=torch.channels_last)


def train(net, optimisation, steps):
    for step in steps:
        optimisation.set(step)
        x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimisation.optimizer.zero_grad()
        net(x.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        optimisation.optimizer.step()


def made(net=None, *, steps=10, **recipe):
    return Optimisation(net or network(), Recipe(**{"epochs": 1, **recipe}), steps_per_epoch=steps)


def rates(optimisation, steps):
    return [optimisation.set(step) for step in range(steps)]


# ---- schedules -----------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_the_learning_rate_follows_the_batch_by_the_scaling_rule(rule, factor):
    assert scaled_lr(Recipe(lr=0.3, batch=1024, lr_scaling=rule)) == pytest.approx(0.3 * factor)


def test_the_cosine_is_torchs():
    parameter = nn.Parameter(torch.zeros(2, 2))
    theirs = torch.optim.SGD([parameter], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 40, eta_min=0.03)
    expected = []
    for _ in range(40):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    ours = made(steps=20, epochs=2, lr=0.3, lr_end=0.1)
    assert rates(ours, 40) == pytest.approx(expected)


def test_warm_up_climbs_in_equal_steps_from_above_zero_to_the_full_rate():
    ours = made(epochs=4, lr=1.0, warmup=0.9)
    got = rates(ours, 40)
    assert got[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert got[9] == 1.0
    assert got[-1] == pytest.approx((1 + math.cos(math.pi * 30 / 31)) / 2)


def test_the_step_schedule_falls_at_shares_of_the_fit_and_constant_does_not():
    ours = made(epochs=10, lr=1.0, schedule="step", milestones=(0.6, 0.8), gamma=0.1)
    got = rates(ours, 100)
    assert got[:60] == [1.0] * 60
    assert got[60:80] == pytest.approx([0.1] * 20)
    assert got[80:] == pytest.approx([0.01] * 20)
    assert set(rates(made(schedule="constant", lr=0.2), 10)) == {0.2}


def test_the_rate_is_a_function_of_the_step_alone():
    ours = made(epochs=3, warmup=1)
    forwards = rates(ours, 30)
    backwards = [ours.set(step) for step in reversed(range(30))]
    assert forwards == backwards[::-1]


def test_weight_decay_goes_to_its_end_by_a_cosine():
    ours = made(steps=100, optimizer="adamw", weight_decay=0.04, weight_decay_end=0.4, warmup=0.1)
    got = []
    for step in (0, 50, 100):
        ours.set(step)
        got.append(max(group["weight_decay"] for group in ours.optimizer.param_groups))
    assert got == pytest.approx([0.04, 0.22, 0.4])


# ---- what is stepped, and how --------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_steps_are_those_of_torchs_optimiser(name):
    ours, theirs = network(), network()
    optimisation = made(ours, optimizer=name, lr=0.01, weight_decay=0.1, schedule="constant")
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1]},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        reference = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=0.1)
    else:
        reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999), weight_decay=0.1)
    train(ours, optimisation, range(5))
    optimisation.optimizer = reference
    optimisation.set = lambda step: None
    train(theirs, optimisation, range(5))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_nesterov_is_on_only_where_the_recipe_or_the_name_says_so():
    assert not made().optimizer.defaults["nesterov"]
    assert made(nesterov=True).optimizer.defaults["nesterov"]
    assert made(optimizer="nlars").optimizer.defaults["nesterov"]
    assert not made(optimizer="lars").optimizer.defaults["nesterov"]


@pytest.mark.parametrize(("decay", "spared"), [("weights", True), ("all", False)])
def test_biases_and_norms_decay_only_where_the_recipe_says_all(decay, spared):
    net = network()
    before = {name: p.detach().clone() + 0.5 for name, p in net.named_parameters()}
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(before[name])
            p.grad = torch.zeros_like(p)
    optimisation = made(net, lr=0.1, weight_decay=0.5, decay=decay)
    optimisation.optimizer.step()
    for name, p in net.named_parameters():
        still = spared and p.ndim <= 1
        expected = before[name] if still else before[name] * (1 - 0.1 * 0.5)
        torch.testing.assert_close(p.detach(), expected)


def test_where_all_decays_the_steps_are_those_of_torchs_optimiser_over_all():
    ours, theirs = network(), network()
    optimisation = made(ours, lr=0.01, weight_decay=0.1, schedule="constant", decay="all")
    train(ours, optimisation, range(5))
    optimisation.optimizer = torch.optim.SGD(
        theirs.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1
    )
    optimisation.set = lambda step: None
    train(theirs, optimisation, range(5))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    "name",
    [
        "moco",
        "moco-imagenet",
        "moco-v1",
        "simsiam",
        "simsiam-imagenet",
        "npid",
        "deepcluster",
        "deepcluster-imagenet",
        "scan",
        "scan-imagenet",
        "ruc",
        "ruc-stl10",
        "moco-v3-vit",
    ],
)
def test_methods_whose_code_decays_every_parameter_do_so(name):
    cell = resolve(name, REG, Context("test_resnet", "digits", "f" * 64, 32, 0), Settings())
    for recipe in (cell.recipe, *(stage for _, stage in cell.stages.values())):
        net = network()
        optimisation = Optimisation(net, replace(recipe, per={}), steps_per_epoch=1)
        decays = {group["weight_decay"] for group in optimisation.optimizer.param_groups}
        assert decays == {recipe.weight_decay}


@pytest.mark.parametrize("name", ["simclr", "byol", "barlow-twins", "vicreg", "moco-v3", "dino"])
def test_methods_whose_code_spares_biases_and_norms_do_so(name):
    recipe = resolve(
        name, REG, Context("test_resnet", "digits", "f" * 64, 32, 0), Settings()
    ).recipe
    net = network()
    optimisation = Optimisation(net, replace(recipe, per={}), steps_per_epoch=1)
    assert settings(optimisation, net[1].weight)["weight_decay"] == 0
    assert settings(optimisation, net[0].weight)["weight_decay"] == pytest.approx(
        recipe.weight_decay
    )


def test_where_all_decays_a_glob_may_set_the_decay_of_biases_and_its_end():
    net = network()
    per = {"vectors": {"weight_decay": 0.2, "weight_decay_end": 0.4}}
    optimisation = made(net, decay="all", weight_decay=0.1, per=per)
    optimisation.set(5)
    assert settings(optimisation, net[1].weight)["weight_decay"] == pytest.approx(0.3)
    assert settings(optimisation, net[0].weight)["weight_decay"] == 0.1


@pytest.mark.parametrize("decay", [0.0, 1e-3])
def test_lars_scales_matrices_by_the_trust_ratio_and_never_biases_or_norms(decay):
    net = network()
    optimisation = made(net, optimizer="lars", lr=2.0, weight_decay=decay, momentum=0.9)
    values = [p.detach().clone() for p in net.parameters()]
    buffers = [torch.zeros_like(v) for v in values]
    for step in range(3):
        train(net, optimisation, [step])
        for i, p in enumerate(net.parameters()):
            update = p.grad
            if p.ndim > 1:
                norm = values[i].norm()
                update = update + decay * values[i]
                update = update * 1e-3 * norm / (p.grad.norm() + decay * norm + 1e-8)
            buffers[i] = 0.9 * buffers[i] + update
            values[i] = values[i] - optimisation.set(step) * buffers[i]
    for p, expected in zip(net.parameters(), values, strict=True):
        torch.testing.assert_close(p.detach(), expected)


SWAPPED = ["swav", "swav-imagenet", "swav-256", "deepcluster-v2", "deepcluster-v2-imagenet"]


@pytest.mark.parametrize("lr", [0.48, 4.8, 2.82, 0.157])
@pytest.mark.parametrize("name", SWAPPED)
def test_the_steps_of_swav_are_those_of_larc_without_clipping(name, lr):
    """By apex's LARC(SGD(momentum=0.9), trust_coefficient=0.001, clip=False), as SwAV's code has it."""
    recipe = resolve(
        name, REG, Context("test_resnet", "digits", "f" * 64, 32, 0), Settings()
    ).recipe
    recipe = replace(recipe, lr=lr, lr_scaling="none", warmup=0, schedule="constant")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 3, bias=False))
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 1.5)  # its shift stays 0: there the ratio is 1
    optimisation = Optimisation(net, recipe, steps_per_epoch=1)
    began = [p.detach().clone() for p in net.parameters()]
    values = [p.double() for p in began]
    buffers = [torch.zeros_like(v) for v in values]
    for step in range(4):
        optimisation.set(step)
        x = torch.randn(16, 64, generator=torch.Generator().manual_seed(step))
        optimisation.optimizer.zero_grad()
        net(x).square().mean().backward()
        for i, p in enumerate(net.parameters()):
            value, gradient, wd = values[i], p.grad.double(), recipe.weight_decay
            if value.norm() > 0 and gradient.norm() > 0:
                trust = 1e-3 * value.norm() / (gradient.norm() + wd * value.norm() + 1e-8)
                gradient = trust * (gradient + wd * value)
            buffers[i] = 0.9 * buffers[i] + gradient
            values[i] = value - lr * buffers[i]
        before = [p.detach().clone() for p in net.parameters()]
        optimisation.optimizer.step()
        for p, expected in zip(net.parameters(), values, strict=True):
            torch.testing.assert_close(p.detach().double(), expected, atol=1e-6, rtol=0)
        if step == 0:  # the rate is seen
            moved = float((net[0].weight.detach() - before[0]).norm())
            assert moved == pytest.approx(lr * 1e-3 * float(began[0].norm()), rel=1e-3)
            measured = {0.48: 0.002213, 4.8: 0.02207, 2.82: 0.01296, 0.157: 0.00072}[lr]
            assert moved == pytest.approx(measured, rel=0.02)


def test_a_parameter_without_a_gradient_stays_and_joins_when_it_is_unfrozen():
    net = network()
    net[4].weight.requires_grad_(False)
    before = net[4].weight.clone()
    optimisation = made(net, lr=0.1)
    train(net, optimisation, range(3))
    assert torch.equal(net[4].weight, before)
    net[4].weight.requires_grad_(True)
    train(net, optimisation, range(3, 5))
    assert not torch.equal(net[4].weight, before)


def test_clipping_bounds_the_total_norm_of_the_parameters_given():
    net = network()
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    several = [net[0].weight, net[4].weight]
    total = math.sqrt(sum(p.numel() for p in several))
    norm = made(net, clip=0.5).clip(several)
    assert float(norm) == pytest.approx(total)
    clipped = math.sqrt(sum(float(p.grad.square().sum()) for p in several))
    assert clipped == pytest.approx(0.5, rel=1e-3)
    assert torch.equal(net[4].bias.grad, torch.ones(5))
    assert made(net).clip(several) is None


# ---- per -----------------------------------------------------------------------------------


def settings(optimisation, parameter):
    for group in optimisation.optimizer.param_groups:
        if any(p is parameter for p in group["params"]):
            return group
    raise AssertionError("in no group")


def test_a_glob_sets_rate_momentum_decay_and_schedule_of_what_it_matches():
    net = network()
    wish = {"lr": 10, "momentum": 0.0, "weight_decay": 0.2, "schedule": "constant"}
    optimisation = made(net, lr=0.1, weight_decay=0.01, weight_decay_end=0.1, per={"4.*": wish})
    main = optimisation.set(5)
    head, bias = settings(optimisation, net[4].weight), settings(optimisation, net[4].bias)
    body = settings(optimisation, net[0].weight)
    assert (head["lr"], head["momentum"], head["weight_decay"]) == (1.0, 0.0, 0.2)
    assert (bias["lr"], bias["weight_decay"]) == (1.0, 0.0)
    assert (body["lr"], body["momentum"]) == (main, 0.9)
    assert main == pytest.approx(0.05)
    assert body["weight_decay"] == pytest.approx(0.055)


def test_later_globs_win_setting_by_setting():
    net = network()
    per = {"4.*": {"lr": 2, "momentum": 0.5}, "*.weight": {"lr": 3}}
    optimisation = made(net, lr=1.0, schedule="constant", per=per)
    assert settings(optimisation, net[4].weight)["lr"] == 3
    assert settings(optimisation, net[4].weight)["momentum"] == 0.5
    assert settings(optimisation, net[4].bias)["lr"] == 2


def test_what_a_glob_exempts_is_trained_as_biases_are():
    net = network()
    per = {"4.*": {"exempt": True}}
    optimisation = made(net, optimizer="lars", lr=2.0, weight_decay=0.1, momentum=0.9, per=per)
    before, start = net[4].weight.detach().clone(), net[0].weight.detach().clone()
    train(net, optimisation, [0])
    torch.testing.assert_close(net[4].weight.detach(), before - 2.0 * net[4].weight.grad)
    assert not torch.allclose(net[0].weight.detach(), start - 2.0 * net[0].weight.grad)
    assert settings(optimisation, net[4].weight)["weight_decay"] == 0


def test_a_shared_parameter_answers_to_each_of_its_names():
    net = nn.ModuleDict({"backbone": nn.Linear(3, 3), "head": nn.Linear(3, 3)})
    net["head"].weight = net["backbone"].weight
    optimisation = made(net, lr=1.0, schedule="constant", per={"head.weight": {"lr": 5}})
    assert settings(optimisation, net["backbone"].weight)["lr"] == 5
    assert settings(optimisation, net["backbone"].bias)["lr"] == 1
    assert sum(len(group["params"]) for group in optimisation.optimizer.param_groups) == 3


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"per": {"4.wieght": {"lr": 2}}}, r"'4\.wieght' matches no parameter.*'4\.weight'"),
        ({"per": {"4.*": {"rl": 2}}}, "cannot set 'rl'.*weight_decay"),
        ({"per": {"4.*": {"exempt": 1}}}, "exempt to 1; it takes true or false"),
        ({"per": {"4.*": {"lr": "fast"}}}, "lr to 'fast'; it takes a number"),
        (
            {"per": {"4.*": {"schedule": "linear"}}},
            "'linear'; there are cosine, arc, inverse, step, constant",
        ),
        ({"per": {"*.bias": {"weight_decay": 1}}}, r"only biases and norms \(1\.bias"),
        ({"per": {"4.*": {"momentum": 0}}, "optimizer": "adamw"}, "'adamw' has none"),
        ({"schedule": "zigzag"}, "'zigzag'; there are"),
        ({"optimizer": "sgd", "nesterov": True, "momentum": 0.0}, "'sgd' cannot be made"),
        ({"optimizer": "adahessian"}, "second derivatives"),
        ({"optimizer": "kron"}, "random numbers of its own"),
    ],
)
def test_a_recipe_that_cannot_be_is_a_sentence(recipe, sentence):
    with pytest.raises(UserError, match=sentence):
        made(**recipe)


def test_an_unknown_optimiser_gets_a_suggestion():
    with pytest.raises(UnknownName, match=r"unknown optimizer 'adamww'.*'adamw'"):
        made(optimizer="adamww")


def test_a_method_without_parameters_is_a_callers_mistake():
    with pytest.raises(ValueError, match="Flatten has no parameters"):
        made(nn.Flatten())


# ---- state ---------------------------------------------------------------------------------


def optimisers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm.optim

        names = timm.optim.list_optimizers(
            exclude_filters=["bnb*", "fused*", "kron*", "adahessian"]
        )
    assert {"sgd", "adamw", "lars"} <= set(names)
    return names


@pytest.mark.parametrize("name", optimisers())
def test_a_saved_and_loaded_optimiser_goes_on_bit_for_bit(name):
    recipe = {"optimizer": name, "lr": 0.01, "warmup": 0.3, "weight_decay": 0.01}
    whole = network()
    optimisation = made(whole, **recipe)
    train(whole, optimisation, range(4))
    tensors, plain = optimisation.state()
    # as a file would keep them: row-major, and text
    tensors = {key: value.clone().contiguous() for key, value in tensors.items()}
    plain = json.loads(json.dumps(plain, allow_nan=False))
    weights = {key: value.clone().contiguous() for key, value in whole.state_dict().items()}
    train(whole, optimisation, range(4, 8))

    resumed = network()
    resumed.load_state_dict(weights)
    optimisation = made(resumed, **recipe)
    optimisation.load(tensors, plain)
    train(resumed, optimisation, range(4, 8))
    for mine, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(whole[0].weight, network()[0].weight)


def test_loading_forgets_what_was_there_and_keeps_what_was_forgotten():
    net = network()
    optimisation = made(net)
    train(net, optimisation, range(2))
    optimisation.forget(net[4])
    tensors, plain = optimisation.state()
    assert sorted(tensors) == [
        f"{key}:momentum_buffer" for key in ("0.weight", "1.bias", "1.weight")
    ]
    train(net, optimisation, range(2, 4))
    optimisation.load(tensors, plain)
    assert sorted(optimisation.state()[0]) == sorted(tensors)


def test_a_forgotten_module_starts_from_no_momentum():
    net = network()
    optimisation = made(net, lr=0.1, schedule="constant", weight_decay=0.0)
    train(net, optimisation, range(3))
    optimisation.forget(net[4])
    before = net[4].weight.detach().clone()
    train(net, optimisation, [3])
    torch.testing.assert_close(net[4].weight.detach(), before - 0.1 * net[4].weight.grad)


def test_the_state_of_another_optimisation_is_refused():
    net = network()
    optimisation = made(net)
    train(net, optimisation, range(2))
    tensors, plain = optimisation.state()
    with pytest.raises(ValueError, match="other optimizer"):
        made(optimizer="adamw").load(tensors, plain)
    with pytest.raises(ValueError, match="other shapes"):
        made(nn.Linear(3, 3)).load(tensors, plain)
    with pytest.raises(ValueError, match="other groups"):
        made(per={"4.*": {"lr": 2}}).load(tensors, plain)
    with pytest.raises(ValueError, match=r"lacks '0\.weight:momentum_buffer'"):
        made().load({}, plain)
    with pytest.raises(ValueError, match="no parameter uses"):
        made().load({**tensors, "stray": torch.zeros(1)}, plain)
