"""Compares our evaluators in speed with the best of torch, faiss and scikit-learn.

    python benchmarks/judges.py [--scale small|full] [--rounds 3] [--clock wall|cpu]

Synthetic features: 10,000 for training and 2,000 for test of 128 dimensions (small, about a
minute), or 50,000 and 10,000 of 512 (full). Each round runs every contestant once, in turn. The
table shows the median and its ratio to ours (above 1: slower than ours), and the answers, so that a
quick wrong one shows. Threads are those of OMP_NUM_THREADS. On a busy machine use `--clock cpu` with
one thread: then waiting for other programs is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import faiss
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from sslbench import cluster
from sslbench.blocks import Rows
from sslbench.evaluators.linear import GRID
from sslbench.logistic import fit_probes

SIZES = {"small": (10_000, 2_000, 128), "full": (50_000, 10_000, 512)}
CLASSES = 10


class Features(NamedTuple):
    train: Tensor  # [N, D]
    labels: Tensor  # [N]
    test: Tensor  # [M, D]


def features(scale: str) -> Features:
    """Made-up features: rectified mixtures with power-law variances, as encoders give."""
    n, m, d = SIZES[scale]
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, generator=generator) * (1 + torch.arange(d)) ** -0.5
    centres = torch.randn(CLASSES, d, generator=generator) * (8 / d) ** 0.5
    labels = torch.randint(CLASSES, (n + m,), generator=generator)
    points = torch.relu((centres[labels] + torch.randn(n + m, d, generator=generator)) @ mix)
    return Features(points[:n], labels[:n], points[n:])


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]


def contest(title: str, contestants: dict[str, Callable[[], object]], rounds: int) -> dict:
    """Runs each contestant once per round; prints medians and ratios, and returns the answers."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    answers = {}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = clock()
            answers[name] = run()
            seconds[name].append(clock() - start)
    ours = statistics.median(seconds["ours"])
    print(f"\n{title}")
    for name, each in seconds.items():
        median = statistics.median(each)
        print(f"  {name:34s} {median:8.3f} s   {median / ours:6.2f} of ours")
    best = min(statistics.median(each) for name, each in seconds.items() if name != "ours")
    print(f"  best of the others / ours: {best / ours:.2f}")
    return answers


def knn(data: Features, rounds: int) -> None:
    bank, queries = F.normalize(data.train, dim=1), F.normalize(data.test, dim=1)
    for k in (20, 200):

        def by_torch(k: int = k) -> Tensor:
            return torch.cat([(part @ bank.T).topk(k).values for part in queries.split(1000)])

        def by_sklearn(k: int = k) -> Tensor:
            search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="sqeuclidean")
            distance = search.fit(bank.numpy()).kneighbors(queries.numpy())[0]
            return 1 - torch.from_numpy(distance) / 2

        def by_index(k: int = k) -> Tensor:
            index = faiss.IndexFlatIP(bank.shape[1])
            index.add(bank.numpy())
            return torch.from_numpy(index.search(queries.numpy(), k)[0])

        answers = contest(
            f"kNN, k = {k}",
            {
                "ours": lambda k=k: cluster.nearest(queries, bank, k)[0],
                "faiss flat index": by_index,
                "torch matmul and topk": by_torch,
                "scikit-learn brute": by_sklearn,
            },
            rounds,
        )
        for name, found in answers.items():
            gap = float((found - answers["torch matmul and topk"]).abs().max())
            print(f"  {name:34s} largest difference of a similarity {gap:.1e}")


def by_lbfgs(points: Tensor, labels: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(CLASSES, points.shape[1], requires_grad=True)
    bias = torch.zeros(CLASSES, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=200, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(points @ weight.T + bias, labels) + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def linear(data: Features, rounds: int) -> None:
    raw, labels = data.train, data.labels
    mean, scale = raw.mean(0), raw.std(0, unbiased=False)
    points, test = (raw - mean) / scale, (data.test - mean) / scale

    def ours() -> list[tuple[Tensor, Tensor]]:
        return [(probe.weight, probe.bias) for probe in fit_probes(raw, labels, GRID, CLASSES)]

    def by_sklearn() -> list[tuple[Tensor, Tensor]]:
        found = []
        for l2 in GRID:
            model = LogisticRegression(C=1 / (l2 * len(points)), max_iter=2000)
            model.fit(points.numpy(), labels.numpy())
            found.append((torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)))
        return found

    answers = contest(
        f"linear, {len(GRID)} regularisations",
        {
            "ours": ours,
            "scikit-learn lbfgs, one by one": by_sklearn,
            "torch LBFGS, one by one": lambda: [by_lbfgs(points, labels, l2) for l2 in GRID],
        },
        rounds,
    )

    def objective(weight: Tensor, bias: Tensor, l2: float) -> float:
        logits = points.double() @ weight.double().T + bias.double()
        return float(F.cross_entropy(logits, labels) + l2 / 2 * weight.double().square().sum())

    reached = {
        name: [objective(*head, l2) for head, l2 in zip(heads, GRID, strict=True)]
        for name, heads in answers.items()
    }
    lowest = [min(each) for each in zip(*reached.values(), strict=True)]
    guesses = {
        name: torch.stack(
            [(test @ weight.float().T + bias.float()).argmax(1) for weight, bias in h]
        )
        for name, h in answers.items()
    }
    for name, values in reached.items():
        excess = max(value / low - 1 for value, low in zip(values, lowest, strict=True))
        same = float((guesses[name] == guesses["ours"]).float().mean())
        print(
            f"  {name:34s} objective above the lowest {excess:.1e}, test answers as ours {same:.4f}"
        )


def kmeans(data: Features, rounds: int) -> None:
    points = F.normalize(data.train, dim=1)
    n, d = points.shape
    for k, updates in ((CLASSES, 20), (n // 50, 10)):
        start = points[torch.randperm(n, generator=torch.Generator().manual_seed(1))[:k]]

        def ours(k: int = k, updates: int = updates, start: Tensor = start) -> float:
            generator = torch.Generator().manual_seed(0)
            rows = Rows(points)
            squares = cluster._squares(rows)
            found = cluster._lloyd(
                rows, squares, start[None], updates, spherical=False, generator=generator
            )
            return found[0].inertia

        def by_faiss(k: int = k, updates: int = updates, start: Tensor = start) -> float:
            # one update more, for its objective is that before the last one
            model = faiss.Kmeans(d, k, niter=updates + 1, max_points_per_centroid=n)
            model.train(points.numpy(), init_centroids=start.numpy())
            return float(model.obj[-1])

        def by_sklearn(k: int = k, updates: int = updates, start: Tensor = start) -> float:
            model = KMeans(k, init=start.numpy(), n_init=1, max_iter=updates, tol=0)
            return float(model.fit(points.numpy()).inertia_)

        def by_torch(k: int = k, updates: int = updates, start: Tensor = start) -> float:
            centroids = start
            for step in range(updates + 1):
                half = centroids.square().sum(1) / 2
                parts = [torch.addmm(-half, p, centroids.T).max(1) for p in points.split(4096)]
                nearest = torch.cat([part.indices for part in parts])
                if step < updates:
                    sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
                    counts = torch.bincount(nearest, minlength=k).clamp(min=1)
                    centroids = sums / counts[:, None]
            best = torch.cat([part.values for part in parts])
            return float(points.square().sum() - 2 * best.sum())

        contestants = {
            "ours": ours,
            "faiss.Kmeans, all points": by_faiss,
            "scikit-learn": by_sklearn,
            "torch matmul and max": by_torch,
        }
        answers = contest(
            f"k-means, {k} clusters, {updates} updates from one start", contestants, rounds
        )
        for name, inertia in answers.items():
            print(f"  {name:34s} inertia {inertia:.2f}")


def judged_kmeans(data: Features, rounds: int) -> None:
    test = F.normalize(data.test, dim=1)
    n, d = test.shape

    def restarted_faiss() -> float:
        model = faiss.Kmeans(d, CLASSES, niter=50, nredo=10, max_points_per_centroid=n)
        model.train(test.numpy())
        return float(min(model.obj[-1], model.index.search(test.numpy(), 1)[0].sum()))

    answers = contest(
        f"k-means as the judge runs it: {CLASSES} clusters of test, 10 restarts to their end",
        {
            "ours": lambda: (
                cluster.kmeans(test, CLASSES, restarts=10, iterations=300, seed=0).inertia
            ),
            "scikit-learn, n_init 10": lambda: float(
                KMeans(CLASSES, n_init=10, tol=0, random_state=0).fit(test.numpy()).inertia_
            ),
            "faiss.Kmeans, nredo 10, 50 updates": restarted_faiss,
        },
        rounds,
    )
    for name, inertia in answers.items():
        print(f"  {name:34s} inertia {inertia:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=SIZES, default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="knn,linear,kmeans,judged")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    global clock
    clock = CLOCKS[options.clock]
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
    data = features(options.scale)
    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    print(f"{tuple(data.train.shape)} train, {tuple(data.test.shape)} test, threads {threads}")
    for name in options.only.split(","):
        {"knn": knn, "linear": linear, "kmeans": kmeans, "judged": judged_kmeans}[name](
            data, options.rounds
        )


if __name__ == "__main__":
    main()
