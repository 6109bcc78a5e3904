"""The shape of the cloud of features: how many directions, how even, how tight its classes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sslbench.api import Count, Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.errors import Unsuited
from sslbench.measures import ULP, rankme, unit
from sslbench.scores import labelled

VIEWS_SEED = 0  # of the views: the same ones for every encoder
SHIFT = 8  # a view moves by up to size / SHIFT pixels each way
BRIGHTNESS = 0.2  # and is up to this share brighter or darker
ROUNDING = 1e-12  # of the variance: what is below it is none
_TOGETHER = 500  # images whose views are drawn together: part of the protocol, as their seed is
_BLOCK = 1 << 22  # numbers in an intermediate matrix


class Geometry(Evaluator):
    """Rank, evenness and class separation of frozen features.

    Measured: on the labelled images of test, at most 10,000 of them, evenly spaced; all of them
    where none is labelled, without the last three. `rankme` and `effective_rank` are exp of an
    entropy: of the singular values, features as they come (each share + 1e-7), and of the
    eigenvalues of the covariance. On features of unit length, `uniformity` is the log of the mean
    of exp(-2 distance^2) over all pairs of two images, `alignment` the mean squared distance of
    two views of an image, on 2,000 images: each view moved by up to an eighth of its side
    (reflected at the border) and made up to a fifth brighter or darker, the same views for every
    encoder. Of classes with two images or more, each counting alike: `class_variance` is the share
    of the variance that lies between classes, `nc1` is tr(W pinv(B)) / classes with the
    covariances W within and B between classes, `equiangularity` the mean distance of the cosines
    of class means, seen from their mean, from -1 / (classes - 1).
    Chosen: nothing; labels are used for the last three only.
    Source: Garrido et al., arXiv 2210.02885 (RankMe); Wang & Isola, arXiv 2005.10242 (alignment,
    uniformity); Roy & Vetterli, EUSIPCO 2007 (effective rank); Papyan et al., arXiv 2008.08186.
    Traps: ranks are at most the width, so compare encoders of one width; an offset that all images
    share lowers `rankme` and not `effective_rank`; noise has a high rank, and collapse a perfect
    alignment, so that no column here is good by itself; published alignment is under the views a
    method was trained on. None of it takes the place of accuracy.

    images: of test, at most. pairs: images whose two views are compared, at most.
    """

    metrics = (
        Metric("rankme", summary="exp entropy of the singular values", unit="dimensions"),
        Metric(
            "effective_rank",
            summary="exp entropy of the covariance's eigenvalues",
            unit="dimensions",
        ),
        Metric(
            "uniformity", higher_is_better=False, summary="log mean potential of pairs", unit="nats"
        ),
        Metric(
            "alignment", higher_is_better=False, summary="squared distance of two views", unit="1"
        ),
        Metric("class_variance", summary="share of the variance between classes"),
        Metric(
            "nc1", higher_is_better=False, summary="variance within over between classes", unit="1"
        ),
        Metric(
            "equiangularity", higher_is_better=False, summary="class means off a simplex", unit="1"
        ),
    )
    version = 1

    def __init__(self, *, images: Count = 10_000, pairs: Count = 2_000) -> None:
        self.images, self.pairs = images, pairs

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        device = "cpu" if subject.device.type == "mps" else subject.device  # Metal has no float64
        warnings: tuple[str, ...] = ()
        labels = None
        try:
            features, labels, _ = labelled(subject, data, "test")
        except Unsuited as reason:
            features = subject.features("test").float()
            warnings = (f"{', '.join(m.name for m in self.metrics[4:])} were left out: {reason}",)
        rows = _spaced(len(features), self.images)
        features = features[rows].to(device)
        n = len(features)
        metrics = {
            "rankme": Value(rankme(features), n),
            "effective_rank": Value(effective_rank(features), n),
        }
        if n > 1:
            metrics["uniformity"] = Value(uniformity(unit(features)), n)
        metrics["alignment"] = self._alignment(subject, data)
        if labels is not None:
            found, more = separation(features.double(), labels[rows].to(device))
            metrics |= found
            warnings += more
        return Judgement(metrics, {}, warnings)

    def _alignment(self, subject: Subject, data: Judged) -> Value:
        pictures = data.images("test")
        pictures = pictures[_spaced(len(pictures), self.pairs)]
        generator = torch.Generator().manual_seed(VIEWS_SEED)
        one, two = (
            unit(torch.cat(list(self._seen(subject, pictures, generator)))) for _ in range(2)
        )
        distance = (one - two).double().square().sum(1)
        n = len(distance)
        error = float(distance.std()) / math.sqrt(n) if n > 1 else None
        return Value(float(distance.mean()), n, error)

    def _seen(
        self, subject: Subject, pictures: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        for some in torch.split(pictures, _TOGETHER):
            for part in subject.stream(view(some, generator)):
                if broken := int((~part.isfinite()).any(1).sum()):
                    raise ValueError(
                        f"views of test were to be judged, the features of {broken} of {len(part)} "
                        "hold NaN or infinity; train again with a lower learning rate"
                    )
                yield part


def effective_rank(x: Tensor) -> float:
    """exp of the entropy of the eigenvalues of the covariance of x [N, D]; 1 without variance."""
    x = x.double()
    raw = float(x.square().sum())
    x = x - x.mean(0)
    floor = max(ROUNDING * float(x.square().sum()), ULP**2 * raw / x.shape[1])
    gram = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    values = torch.linalg.eigvalsh(gram)
    values = torch.where(values > floor, values, torch.zeros_like(values))
    shares = values / values.sum().clamp_min(1e-300)
    return float(torch.exp(torch.special.entr(shares).sum()))


def uniformity(x: Tensor) -> float:
    """log of the mean of exp(-2 |a - b|^2) over pairs of different rows of x [N, D], of length 1."""
    n, total = len(x), 0.0
    squares = x.square().sum(1)  # 1; 0 of a row without direction
    rows = max(1, _BLOCK // n)
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        distance = squares[part, None] + squares - 2 * x[part] @ x.T
        potential = distance.clamp_(min=0).mul_(-2).exp_()
        potential.diagonal(offset=start).zero_()  # itself
        total += float(potential.sum(dtype=torch.float64))
    return math.log(total / (n * (n - 1)))


def separation(x: Tensor, labels: Tensor) -> tuple[dict[str, Value], tuple[str, ...]]:
    """What classes with two rows or more do to x [N, D], float64; what is not defined, said."""
    counts = torch.bincount(labels)
    shown = counts >= 2
    keep, counts = shown[labels], counts[shown]
    x, own = x[keep], (shown.cumsum(0) - 1)[labels[keep]]
    n, classes, left = len(x), len(counts), int((~keep).sum())
    if classes < 2:
        return {}, (f"{classes} classes have two test images: their separation is not defined",)
    alone = (f"{left} classes with one test image took no part in their separation",)
    share = 1 / (classes * counts.double())[own]  # [N] each class counts alike
    means = x.new_zeros(classes, x.shape[1]).index_add_(0, own, x * share[:, None]) * classes
    apart = means - means.mean(0)  # [C, D]
    length, axes = torch.linalg.svd(apart / math.sqrt(classes), full_matrices=False)[1:]
    rest, raw = x - means[own], float((share * x.square().sum(1)).sum())
    within, between = float((share * rest.square().sum(1)).sum()), float(length.square().sum())
    floor = max(ROUNDING * (within + between), ULP**2 * raw / x.shape[1])
    if float(length[0] ** 2) <= floor:
        return {}, ("the means of all classes are the same: their separation is not defined",)
    axes, length = axes[length**2 > floor], length[length**2 > floor]  # [P, D], [P]
    along = (share[:, None] * (rest @ axes.T).square()).sum(0)  # [P] variance within
    between = float(length.square().sum())
    ways = unit(apart)
    cosine = (ways @ ways.T)[~torch.eye(classes, dtype=torch.bool, device=x.device)]
    return {
        "class_variance": Value(between / (between + within), n),
        "nc1": Value(float((along / length.square()).sum()) / classes, n),
        "equiangularity": Value(float((cosine + 1 / (classes - 1)).abs().mean()), n),
    }, alone if left else ()


def view(images: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 [N, 3, H, W], each moved and made brighter or darker by draws of its own."""
    n, _, height, width = images.shape
    reach = min(max(1, min(height, width) // SHIFT), height - 1, width - 1)
    down, right = torch.randint(-reach, reach + 1, (2, n, 1), generator=generator)
    row, column = _reflected(down, height)[:, :, None], _reflected(right, width)[:, None]
    moved = images[torch.arange(n)[:, None, None], :, row, column].permute(0, 3, 1, 2)
    light = 1 + BRIGHTNESS * (2 * torch.rand(n, 1, 1, 1, generator=generator) - 1)
    return (moved * light).round().clamp(0, 255).to(torch.uint8)


def _reflected(shift: Tensor, size: int) -> Tensor:
    """Positions [N, size] read by images that move by `shift` [N, 1], none outside."""
    read = (torch.arange(size) + shift).abs()
    return size - 1 - (size - 1 - read).abs()


def _spaced(n: int, most: int) -> Tensor:
    """Positions of at most so many of n, evenly spaced."""
    take = min(n, most)
    return torch.arange(take) * n // take
