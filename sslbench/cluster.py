"""k-means, neighbours, matching and whitening, for clustering methods and evaluators.

On the CPU, faiss searches among many rows and torch does the rest: whichever was faster for the
same answer (`benchmarks/judges.py`). On an accelerator torch does all of it. Points may be more than fit:
they are read block by block (`blocks.py`). Results depend on the input, the seed and the number of
threads only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import WHOLE, Rows, as_rows, broken, moments, sent
from .measures import unit

_MANY = 32  # centroids from which faiss finds the nearest sooner than torch does on the CPU
_WIDE = 256  # centroids of all restarts that share one pass over the points
_BLOCK = 1 << 22  # numbers in an intermediate matrix on the CPU


class Clusters(NamedTuple):
    assignment: Tensor  # int64 [N], the nearest centroid of each point
    centroids: Tensor  # [k, D]
    inertia: float  # sum of squared distances to the nearest centroid


class Match(NamedTuple):
    mapping: Tensor  # int64 [K], the class of each cluster, -1 for one left without
    accuracy: float


def kmeans(
    features: Tensor | Rows,
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
    points = _points(features, spherical)
    origin = None if spherical else _origin(points)
    points = points if origin is None else _around(points, origin)
    squares = _squares(points)  # [N]
    generator = torch.Generator().manual_seed(seed)
    together = 1 if _by_faiss(points.device, k) else max(1, _WIDE // k)
    found: list[Clusters] = []
    for first in range(0, restarts, together):
        starts = _seeds(points, squares, k, min(together, restarts - first), generator)
        found += _lloyd(
            points, squares, starts, iterations, spherical=spherical, generator=generator
        )
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
    points = Rows(features.detach(), turn=unit).kept()
    index = nearest(points, points, wanted)[1]  # [N, wanted]
    row = torch.arange(n, device=index.device)[:, None]
    order = (index != row).to(torch.int8).argsort(dim=1, stable=True)  # itself to the front
    others = index.gather(1, order)[:, 1:]
    # where more rows are identical than were asked for, the one dropped is as near as any
    return torch.cat([row, others], dim=1) if itself else others.contiguous()


def nearest(queries: Tensor | Rows, bank: Tensor | Rows, k: int) -> tuple[Tensor, Tensor]:
    """Finds, for each query, the k rows of the bank with the largest inner product, exactly.

    `queries` [M, D], `bank` [N, D] -> similarity [M, k], falling, and index int64 [M, k]. The best so
    far are kept while block after block of the bank passes by: beside them there is memory for one
    block of queries times one of the bank.
    """
    queries, bank = as_rows(queries), as_rows(bank)
    n, device, width = len(bank), bank.device, bank.width
    by_faiss = device.type == "cpu"
    across = min(n, bank.block(0, cpu=max(1, WHOLE // width)))
    down = queries.block(8 * across, cpu=WHOLE // width if by_faiss else 16 * _BLOCK // across)
    similarity = torch.empty(len(queries), k, device=device)
    index = torch.empty(len(queries), k, dtype=torch.long, device=device)
    for there, block in bank.blocks(across):
        for here, part in queries.blocks(down):
            found = (_by_index if by_faiss else _by_product)(part, block, min(k, len(block)))
            best = found[0], found[1] + there.start
            if there.start:
                seen = min(k, there.start)
                best = _merged((similarity[here, :seen], index[here, :seen]), best, k)
            similarity[here, : best[0].shape[1]], index[here, : best[1].shape[1]] = best
    return similarity, index


def _by_index(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    faiss = _faiss()
    found = faiss.knn(
        queries.contiguous().numpy(),
        bank.contiguous().numpy(),
        k,
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _by_product(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    found = (queries @ bank.T).topk(k, dim=1)
    return found.values, found.indices


def _merged(
    before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """The k most similar of two lists, the second of rows further down the bank.

    Equal ones stand as faiss has them: those further up the bank are taken, the last of them first.
    """
    similarity = torch.cat([before[0].flip(1), after[0].flip(1)], 1)
    index = torch.cat([before[1].flip(1), after[1].flip(1)], 1)
    for _ in range(2):  # takes the first of equals, then turns them round
        order = similarity.sort(dim=1, descending=True, stable=True).indices[:, :k]
        similarity, index = similarity.gather(1, order), index.gather(1, order)
        similarity, index = similarity.flip(1), index.flip(1)
    return similarity.flip(1), index.flip(1)


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
    for part in torch.split(features, max(256, _BLOCK // full)):
        centred = part - mean.float()
        scatter += centred.T @ centred
    values, vectors = torch.linalg.eigh(scatter / max(1, n - 1))  # rising
    values, vectors = values[-dim:].flip(0), vectors[:, -dim:].flip(1)
    alive = values > values[0] * 1e-7
    scale = torch.where(alive, values.clamp(min=1e-30).rsqrt(), torch.zeros_like(values))
    basis = (vectors * scale).float()  # [D, dim]
    parts = torch.split(features, max(256, _BLOCK // full))
    return torch.cat([(part - mean.float()) @ basis for part in parts])


def _check_finite(features: Tensor | Rows, asker: str) -> None:
    if bad := broken(features):
        raise ValueError(
            f"{asker} was given features of which {bad} of {len(features)} rows hold NaN or "
            "infinity; the encoder has diverged: train it again with a lower learning rate"
        )


def _faiss() -> Any:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())  # it has a pool of its own
    return faiss


def _by_faiss(device: torch.device, k: int) -> bool:
    return k >= _MANY and device.type == "cpu"


def _points(features: Tensor | Rows, spherical: bool) -> Rows:
    _check_finite(features, "k-means")
    rows = features if isinstance(features, Rows) else Rows(features.detach())
    return (rows.turned(unit) if spherical else rows).kept()


def _origin(points: Rows) -> Tensor | None:
    """The mean of the points where it is so large that squared distances lose precision."""
    mean, deviation = moments(points)
    if not mean.square().sum() > 10 * deviation.square().sum():
        return None
    return mean.float()


def _around(points: Rows, origin: Tensor) -> Rows:
    return points.turned(lambda part: part - origin).kept()


def _squares(points: Rows) -> Tensor:
    """Squared lengths [N]."""
    squares = torch.empty(len(points), device=points.device)
    size = points.block(4 * points.width, cpu=max(256, _BLOCK // points.width))
    for at, part in points.blocks(size):
        squares[at] = part.square().sum(1)
    return squares


def _seeds(
    points: Rows, squares: Tensor, k: int, restarts: int, generator: torch.Generator
) -> Tensor:
    """Draws first centroids [R, k, D], each by its squared distance to those drawn before.

    Of a few candidates it takes the one that lowers the inertia most, as scikit-learn does; above
    32 clusters it takes all that are drawn at once.
    """
    n, device = len(points), points.device
    chosen = sent(torch.randint(n, (restarts, 1), generator=generator), device)  # [R, so far]
    distance = torch.empty(restarts, n, device=device)
    for at, far in _distances(points, squares, chosen):
        distance[:, at] = far[:, 0]
    take = -(-k // 32)
    while (missing := k - chosen.shape[1]) > 0:
        draws = 2 + int(math.log(k)) if take == 1 else min(take, missing)
        mass = distance.double().cumsum(1)  # [R, N]
        draw = torch.rand(restarts, draws, generator=generator, dtype=torch.float64)
        draw = sent(draw, device) * mass[:, -1:]
        drawn = torch.searchsorted(mass, draw, right=True).clamp(max=n - 1)
        stray = sent(torch.randint(n, (restarts, draws), generator=generator), device)
        drawn = torch.where(mass[:, -1:] > 0, drawn, stray)  # no distance left: all are identical
        if take == 1:
            drawn, distance = _best_drawn(points, squares, drawn, distance)
        else:
            for some in torch.split(drawn, max(1, 64 // restarts), dim=1):
                for at, far in _distances(points, squares, some):
                    distance[:, at] = torch.minimum(distance[:, at], far.amin(1))
        distance.scatter_(1, drawn, 0)  # what rounding left
        chosen = torch.cat([chosen, drawn], dim=1)
    return points.take(chosen.flatten()).view(restarts, k, -1)


def _best_drawn(
    points: Rows, squares: Tensor, drawn: Tensor, distance: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the candidates [R, T] the best of each restart [R, 1], and the distances [R, N] then."""
    lane = torch.arange(len(drawn), device=drawn.device)
    total = torch.zeros(drawn.shape, device=drawn.device)
    for at, far in _distances(points, squares, drawn):
        left = torch.minimum(distance[:, None, at], far)
        total += left.sum(2)
    best = total.argmin(1)  # [R]
    one = drawn[lane, best, None]
    if left.shape[2] == len(points):
        return one, left[lane, best]
    for at, far in _distances(points, squares, one):
        distance[:, at] = torch.minimum(distance[:, at], far[:, 0])
    return one, distance


def _distances(points: Rows, squares: Tensor, chosen: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances [R, T, n] of block after block of points to those `chosen` [R, T]."""
    index = chosen.flatten()
    these, own = points.take(index), squares[index, None]
    size = points.block(12 * len(index), cpu=max(1024, WHOLE // max(points.width, len(index))))
    for at, part in points.blocks(size):
        far = torch.addmm(squares[at], these, part.T, alpha=-2).add_(own)
        yield at, far.clamp_(min=0).view(*chosen.shape, len(part))


def _lloyd(
    points: Rows,
    squares: Tensor,
    centroids: Tensor,
    iterations: int,
    *,
    spherical: bool,
    generator: torch.Generator,
) -> list[Clusters]:
    """Runs all restarts in `centroids` [R, k, D] together; each leaves when it has converged.

    An iteration reads one small tensor from the device: which restarts rest, and which of them
    have an empty cluster.
    """
    found = []
    before = torch.full((len(centroids), len(points)), -1, device=points.device)
    sums = torch.zeros_like(centroids, dtype=torch.float64)
    for step in range(iterations + 1):
        if points.device.type == "cpu":
            assignment = _nearest(points, centroids)  # [R, N]
            _gather(points, assignment, before, sums)
            counts = torch.stack(
                [torch.bincount(own, minlength=sums.shape[1]) for own in assignment]
            )
        else:
            assignment, sums, counts = _passed(points, centroids)
        empty = (counts == 0).any(1)
        states = torch.stack([(assignment == before).all(1), empty], 1).tolist()  # the one read
        resting = [r for r, state in enumerate(states) if state[0] or step == iterations]
        for r in resting:
            inertia = _inertia(squares, centroids[r], sums[r], counts[r])
            found.append(Clusters(assignment[r].clone(), centroids[r].clone(), inertia))
        going = [r for r in range(len(states)) if r not in resting]
        if not going:
            break
        if resting:
            rows = sent(torch.tensor(going), points.device)
            assignment, sums, counts = assignment[rows], sums[rows], counts[rows]
            centroids = centroids[rows]
        before = assignment
        means = (sums / counts[..., None].clamp(min=1)).float()
        centroids = torch.where(counts[..., None] > 0, means, centroids)
        for place, r in enumerate(going):
            if states[r][1]:
                _split(points, squares, centroids[place], before[place], generator)
        centroids = F.normalize(centroids, dim=2) if spherical else centroids
    return found


def _nearest(points: Rows, centroids: Tensor) -> Tensor:
    """Assigns points [N, D] to their nearest centroids [R, k, D] in every restart: int64 [R, N]."""
    restarts, k, d = centroids.shape
    assignment = torch.empty(restarts, len(points), dtype=torch.long)
    if restarts == 1 and _by_faiss(points.device, k):
        bank = centroids[0].contiguous().numpy()
        for at, part in points.blocks(max(1, WHOLE // d)):
            found = _faiss().knn(part.contiguous().numpy(), bank, 1)[1]
            assignment[0, at] = torch.from_numpy(found[:, 0])
        return assignment
    flat = centroids.reshape(restarts * k, d)
    half = flat.square().sum(1, keepdim=True) / 2
    for at, part in points.blocks(max(1024, _BLOCK // len(flat))):
        score = torch.addmm(half, flat, part.T, beta=-1)  # [R * k, n]
        assignment[:, at] = _first_best(score.view(restarts, k, len(part)))
    return assignment


def _first_best(score: Tensor) -> Tensor:
    """argmax over dim 1 of [R, k, N], the first of equals, several times as fast as torch's own."""
    k = score.shape[1]
    rank = torch.arange(k, 0, -1, device=score.device)[:, None]
    rank = rank.to(torch.uint8 if k < 256 else torch.int32)
    return k - (score == score.amax(1, keepdim=True)).mul(rank).amax(1).long()


def _gather(points: Rows, assignment: Tensor, before: Tensor, sums: Tensor) -> None:
    """Brings the sums [R, k, D] of the points of each centroid up to date, in place.

    Only points that moved since `before` [R, N] are read; -1 is a point not counted yet.
    """
    for own, old, total in zip(assignment, before, sums, strict=True):
        moved = (own != old).nonzero()[:, 0]
        for some in torch.split(moved, max(256, _BLOCK // points.width)):
            rows = points.take(some).double()
            total.index_add_(0, own[some], rows)
            left = old[some] >= 0
            total.index_add_(0, old[some][left], -rows[left])


def _passed(points: Rows, centroids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In one pass, which waits for nothing: assignment [R, N], sums [R, k, D], counts [R, k].

    Sums are products with a matrix that tells who belongs where: a GPU takes them in a fixed order.
    """
    restarts, k, d = centroids.shape
    flat = centroids.reshape(restarts * k, d)
    half = flat.square().sum(1, keepdim=True) / 2
    assignment = torch.empty(restarts, len(points), dtype=torch.long, device=points.device)
    sums = torch.zeros_like(flat, dtype=torch.float64)
    counts = torch.zeros(restarts * k, dtype=torch.long, device=points.device)
    size = points.block(16 * len(flat), cpu=max(1024, _BLOCK // len(flat)))
    for at, part in points.blocks(size):
        score = torch.addmm(half, flat, part.T, beta=-1)  # [R * k, n]
        own = _first_best(score.view(restarts, k, len(part)))
        share = score.zero_().view(restarts, k, -1).scatter_(1, own[:, None], 1).flatten(0, 1)
        sums += share @ part
        counts += share.sum(1).long()
        assignment[:, at] = own
    return assignment, sums.view_as(centroids), counts.view(restarts, k)


def _inertia(squares: Tensor, centroids: Tensor, sums: Tensor, counts: Tensor) -> float:
    centroids = centroids.double()
    cross = (centroids * sums).sum()
    own = (centroids.square().sum(1) * counts).sum()
    return max(0.0, float(squares.sum(dtype=torch.float64) - 2 * cross + own))


def _split(
    points: Rows,
    squares: Tensor,
    centroids: Tensor,
    assignment: Tensor,
    generator: torch.Generator,
) -> None:
    """Gives each empty cluster half of the one that scatters most, in place in `centroids` [k, D].

    The two halves part along the line from the centroid to one of its points. The host waits: there
    are few empty clusters.
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
        away = (points.take(one[None])[0] - centroids[donor]) / 64
        centroids[empty] = centroids[donor] + away
        centroids[donor] -= away
        scatter[donor] /= 2
        scatter[empty] = scatter[donor]
        home[empty] = home[donor]
