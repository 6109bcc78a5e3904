"""k-means, neighbours, matching and whitening, for clustering methods and evaluators.

On the CPU, faiss searches among many rows and torch does the rest: whichever was faster for the
same answer (`benchmarks/judges.py`). On an accelerator torch does all of it. Results depend on the
input, the seed and the number of threads only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .measures import unit

_MANY = 32  # centroids from which faiss finds the nearest sooner than torch does on the CPU
_WIDE = 256  # centroids of all restarts that share one pass over the points
_BLOCK = 1 << 22  # numbers in an intermediate matrix


class Clusters(NamedTuple):
    assignment: Tensor  # int64 [N], the nearest centroid of each point
    centroids: Tensor  # [k, D]
    inertia: float  # sum of squared distances to the nearest centroid


class Match(NamedTuple):
    mapping: Tensor  # int64 [K], the class of each cluster, -1 for one left without
    accuracy: float


def kmeans(
    features: Tensor,
    k: int,
    *,
    restarts: int = 1,
    iterations: int = 20,
    spherical: bool = False,
    seed: int,
) -> Clusters:
    """Runs Lloyd's k-means on all points `features` [N, D], and keeps the restart of least inertia.

    First centroids are drawn by squared distance (k-means++, Arthur & Vassilvitskii 2007; above
    32 clusters several at a time). A restart ends when no point moves, or after `iterations`
    updates. An empty cluster takes half of the one that scatters most. `spherical`: rows and
    centroids have unit norm, inertia is 2 * sum(1 - cosine). ValueError when k is less than 1 or
    more than N, or when a feature is not finite.
    """
    n = len(features)
    if not 1 <= k <= n:
        raise ValueError(f"k-means was asked for {k} clusters of {n} points; ask for 1 to {n}")
    if restarts < 1:
        raise ValueError(f"k-means was asked for {restarts} restarts; ask for at least 1")
    _check_finite(features, "k-means")
    points = features.detach().float().contiguous()
    points = unit(points) if spherical else points
    origin = _origin(points, spherical)
    points = points if origin is None else points - origin
    generator = torch.Generator().manual_seed(seed)
    together = 1 if _by_faiss(points, k) else max(1, _WIDE // k)
    found: list[Clusters] = []
    for first in range(0, restarts, together):
        starts = _seeds(points, k, min(together, restarts - first), generator)
        found += _lloyd(points, starts, iterations, spherical=spherical, generator=generator)
    best = min(found, key=lambda clusters: clusters.inertia)
    return best if origin is None else best._replace(centroids=best.centroids + origin)


def neighbours(features: Tensor, k: int, *, itself: bool = True) -> Tensor:
    """Finds the k nearest rows of each row by cosine similarity, nearest first: int64 [N, k].

    The row itself comes first and counts as one of the k, also among identical rows;
    `itself=False` leaves it out. ValueError when there are fewer than k.
    """
    n = len(features)
    wanted = k if itself else k + 1
    if not 1 <= k <= wanted <= n:
        most = n if itself else n - 1
        raise ValueError(f"{k} neighbours were asked for among {n} points; ask for 1 to {most}")
    _check_finite(features, "the search for neighbours")
    points = unit(features.detach().float())
    index = nearest(points, points, wanted)[1]  # [N, wanted]
    row = torch.arange(n, device=index.device)[:, None]
    order = (index != row).to(torch.int8).argsort(dim=1, stable=True)  # itself to the front
    others = index.gather(1, order)[:, 1:]
    # where more rows are identical than were asked for, the one dropped is as near as any
    return torch.cat([row, others], dim=1) if itself else others.contiguous()


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Finds, for each query, the k rows of the bank with the largest inner product, exactly.

    `queries` [M, D], `bank` [N, D] -> similarity [M, k], falling, and index int64 [M, k].
    """
    if queries.device.type == "cpu":
        faiss = _faiss()
        found = faiss.knn(
            queries.contiguous().numpy(),
            bank.contiguous().numpy(),
            k,
            metric=faiss.METRIC_INNER_PRODUCT,
        )
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])
    rows = max(1, 16 * _BLOCK // len(bank))
    parts = [(part @ bank.T).topk(k, dim=1) for part in torch.split(queries, rows)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def match(
    truth: Tensor, assignment: Tensor, *, classes: int | None = None, clusters: int | None = None
) -> Match:
    """Matches clusters to classes one to one so that most points agree (Hungarian method).

    `truth` and `assignment` int64 [N]. There may be more clusters than classes or fewer: those
    left over count as wrong.
    """
    from scipy.optimize import linear_sum_assignment

    truth, assignment = truth.cpu(), assignment.cpu()
    if len(truth) != len(assignment) or not len(truth):
        raise ValueError(
            f"{len(assignment)} assignments were to be matched with {len(truth)} labels; "
            "give one of each for every point, and at least one"
        )
    if truth.min() < 0 or assignment.min() < 0:
        raise ValueError("matching met a label below 0; leave the unlabelled points out")
    columns = max(int(truth.max()) + 1, classes or 0)
    rows = max(int(assignment.max()) + 1, clusters or 0)
    table = torch.bincount(assignment * columns + truth, minlength=rows * columns)
    table = table.view(rows, columns)  # [K, classes]
    row, column = linear_sum_assignment(table.numpy(), maximize=True)
    mapping = torch.full((rows,), -1, dtype=torch.long)
    mapping[torch.from_numpy(row)] = torch.from_numpy(column)
    return Match(mapping, int(table[row, column].sum()) / len(truth))


def pca_whiten(features: Tensor, dim: int) -> Tensor:
    """Projects on the `dim` leading principal components, each with mean 0 and variance 1.

    A component without variance becomes 0, lest rounding be amplified.
    """
    n, full = features.shape
    if not 1 <= dim <= min(n, full):
        raise ValueError(
            f"whitening was asked for {dim} components of {n} points in {full} dimensions; "
            f"ask for 1 to {min(n, full)}"
        )
    _check_finite(features, "whitening")
    features = features.detach().float()
    mean = features.double().mean(0) if n * full <= 16 * _BLOCK else features.mean(0).double()
    scatter = torch.zeros(full, full, dtype=torch.float64, device=features.device)
    for part in _parts(features, full):
        centred = part - mean.float()
        scatter += centred.T @ centred
    values, vectors = torch.linalg.eigh(scatter / max(1, n - 1))  # rising
    values, vectors = values[-dim:].flip(0), vectors[:, -dim:].flip(1)
    alive = values > values[0] * 1e-7
    scale = torch.where(alive, values.clamp(min=1e-30).rsqrt(), torch.zeros_like(values))
    basis = (vectors * scale).float()  # [D, dim]
    return torch.cat([(part - mean.float()) @ basis for part in _parts(features, full)])


def _check_finite(features: Tensor, asker: str) -> None:
    bad = sum(int((~part.isfinite()).any(1).sum()) for part in _parts(features, features.shape[1]))
    if bad:
        raise ValueError(
            f"{asker} was given features of which {bad} of {len(features)} rows hold NaN or "
            "infinity; the encoder has diverged: train it again with a lower learning rate"
        )


def _parts(points: Tensor, width: int) -> Iterator[Tensor]:
    return iter(torch.split(points, max(256, _BLOCK // max(1, width))))


def _faiss() -> Any:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())  # it has a pool of its own
    return faiss


def _by_faiss(points: Tensor, k: int) -> bool:
    return k >= _MANY and points.device.type == "cpu"


def _origin(points: Tensor, spherical: bool) -> Tensor | None:
    """The mean of the points where it is so large that squared distances lose precision."""
    if spherical:
        return None
    mean = points.mean(0)
    spread = points.var(0, unbiased=False).sum()
    return mean if mean.square().sum() > 10 * spread else None


def _seeds(points: Tensor, k: int, restarts: int, generator: torch.Generator) -> Tensor:
    """Draws first centroids [R, k, D], each by its squared distance to those drawn before.

    Of a few candidates it takes the one that lowers the inertia most, as scikit-learn does; above
    32 clusters it takes all that are drawn at once.
    """
    n, device = len(points), points.device
    squares = points.square().sum(1)  # [N]
    chosen = torch.randint(n, (restarts, 1), generator=generator).to(device)  # [R, so far]
    distance = _distances(points, squares, chosen)[:, 0]  # [R, N]
    take = -(-k // 32)
    while (missing := k - chosen.shape[1]) > 0:
        draws = 2 + int(math.log(k)) if take == 1 else min(take, missing)
        mass = distance.double().cumsum(1)  # [R, N]
        draw = torch.rand(restarts, draws, generator=generator, dtype=torch.float64).to(device)
        drawn = torch.searchsorted(mass, draw * mass[:, -1:], right=True).clamp(max=n - 1)
        stray = torch.randint(n, (restarts, draws), generator=generator).to(device)
        drawn = torch.where(mass[:, -1:] > 0, drawn, stray)  # no distance left: all are identical
        if take == 1:
            left = torch.minimum(distance[:, None], _distances(points, squares, drawn))
            best = left.sum(2).argmin(1)  # [R]
            lane = torch.arange(restarts, device=device)
            drawn, distance = drawn[lane, best, None], left[lane, best]
        else:
            for some in torch.split(drawn, max(1, 64 // restarts), dim=1):
                far = _distances(points, squares, some).amin(1)
                distance = torch.minimum(distance, far)
        distance.scatter_(1, drawn, 0)  # what rounding left
        chosen = torch.cat([chosen, drawn], dim=1)
    return points[chosen]


def _distances(points: Tensor, squares: Tensor, chosen: Tensor) -> Tensor:
    """Squared distances [R, T, N] of all points to those `chosen` [R, T]."""
    index = chosen.flatten()
    far = torch.addmm(squares, points[index], points.T, alpha=-2).add_(squares[index, None])
    return far.clamp_(min=0).view(*chosen.shape, len(points))


def _lloyd(
    points: Tensor,
    centroids: Tensor,
    iterations: int,
    *,
    spherical: bool,
    generator: torch.Generator,
) -> list[Clusters]:
    """Runs all restarts in `centroids` [R, k, D] together; each leaves when it has converged."""
    found = []
    squares = points.square().sum(1)  # [N]
    before = torch.full((len(centroids), len(points)), -1, device=points.device)
    sums = torch.zeros_like(centroids, dtype=torch.float64)
    for step in range(iterations + 1):
        assignment = _nearest(points, centroids)  # [R, N]
        _gather(points, assignment, before, sums)
        counts = torch.stack([torch.bincount(own, minlength=sums.shape[1]) for own in assignment])
        resting = (assignment == before).all(1)
        if step == iterations:
            resting.fill_(True)
        for r in resting.nonzero()[:, 0].tolist():
            inertia = _inertia(squares, centroids[r], sums[r], counts[r])
            found.append(Clusters(assignment[r].clone(), centroids[r].clone(), inertia))
        if resting.all():
            break
        going = ~resting
        before, sums, counts = assignment[going], sums[going], counts[going]
        means = (sums / counts[..., None].clamp(min=1)).float()
        centroids = torch.where(counts[..., None] > 0, means, centroids[going])
        for r in (counts == 0).any(1).nonzero()[:, 0].tolist():
            _split(points, squares, centroids[r], before[r], generator)
        centroids = F.normalize(centroids, dim=2) if spherical else centroids
    return found


def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Assigns points [N, D] to their nearest centroids [R, k, D] in every restart: int64 [R, N]."""
    restarts, k, d = centroids.shape
    if restarts == 1 and _by_faiss(points, k):
        found = _faiss().knn(points.numpy(), centroids[0].contiguous().numpy(), 1)[1]
        return torch.from_numpy(found[:, 0])[None]
    flat = centroids.reshape(restarts * k, d)
    half = flat.square().sum(1, keepdim=True) / 2
    assignment = torch.empty(restarts, len(points), dtype=torch.long, device=points.device)
    rows = max(1024, _BLOCK // len(flat))
    for part, out in zip(
        torch.split(points, rows), torch.split(assignment, rows, dim=1), strict=True
    ):
        score = torch.addmm(half, flat, part.T, beta=-1)  # [R * k, n]
        out.copy_(_first_best(score.view(restarts, k, len(part))))
    return assignment


def _first_best(score: Tensor) -> Tensor:
    """argmax over dim 1 of [R, k, N], the first of equals, several times as fast as torch's own."""
    k = score.shape[1]
    rank = torch.arange(k, 0, -1, device=score.device)[:, None]
    rank = rank.to(torch.uint8 if k < 256 else torch.int32)
    return k - (score == score.amax(1, keepdim=True)).mul(rank).amax(1).long()


def _gather(points: Tensor, assignment: Tensor, before: Tensor, sums: Tensor) -> None:
    """Brings the sums [R, k, D] of the points of each centroid up to date, in place.

    Only points that moved since `before` [R, N] are read; -1 is a point not counted yet. On an
    accelerator all are read, which waits for nothing.
    """
    for own, old, total in zip(assignment, before, sums, strict=True):
        if points.device.type != "cpu":
            _sum_by_products(points, own, total)
            continue
        moved = (own != old).nonzero()[:, 0]
        for some in torch.split(moved, max(256, _BLOCK // points.shape[1])):
            rows = points[some].double()
            total.index_add_(0, own[some], rows)
            left = old[some] >= 0
            total.index_add_(0, old[some][left], -rows[left])


def _sum_by_products(points: Tensor, assignment: Tensor, total: Tensor) -> None:
    """Sets `total` [k, D] to the sums of the points of each centroid, in a fixed order on a GPU."""
    total.zero_()
    rows = max(1024, _BLOCK // len(total))
    for part, own in zip(torch.split(points, rows), torch.split(assignment, rows), strict=True):
        share = points.new_zeros(len(total), len(part)).scatter_(0, own[None], 1)
        total += share @ part


def _inertia(squares: Tensor, centroids: Tensor, sums: Tensor, counts: Tensor) -> float:
    centroids = centroids.double()
    cross = (centroids * sums).sum()
    own = (centroids.square().sum(1) * counts).sum()
    return max(0.0, float(squares.sum(dtype=torch.float64) - 2 * cross + own))


def _split(
    points: Tensor,
    squares: Tensor,
    centroids: Tensor,
    assignment: Tensor,
    generator: torch.Generator,
) -> None:
    """Gives each empty cluster half of the one that scatters most, in place in `centroids` [k, D].

    The two halves part along the line from the centroid to one of its points.
    """
    k = len(centroids)
    counts = torch.bincount(assignment, minlength=k)
    total = torch.zeros(k, dtype=torch.float64, device=points.device)
    total.index_add_(0, assignment, squares.double())
    scatter = total - counts * centroids.double().square().sum(1)
    home = list(range(k))
    for empty in (counts == 0).nonzero()[:, 0].tolist():
        donor = int(scatter.argmax())
        if scatter[donor] <= 1e-6 * total[home[donor]]:
            return  # identical points everywhere: nothing to part
        members = (assignment == home[donor]).nonzero()[:, 0]
        one = members[int(torch.randint(len(members), (1,), generator=generator))]
        away = (points[one] - centroids[donor]) / 64
        centroids[empty] = centroids[donor] + away
        centroids[donor] -= away
        scatter[donor] /= 2
        scatter[empty] = scatter[donor]
        home[empty] = home[donor]
