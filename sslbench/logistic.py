"""Multinomial logistic regression that fits every regularisation at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .measures import ULP, power

TOLERANCE = 1e-6  # estimated distance from the minimum, as a share of the objective
ITERATIONS = 1000
_MEMORY = 10  # pairs the quasi-Newton step remembers
_ROTATED = 4096  # features above which the eigenvectors cost more than they save
_BLOCK = 1 << 21  # numbers in an intermediate matrix
_HISTORY = 1 << 28  # numbers remembered by the problems that are fitted together


@dataclass(frozen=True)
class Probe:
    """A fitted head: features [N, D] -> logits [N, C]."""

    weight: Tensor  # [C, D], for standardised features; 0 for a class without an example
    bias: Tensor  # [C]; -inf for a class without an example
    mean: Tensor  # [D]
    scale: Tensor  # [D]
    power: Tensor  # [D] by which features are multiplied first
    l2: float
    objective: float  # mean cross entropy + l2 / 2 * |weight|^2
    converged: bool

    def __call__(self, features: Tensor) -> Tensor:
        rows = max(256, 4 * _BLOCK // features.shape[1])
        return torch.cat([self._logits(part) for part in torch.split(features, rows)])

    def _logits(self, features: Tensor) -> Tensor:
        features = features.to(self.mean.device, torch.float32) * self.power
        return torch.addmm(self.bias, (features - self.mean) / self.scale, self.weight.T)


def fit_probes(
    features: Tensor, labels: Tensor, l2s: Sequence[float], classes: int
) -> tuple[Probe, ...]:
    """Fits logistic regression at every regularisation in `l2s`, on the device of the features.

    `features` [N, D], `labels` int64 [N]. Minimises mean cross entropy + l2/2 * |weights|^2 over
    standardised features. L-BFGS solves all problems together, so that they share each pass over
    the features. It is preconditioned by their spectrum: with weights in the eigenvectors' basis,
    scaled by (variance / classes + l2)^-1/2, the Hessian at zero is the identity. ValueError when
    there is nothing to fit.
    """
    if not len(features) or len(features) != len(labels) or not l2s:
        raise ValueError(
            f"a linear probe was asked for with {len(features)} features, {len(labels)} labels and "
            f"{len(l2s)} regularisations; give one label a feature, and at least one of each"
        )
    if min(l2s) <= 0 or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(
            f"a linear probe met l2 {min(l2s)} and labels from {int(labels.min())} to "
            f"{int(labels.max())}; l2 is above 0 and labels run from 0 to {classes - 1}"
        )
    shown = torch.bincount(labels, minlength=classes) > 0
    present, target = shown.nonzero()[:, 0], (shown.cumsum(0) - 1)[labels]
    problem = _prepare(features, target, len(present))
    each = 2 * _MEMORY * (problem.points.shape[1] + 1) * len(present)
    group = max(1, _HISTORY // each)
    found: list[Probe] = []
    for first in range(0, len(l2s), group):
        some = torch.tensor(l2s[first : first + group], dtype=torch.float64)
        weights, objective, converged = _minimise(problem, some.to(features.device))
        for r, l2 in enumerate(l2s[first : first + group]):
            weight = torch.zeros(classes, features.shape[1], device=features.device)
            own = weights[r, :-1]  # [P, C]
            weight[present] = (own if problem.basis is None else problem.basis @ own).T
            bias = torch.full((classes,), -float("inf"), device=features.device)
            bias[present] = weights[r, -1]
            end = float(objective[r]), bool(converged[r])
            found.append(
                Probe(weight, bias, problem.mean, problem.scale, problem.power, float(l2), *end)
            )
    return tuple(found)


class _Problem(NamedTuple):
    points: Tensor  # [N, P] standardised features in the basis
    target: Tensor  # [N]
    classes: int
    basis: Tensor | None  # [D, P] orthonormal; None: as they come
    variance: Tensor  # [P] of the points, roughly: it sets the pace, not the answer
    mean: Tensor  # [D]
    scale: Tensor  # [D]
    power: Tensor  # [D]


def _prepare(features: Tensor, target: Tensor, classes: int) -> _Problem:
    features = features.float()
    ordinary = power(features, 0)[0]
    features = features * ordinary if (ordinary != 1).any() else features
    n, d = features.shape
    mean = features.mean(0)
    scale = features.std(0, unbiased=False)
    flat = scale <= ULP * features.abs().amax(0)  # constant: rounding is not to be amplified
    mean = torch.where(flat, features[0], mean)
    scale = torch.where(flat, torch.ones_like(scale), scale)
    if d > _ROTATED:
        points = (features - mean) / scale
        return _Problem(points, target, classes, None, torch.ones_like(mean), mean, scale, ordinary)
    some = features if n <= 8 * d else features[:: n // (8 * d)]
    some = (some - mean) / scale
    variance, basis = torch.linalg.eigh(some.T @ some / len(some))  # rising
    if len(some) == n:
        # directions without variance take no part, and flattened pictures have many
        alive = variance > 1e-6 * variance[-1].clamp(min=1e-6)
        variance, basis = variance[alive], basis[:, alive]
    points = torch.empty(n, basis.shape[1], device=features.device)
    for part, out in zip(
        torch.split(features, rows := max(256, _BLOCK // d)), torch.split(points, rows), strict=True
    ):
        torch.matmul((part - mean) / scale, basis, out=out)
    return _Problem(points, target, classes, basis, variance.clamp(min=0), mean, scale, ordinary)


def _minimise(problem: _Problem, l2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Minimises the objectives of all R regularisations.

    Returns weights [R, P + 1, C] with the bias last, objectives [R], and whether each converged.
    """
    size = problem.points.shape[1] + 1, problem.classes
    pace = (problem.variance / problem.classes + l2[:, None]).rsqrt()
    pace = torch.cat([pace, torch.full_like(pace[:, :1], problem.classes**0.5)], dim=1)
    pace = pace[:, :, None].float()  # [R, P + 1, 1]
    weights = pace.new_zeros(len(l2), *size)
    objective = torch.zeros_like(l2)
    converged = torch.zeros(len(l2), dtype=torch.bool, device=l2.device)
    live = torch.arange(len(l2), device=l2.device)
    at = torch.zeros_like(weights).flatten(1)
    here = _Point(at, *_evaluate(problem, at, pace, l2), pace, l2, torch.zeros_like(converged))
    past: list[_Move] = []
    for step in range(ITERATIONS + 1):
        way = _direction(here.slope, past)  # [R, (P + 1) * C]
        decrement = -(way * here.slope).sum(1)  # twice the estimated distance from the minimum
        there = decrement <= 2 * TOLERANCE * here.value
        leave = there | here.stuck if step < ITERATIONS else torch.ones_like(there)
        if leave.any():
            gone = live[leave]
            weights[gone] = (here.at.view(-1, *size) * here.pace)[leave]
            objective[gone] = here.value[leave]
            converged[gone] = (decrement <= 1e-3 * here.value)[leave]
            if leave.all():
                break
            stay = ~leave
            live, way, decrement = live[stay], way[stay], decrement[stay]
            here = _Point(*(part[stay] for part in here))
            past = [_Move(*(part[stay] for part in move)) for move in past]
        there_now = _search(problem, here, way, decrement)
        past = [*past, _move(here, there_now)][-_MEMORY:]
        here = there_now
    return weights, objective, converged


class _Point(NamedTuple):
    """The current iterate of the R problems. Weights are `at * pace`."""

    at: Tensor  # [R, (P + 1) * C]
    value: Tensor  # float64 [R]
    slope: Tensor  # as `at`
    pace: Tensor  # [R, P + 1, 1]
    l2: Tensor  # float64 [R]
    stuck: Tensor  # bool [R], no descent was found: float32 has no more precision


class _Move(NamedTuple):
    step: Tensor  # [R, (P + 1) * C]
    bend: Tensor  # change of the slope
    weight: Tensor  # [R, 1] 1 / (step . bend), 0 where the pair says nothing
    size: Tensor  # [R, 1] (step . bend) / |bend|^2


def _move(here: _Point, there: _Point) -> _Move:
    step, bend = there.at - here.at, there.slope - here.slope
    along = (step * bend).sum(1, keepdim=True)
    square = (bend * bend).sum(1, keepdim=True)
    sound = along > 1e-10 * square
    nothing = torch.zeros_like(along)
    return _Move(
        step,
        bend,
        torch.where(sound, 1 / along, nothing),
        torch.where(sound, along / square, nothing + 1),
    )


def _direction(slope: Tensor, past: list[_Move]) -> Tensor:
    """The two loops of L-BFGS (Nocedal 1980), each problem with its own history."""
    way = -slope
    shares = []
    for move in reversed(past):
        share = move.weight * (move.step * way).sum(1, keepdim=True)
        way = torch.addcmul(way, share, move.bend, value=-1)
        shares.append(share)
    if past:
        way = way * past[-1].size
    for move, share in zip(past, reversed(shares), strict=True):
        back = move.weight * (move.bend * way).sum(1, keepdim=True)
        way = torch.addcmul(way, share - back, move.step)
    return way


def _search(problem: _Problem, here: _Point, way: Tensor, decrement: Tensor) -> _Point:
    """Takes the first of 1, .4, .4^2 ... times `way` that descends enough, for each problem."""
    at, value, slope = here.at + way, here.value.clone(), here.slope.clone()
    length = torch.ones_like(decrement)
    left = torch.arange(len(at), device=at.device)
    for _ in range(12):
        tried = _evaluate(problem, at[left], here.pace[left], here.l2[left])
        value[left], slope[left] = tried
        # a millionth of the objective is float32's own noise
        enough = here.value - 1e-4 * length * decrement + 1e-6 * here.value
        left = (~(value <= enough)).nonzero()[:, 0]
        if not len(left):
            return here._replace(at=at, value=value, slope=slope)
        length[left] *= 0.4
        at[left] = here.at[left] + length[left, None] * way[left]
    stuck = here.stuck.clone()
    stuck[left] = True
    at[left], value[left], slope[left] = here.at[left], here.value[left], here.slope[left]
    return here._replace(at=at, value=value, slope=slope, stuck=stuck)


def _evaluate(problem: _Problem, at: Tensor, pace: Tensor, l2: Tensor) -> tuple[Tensor, Tensor]:
    """Objectives [R] and their gradients by `at`, in one pass over the points."""
    points, target, classes = problem.points, problem.target, problem.classes
    many, n = len(at), len(points)
    weights = at.view(many, -1, classes) * pace  # [R, P + 1, C]
    flat = weights[:, :-1].transpose(0, 1).reshape(-1, many * classes)  # [P, R * C]
    bias = weights[:, -1].reshape(-1)
    loss = torch.zeros_like(l2)
    slope, level = torch.zeros_like(flat), torch.zeros_like(bias)
    rows = max(256, _BLOCK // (many * classes))
    for part, truth in zip(torch.split(points, rows), torch.split(target, rows), strict=True):
        index = truth[:, None, None].expand(-1, many, 1)
        logits = torch.addmm(bias, part, flat).view(-1, many, classes)
        total = logits.logsumexp(2, keepdim=True)
        loss += (total - logits.gather(2, index)).sum((0, 2), dtype=torch.float64)
        wrong = logits.sub_(total).exp_()  # probabilities, less 1 at the truth
        wrong = wrong.scatter_add_(2, index, wrong.new_full((), -1.0).expand(index.shape))
        slope.addmm_(part.T, wrong.view(-1, many * classes))
        level += wrong.sum(0).flatten()
    whole = torch.cat([slope.view(-1, many, classes), level.view(1, many, classes)])
    whole = whole.transpose(0, 1) / n  # [R, P + 1, C]
    whole[:, :-1] += l2[:, None, None].float() * weights[:, :-1]
    squares = weights[:, :-1].flatten(1).square().sum(1, dtype=torch.float64)
    return loss / n + l2 / 2 * squares, (whole * pace).flatten(1)
