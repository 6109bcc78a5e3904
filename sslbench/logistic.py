"""Multinomial logistic regression along falling regularisation, each fit to its minimum."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .blocks import WHOLE, Rows, as_rows, fits, largest, moments, sent
from .measures import ULP, power_of

TOLERANCE = 1e-6  # distance from the minimum, as a share of the objective
FAR = (0.1, 1e-2)  # the same, where the first fit takes its curvature anew
_SPARSE = 1 << 36  # products of numbers in a factor, above which it is made of fewer rows
STEPS = 100  # of Newton
PRODUCTS = 5000  # with the Hessian, of one fit
_ROTATED = 4096  # features above which their spectrum costs more than it saves
_APART = 1 << 24  # numbers in the classes' factors, above which classes share one
_BLOCK = 1 << 21  # numbers in an intermediate matrix on the CPU
_RESIDENT = 0.75  # of a GPU's free memory that the rows may take: each step reads them all
_KEPT = 0.25  # that the probabilities may take, which else are computed for each product


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
    converged: bool  # the distance from the minimum is proven to be within the tolerance

    def __call__(self, features: Tensor | Rows) -> Tensor:
        rows = features if isinstance(features, Rows) else Rows(features, self.mean.device)
        size = rows.block(8 * len(self.bias), cpu=max(256, 4 * _BLOCK // rows.width))
        return torch.cat([self._logits(part) for _, part in rows.blocks(size)])

    def _logits(self, features: Tensor) -> Tensor:
        return torch.addmm(
            self.bias, (features * self.power - self.mean) / self.scale, self.weight.T
        )


def fit_probes(
    features: Tensor | Rows,
    labels: Tensor,
    l2s: Sequence[float],
    classes: int,
    *,
    tolerance: float = TOLERANCE,
) -> Iterator[Probe]:
    """Fits logistic regression at each regularisation in turn, on the device of the rows.

    `features` [N, D], `labels` int64 [N]. Minimises mean cross entropy + l2/2 * |weights|^2 over
    standardised features. Each fit starts from the one before: give the strongest first, and take
    no more than needed. SciPy's Newton method in a trust region takes the steps (objective and
    gradient are float64, products with the Hessian float32), until the distance from the minimum is
    below `tolerance` of the objective, by the bound of strong convexity, |gradient|^2 / (2 l2).
    ValueError when there is nothing to fit.
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
    rows = as_rows(features)
    return _path(rows, sent(labels, rows.device), l2s, classes, tolerance)


def _path(
    features: Rows, labels: Tensor, l2s: Sequence[float], classes: int, tolerance: float
) -> Iterator[Probe]:
    shown = torch.bincount(labels, minlength=classes) > 0
    present, target = shown.nonzero()[:, 0], (shown.cumsum(0) - 1)[labels]
    points = _Points(features)
    count, size = len(present), points.rows.width
    weights = torch.zeros(count, size, dtype=torch.float64, device=features.device)
    for l2 in l2s:
        for near in (tolerance,) if weights.any() else (*FAR, tolerance):
            fit = _Fit(points.rows, target, float(l2), weights)
            converged = fit.descend(max(near, tolerance))
            weights = fit.weights
        weight = torch.zeros(classes, features.width, device=features.device)
        weight[present] = points.turned(weights[:, :-1]).float()
        bias = torch.full((classes,), -float("inf"), device=features.device)
        bias[present] = weights[:, -1].float()
        mean, scale = points.mean.float(), points.scale.float()
        yield Probe(weight, bias, mean, scale, points.power, float(l2), fit.value, converged)


class _Points:
    """Standardised features along the eigenvectors of their covariance, and a column of ones.

    The one copy of the features that a fit makes. It is on the device, or where it would take too
    much of that, on the host.
    """

    rows: Rows  # float32 [N, P + 1]
    mean: Tensor  # float64 [D]
    scale: Tensor  # float64 [D]
    power: Tensor  # [D]

    def __init__(self, features: Rows) -> None:
        widest = largest(features)
        self.power = power_of(widest)[0]
        if (self.power != 1).any():
            features = features.turned(lambda part: part * self.power)
        mean, scale = moments(features)
        flat = scale.float() <= ULP * (widest[0] * self.power)  # constant: no rounding amplified
        # rounded as the probe has them, which subtracts in float32
        first = features.take(torch.zeros(1, dtype=torch.long))[0]
        self.mean = torch.where(flat, first, mean.float()).double()
        self.scale = torch.where(flat, torch.ones_like(first), scale.float()).double()
        n, d = len(features), features.width
        self._basis = None if d > _ROTATED else self._spectrum(features)
        width = d if self._basis is None else self._basis.shape[1]
        rows = _room(n, width + 1, features.device)
        for at, part in features.blocks(features.block(32 * d, cpu=max(256, _BLOCK // d))):
            whole = (part.double() - self.mean) / self.scale
            rows[at, :-1] = whole if self._basis is None else whole @ self._basis
        self.rows = Rows(rows, features.device)

    def _spectrum(self, features: Rows) -> Tensor:
        """Eigenvectors [D, P], without those along which nothing varies: pictures have many."""
        n, d = len(features), features.width
        step = 1 if n <= 8 * d else n // (8 * d)
        some = features.take(torch.arange(0, n, step)).double()
        some.sub_(self.mean).div_(self.scale)
        variance, basis = torch.linalg.eigh(some.T @ some / len(some))  # rising
        if len(some) < n:
            variance = torch.ones_like(variance)
        found: Tensor = basis[:, variance > 1e-12 * variance[-1].clamp(min=1e-6)]
        return found

    def turned(self, weights: Tensor) -> Tensor:
        """Weights [C, D] of the standardised features, of those [C, P] of the rows."""
        return weights if self._basis is None else weights @ self._basis.T


def _room(n: int, width: int, device: torch.device) -> Tensor:
    """Ones [N, P + 1] on the device, or on the host where the device can read them by itself."""
    if device.type != "cuda" or fits(4 * n * width, device, _RESIDENT):
        return torch.ones(n, width, device=device)
    return torch.ones(n, width, pin_memory=True)


class _Spent(Exception):
    """The products with the Hessian that a fit may take are taken."""


class _Fit:
    """One regularisation: the objective, its gradient and its curvature, as SciPy asks for them.

    SciPy's variables are one flat vector: the weights of each class times a factor of its curvature
    at the start, so that the Hessian there is near the identity.
    """

    def __init__(self, rows: Rows, target: Tensor, l2: float, start: Tensor) -> None:
        self.rows, self.target, self.l2 = rows, target, l2
        self.products = 0
        self._size = rows.block(32 * sum(start.shape), cpu=max(256, _BLOCK // max(start.shape)))
        self._keeps = fits(4 * len(rows) * len(start), rows.device, _KEPT)
        self._chances: dict[int, Tensor] = {}  # of blocks, where they fit
        self._at: np.ndarray | None = None  # where chances are known
        self.value, _, self.distance = self._evaluate(start)
        self.weights = start
        self._origin = start  # variables begin at 0

    def descend(self, tolerance: float) -> bool:
        """Moves `weights` and `value` to the minimum; says whether they are proven to be near it."""
        from scipy.optimize import minimize

        def near() -> bool:
            return self.distance <= tolerance * self.value

        def stop(*_: Any, **__: Any) -> None:
            if near():
                raise StopIteration

        if not near():
            self._factor = self._factors()
            start = np.zeros(self.weights.numel())
            options = {"gtol": 0.0, "maxiter": STEPS, "initial_trust_radius": 100.0}
            options["max_trust_radius"] = 1e9
            with contextlib.suppress(_Spent):
                minimize(
                    self._asked,
                    start,
                    jac=True,
                    hessp=self._bend,
                    method="trust-ncg",
                    callback=stop,
                    options=options,
                )
        return near()

    def _asked(self, at: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective and its gradient at SciPy's variables; the lowest that it saw is kept."""
        weights = self._origin + self._there(at)
        value, gradient, distance = self._evaluate(weights)
        if value < self.value:
            self.weights, self.value, self.distance = weights, value, distance
        return value, self._back(gradient)

    def _bend(self, at: np.ndarray, way: np.ndarray) -> np.ndarray:
        """The Hessian at SciPy's variables times a way."""
        self.products += 1
        if self.products > PRODUCTS:
            raise _Spent
        if self._at is None or not np.array_equal(self._at, at):
            self._bent_at = (self._origin + self._there(at)).float()
            self._chances, self._at = {}, at.copy()
        weights = self._there(way)
        turn, bent = weights.float(), torch.zeros_like(weights, dtype=torch.float32)
        for place, part in self.rows.blocks(self._size):
            chance = self._chance(place.start, part)
            change = turn @ part.T
            change -= (change * chance).sum(0)
            bent.addmm_(change.mul_(chance), part)
        whole = bent.double().div_(len(self.rows))
        whole[:, :-1] += self.l2 * weights[:, :-1]
        return self._back(whole)

    def _chance(self, place: int, part: Tensor) -> Tensor:
        """Probabilities [C, n] of a block where the Hessian is taken."""
        if (known := self._chances.get(place)) is not None:
            return known
        chance = (self._bent_at @ part.T).softmax(0)
        if self._keeps:
            self._chances[place] = chance
        return chance

    def _evaluate(self, weights: Tensor) -> tuple[float, Tensor, float]:
        """In float64, of weights [C, P + 1]: the objective, its gradient and its distance to go.

        The distance from the minimum is at most |gradient|^2 / (2 l2), by strong convexity, where the
        biases are at theirs; what these have to go is added, by one step of Newton.
        """
        loss = weights.new_zeros(())
        slope = torch.zeros_like(weights)
        bend = weights.new_zeros(len(weights), len(weights))  # of the biases
        for at, part in self.rows.blocks(self._size):
            points, truth = part.double(), self.target[at]
            log = (weights @ points.T).log_softmax(0)  # classes first: the products are faster
            loss -= log.gather(0, truth[None]).sum()
            wrong = log.exp_()  # probabilities, less 1 at the truth
            bend += wrong.sum(1).diag() - wrong @ wrong.T
            wrong.scatter_add_(0, truth[None], wrong.new_full((), -1.0).expand(1, len(truth)))
            slope.addmm_(wrong, points)
        slope /= len(self.rows)
        slope[:, :-1] += self.l2 * weights[:, :-1]
        squares = weights[:, :-1].square().sum()
        bend.div_(len(self.rows)).diagonal().add_(1e-12)  # all biases together move nothing
        level = slope[:, -1]
        found = [
            loss / len(self.rows) + self.l2 / 2 * squares,
            level @ torch.linalg.solve_ex(bend, level)[0],
            slope[:, :-1].square().sum(),
        ]
        value, bias, steep = torch.stack(found).tolist()  # the one read
        return value, slope, bias / 2 + steep / (2 * self.l2)

    def _factors(self) -> Tensor:
        """Inverse factors F of the Hessian's blocks at the start, so that F F' is their inverse.

        [C, P + 1, P + 1] a block for each class, [1, P + 1, P + 1] one that classes share where there
        are many numbers, or [P + 1] its diagonal where there are too many.
        """
        n, size, count = len(self.rows), self.rows.width, len(self.weights)
        apart = count * size**2 <= _APART
        many = _SPARSE // (size**2 * (count if apart else 1))
        rows = self.rows.every(max(1, n // max(many, 4 * size)))
        ridge = torch.full((size,), self.l2, device=rows.device)
        ridge[-1] = 1e-9  # the bias is free
        diagonal = size > _ROTATED + 1
        shape = (1, size) if diagonal else (count if apart else 1, size, size)
        total = torch.zeros(shape, device=rows.device)
        for _, part in rows.blocks(rows.block(16 * (size + count), cpu=WHOLE // size)):
            chance = (self.weights.float() @ part.T).softmax(0)
            spread = chance - chance.square()  # [C, n]
            if len(total) == 1:
                spread = spread.mean(0, keepdim=True)
            if diagonal:
                total += spread @ part.square()
                continue
            for gram, each in zip(total, spread, strict=True):
                gram += (part * each[:, None]).T @ part
        if diagonal:
            return (total[0] / len(rows) + ridge).double().rsqrt()
        return _inverse_roots((total / len(rows) + ridge.diag()).double())

    def _there(self, at: np.ndarray) -> Tensor:
        """Weights [C, P + 1] of SciPy's variables."""
        flat = sent(torch.from_numpy(at), self.rows.device).view(len(self.weights), -1)
        return self._times(self._factor if self._factor.ndim == 1 else self._factor.mT, flat)

    def _back(self, slope: Tensor) -> np.ndarray:
        """The gradient by SciPy's variables, of that [C, P + 1] by weights."""
        return self._times(self._factor, slope).reshape(-1).cpu().numpy()

    @staticmethod
    def _times(factor: Tensor, rows: Tensor) -> Tensor:
        """Rows [C, P + 1], each times its factor."""
        if factor.ndim == 1:
            return rows * factor
        if len(factor) == 1:
            return rows @ factor[0]
        return (rows[:, None] @ factor)[:, 0]


def _inverse_roots(grams: Tensor) -> Tensor:
    """Factors F [C, P, P] so that F F' is the inverse of each of `grams`, nearly."""
    eye = torch.eye(grams.shape[1], dtype=grams.dtype, device=grams.device)
    scales = [gram.diagonal().rsqrt() for gram in grams]
    scaled = [gram * s * s[:, None] for gram, s in zip(grams, scales, strict=True)]
    tried = [torch.linalg.cholesky_ex(gram + 1e-6 * eye) for gram in scaled]
    wrong = torch.stack([each.info for each in tried]).tolist()  # the one read
    found = []
    for each, bad, gram, scale in zip(tried, wrong, scaled, scales, strict=True):
        root = _firmer(gram, eye) if bad else each.L
        found.append(scale[:, None] * torch.linalg.solve_triangular(root.mT, eye, upper=True))
    return torch.stack(found)


def _firmer(gram: Tensor, eye: Tensor) -> Tensor:
    """The root of a matrix that float32 left indefinite, firmed."""
    for more in (1e-4, 1e-2):
        root, wrong = torch.linalg.cholesky_ex(gram + more * eye)
        if not wrong:
            break
    found: Tensor = root
    return found
