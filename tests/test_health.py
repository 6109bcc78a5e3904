"""Health: each verdict is tripped by a planted defect and not by its healthy twin."""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.api import DataInfo, Method, Place, Recipe
from sslbench.data import open_data
from sslbench.errors import Interrupted
from sslbench.leaderboard import Member, as_json, as_markdown, as_text, build
from sslbench.measures import rankme
from sslbench.methods import byol, moco, simsiam, swav
from sslbench.nn import copy_frozen, ema, normalised
from sslbench.plugins import registry
from sslbench.records import HEALTH, Record, Warned, loads
from sslbench.store import CellFolder
from sslbench.train import health
from sslbench.train import loop as train
from sslbench.train.health import Checkup, spread

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=8, batch=16, optimizer="adamw", lr=0.01, weight_decay=0.0)
QUEUE = 48  # rows; an epoch draws 128 images


@functools.cache
def ramps() -> Tensor:
    """uint8 [128, 3, 4, 4], brighter to the right, so that it shows which way they are turned."""
    torch.manual_seed(0)
    ramp = torch.linspace(0, 150, 4).expand(128, 3, 4, 4)
    return (ramp + 100 * torch.rand(128, 3, 4, 4)).to(torch.uint8)


@functools.cache
def digits() -> Tensor:
    return open_data(
        "digits[size=8,train=320,test=20]", registry(installed=False), Place()
    ).train.images


def session_of(folder, images: Tensor, **given) -> train.Session:
    cell = SimpleNamespace(
        id="0" * 64, fingerprint="f", seed=0, precision="fp32", stages={}, pretexts={}
    )
    folder.mkdir(exist_ok=True)
    return train.Session(
        cell=cell,
        folder=CellFolder(folder, []),
        feed=train.Feed(images, torch.full((len(images),), -1), CPU),
        info=DataInfo("few", images.shape[-1], len(images), 10),
        device=CPU,
        pretrain=lambda cell: None,
        **given,
    )


def fitted(session: train.Session, method: Method, recipe: Recipe = RECIPE):
    """The numbers and verdicts of a fit, as a record has them."""
    checkup = Checkup(method, method.encoder(), session.feed, session.info.classes)
    numbers = checkup.start()
    train.fit_main(session, method, recipe)
    steps = recipe.epochs * (len(session.feed) // recipe.batch)
    numbers, verdicts = checkup.end(numbers, steps)
    return numbers, [*session.warnings, *verdicts]


@pytest.fixture
def codes(tmp_path):
    """The codes of the verdicts on a fit; each has a sentence, and is known to the leaderboard."""

    def get(method: Method, recipe: Recipe = RECIPE, images: Tensor | None = None) -> list[str]:
        torch.manual_seed(1)
        session = session_of(tmp_path / "fit", ramps() if images is None else images)
        found = fitted(session, method, recipe)[1]
        (tmp_path / "fit" / "resume-main.safetensors").unlink()
        assert all(w.code in HEALTH and len(w.message) > 20 for w in found)
        return [w.code for w in found]

    return get


class Toy(Method):
    """Tells which way an image is turned; the step is handed in. arXiv 0000.00000.

    Departures: everything.
    """

    def __init__(self, step=None, *, queue: tuple[int, ...] = (), target=False, guess=None):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.guess = step or turned, guess
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.BatchNorm1d(32))
        self.head = nn.Linear(32, 4)
        if target:
            self.target, self.targets = copy_frozen(self.backbone), ("target",)
        if queue:
            self.queues = ("queue",)
            self.register_buffer("queue", torch.randn(*queue, 32))
            self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    def views(self):
        return lambda images: images.float() / 255

    def step(self, batch):
        return self.how(self, batch)

    def uniform(self):
        return self.guess


def loss_of(self, batch, scale=1.0):
    turns = batch.index % 4
    x = torch.stack([v.rot90(int(t), (1, 2)) for v, t in zip(batch.views, turns, strict=True)])
    h = self.backbone(x)
    return F.cross_entropy(scale * self.head(h), turns), h.detach()


def turned(self, batch):
    yield loss_of(self, batch)[0]


# ---- numbers ---------------------------------------------------------------------------------


def test_rankme_has_its_closed_forms():
    torch.manual_seed(0)
    x = torch.randn(4000, 64)
    turn = torch.linalg.qr(torch.randn(64, 64))[0]
    assert rankme(x) == pytest.approx(63.87, abs=0.02)
    assert rankme(x @ turn) == pytest.approx(rankme(x), abs=1e-3)
    assert rankme(torch.linalg.qr(x)[0]) == pytest.approx(64, abs=0.01)
    assert rankme(x[:, :1] @ torch.randn(1, 64)) == pytest.approx(1.0001, abs=1e-4)
    assert rankme(x[:20]) <= 20.01


def test_rankme_is_the_entropy_of_singular_values():
    x = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)) ** 3
    values = torch.linalg.svdvals(x.double())
    shares = values / values.sum() + 1e-7
    expected = float(torch.exp(-(shares * shares.log()).sum()))
    assert rankme(x) == pytest.approx(expected, rel=1e-6)


def test_spread_is_one_on_the_sphere_and_none_at_a_point():
    torch.manual_seed(0)
    assert spread(torch.randn(4000, 64)) == pytest.approx(1, abs=0.01)
    assert spread(torch.randn(1, 64).expand(50, 64)) == pytest.approx(0, abs=1e-6)
    assert spread(torch.zeros(50, 64)) == 0


# ---- while it trains -------------------------------------------------------------------------


def test_a_loss_that_cannot_move(codes):
    def stuck(self, batch):
        yield loss_of(self, batch, scale=0.0)[0]

    assert codes(Toy(stuck, guess=math.log(4))) == ["loss-at-chance"]
    assert codes(Toy(turned, guess=math.log(4))) == []
    assert codes(Toy(stuck)) == []  # it declares no guess


def test_a_short_fit_may_still_be_at_chance(codes):
    def stuck(self, batch):
        yield loss_of(self, batch, scale=0.0)[0]

    assert codes(Toy(stuck, guess=math.log(4)), Recipe(epochs=1, batch=16)) == []


def test_a_layer_that_nothing_uses(codes):
    toy = Toy()
    toy.spare = nn.Linear(2, 2)
    assert codes(toy) == ["no-gradient"]
    assert codes(Toy()) == []


@pytest.mark.parametrize(("momentum", "expected"), [(0.9, []), (1.0, ["dead-target"])])
def test_a_target_that_does_not_follow(codes, momentum, expected):
    def step(self, batch):
        yield loss_of(self, batch)[0]
        ema(self.target, self.backbone, momentum)

    assert codes(Toy(step, target=True)) == expected


def test_a_target_may_rest_where_nothing_is_trained(codes):
    def step(self, batch):
        yield torch.zeros(())

    assert codes(Toy(step, target=True)) == ["no-gradient"]


def enqueue(self, h, forward):
    """In the queue's last axis but one, from the oldest row on."""
    length = self.queue.shape[-2]
    at = (self.oldest + torch.arange(len(h))) % length
    self.queue[..., at, :] = h
    self.oldest.add_(forward).remainder_(length)


def fifo(self, batch):
    loss, h = loss_of(self, batch)
    yield loss
    enqueue(self, h, len(h))


def shifting(self, batch):
    loss, h = loss_of(self, batch)
    yield loss
    self.queue.copy_(torch.cat([h.expand(2, -1, -1), self.queue], 1)[:, :QUEUE])


def still(self, batch):
    loss, h = loss_of(self, batch)
    yield loss
    enqueue(self, h, 0)


def rolling(self, batch):
    loss, _ = loss_of(self, batch)
    yield loss
    self.queue.copy_(self.queue.roll(16, -2))


def twice(self, batch):
    loss, h = loss_of(self, batch)
    yield loss
    half = h[: len(h) // 2]
    enqueue(self, torch.cat([half, half]), len(h))


def early(self, batch):
    loss, h = loss_of(self, batch)
    enqueue(self, h, len(h))
    yield loss


def replaced(self, batch):
    loss, h = loss_of(self, batch)
    self.queue = torch.cat([h, self.queue])[:QUEUE]
    yield loss


@pytest.mark.parametrize(
    ("step", "shape", "expected"),
    [
        (fifo, (QUEUE,), []),
        (shifting, (2, QUEUE), []),
        (still, (QUEUE,), ["stale-queue"]),
        (rolling, (2, QUEUE), ["stale-queue"]),
        (twice, (QUEUE,), ["repeated-queue"]),
        (early, (QUEUE,), ["early-queue"]),
        (replaced, (QUEUE,), ["early-queue"]),
        (rolling, (2, 0), []),  # an empty one
        (still, (5000,), []),  # longer than all that was drawn
    ],
)
def test_a_queue(codes, step, shape, expected):
    assert codes(Toy(step, queue=shape)) == expected


def test_names_that_are_no_part_of_the_method_get_a_sentence(tmp_path):
    for kind, match in (("queues", "not a buffer"), ("targets", "not a submodule")):
        toy = Toy()
        setattr(toy, kind, ("absent",))
        with pytest.raises(ValueError, match=f"Toy.{kind} has 'absent', which is {match}"):
            fitted(session_of(tmp_path, ramps()), toy)


def all_wrong(self, batch):
    loss, h = loss_of(self, batch, scale=1e-6)  # it moves, to no avail
    enqueue(self, h, 0)
    yield loss


@pytest.mark.parametrize("step", [fifo, all_wrong])
def test_a_fit_that_was_interrupted_gets_the_same_verdicts(tmp_path, step):
    def toy():
        return Toy(step, queue=(QUEUE,), target=True, guess=math.log(4))

    expected = fitted(session_of(tmp_path / "whole", ramps()), toy())
    for at in (1, 50, 56, 57, 63):
        asked = iter([False] * at)
        folder = tmp_path / str(at)
        with pytest.raises(Interrupted):
            fitted(session_of(folder, ramps(), stop=lambda a=asked: next(a, True)), toy())
        assert fitted(session_of(folder, ramps()), toy()) == expected
    wrong = {"loss-at-chance", "early-queue", "stale-queue", "dead-target"}
    assert {w.code for w in expected[1]} == (wrong if step is all_wrong else {"dead-target"})


class Staged(Method):
    """Trains a stage first. arXiv 0000.00000. Departures: everything."""

    stages: ClassVar = {"first": Toy}

    def __init__(self):
        super().__init__()
        self.inner = Toy(target=True)
        self.backbone = self.inner.backbone

    def views(self):
        return self.inner.views()

    def fit(self, run):
        run.fit(self.inner, "first")
        for _ in run.epochs(self):
            pass

    def step(self, batch):
        yield loss_of(self.inner, batch)[0]


def test_a_stage_is_judged_whether_trained_or_loaded(tmp_path):
    for stop in (70, 10**6):
        asked = iter([False] * stop)
        session = session_of(tmp_path, ramps(), stop=lambda a=asked: next(a, True))
        session.cell.stages = {"first": (1, RECIPE)}
        try:
            found = fitted(session, Staged())[1]
        except Interrupted:
            assert (tmp_path / "stage-first.safetensors").exists()
    assert [(w.code, w.message.split()[0]) for w in found] == [("dead-target", "first.target")]


# ---- after it --------------------------------------------------------------------------------


class Shown(Method):
    """Returns what it is told to. arXiv 0000.00000. Departures: everything."""

    def __init__(self, features, *, embedding=None, logits=None, sees="none"):
        super().__init__()
        self.given = {"features": features, "embedding": embedding, "logits": logits}
        self.calls = dict.fromkeys(self.given, 0)
        self.labels = sees

    def views(self):
        raise AssertionError("it is looked at, never trained")

    def step(self, batch):
        raise AssertionError("it is looked at, never trained")

    def part(self, name, x):
        """The next rows of what is given, as the images come."""
        given = self.given[name]
        if given is None:
            return None
        at = self.calls[name] % len(given)
        self.calls[name] += len(x)
        return given[at : at + len(x)]

    def encoder(self):
        whole = self

        class Encoder(nn.Module):
            def forward(self, x):
                return whole.part("features", x)

        return Encoder()

    def embed(self, x):
        return self.part("embedding", x)

    def clusters(self, x):
        return self.part("logits", x)


def seen(method, *, numbers=None, steps=100, classes=10):
    feed = train.Feed(torch.zeros(400, 3, 1, 1, dtype=torch.uint8), torch.zeros(400), CPU)
    encoder = method.encoder() if isinstance(method, Method) else method
    found, verdicts = Checkup(method, encoder, feed, classes).end(numbers or {}, steps)
    return found, [w.code for w in verdicts]


def gauss(d: int, seed: int = 0) -> Tensor:
    return torch.randn(400, d, generator=torch.Generator().manual_seed(seed))


def flat(d: int, rank: int) -> Tensor:
    """[400, d] in `rank` directions."""
    return gauss(rank) @ gauss(d, 1)[:rank]


FEATURES = {
    "healthy": (gauss(64), []),
    "all alike": (1 + 1e-3 * gauss(64), ["collapsed"]),
    "in three directions": (flat(64, 3), ["low-rank"]),
    "none": (torch.zeros(400, 64), ["collapsed", "low-rank"]),
    "broken": (gauss(64).where(torch.arange(400)[:, None] > 3, torch.nan), ["not-finite"]),
}


@pytest.mark.parametrize("name", FEATURES)
def test_features(name):
    features, expected = FEATURES[name]
    assert seen(Shown(features))[1] == expected
    assert seen(Shown(features), steps=10)[1] == []  # too early to say


def test_features_may_be_as_parallel_as_before_the_fit():
    narrow = 1 + 0.05 * gauss(64)
    assert seen(Shown(narrow), numbers={"untrained_feature_std": 0.06})[1] == []
    assert seen(Shown(narrow), numbers={"untrained_feature_std": 0.5})[1] == ["collapsed"]


def test_what_sorts_into_classes_may_span_few_directions():
    assert seen(Shown(flat(64, 6), sees="all"), classes=10)[1] == []
    assert seen(Shown(flat(64, 6)), classes=10)[1] == ["low-rank"]


def test_embeddings():
    leaning = gauss(64) + 3
    assert seen(Shown(gauss(64), embedding=gauss(32)))[1] == []
    assert seen(Shown(gauss(64), embedding=leaning))[1] == ["collapsed-embedding"]
    assert seen(Shown(gauss(64), embedding=flat(32, 2)))[1] == ["low-rank-embedding"]


def logits(sizes: list[int]) -> Tensor:
    """[400, K] that sort that many images into each cluster."""
    return F.one_hot(torch.repeat_interleave(torch.tensor(sizes)), len(sizes)).float()


CLUSTERS = {
    "even": ([40] * 10, 10, []),
    "a class is missing": ([80] + [40] * 8 + [0], 10, ["empty-clusters"]),
    "a prototype rests": ([80] + [40] * 8 + [0], 3, []),
    "prototypes are missing": ([80] * 3 + [32] * 5 + [0] * 4, 3, ["empty-clusters"]),
    "one holds most": ([240] + [20] * 8, 3, ["large-cluster"]),
    "one of two": ([300, 100], 2, []),
    "more clusters than images can fill": ([4] * 100 + [0] * 100, 3, []),
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters(name):
    sizes, classes, expected = CLUSTERS[name]
    found, verdicts = seen(Shown(gauss(64), logits=logits(sizes)), classes=classes)
    assert verdicts == expected
    assert found["clusters_largest"] == pytest.approx(max(sizes) / 400)
    assert found["clusters_empty"] == sizes.count(0) / len(sizes)
    assert seen(Shown(gauss(64), logits=logits(sizes), sees="all"))[1] == []


def test_what_was_never_trained_has_numbers_and_no_verdict():
    found, verdicts = seen(nn.Flatten(), steps=0)
    assert verdicts == []
    assert found.keys() == {"feature_std", "feature_rankme", "feature_rankme_centred"}


def test_an_output_of_no_sound_shape_is_refused_before_the_fit(tmp_path):
    class Odd(Toy):
        def embed(self, x):
            return x

    with pytest.raises(ValueError, match=r"embed returned \[128, 3, 4, 4\] for 128 images"):
        fitted(session_of(tmp_path, ramps()), Odd())
    assert not list(tmp_path.glob("resume*"))


def test_a_look_leaves_modes_and_generators_as_they_were(tmp_path):
    toy = Toy()
    toy.head.eval()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    feed = session_of(tmp_path, ramps()).feed
    Checkup(toy, nn.Sequential(toy.backbone, nn.Dropout(0.5)).train(), feed, 10).start()
    assert torch.rand(1) == expected
    assert toy.training
    assert toy.backbone.training
    assert not toy.head.training


# ---- the methods -----------------------------------------------------------------------------

SMALL = {
    simsiam.SimSiam: {"layers": 2, "hidden": 64, "dim": 64, "bottleneck": 32, "crop": 0.5},
    byol.BYOL: {"hidden": 64, "dim": 64, "crop": 0.5},
    moco.MoCo: {"queue": 64, "hidden": 64, "dim": 32, "momentum_target": 0.9, "crop": 0.5},
    swav.SwAV: {"prototypes": 20, "hidden": 64, "dim": 32, "crops": (2, 0), "crop": 0.8}
    | {"jitter": 0.0},
}
FASTER = {simsiam.SimSiam: 0.01}  # learning rates


class Small(nn.Sequential):
    dim = 64

    def __init__(self):
        deep = [nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU()]
        super().__init__(nn.Flatten(), nn.Linear(192, 128), nn.BatchNorm1d(128), nn.ReLU(), *deep)


@pytest.fixture
def verdicts(codes):
    def get(kind: type[Method], change=lambda method: None) -> set[str]:
        torch.manual_seed(0)
        info = DataInfo("digits", 8, len(digits()), 10)
        method = kind(Small(), info, **SMALL[kind])
        change(method)
        lr = FASTER.get(kind, 0.002)
        recipe = Recipe(epochs=14, batch=32, optimizer="adamw", lr=lr, warmup=1)
        return set(codes(method, recipe, digits()))

    return get


@pytest.mark.parametrize("kind", SMALL)
def test_a_method_as_it_is_has_no_verdict(verdicts, kind):
    assert verdicts(kind) == set()


def test_simsiam_without_its_stop_gradient_collapses(verdicts, monkeypatch):
    def distance(p, z):
        return -(normalised(p) * normalised(z)).sum(1).mean()

    monkeypatch.setattr(simsiam, "distance", distance)
    assert verdicts(simsiam.SimSiam) & {"low-rank-embedding", "collapsed-embedding"}


def test_byol_without_its_predictor_collapses(verdicts):
    def plain(method):
        method.predictor = nn.Identity()

    assert "collapsed-embedding" in verdicts(byol.BYOL, plain)


def test_byol_without_its_average_has_a_dead_target(verdicts, monkeypatch):
    monkeypatch.setattr(byol, "ema", lambda *args, **options: None)
    assert "dead-target" in verdicts(byol.BYOL)


def test_moco_that_enqueues_before_the_logits(verdicts, monkeypatch):
    keys = moco.MoCo.keys

    def enqueued(self, x):
        k = keys(self, x)
        self.enqueue(normalised(k))
        return k

    monkeypatch.setattr(moco.MoCo, "keys", enqueued)
    assert "early-queue" in verdicts(moco.MoCo)


def test_moco_whose_pointer_does_not_advance(verdicts, monkeypatch):
    def stay(self, k):
        self.queue[: len(k)] = k

    monkeypatch.setattr(moco.MoCo, "enqueue", stay)
    assert "stale-queue" in verdicts(moco.MoCo)


def test_swav_without_sinkhorn_puts_all_into_few_clusters(verdicts, monkeypatch):
    def greedy(scores, *, eps, iterations):
        return torch.softmax(scores / eps, dim=1)

    monkeypatch.setattr(swav, "sinkhorn", greedy)
    found = verdicts(swav.SwAV)
    assert "large-cluster" in found
    assert found & {"collapsed-embedding", "low-rank-embedding"}


# ---- records and rows ------------------------------------------------------------------------


def record(**given) -> Record:
    common = {"kind": "train", "cell_id": "0" * 64, "identity": {}, "status": "ok"}
    names = {"method": "moco", "backbone": "net", "dataset": "digits", "seed": 0}
    return Record(**common, **names, **given).sealed()


def test_a_record_from_before_there_was_health_is_still_sound():
    plain = json.loads(record().dumps())
    assert "health" not in plain
    assert loads(json.dumps(plain)).intact()
    kept = record(health={"feature_std": 0.75})
    assert loads(kept.dumps()) == kept
    assert kept.record_id != record().record_id


def test_the_row_shows_codes_and_the_rest_shows_sentences():
    warned = Warned(code="low-rank", message="features vary in two directions")
    other = Warned(code="linear", message="at the edge of the grid")
    kept = record(health={"feature_std": 0.75}, warnings=(warned, other))
    good = record(health={"feature_std": 0.25})
    members = [
        Member(method=name, backbone="net", dataset="digits", seed=0, cell_id=name, train=each)
        for name, each in (("bad", kept), ("good", good))
    ]
    board = build(members, suite_id="few")
    row = next(r for r in board.blocks[0].rows if r.method == "bad")
    assert row.verdicts == ("low-rank",)
    assert row.health == {"feature_std": 0.75}
    lines = as_text(board).splitlines()
    assert next(line for line in lines if line.startswith("bad")).endswith("low-rank")
    assert "bad: low-rank: features vary in two directions" in lines
    assert "| health |" in as_markdown(board)
    plain = json.loads(as_json(board))["tables"][0]["rows"]
    assert [r["verdicts"] for r in plain if r["method"] == "bad"] == [["low-rank"]]


def test_every_code_is_known_to_the_table():
    lines = Path(health.__file__).read_text().splitlines()
    said = " ".join(line for line in lines if "code=" in line).split('"')[1::2]
    assert {code for code in said if re.fullmatch("[a-z-]+", code)} - {"feature"} == set(HEALTH)
