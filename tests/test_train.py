"""The loop: exact resume from every point, updates kept apart, sentences for broken methods."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from processes import CONTEXT
from torch import nn

from sslbench.api import Backbone, Method, Place, Recipe, Update
from sslbench.cells.cell import Cell
from sslbench.cells.parameters import anatomy
from sslbench.cells.protocol import resolve_judge
from sslbench.cells.settings import Context, Settings, resolve
from sslbench.data import open_data
from sslbench.errors import Interrupted
from sslbench.events import EpochDone
from sslbench.one_cell.building import Builder, Unsupported
from sslbench.one_cell.workbench import Workbench
from sslbench.plugins import registry
from sslbench.store import CellFolder, Store
from sslbench.train import loop as train
from sslbench.train.options import RunOptions

HARD = Path(__file__).parent / "hard_methods.py"
DATA = "digits[test=40,train=120]"
SMALL = {
    "moco.queue": 64,
    "moco.splits": 2,
    "deepcluster.clusters": 8,
    "deepcluster.whiten": 16,
    "deepcluster-v2.clusters": 8,
    "deepcluster-v2.crops": (2, 0),
    "iic.overclusters": 12,
    "scan.confidence": 0.1,
    "scan.neighbours": 5,
    "simclr.blur": 0.0,
    "barlow-twins.hidden": 64,
    "barlow-twins.dim": 64,
    "vicreg.hidden": 64,
    "vicreg.dim": 64,
    "ruc.confidence": 0.1,
    "ruc.select": "confidence",
    "ruc.neighbours": 5,
    "ruc.refurbish": 0.2,
}
ENTRIES = registry(files=[HARD]).entries("methods")
FIRST = {  # of the entries that share a class the first
    parts.target: name
    for name, parts in reversed([(n, anatomy(e)) for n, e in ENTRIES.items()])
    if parts.recipe
}
# The conformance kit stops every method between its steps. Here these crash anywhere: the hard ones, one
# of a plain fit, and of each other kind of fit one.
PLAIN_AND_OTHERS = {"moco", "deepcluster", "deepcluster-v2", "scan", "iic", "fixmatch"}
CRASHED = [name for name in FIRST.values() if ENTRIES[name].file or name in PLAIN_AND_OTHERS]


def cell_of(method: str, seed: int = 0, **settings) -> Cell:
    reg = registry(files=[HARD])
    data = open_data(DATA, reg, Place())
    setting = Context("test_resnet", data.name, data.fingerprint, data.size, seed, budget=40)
    layers = (({"epochs": 2, "batch": 32}, SMALL), ({}, settings))
    return resolve(method, reg, setting, Settings(layers))


def workbench(folder: Path, seconds: float = 0.0, **given) -> Workbench:
    builder = Builder(registry(files=[HARD]), Place(), torch.device("cpu"))
    how = RunOptions(checkpoint_seconds=seconds)
    return Workbench(builder, Store(folder), how, **given)


def outcome(folder: Path, cell: Cell) -> dict:
    """Weights and records, costs, environment, times and attempts aside."""
    kept = Store(folder).cell(cell.id)
    found = {k: v.numpy().tobytes() for k, v in kept.load("model")[0].items()}
    aside = {"record_id", "costs", "environment", "started", "finished", "attempt"}
    for record in kept.records():
        if record.status == "ok":
            found[record.kind, record.evaluator] = record.model_dump(exclude=aside)
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The outcome of each method's cell, done in one go."""
    known: dict[str, dict] = {}

    def get(method: str) -> dict:
        if method not in known:
            folder = tmp_path_factory.mktemp("whole")
            cell = cell_of(method)
            done = workbench(folder, 60.0).do(cell, [resolve_judge("knn", registry())[0]])
            assert done.status == "ok", done.sentence
            known[method] = outcome(folder, cell)
        return known[method]

    return get


class Crash(BaseException):
    """As abrupt as a signal: nothing in the harness catches it."""


def crash(monkeypatch, owner, name, at, *, after=False):
    """The at-th call of that function crashes, before it does anything or after it did all."""
    whole, calls = getattr(owner, name), [0]

    def crashing(*args, **kwargs):
        calls[0] += 1
        if calls[0] == at and not after:
            raise Crash
        result = whole(*args, **kwargs)
        if calls[0] == at:
            raise Crash
        return result

    monkeypatch.setattr(owner, name, crashing)


POINTS = {
    "inside an epoch body": (train.Loop, "features", 2, False),
    "after an epoch body": (train.Loop, "_finish_epoch", 2, False),
    "between two yields": (train.Loop, "_apply", 4, False),
    "after a step": (train.Loop, "_after_step", 2, False),
    "at the last step of an epoch": (train.Loop, "_after_step", 3, False),
    "after a checkpoint": (train.Loop, "_save", 2, True),
    "in the thread, before it writes": (CellFolder, "save", 3, False),
    "in the thread, after it wrote": (CellFolder, "save", 3, True),
    "after the last checkpoint": (train.Loop, "_save", 7, True),
    "before the done mark": (CellFolder, "add", 1, False),
    "after the done mark": (CellFolder, "add", 1, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", CRASHED)
def test_a_crash_at_any_point_leaves_no_trace(method, uninterrupted, tmp_path, monkeypatch):
    cell, judge = cell_of(method), resolve_judge("knn", registry())[0]
    expected, reached = uninterrupted(method), 0
    for i, (owner, name, at, after) in enumerate(POINTS.values()):
        folder = tmp_path / str(i)
        with monkeypatch.context() as patch:
            crash(patch, owner, name, at, after=after)
            try:
                workbench(folder).do(cell, [judge])
            except Crash:
                reached += 1
        assert workbench(folder).do(cell, [judge]).status == "ok"
        assert outcome(folder, cell) == expected
    assert reached >= 7


def killed(folder: Path, cell: Cell, at: int, where: str) -> None:
    """Trains the cell; the process is killed at that moment of the at-th checkpoint it writes."""
    from sslbench.store import folder as module

    whole, calls = module.write_atomic, [0]

    def write(path: Path, content: bytes) -> None:
        calls[0] += path.name.startswith("resume-")
        if where == "half" and calls[0] == at:
            path.with_name(f".{path.name}.half").write_bytes(content[: len(content) // 2])
        if where == "after" or calls[0] < at:
            whole(path, content)
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)

    module.write_atomic = write
    workbench(folder).do(cell, [])


@pytest.mark.slow
@pytest.mark.parametrize("where", ["before", "half", "after"])
@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_a_kill_while_a_checkpoint_is_written_leaves_no_trace(
    method, where, uninterrupted, tmp_path
):
    cell, expected = cell_of(method), uninterrupted(method)
    for at in range(1, 7, 2):
        folder = tmp_path / str(at)
        process = CONTEXT.Process(target=killed, args=(folder, cell, at, where))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert workbench(folder).do(cell, [resolve_judge("knn", registry())[0]]).status == "ok"
        assert outcome(folder, cell) == expected


@pytest.mark.parametrize(
    "at", [pytest.param(n, marks=() if n == 19 else pytest.mark.slow) for n in range(1, 30, 3)]
)
def test_crashes_between_stages_leave_no_trace(at, uninterrupted, tmp_path, monkeypatch):
    cell, judge = cell_of("scan"), resolve_judge("knn", registry())[0]
    with monkeypatch.context() as patch:
        crash(patch, CellFolder, "save", at, after=True)
        with pytest.raises(Crash):
            workbench(tmp_path).do(cell, [judge])
    assert workbench(tmp_path).do(cell, [judge]).status == "ok"
    assert outcome(tmp_path, cell) == uninterrupted("scan")


def test_a_run_that_is_stopped_saves_and_continues(uninterrupted, tmp_path):
    cell, judge = cell_of("deepcluster"), resolve_judge("knn", registry())[0]
    asked = iter([False, False, True])
    bench = workbench(tmp_path, 60.0, stop=lambda: next(asked, True))
    assert bench.do(cell, [judge]).status == "interrupted"
    assert workbench(tmp_path, 60.0).do(cell, [judge]).status == "ok"
    assert outcome(tmp_path, cell) == uninterrupted("deepcluster")


def test_a_damaged_checkpoint_is_set_aside_and_not_used(uninterrupted, tmp_path, monkeypatch):
    cell, judge = cell_of("moco"), resolve_judge("knn", registry())[0]
    with monkeypatch.context() as patch:
        crash(patch, train.Loop, "_save", 3, after=True)
        with pytest.raises(Crash):
            workbench(tmp_path).do(cell, [judge])
    path = Store(tmp_path).cell(cell.id).path / "resume-main.safetensors"
    flipped = bytearray(path.read_bytes())
    flipped[-100] ^= 1
    path.write_bytes(flipped)
    bench = workbench(tmp_path)
    assert bench.do(cell, [judge]).status == "ok"
    assert any("resume-main" in notice for notice in bench.store.notices)
    assert outcome(tmp_path, cell) == uninterrupted("moco")


def test_a_pretext_is_trained_once_and_shared(tmp_path):
    scan, simclr = cell_of("scan"), cell_of("simclr")
    assert scan.pretexts["simclr"].id == simclr.id
    bench = workbench(tmp_path)
    assert bench.do(simclr, []).trained
    assert bench.do(scan, []).status == "ok"
    assert len(Store(tmp_path).cell(simclr.id).records()) == 1
    stages = Store(tmp_path).cell(scan.id).records()[0].costs.stages
    assert [(s.name, s.reused) for s in stages] == [
        ("simclr", True),
        ("agree", False),
        ("main", False),
    ]


def test_every_method_starts_from_the_weights_of_untrained(tmp_path):
    bench = workbench(tmp_path)
    floor = bench.builder.build(cell_of("untrained"))[0].state_dict()
    others, declined = set(), set()
    for name in FIRST.values():
        try:
            encoder = bench.builder.build(cell_of(name))[0].encoder()
        except Unsupported:
            declined.add(name)
            continue
        mine = encoder.state_dict() if isinstance(encoder, Backbone) else {}
        if [x.shape for x in mine.values()] == [x.shape for x in floor.values()]:
            assert all(map(torch.equal, mine.values(), floor.values())), name
        else:
            others.add(name)
    # other norms, another input, a code, a layer of a head, a part of the network, or all of its maps
    headed = {"simclr-v2-finetune"}
    assert others == {"cpc", "iic", "vae", "vq-vae", "dcgan", "wgan-gp"} | headed
    coloured = {"colorization", "split-brain", "video-colorization"}
    adapting = {"source-only", "dann", "mme"}
    # no tokens, grey images, one domain
    assert declined == {"mae", "i-jepa", "ibot"} | coloured | adapting


def test_updates_of_one_group_leave_the_other_alone(tmp_path):
    bench = workbench(tmp_path)
    cell = cell_of("adversary")
    module, _ = bench.builder.build(cell)
    session = session_of(bench, cell)
    loop = train.Loop(session, module, cell.recipe)
    seen = []
    whole = loop._apply

    def watched(update, at):
        before = {n: p.clone() for n, p in module.named_parameters()}
        applied = whole(update, at)
        moved = {n.split(".")[0] for n, p in module.named_parameters() if not p.equal(before[n])}
        seen.append((update.group, moved))
        return applied

    loop._apply = watched
    module.fit(loop)
    assert seen[0] == ("critic", {"critic"})
    assert seen[1] == ("encoder", {"backbone"})
    assert int(module.moved) == len(seen) / 2


# ---- sentences -------------------------------------------------------------------------------


class Broken(Method):
    """A method whose step is handed in. arXiv 0000.00000. Departures: everything."""

    recipe = Recipe(epochs=1, batch=32)

    def __init__(self, backbone, data, step):
        super().__init__()
        self.backbone, self.how = backbone, step
        self.head = nn.Linear(backbone.dim, 2)

    def views(self):
        return lambda images: images.float() / 255

    def step(self, batch):
        return self.how(self, batch)


def session_of(bench: Workbench, cell: Cell) -> train.Session:
    data = bench.builder.data(cell.dataset)
    seen = data.pretraining("none")
    bench.store.cell(cell.id).path.mkdir(parents=True, exist_ok=True)
    return train.Session(
        cell=cell,
        folder=bench.store.cell(cell.id),
        feed=train.Feed(seen.images, seen.labels, torch.device("cpu")),
        info=seen.info,
        device=torch.device("cpu"),
        pretrain=bench.pretext,
        stop=bench.means.stop,
    )


def fit_broken(tmp_path: Path, step) -> train.Session:
    bench, cell = workbench(tmp_path), cell_of("simclr")
    backbone, _ = bench.builder.build(cell_of("untrained"))
    session = session_of(bench, cell)
    train.fit_main(session, Broken(backbone, None, step), Recipe(epochs=1, batch=32))
    return session


def test_a_returned_loss_gets_a_sentence(tmp_path):
    with pytest.raises(TypeError, match="`yield loss` instead of `return loss`"):
        fit_broken(tmp_path, lambda self, batch: self.head(self.backbone(batch.views)).mean())


def test_a_yield_inside_no_grad_gets_a_sentence(tmp_path):
    def step(self, batch):
        with torch.no_grad():
            yield self.head(self.backbone(batch.views)).mean()

    with pytest.raises(RuntimeError, match=r"inside torch\.no_grad"):
        fit_broken(tmp_path, step)
    assert torch.is_grad_enabled()


def test_a_yield_inside_autocast_gets_a_sentence(tmp_path):
    def step(self, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield self.head(self.backbone(batch.views)).float().mean()

    with pytest.raises(RuntimeError, match="autocast block of its own"):
        fit_broken(tmp_path, step)


def test_an_unknown_group_gets_a_sentence(tmp_path):
    def step(self, batch):
        yield Update(self.head(self.backbone(batch.views)).mean(), "critic")

    with pytest.raises(ValueError, match="group 'critic'"):
        fit_broken(tmp_path, step)


def test_a_loss_that_is_no_scalar_gets_a_sentence(tmp_path):
    def step(self, batch):
        yield self.head(self.backbone(batch.views))

    with pytest.raises(TypeError, match="not a scalar loss"):
        fit_broken(tmp_path, step)


@pytest.mark.parametrize("odd", [torch.ones(3), 0.5, None], ids=["vector", "float", "none"])
def test_what_is_logged_and_is_no_number_is_named(tmp_path, odd):
    def step(self, batch):
        yield Update(self.head(self.backbone(batch.views)).mean(), log={"purity": odd})

    with pytest.raises(TypeError, match=r"Broken.step logged 'purity' .*a tensor of one number"):
        fit_broken(tmp_path, step)


def test_logged_values_that_are_not_finite_are_left_out_and_named(tmp_path):
    values = iter([math.nan, 3.0, math.inf])

    def step(self, batch):
        value = torch.tensor([next(values)])
        yield Update(self.head(self.backbone(batch.views)).mean(), log={"purity": value})

    session = fit_broken(tmp_path, step)
    assert session.curves["purity"] == [(1.0, 3.0)]
    (warned,) = [w for w in session.warnings if w.code == "logged-not-finite"]
    assert warned.message == "purity was not finite 2 times; its curve leaves them out"


def test_the_speed_after_a_resume_is_that_of_training(tmp_path, monkeypatch):
    cell, clock, asked = cell_of("simclr"), [0.0], iter([False, True])
    restore, advance = train.restore, train.Loop._advance
    monkeypatch.setattr(train.time, "monotonic", lambda: clock[0])

    def slow(*args, **kwargs):
        clock[0] += 1000
        restore(*args, **kwargs)

    def step(self, batch, at):
        clock[0] += 2
        advance(self, batch, at)

    monkeypatch.setattr(train, "restore", slow)
    monkeypatch.setattr(train.Loop, "_advance", step)
    assert workbench(tmp_path, stop=lambda: next(asked)).do(cell, []).status == "interrupted"
    heard = []
    assert workbench(tmp_path, listener=heard.append).do(cell, []).status == "ok"
    ended = [event for event in heard if isinstance(event, EpochDone)]
    assert {event.images_per_second for event in ended} == {cell.recipe.batch / 2}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_cell_as_failed(tmp_path, bad, monkeypatch):
    from sslbench.methods import simclr

    calls = [0]
    whole = simclr.nt_xent

    def loss(z, temperature):
        calls[0] += 1
        return whole(z, temperature) * (bad if calls[0] == 5 else 1)

    monkeypatch.setattr(simclr, "nt_xent", loss)
    done = workbench(tmp_path).do(cell_of("simclr"), [])
    record = Store(tmp_path).cell(cell_of("simclr").id).records()[-1]
    assert done.status == record.status == "failed"
    assert record.error.kind == "nan"
    assert (record.error.epoch, record.error.step) == (1, 1)
    assert "last finite loss" in record.sentence


def test_out_of_memory_names_the_batch_and_the_option(tmp_path, monkeypatch):
    def exhausted(self, update, at):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(train.Loop, "_apply", exhausted)
    done = workbench(tmp_path).do(cell_of("simclr"), [])
    assert done.sentence == (
        "out of memory in training with batch 32; try --set simclr.batch=N with a smaller N, or "
        "--batch N"
    )


def test_hidden_labels_change_nothing(tmp_path):
    bench, cell = workbench(tmp_path), cell_of("simclr")
    data = bench.builder.data(cell.dataset)
    assert (data.pretraining("none").labels == -1).all()
    shown = data.pretraining("all").labels
    assert (shown[data.held_out] == -1).all()
    assert (shown[~data.held_out] >= 0).all()


def test_interrupted_says_where(tmp_path):
    bench, cell = workbench(tmp_path, stop=lambda: True), cell_of("simclr")
    with pytest.raises(Interrupted, match="epoch 0, step 1"):
        train.fit_main(session_of(bench, cell), bench.builder.build(cell)[0], cell.recipe)


@pytest.mark.slow
def test_two_runs_are_equal_bit_for_bit_and_seeds_differ(uninterrupted, tmp_path):
    judge = resolve_judge("knn", registry())[0]
    cell, other = cell_of("swav"), cell_of("swav", seed=1)
    workbench(tmp_path, 60.0).do(cell, [judge])
    workbench(tmp_path, 60.0).do(other, [judge])
    assert outcome(tmp_path, cell) == uninterrupted("swav")
    assert outcome(tmp_path, other) != outcome(tmp_path, cell)
