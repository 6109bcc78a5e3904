"""Makes the optimiser of a recipe, with its parameter groups and schedules.

Optimisers are timm's, by name; torch's own defaults choose their implementation. (On a CPU `fused`
SGD breaks on a parameter that has no momentum yet, and `fused` AdamW rounds differently from the
plain loop.)

Biases and norms, which are the parameters of at most one dimension, neither decay nor, under LARS
and LAMB, are scaled by the trust ratio, unless the recipe's `decay` is "all"; every other parameter
is scaled, decay or none. timm's LARS takes the steps of apex's LARC without clipping. Other papers'
LARS divides by |g + wd w|, timm's by |g| + wd |w|; and some multiply by the learning rate inside
the momentum buffer, timm's outside.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ..api import Recipe
from ..errors import UnknownName, UserError, suggestion

# what a glob may set
PER = ("lr", "momentum", "weight_decay", "weight_decay_end", "schedule", "exempt")
SCHEDULES = ("cosine", "arc", "inverse", "step", "constant")


def scaled_lr(recipe: Recipe) -> float:
    """The recipe's learning rate, scaled to its batch."""
    power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[recipe.lr_scaling]
    return float(recipe.lr * (recipe.batch / 256) ** power)


@dataclass(frozen=True)
class Rule:
    """The optimiser's settings for one set of parameters."""

    lr: float  # a factor on the main learning rate
    momentum: float
    weight_decay: float
    weight_decay_end: float | None
    schedule: str
    exempt: bool  # it neither decays nor is scaled by a trust ratio, as biases and norms


class Optimisation:
    """The optimiser of one fit, with its schedules. It holds every parameter, even a frozen one.

    Schedules are functions of `step`, the count of steps in this fit from 0 to T - 1, where
    T = epochs * steps_per_epoch and W is the rounded number of warm-up steps. Every schedule warms
    up by (step + 1) / (W + 1). Then cosine and arc go from 1 at W to `lr_end` at T, inverse from 1 at W to
    11 ** -0.75 at T, and `step` multiplies by gamma from each round(milestone * T) on. Weight decay
    follows a cosine over all of T.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, method: nn.Module, recipe: Recipe, *, steps_per_epoch: int) -> None:
        self.recipe = recipe
        self.lr = scaled_lr(recipe)
        self.steps = recipe.epochs * steps_per_epoch
        self.warmup = round(recipe.warmup * steps_per_epoch)
        names = _names(method)
        if not names:
            raise ValueError(f"{type(method).__name__} has no parameters to optimise")
        groups: dict[Rule, list[nn.Parameter]] = {}
        for parameter, rule in _rules(names, recipe).items():
            groups.setdefault(rule, []).append(parameter)
        self._rules = list(groups)
        self._parameters = {found[0]: parameter for parameter, found in names.items()}
        self.optimizer = _create(recipe, groups)
        self.set(0)

    def set(self, step: int) -> float:
        """Sets learning rates, momenta and weight decays for this step.

        Returns the main learning rate.
        """
        for group, rule in zip(self.optimizer.param_groups, self._rules, strict=True):
            group["lr"] = self.lr * rule.lr * self._share(rule.schedule, step)
            group["weight_decay"] = self._decay(rule, step)
            if "momentum" in self.optimizer.defaults:
                group["momentum"] = rule.momentum
        return self.lr * self._share(self.recipe.schedule, step)

    def _share(self, schedule: str, step: int) -> float:
        """The share of the full learning rate at this step."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if schedule == "constant":
            return 1.0
        if schedule == "step":
            passed = sum(step >= round(share * self.steps) for share in self.recipe.milestones)
            return float(self.recipe.gamma**passed)
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        if schedule == "arc":
            return math.cos(math.acos(self.recipe.lr_end) * done)
        if schedule == "inverse":
            return float((1 + 10 * done) ** -0.75)
        return _cosine(1.0, self.recipe.lr_end, done)

    def _decay(self, rule: Rule, step: int) -> float:
        if rule.exempt:
            return 0.0
        if rule.weight_decay_end is None:
            return rule.weight_decay
        return _cosine(rule.weight_decay, rule.weight_decay_end, step / max(self.steps, 1))

    def clip(self, parameters: Iterable[nn.Parameter]) -> Tensor | None:
        """Clips gradients to a norm of at most `recipe.clip`; returns the norm they had.

        It is the norm of all together or, with `clip_each`, of each parameter by itself.
        """
        if self.recipe.clip is None:
            return None
        if not self.recipe.clip_each:
            return nn.utils.clip_grad_norm_(list(parameters), self.recipe.clip)
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return None
        each = torch.stack(torch._foreach_norm(gradients))
        factors = (self.recipe.clip / (each + 1e-6)).clamp_(max=1.0)
        torch._foreach_mul_(gradients, list(factors.unbind()))
        norm: Tensor = each.norm()
        return norm

    def on_step(self, act: Callable[[], None]) -> None:
        """Calls `act` after each step that the optimiser takes."""
        own = getattr(self.optimizer, "_base_optimizer", self.optimizer)  # timm's Lookahead has one
        own.register_step_post_hook(lambda *_: act())

    def forget(self, module: nn.Module) -> None:
        """Drops what the optimiser remembers of the module's parameters."""
        for parameter in module.parameters():
            self.optimizer.state.pop(parameter, None)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimiser's state: tensors by name, and plain data for JSON."""
        tensors: dict[str, Tensor] = {}
        memory = {
            name: {
                key: _pack(value, f"{name}:{key}", tensors)
                for key, value in self.optimizer.state[parameter].items()
            }
            for name, parameter in self._parameters.items()
            if self.optimizer.state.get(parameter)
        }
        return tensors, {
            "optimizer": self.recipe.optimizer,
            "shapes": {name: list(p.shape) for name, p in self._parameters.items()},
            "memory": memory,
            "groups": [
                _packed_counters(group, f"group {i}", tensors)
                for i, group in enumerate(self.optimizer.param_groups)
            ],
        }

    def load(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restores what `state` returned, bit for bit; ValueError where it does not fit."""
        _, here = self.state()
        for key in ("optimizer", "shapes"):
            if plain.get(key) != here[key]:
                raise ValueError(f"the saved optimiser state has other {key} than this method's")
        if len(plain["groups"]) != len(here["groups"]):
            raise ValueError("the saved optimiser state has other groups than this recipe's")
        left = dict(tensors)
        memory = {
            name: {key: _unpack(value, left, self._parameters[name]) for key, value in kept.items()}
            for name, kept in plain["memory"].items()
        }
        counters = [
            {key: _unpack(value, left, group["params"][0]) for key, value in kept.items()}
            for group, kept in zip(self.optimizer.param_groups, plain["groups"], strict=True)
        ]
        if left:
            raise ValueError(
                f"the saved optimiser state has tensors that no parameter uses: {sorted(left)[:3]}"
            )
        self.optimizer.state.clear()
        for name, kept in memory.items():
            self.optimizer.state[self._parameters[name]] = kept
        for group, kept in zip(self.optimizer.param_groups, counters, strict=True):
            group.update(kept)


def _cosine(start: float, end: float, done: float) -> float:
    """Interpolates along half a cosine from start to end, as `done` goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _names(method: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Every parameter with its names; a shared one has several."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in method.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names


def _rules(names: Mapping[nn.Parameter, list[str]], recipe: Recipe) -> dict[nn.Parameter, Rule]:
    """The recipe's rule for each parameter; where several globs match, later ones win."""
    plain = Rule(
        lr=1.0,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        weight_decay_end=recipe.weight_decay_end,
        schedule=recipe.schedule,
        exempt=False,
    )
    _check_schedule(recipe.schedule, "the recipe")
    spared = recipe.decay == "weights"
    rules = {p: replace(plain, exempt=spared and p.ndim <= 1) for p in names}
    for glob, wish in recipe.per.items():
        settings = _settings(glob, wish)
        if glob == "vectors":
            matched = [p for p in names if p.ndim <= 1]
        else:
            matched = [p for p, found in names.items() if any(fnmatchcase(n, glob) for n in found)]
        if not matched:
            every = [name for found in names.values() for name in found]
            raise UserError(f"per {glob!r} matches no parameter{suggestion(glob, every)}")
        if "weight_decay" in settings and all(rules[parameter].exempt for parameter in matched):
            raise UserError(
                f"per {glob!r} sets a weight decay, but matches only biases and norms "
                f"({names[matched[0]][0]} ...), which decay only where decay is 'all'"
            )
        for parameter in matched:
            rules[parameter] = replace(rules[parameter], **settings)
    return rules


def _settings(glob: str, wish: Mapping[str, Any]) -> dict[str, Any]:
    """Checks what a glob sets. A weight decay for which it sets no end stays constant."""
    settings: dict[str, Any] = {}
    for key, value in wish.items():
        if key not in PER:
            raise UserError(f"per {glob!r} cannot set {key!r}{suggestion(key, PER)}")
        if key == "schedule":
            _check_schedule(value, f"per {glob!r}")
        elif key == "exempt":
            if not isinstance(value, bool):
                raise UserError(f"per {glob!r} sets exempt to {value!r}; it takes true or false")
        elif not _number(value) and (key, value) != ("weight_decay_end", None):
            raise UserError(f"per {glob!r} sets {key} to {value!r}; it takes a number")
        settings[key] = value
    if "weight_decay" in settings:
        settings.setdefault("weight_decay_end", None)
    return settings


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_schedule(schedule: object, where: str) -> None:
    if schedule not in SCHEDULES:
        raise UserError(
            f"{where} asks for the schedule {schedule!r}; there are {', '.join(SCHEDULES)}"
        )


def _create(recipe: Recipe, groups: Mapping[Rule, list[nn.Parameter]]) -> torch.optim.Optimizer:
    """Makes timm's optimiser of the recipe's name over these groups."""
    name = recipe.optimizer
    accepted, options = _options(recipe)
    lists: list[dict[str, Any]] = [{"params": parameters} for parameters in groups.values()]
    for group, rule in zip(lists, groups, strict=True):
        if "always_adapt" in accepted:  # LARS and LAMB: where the trust ratio acts
            group["always_adapt"] = not rule.exempt
        if rule.momentum != recipe.momentum and "momentum" not in options:
            raise UserError(f"per sets a momentum, but optimizer {name!r} has none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from timm.optim import create_optimizer_v2

        try:
            optimizer: torch.optim.Optimizer = create_optimizer_v2(lists, opt=name, **options)
        except (ValueError, TypeError, AssertionError, ImportError) as error:
            raise UserError(
                f"optimizer {name!r} cannot be made from this recipe: {error}"
            ) from error
    if hasattr(optimizer, "rng"):
        raise UserError(
            f"optimizer {name!r} draws random numbers of its own: it could not be resumed exactly"
        )
    return optimizer


def _options(recipe: Recipe) -> tuple[set[str], dict[str, Any]]:
    """The parameters that the optimiser takes, and the recipe's values for them."""
    name = recipe.optimizer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from timm.optim import get_optimizer_class, get_optimizer_info, list_optimizers

    if name not in (known := list_optimizers()):
        raise UnknownName("optimizer", name, known)
    info = get_optimizer_info(name)
    if info.second_order:
        raise UserError(f"optimizer {name!r} needs second derivatives, which no step here computes")
    try:
        accepted = set(inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters)
    except (AssertionError, ImportError) as error:
        raise UserError(f"optimizer {name!r} does not work on this machine: {error}") from error
    options: dict[str, Any] = {"lr": scaled_lr(recipe), "weight_decay": recipe.weight_decay}
    if info.has_momentum:
        options["momentum"] = recipe.momentum
    if info.has_betas and info.num_betas == len(recipe.betas):
        options["betas"] = tuple(recipe.betas)
    if "nesterov" in accepted:  # timm turns it on for some; here the recipe or the name does
        options["nesterov"] = recipe.nesterov or name.startswith("n")
    return accepted, options


def _packed_counters(
    group: Mapping[str, Any], prefix: str, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """Packs the counters that some optimisers keep in groups; the recipe gives the rest."""
    return {
        key: _pack(value, f"{prefix}:{key}", tensors)
        for key, value in group.items()
        if isinstance(value, Tensor) or _number(value)
    }


def _pack(value: Any, key: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Packs a piece of state as plain data, and moves its tensors to `tensors` under `key`."""
    if isinstance(value, Tensor):
        tensors[key] = value
        # stride and device are kept, for both can change the last bit of results
        return {"tensor": key, "stride": list(value.stride()), "host": value.device.type == "cpu"}
    if isinstance(value, (list, tuple)):
        return {"list": [_pack(v, f"{key}:{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"plain": value}
    raise TypeError(f"optimiser state {key!r} is a {type(value).__name__}, which cannot be saved")


def _unpack(packed: Mapping[str, Any], tensors: dict[str, Tensor], like: Tensor) -> Any:
    """Restores a piece of state, and takes its tensors out of `tensors`."""
    if "plain" in packed:
        return packed["plain"]
    if "list" in packed:
        return [_unpack(each, tensors, like) for each in packed["list"]]
    saved = tensors.pop(packed["tensor"], None)
    if saved is None:
        raise ValueError(f"the saved optimiser state lacks {packed['tensor']!r}")
    device = "cpu" if packed["host"] else like.device
    empty = torch.empty_strided(saved.shape, packed["stride"], dtype=saved.dtype, device=device)
    return empty.copy_(saved)
