"""Multinomial logistic regression that fits every regularisation at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .measures import ULP, power

TOLERANCE = 1e-6  # distance from the minimum, as a share of the objective
NEAR = 6e-7  # estimated distance at which first steps end: they know it to an order of magnitude
ITERATIONS = 1000
NEWTON = 20  # steps of the second kind
CONJUGATE = 150  # products with the Hessian within one of them
SOON = 12  # of these
_MEMORY = 10  # pairs the quasi-Newton step remembers
_ROTATED = 4096  # features above which the eigenvectors cost more than they save
_BLOCK = 1 << 21  # numbers in an intermediate matrix
_HISTORY = 1 << 28  # numbers remembered by the problems that are fitted together
_KEPT = 1 << 27  # probabilities that are kept between products


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
    standardised features, to within 1e-6 of the minimum, or says that it did not converge. L-BFGS
    solves all problems together, so that they share each pass over the features. It is
    preconditioned by their spectrum: with weights in the eigenvectors' basis, scaled by
    (variance / classes + l2)^-1/2, the Hessian at zero is the identity. Newton's steps with
    gradients in float64 finish what L-BFGS leaves. ValueError when there is nothing to fit.
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
        some = some.to(features.device)
        weights, objective, converged = _polish(problem, _minimise(problem, some), some)
        for r, l2 in enumerate(l2s[first : first + group]):
            weight = torch.zeros(classes, features.shape[1], device=features.device)
            weight[present] = _turned(problem, weights[r, :-1]).T.float()
            bias = torch.full((classes,), -float("inf"), device=features.device)
            bias[present] = weights[r, -1].float()
            end = float(objective[r]), bool(converged[r])
            found.append(
                Probe(weight, bias, problem.mean, problem.scale, problem.power, float(l2), *end)
            )
    return tuple(found)


class _Problem(NamedTuple):
    features: Tensor  # [N, D] as they came, times `power`
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
        return _Problem(
            features, points, target, classes, None, torch.ones_like(mean), mean, scale, ordinary
        )
    some = features if n <= 8 * d else features[:: n // (8 * d)]
    some = ((some - mean) / scale).double()
    variance, basis = torch.linalg.eigh(some.T @ some / len(some))  # rising
    if len(some) == n:
        # directions without variance take no part, and flattened pictures have many
        alive = variance > 1e-12 * variance[-1].clamp(min=1e-6)
        variance, basis = variance[alive], basis[:, alive]
    points = torch.empty(n, basis.shape[1], device=features.device)
    for part, out in zip(
        torch.split(features, rows := max(256, _BLOCK // d)), torch.split(points, rows), strict=True
    ):
        torch.matmul((part - mean) / scale, basis.float(), out=out)
    return _Problem(
        features, points, target, classes, basis, variance.clamp(min=0), mean, scale, ordinary
    )


def _pace(problem: _Problem, l2: Tensor) -> Tensor:
    """float64 [R, P + 1, 1]: weights divided by it have a Hessian of about 1 at zero."""
    pace = (problem.variance / problem.classes + l2[:, None]).rsqrt()
    return torch.cat([pace, torch.full_like(pace[:, :1], problem.classes**0.5)], dim=1)[..., None]


def _minimise(problem: _Problem, l2: Tensor) -> Tensor:
    """Weights [R, P + 1, C], the bias last, as near the minimum as float32 and L-BFGS lead."""
    size = problem.points.shape[1] + 1, problem.classes
    pace = _pace(problem, l2).float()
    weights = pace.new_zeros(len(l2), *size)
    live = torch.arange(len(l2), device=l2.device)
    at = torch.zeros_like(weights).flatten(1)
    stuck = torch.zeros_like(live, dtype=torch.bool)
    here = _Point(at, *_evaluate(problem, at, pace, l2), pace, l2, stuck)
    past: list[_Move] = []
    for step in range(ITERATIONS + 1):
        way = _direction(here.slope, past)  # [R, (P + 1) * C]
        decrement = -(way * here.slope).sum(1)  # twice the estimated distance from the minimum
        there = decrement <= 2 * NEAR * here.value
        leave = there | here.stuck if step < ITERATIONS else torch.ones_like(there)
        if leave.any():
            gone = live[leave]
            weights[gone] = (here.at.view(-1, *size) * here.pace)[leave]
            if leave.all():
                break
            stay = ~leave
            live, way, decrement = live[stay], way[stay], decrement[stay]
            here = _Point(*(part[stay] for part in here))
            past = [_Move(*(part[stay] for part in move)) for move in past]
        there_now = _search(problem, here, way, decrement)
        past = [*past, _move(here, there_now)][-_MEMORY:]
        here = there_now
    return weights


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
    points, classes = problem.points, problem.classes
    weights = at.view(len(at), -1, classes) * pace  # [R, P + 1, C]
    flat, bias = _flat(weights)
    loss = torch.zeros_like(l2)
    slope, level = torch.zeros_like(flat), torch.zeros_like(bias)
    rows = max(256, _BLOCK // len(flat))
    for part, truth in zip(
        torch.split(points, rows), torch.split(problem.target, rows), strict=True
    ):
        lost, wrong = _wrong(torch.addmm(bias, flat, part.T), truth, classes)
        loss += lost
        slope.addmm_(wrong, part)
        level += wrong.sum(1, keepdim=True)
    whole = _stacked(slope, level, classes) / len(points)
    whole[:, :-1] += l2[:, None, None].float() * weights[:, :-1]
    squares = weights[:, :-1].flatten(1).square().sum(1, dtype=torch.float64)
    return loss / len(points) + l2 / 2 * squares, (whole * pace).flatten(1)


def _flat(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Of [R, P + 1, C] the weights [R * C, P] and the biases [R * C, 1]."""
    return weights[:, :-1].mT.flatten(0, 1), weights[:, -1].reshape(-1, 1)


def _stacked(slope: Tensor, level: Tensor, classes: int) -> Tensor:
    """The way back: [R, P + 1, C]."""
    return torch.cat([slope, level], dim=1).view(-1, classes, slope.shape[1] + 1).mT.contiguous()


def _wrong(logits: Tensor, truth: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Of logits [R * C, n] the losses [R], float64, and their slopes [R * C, n], in their place."""
    each = logits.view(-1, classes, len(truth))  # rows last: a sum over few of these is slow
    index = truth.expand(len(each), 1, -1)
    total = each.logsumexp(1, keepdim=True)
    loss = (total - each.gather(1, index)).sum((1, 2), dtype=torch.float64)
    wrong = each.sub_(total).exp_()  # probabilities, less 1 at the truth
    wrong.scatter_add_(1, index, wrong.new_full((), -1.0).expand(index.shape))
    return loss, logits


def _polish(problem: _Problem, weights: Tensor, l2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The minimum from nearby, by Newton's steps: weights, objectives [R], whether each got there.

    Slopes and objectives are those of the features themselves in float64; a step is found in
    float32 by conjugate gradients, whose errors the next slope shows.
    """
    pace, at = _pace(problem, l2), weights.double()
    value, slope = _exactly(problem, at, pace, l2)
    converged = torch.zeros_like(l2, dtype=torch.bool)
    most = torch.zeros_like(l2)  # products that a step took
    live = torch.arange(len(l2), device=l2.device)
    for _ in range(NEWTON):
        if not len(live):
            break
        way, products = _newton(
            problem, at[live], slope[live], pace[live], l2[live], least=most[live] / 2
        )
        most[live] = torch.maximum(most[live], products.clamp(max=CONJUGATE))
        decrement = -(way * slope[live]).sum((1, 2))  # twice the distance from the minimum
        # where ways were found soon this step leaves less than a tenth of it
        enough = torch.where(most[live] <= SOON, 6, 0.1) * TOLERANCE * value[live]
        there = ((products < torch.inf) & (decrement <= enough)) | (slope[live] == 0).all(2).all(1)
        gone, way = live[there], way * pace[live]
        at[gone] += way[there]
        value[gone] -= decrement[there] / 2
        converged[gone] = True
        live = live[~there]
        found = _descend(problem, (at, value, slope), live, way[~there], decrement[~there], l2)
        live = live[found]
    return at, value, converged


def _descend(
    problem: _Problem,
    state: tuple[Tensor, Tensor, Tensor],
    live: Tensor,
    way: Tensor,
    decrement: Tensor,
    l2: Tensor,
) -> Tensor:
    """Moves weights, objectives and slopes of those that live, in place; which found a way down."""
    pace, length = _pace(problem, l2), torch.ones_like(decrement)
    at, value, slope = state
    left = torch.arange(len(live), device=live.device)
    for _ in range(12):
        if not len(left):
            break
        rows = live[left]
        tried = at[rows] + length[left, None, None] * way[left]
        new, steep = _exactly(problem, tried, pace[rows], l2[rows])
        good = new <= value[rows] - 1e-4 * length[left] * decrement[left]
        moved = rows[good]
        at[moved], value[moved], slope[moved] = tried[good], new[good], steep[good]
        left = left[~good]
        length[left] *= 0.4
    found = torch.ones_like(live, dtype=torch.bool)
    found[left] = False
    return found


def _turned(problem: _Problem, weights: Tensor) -> Tensor:
    """Weights [..., D, C] of the standardised features, of those in the basis."""
    return weights if problem.basis is None else problem.basis.to(weights) @ weights


def _exactly(problem: _Problem, weights: Tensor, pace: Tensor, l2: Tensor) -> tuple[Tensor, Tensor]:
    """In float64: objectives [R], and their slopes by weights / pace, [R, P + 1, C]."""
    classes, n = problem.classes, len(problem.points)
    own = torch.cat([_turned(problem, weights[:, :-1]), weights[:, -1:]], dim=1)  # [R, D + 1, C]
    flat, bias = _flat(own)
    loss = torch.zeros_like(l2)
    slope, level = torch.zeros_like(flat), torch.zeros_like(bias)
    mean, scale = problem.mean.double(), problem.scale.double()
    rows = max(256, _BLOCK // (2 * max(len(flat), len(mean))))
    for part, truth in zip(
        torch.split(problem.features, rows), torch.split(problem.target, rows), strict=True
    ):
        points = (part.double() - mean) / scale
        lost, wrong = _wrong(torch.addmm(bias, flat, points.T), truth, classes)
        loss += lost
        slope.addmm_(wrong, points)
        level += wrong.sum(1, keepdim=True)
    slope = slope if problem.basis is None else slope @ problem.basis.double()
    whole = _stacked(slope, level, classes) / n  # [R, P + 1, C]
    whole[:, :-1] += l2[:, None, None] * weights[:, :-1]
    return loss / n + l2 / 2 * weights[:, :-1].flatten(1).square().sum(1), whole * pace


def _newton(
    problem: _Problem,
    weights: Tensor,
    slope: Tensor,
    pace: Tensor,
    l2: Tensor,
    *,
    least: Tensor,
) -> tuple[Tensor, Tensor]:
    """Newton's way down [R, P + 1, C], in weights / pace, by conjugate gradients in float32.

    Each ends where a tenth of the slope is left and the last products added little to what it
    gains (Nash and Sofer 1990), after `least` products at the least; also [R], after how many,
    infinity where it did not come so far.
    """
    size = slope.flatten(1).norm(dim=1).clamp(min=1e-300)[:, None, None]
    curved = _Curvature(problem, weights.float(), pace.float(), l2.float())
    own = curved.diagonal().clamp(min=1e-12)
    left = (-slope / size).float()
    way, turn = torch.zeros_like(left), left / own
    square = (left * turn).sum((1, 2))
    first, gain = square, torch.zeros_like(square, dtype=torch.float64)
    products = torch.full_like(gain, torch.inf)
    live = torch.ones_like(square, dtype=torch.bool)
    for step in range(1, CONJUGATE + 1):
        bend = curved(turn)
        along = (turn * bend).sum((1, 2))
        live = live & (along > 0)
        share = torch.where(live, square / along, torch.zeros_like(along))
        way = torch.addcmul(way, share[:, None, None], turn)
        left = torch.addcmul(left, share[:, None, None], bend, value=-1)
        more = (share * square).double()  # twice what this product gains
        gain = gain + more
        eased = left / own
        new = (left * eased).sum((1, 2))
        ended = (step * more <= 0.1 * gain) & (new <= 0.01 * first) & (step >= least)
        products = torch.where(live & ended, step, products)
        live = live & ~ended
        if not live.any():
            break
        turn = eased + (new / square.clamp(min=1e-38))[:, None, None] * turn
        square = new
    return way.double() * size, products


class _Curvature:
    """The Hessian at some weights [R, P + 1, C], in units of pace: a way -> its bend."""

    def __init__(self, problem: _Problem, weights: Tensor, pace: Tensor, l2: Tensor) -> None:
        self.problem, self.pace, self.l2 = problem, pace, l2
        self.flat, self.bias = _flat(weights)
        self.parts = torch.split(problem.points, max(256, _BLOCK // len(self.flat)))
        few = len(problem.points) * len(self.flat) <= _KEPT
        self.kept = list(self._chances()) if few else None

    def _chances(self) -> Iterator[Tensor]:
        for part in self.parts:
            logits = torch.addmm(self.bias, self.flat, part.T)
            yield logits.view(-1, self.problem.classes, len(part)).softmax(1)

    def diagonal(self) -> Tensor:
        """[R, P + 1, C]"""
        whole, level = torch.zeros_like(self.flat), torch.zeros_like(self.bias)
        for part, chance in zip(self.parts, self.kept or self._chances(), strict=True):
            spread = (chance - chance.square()).flatten(0, 1)
            whole.addmm_(spread, part.square())
            level += spread.sum(1, keepdim=True)
        found = _stacked(whole, level, self.problem.classes) / len(self.problem.points)
        found[:, :-1] += self.l2[:, None, None]
        return found * self.pace.square()

    def __call__(self, way: Tensor) -> Tensor:
        weights = way * self.pace
        flat, bias = _flat(weights)
        bent, level = torch.zeros_like(flat), torch.zeros_like(bias)
        for part, chance in zip(self.parts, self.kept or self._chances(), strict=True):
            moved = torch.addmm(bias, flat, part.T).view(chance.shape)
            moved -= (moved * chance).sum(1, keepdim=True)
            change = moved.mul_(chance).flatten(0, 1)
            bent.addmm_(change, part)
            level += change.sum(1, keepdim=True)
        whole = _stacked(bent, level, self.problem.classes) / len(self.problem.points)
        whole[:, :-1] += self.l2[:, None, None] * weights[:, :-1]
        return whole * self.pace
