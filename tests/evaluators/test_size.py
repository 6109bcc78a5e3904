"""The judges where features do not fit: on a pretended GPU of little memory, and block by block."""

import contextlib

import pytest
import torch
from pretending import where_it_works

from sslbench import blocks, cluster, logistic
from sslbench.blocks import Rows
from sslbench.evaluators.clustering import Clustering
from sslbench.evaluators.knn import GRID, KNN
from sslbench.evaluators.linear import Linear
from sslbench.measures import unit
from sslbench.testing.pretend_cuda import pretend_cuda

from .helpers import fake

N, M, D, C = 1200, 240, 32, 8
FEATURES = 4 * N * D  # bytes of train
FIXED = 1.0  # l2
STATES = {  # bytes that no block size changes, as docs/scale.md has them
    KNN: 16 * (N // 10 + M) * GRID[-1],
    Linear: 16 * N + 200 * (D + 1) ** 2 + 100 * C * (D + 1),
    Clustering: 2 * 50 * M + 100 * C * D,
}


@contextlib.contextmanager
def pretended(memory):
    with where_it_works(), pretend_cuda(memory=memory) as gpu:
        yield gpu


def world(*, on_gpu=False):
    made = fake(N, M, D, C, spread=2.5)
    made.device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    return made


def values(judgement):
    return {name: metric.value for name, metric in judgement.metrics.items()}


def judges():
    return [KNN(), Linear(l2=FIXED), Clustering(restarts=2)]


def judged(memory, judge):
    """What it says of features on a GPU of so many bytes, what was seen of it, and its peak."""
    with pretended(memory) as gpu:
        made = world(on_gpu=True)
        with gpu.watched() as seen:
            found = judge(made, made, 0)
        return found, seen, gpu.peak


@pytest.mark.parametrize("judge", judges(), ids=lambda judge: type(judge).__name__)
@pytest.mark.parametrize("share", [3.9, 100])  # of the features: they stream; they stay
def test_a_judge_stays_within_the_memory_that_is_stated(judge, share):
    here = world()
    memory = int(share * FEATURES)
    found, seen, peak = judged(memory, judge)
    told = judge(here, here, 0)
    assert values(found) == pytest.approx(values(told), abs=1e-6)
    assert found.chosen == told.chosen
    assert not seen.mixed
    assert not seen.blocking
    kept = 1.25 * FEATURES if share > 4 else FEATURES / 4  # train and test, or test alone
    if isinstance(judge, Linear):
        kept += 4 * N * (D + 1) + 4 * N * C
    assert peak <= kept + 2 * blocks.WORKING * memory + STATES[type(judge)]


@pytest.mark.parametrize("judge", judges(), ids=lambda judge: type(judge).__name__)
def test_more_blocks_make_the_host_wait_no_more(judge, monkeypatch):
    _, few, _ = judged(100 * FEATURES, judge)
    monkeypatch.setattr(blocks, "MOST", 100)
    _, many, _ = judged(100 * FEATURES, judge)
    assert many.count > few.count
    inside = ("blocks.py", "cluster.py")
    more = {
        line: times - few.waits[line]
        for line, times in many.waits.items()
        if times > few.waits[line] and any(name in line for name in inside)
    }
    assert not more
    assert not any("item" in line for line in many.waits)


def test_a_fit_waits_once_for_each_step_and_product():
    with pretended(100 * FEATURES) as gpu:
        made = world(on_gpu=True)
        steps = []
        rows = Rows(made.train, made.device)
        points = logistic._Points(rows).rows
        target = made.truth["train"].to(made.device)
        start = torch.zeros(C, points.width, dtype=torch.float64, device=made.device)
        fit = logistic._Fit(points, target, FIXED, start)
        fit._factor = fit._factors()
        at = torch.zeros(C * points.width, dtype=torch.float64).numpy()
        for ask in (lambda: fit._asked(at), lambda: fit._bend(at, at)):
            with gpu.watched() as seen:
                ask()
            steps.append(sum(seen.waits.values()))
            assert not seen.blocking
    assert steps == [2, 1]  # three numbers and a gradient; a product


def test_an_iteration_of_kmeans_waits_once():
    waits = []
    for iterations in (3, 7):
        with pretended(100 * FEATURES) as gpu:
            points = torch.rand(N, D, generator=torch.Generator().manual_seed(0)).to("cuda")
            with gpu.watched() as seen:
                cluster.kmeans(points, 4, iterations=iterations, seed=0)
            waits.append(sum(seen.waits.values()))
    assert waits[1] - waits[0] == 4


def test_features_are_sent_once_for_all_judges():
    with pretended(100 * FEATURES) as gpu:
        made = world(on_gpu=True)
        sent = []
        for judge in judges():
            with gpu.watched() as seen:
                judge(made, made, 0)
            sent.append(sum(n for line, n in seen.copies.items() if "copy_ at blocks.py" in line))
        assert sent[0] > 0
        assert sent[1:] == [0, 0]
        held = gpu.held
        del made
        assert held - gpu.held >= FEATURES


@pytest.mark.slow
def test_rows_that_do_not_fit_stay_on_the_host(monkeypatch):
    monkeypatch.setattr(logistic, "_RESIDENT", 0.0)
    monkeypatch.setattr(logistic, "_KEPT", 0.0)
    memory = int(3.9 * FEATURES)
    found, seen, peak = judged(memory, Linear(l2=FIXED))
    here = world()
    assert values(found) == pytest.approx(values(Linear(l2=FIXED)(here, here, 0)), abs=1e-6)
    assert not seen.mixed
    assert not seen.blocking
    assert peak <= FEATURES / 4 + 2 * blocks.WORKING * memory + STATES[Linear]


@pytest.mark.parametrize("k", [1, 20, 150])
def test_neighbours_of_a_bank_in_blocks_are_those_of_the_whole_also_where_rows_are_equal(
    k, monkeypatch
):
    draws = torch.Generator().manual_seed(0)
    few = unit(torch.randint(-1, 2, (30, 8), generator=draws) + 0.01)
    bank = few[torch.randint(30, (3000,), generator=draws)]
    whole = cluster.nearest(few, bank, k)
    monkeypatch.setattr(cluster, "WHOLE", 8 * 700)
    parts = cluster.nearest(few, bank, k)
    assert torch.allclose(parts[0], whole[0], atol=1e-6)
    if k < 100:  # from there on faiss takes any of those that are equal to the last
        assert torch.equal(parts[1], whole[1])


def test_judges_say_the_same_of_features_read_in_blocks_on_a_cpu(monkeypatch):
    before = [judge(world(), world(), 0) for judge in judges()]
    for module in (blocks, cluster, logistic):
        monkeypatch.setattr(module, "WHOLE", 500 * D)
    for judge, told in zip(judges(), before, strict=True):
        found = judge(world(), world(), 0)
        assert values(found) == pytest.approx(values(told), abs=1e-6)
        assert found.chosen == told.chosen


def test_moments_of_blocks_are_those_of_the_whole(monkeypatch):
    features = 5 + torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    mean, deviation = blocks.moments(Rows(features))
    assert torch.equal(mean.float(), features.mean(0))
    assert torch.equal(deviation.float(), features.std(0, unbiased=False))
    monkeypatch.setattr(blocks, "WHOLE", 4 * 130)
    found = blocks.moments(Rows(features))
    assert torch.allclose(found[0], mean)
    assert torch.allclose(found[1], deviation)


def test_blocks_are_large_on_a_gpu_and_grow_with_its_memory():
    with pretended(25 * 2**30):
        rows = Rows(torch.empty(1, 2048, device="cuda"))
        assert rows.block(32 * 3048, cpu=1) > 20_000
        assert rows.block(0, cpu=1) == blocks.MOST
