"""Bundles: what verify accepts, and what a forger who seals everything anew is refused for."""

from __future__ import annotations

import json
import random
import shutil
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sslbench.api import Place
from sslbench.cli.app import program
from sslbench.disk import sha256_of
from sslbench.errors import CheckFailed, UserError
from sslbench.leaderboard import statistics
from sslbench.leaderboard.board.planned import material_of
from sslbench.leaderboard.folder.attestation import attested, intact, sealed
from sslbench.leaderboard.folder.folder import add, place_of, read
from sslbench.leaderboard.verify.bundle import MANIFEST, entry, pack, write
from sslbench.leaderboard.verify.noise import LEVEL, MANY, Reported, Shift, deviations, joint, shift
from sslbench.leaderboard.verify.rejudging import jittered
from sslbench.leaderboard.verify.retraining import prediction
from sslbench.leaderboard.verify.unpack import unpack
from sslbench.leaderboard.verify.verifying import ALL, VerificationRequest, draw, verify
from sslbench.one_cell.building import Builder
from sslbench.one_cell.workbench import Workbench
from sslbench.plan.planning import make_plan
from sslbench.plan.selection import Selection
from sslbench.plugins import registry
from sslbench.records import Record, digest, loads
from sslbench.store import Store
from sslbench.train.options import RunOptions

SUITE = """
name: small
summary: a small suite
datasets: ["digits[train=300]"]
backbones: [test_resnet]
methods: [simclr]
baselines: [untrained]
floor: untrained
evaluators: [knn, linear, clustering, geometry]
seeds: [0, 1, 2]
epochs: 1
batch: 100
set: {simclr.blur: 0.0}
"""
FOUND = registry(installed=False)
CPU = torch.device("cpu")
FEW = "simclr · test_resnet · digits[train=300] · seed 0"  # judged on other threads


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store of which one cell was judged on two threads, and its leaderboard: six cells."""
    home = tmp_path_factory.mktemp("verify")
    (home / "small.yaml").write_text(SUITE)
    options = Selection(suite=str(home / "small.yaml"), store=home / "store")
    Store(home / "store").create()
    judge(options, threads=2)
    material = material_of(make_plan(options, FOUND, preflight=False), FOUND)
    add(home / "board", material.suite, material.records)
    return home


def judge(options, *, threads):
    """Trains what is missing on one thread, and judges."""
    bench = Workbench(
        Builder(FOUND, Place(), CPU), Store(options.store), RunOptions(), suite="small"
    )
    for planned in make_plan(options, FOUND, preflight=False).cells:
        assert bench.do(planned.cell, []).status == "ok"
        torch.set_num_threads(threads if planned.cell.title.startswith(FEW) else 1)
        try:
            assert bench.do(planned.cell, [j.judge for j in planned.judges]).status == "ok"
        finally:
            torch.set_num_threads(1)


@pytest.fixture
def honest(home, tmp_path):
    """Its bundle."""
    return pack(read(home / "board"), Store(home / "store"), tmp_path / "honest.zip").path


def forged(home, at: Path, change, *, dropped=(), swapped=None):
    """A bundle whose every record went through `change`, sealed anew, under its new cell's id.

    The cells in `swapped` get the model of another.
    """
    before = read(home / "board")
    board, store = at / "forged", Store(at / "forged-store")
    moved = {}
    plains = []
    for record in before.records:
        if (record.method, record.seed) in dropped:
            continue
        plain = record.model_dump(mode="json")
        plains.append(change(plain))
        if record.kind == "train":
            moved[record.cell_id] = digest(plains[-1]["identity"])
    (board / "records").mkdir(parents=True)
    shutil.copy(home / "board" / "suite.yaml", board)
    for plain in plains:
        plain["cell_id"] = moved[plain["cell_id"]]
        if plain["kind"] == "evaluation":
            plain["identity"]["cell"] = plain["cell_id"]
        record = Record.model_validate(plain).sealed()
        path = board / place_of(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record.dumps())
    for old, new in moved.items():
        source = (swapped or {}).get(old, old)
        tensors, plain = Store(home / "store").cell(source).load("model")
        store.cell(new).save("model", tensors, plain)
    return pack(read(board), store, at / "forged.zip").path


def raised(metric, by):
    """A forger's metric: a better value, with the standard error that goes with it."""
    value = metric["value"] + by
    stderr = None if metric["stderr"] is None else (value * (1 - value) / metric["n"]) ** 0.5
    return {**metric, "value": value, "stderr": stderr}


def sd_of(home, method, evaluator, name):
    found = [
        r for r in read(home / "board").records if (r.method, r.evaluator) == (method, evaluator)
    ]
    return statistics.sd([r.metric(name).value for r in found])


def asked(bundle, **how):
    return VerificationRequest(bundle, **{"cells": ALL, **how})


# ---- what is accepted ------------------------------------------------------------------------


@pytest.mark.slow
def test_an_honest_bundle_made_on_another_number_of_threads_is_accepted(home, honest):
    assert torch.get_num_threads() == 1
    said = []
    verdict = verify(asked(honest), FOUND, said.append)
    assert verdict.accepted, verdict.attestation
    assert said[0].startswith("drew 6 of 6 cells: ")
    assert sum(len(cell.found) for cell in verdict.cells) == 24
    records = read(home / "board").records
    judged = [r.environment["threads"] for r in records if r.kind == "evaluation" and not r.seed]
    assert sorted(judged) == [1] * 4 + [2] * 4
    levels = attested([verdict.attestation], records)
    assert levels == dict.fromkeys({r.cell_id for r in records}, "re-judged")
    other = records[0].model_copy(update={"sentence": "another"}).sealed()
    assert other.cell_id not in attested([verdict.attestation], [other, *records[1:]])


def without_digests(folder):
    """Makes the cell's record of its training an older one, which any weights fit."""
    for path in folder.path.glob("records/train-*.json"):
        record = loads(path.read_text()).model_copy(update={"weights": {}})
        path.write_text(record.sealed().dumps())
    folder.remove("encoder")


@pytest.mark.slow
def test_numbers_of_weights_that_differ_in_their_last_bit_are_accepted(home, tmp_path):
    """Which stands for a machine that sums in another order."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(home / "store", elsewhere)
    options = Selection(suite=str(home / "small.yaml"), store=elsewhere)
    for planned in make_plan(options, FOUND, preflight=False).cells:
        folder = Store(elsewhere).cell(planned.cell.id)
        folder.save("model", jittered(folder.load("model")[0], 99), {})
        without_digests(folder)
        for path in (*folder.path.glob("records/[!t]*"), *folder.path.glob("features-*")):
            path.unlink()
    judge(options, threads=1)
    material = material_of(make_plan(options, FOUND, preflight=False), FOUND)
    board = add(tmp_path / "board", material.suite, material.records)
    before = {r.metrics for r in read(home / "board").records}
    assert any(r.metrics not in before for r in board.records)
    bundle = pack(board, Store(home / "store"), tmp_path / "elsewhere.zip").path
    assert verify(asked(bundle, cells=0), FOUND).accepted


def test_cells_trained_again_fall_where_the_seeds_do(honest):
    verdict = verify(asked(honest, cells=1, retrain=True), FOUND)
    assert verdict.accepted
    assert [len(cell.again) for cell in verdict.cells] == [4]
    assert {row["level"] for row in verdict.attestation["rows"]} == {"retrained"}


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("evaluator", "name"), [("knn", "top1"), ("linear", "top1"), ("clustering", "acc")]
)
def test_one_metric_raised_by_half_its_deviation_over_seeds_is_refused(
    home, tmp_path, evaluator, name
):
    items = max(1, round(sd_of(home, "simclr", evaluator, name) / 2 * 360))

    def change(plain):
        if plain["method"] == "simclr" and plain["evaluator"] == evaluator:
            first, second, *rest = plain["metrics"]
            assert first["name"] == name
            first = raised(first, items / 360)
            if second["name"] == "top5" and second["value"] < first["value"]:
                second = raised(second, first["value"] - second["value"])
            plain["metrics"] = [first, second, *rest]
        return plain

    verdict = verify(asked(forged(home, tmp_path, change), cells=0), FOUND)
    outside = {
        (found.record.evaluator, name)
        for cell in verdict.cells
        for found in cell.found
        for (name, _), seen in found.metrics.items()
        if not seen.inside
    }
    assert outside >= {(evaluator, name)}, items
    assert {judge for judge, _ in outside} == {evaluator}
    assert not verdict.accepted


@pytest.mark.slow
def test_all_metrics_of_a_row_raised_by_one_item_are_refused_though_each_may_be(home, tmp_path):
    def change(plain):
        if plain["method"] == "simclr":
            shares = [m for m in plain["metrics"] if "unit" not in m]
            others = [m for m in plain["metrics"] if "unit" in m]
            plain["metrics"] = [*(raised(metric, 1 / 360) for metric in shares), *others]
        return plain

    verdict = verify(asked(forged(home, tmp_path, change)), FOUND)
    assert all(cell.inside for cell in verdict.cells)
    rows = {method: row for (method, _, _), row in verdict.rows.items()}
    assert not rows["simclr"].inside
    assert rows["simclr"].shift > 0
    assert rows["untrained"].inside
    assert not verdict.accepted
    assert attested([verdict.attestation], read(tmp_path / "forged").records) == {}


def two_cells(home):
    """The records of the first two trainings of simclr."""
    trained = [r for r in read(home / "board").records if r.kind == "train"]
    return [r for r in trained if r.method == "simclr"][:2]


def test_files_of_models_that_changed_places_are_not_packed(home, tmp_path):
    store = Store(tmp_path / "swapped")
    shutil.copytree(home / "store", store.root)
    paths = [store.cell(r.cell_id).path / "model.safetensors" for r in two_cells(home)]
    first, second = (path.read_bytes() for path in paths)
    paths[0].write_bytes(second)
    paths[1].write_bytes(first)
    with pytest.raises(UserError, match="belongs to cell"):
        pack(read(home / "board"), store, tmp_path / "swapped.zip")


@pytest.mark.slow
def test_swapped_encoders_are_refused_though_every_digest_was_forged(home, tmp_path):
    one, other = two_cells(home)
    swapped = {one.cell_id: other.cell_id, other.cell_id: one.cell_id}
    weights = {one.cell_id: other.weights, other.cell_id: one.weights}

    def change(plain):
        if plain["kind"] == "train" and plain["cell_id"] in weights:
            plain["weights"] = dict(weights[plain["cell_id"]])
        return plain

    verdict = verify(asked(forged(home, tmp_path, change, swapped=swapped)), FOUND)
    assert not verdict.accepted
    wrong = {cell.planned.cell.id for cell in verdict.cells if not cell.inside}
    assert wrong == set(swapped)


def test_another_fingerprint_is_refused_with_both(home, tmp_path):
    other = "f" * 64

    def change(plain):
        if plain["kind"] == "train":
            plain["identity"]["dataset"]["fingerprint"] = other
        return plain

    bundle = forged(home, tmp_path, change)
    here = read(home / "board").records[0]
    with pytest.raises(CheckFailed, match=other) as refusal:
        verify(asked(bundle), FOUND)
    trained = next(r for r in read(home / "board").records if r.kind == "train")
    assert trained.identity["dataset"]["fingerprint"] in str(refusal.value), here


def test_a_missing_seed_is_refused_before_anything_is_judged(home, tmp_path):
    bundle = forged(home, tmp_path, lambda plain: plain, dropped={("simclr", 1)})
    with pytest.raises(
        CheckFailed, match=r"simclr on digits\[train=300\], test_resnet lacks seed 1 of the 3"
    ):
        verify(asked(bundle), FOUND)


def test_an_edited_identity_with_every_digest_made_anew_is_refused(home, tmp_path):
    def change(plain):
        if plain["method"] == "simclr":
            plain["hyperparameters"]["temperature"] = 0.07
            if plain["kind"] == "train":
                plain["identity"]["method"]["hyperparameters"]["temperature"] = 0.07
        return plain

    bundle = forged(home, tmp_path, change)
    with pytest.raises(
        CheckFailed, match=r"simclr seed \d .* is not the cell .*temperature is 0.07"
    ):
        verify(asked(bundle), FOUND)


def test_weights_of_another_network_are_refused(home, tmp_path):
    store = Store(tmp_path / "other")
    shutil.copytree(home / "store", store.root)
    cell = next(r.cell_id for r in read(home / "board").records if r.method == "simclr")
    store.cell(cell).save("model", {"weight": torch.zeros(3)}, {})
    with pytest.raises(UserError, match=r"the model of simclr .* is not that of the leaderboard's"):
        pack(read(home / "board"), store, tmp_path / "other.zip")


def test_a_bundle_without_models_cannot_be_verified(home, tmp_path):
    pack(read(home / "board"), Store(tmp_path), tmp_path / "light.zip", models=False)
    with pytest.raises(CheckFailed, match="it has no model of simclr seed"):
        verify(asked(tmp_path / "light.zip"), FOUND)


@pytest.mark.slow
def test_a_refusal_on_the_command_line_names_the_numbers_and_exits_with_5(home, tmp_path):
    def change(plain):
        if plain["evaluator"] == "clustering" and plain["method"] == "simclr":
            plain["metrics"] = [raised(plain["metrics"][0], 20 / 360), *plain["metrics"][1:]]
        return plain

    bundle = forged(home, tmp_path, change)
    command = ["leaderboard", "verify", str(bundle), "--out", str(tmp_path / "said")]
    done = CliRunner().invoke(program, command)
    assert done.exit_code == 5, done.output
    assert "simclr seed" in done.stderr
    assert "clustering-1 acc is reported as" in done.stderr
    assert "OUTSIDE its noise" in done.stdout
    (path,) = (tmp_path / "said").iterdir()
    written = json.loads(path.read_text())
    assert intact(written)
    assert written["verdict"] == "refused"
    assert written["bundle"] == sha256_of(bundle)


# ---- the archive -----------------------------------------------------------------------------


def test_the_same_content_gives_the_same_bytes(home, tmp_path):
    store = Store(home / "store")
    paths = [pack(read(home / "board"), store, tmp_path / f"{i}.zip").path for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with zipfile.ZipFile(paths[0]) as archive:
        names = archive.namelist()
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
    assert names == [MANIFEST, *sorted(names[1:])]
    assert sum(name.startswith("models/") for name in names) == 3  # untrained ones are built


def test_a_bundle_is_written_whole_or_not_at_all(home, tmp_path):
    with pytest.raises(UserError, match="has no model of simclr seed"):
        pack(read(home / "board"), Store(tmp_path / "empty"), tmp_path / "b.zip")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a bundle"):
        pack(read(home / "board"), Store(home / "store"), tmp_path / "mine.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_no_bit_of_a_bundle_can_be_flipped(honest, tmp_path):
    content = bytearray(honest.read_bytes())
    draws = random.Random(0)
    places = [*draws.sample(range(len(content)), 12), 10, 14, 27, len(content) - 30]
    with zipfile.ZipFile(honest) as archive:
        places += [info.header_offset + 100 for info in archive.infolist()[:3]]
    broken = tmp_path / "broken.zip"
    for place in places:
        content[place] ^= 1 << draws.randrange(8)
        broken.write_bytes(content)
        with pytest.raises((CheckFailed, UserError), match=r"broken\.zip"):
            unpack(broken, fresh(tmp_path))
        content = bytearray(honest.read_bytes())
    unpack(honest, fresh(tmp_path))


def fresh(tmp_path: Path) -> Path:
    into = tmp_path / "box" / "into"
    shutil.rmtree(into.parent, ignore_errors=True)
    into.mkdir(parents=True)
    return into


def linked(name):
    info = entry(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def squeezed(name):
    info = entry(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


RECORD = f"records/ab/{'a' * 64}/knn-{'b' * 24}.json"
HOSTILE = {
    "an absolute path": [(entry("/etc/cron.d/x"), b"x")],
    "a drive": [(entry("C:/x"), b"x")],
    "a climb": [(entry("records/../../x"), b"x")],
    "a link": [(linked(RECORD), b"/etc/passwd")],
    "an archive bomb": [(squeezed(RECORD), b"0" * 2**20)],
    "an entry twice": [(entry(RECORD), b"x"), (entry(RECORD), b"y")],
    "an entry of no kind": [(entry("setup.py"), b"x")],
    "an entry that is not listed": [(entry(RECORD), b"x")],
    "a folder": [(entry(f"models/{'c' * 64}.safetensors/"), b"")],
}
SAID = {
    "an absolute path": "has an absolute path",
    "a drive": "has an absolute path",
    "a climb": "climbs out",
    "a link": "is a link",
    "an archive bomb": "is compressed",
    "an entry twice": "is there twice",
    "an entry of no kind": "is not one that a bundle has",
    "an entry that is not listed": "is there and not listed",
    "a folder": "is not a regular file",
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_of_a_hostile_archive_leaves_its_folder(honest, tmp_path, what):
    hostile = tmp_path / "hostile.zip"
    shutil.copy(honest, hostile)
    with zipfile.ZipFile(hostile, "a") as archive:
        for info, content in HOSTILE[what]:
            archive.writestr(info, content)
    into = fresh(tmp_path)
    with pytest.raises(CheckFailed, match=SAID[what]):
        unpack(hostile, into)
    assert list(into.parent.iterdir()) == [into]
    assert not [path for path in into.rglob("*") if path.is_symlink()]


def rewritten(honest: Path, change) -> Path:
    """The bundle with another manifest."""
    out = honest.with_name("rewritten.zip")
    into = fresh(honest.parent)
    manifest = unpack(honest, into)
    names = [each["path"] for each in manifest["files"]]
    change(manifest)
    write(out, json.dumps(manifest).encode(), {name: into / name for name in names})
    return out


def test_a_manifest_that_lies_is_refused(honest):
    def larger(manifest):
        manifest["files"][0]["size"] += 1

    def other(manifest):
        manifest["files"][0]["sha256"] = "0" * 64

    def later(manifest):
        manifest["format"] = 2

    def fewer(manifest):
        manifest["seeds"] = [0, 1]

    for change, said in ((larger, "bytes, not"), (other, "is not the file"), (later, "upgrade")):
        with pytest.raises(UserError, match=said):
            unpack(rewritten(honest, change), fresh(honest.parent))
    with pytest.raises(CheckFailed, match="its manifest and its records disagree on seeds"):
        verify(asked(rewritten(honest, fewer)), FOUND)


def test_what_hides_before_the_archive_is_refused(honest, tmp_path):
    (tmp_path / "more.zip").write_bytes(b"#!/bin/sh\n" + honest.read_bytes())
    with pytest.raises(CheckFailed, match="its bytes are not those that its content makes"):
        unpack(tmp_path / "more.zip", fresh(tmp_path))
    (tmp_path / "none.zip").write_bytes(b"no archive")
    with pytest.raises(CheckFailed, match="is damaged, or not a bundle"):
        unpack(tmp_path / "none.zip", fresh(tmp_path))


# ---- draws, noise, attestations --------------------------------------------------------------


class Stub:
    def __init__(self, method, seed):
        self.cell = type("Cell", (), {"method": method, "dataset": "d", "backbone": "b"})()
        self.cell.id = f"{method}{seed}"


def test_cells_are_drawn_afresh_and_one_of_each_row_first():
    cells = [Stub(method, seed) for method in "abc" for seed in range(4)]
    drawn = [tuple(p.cell.id for p in draw(cells, 0)) for _ in range(60)]
    assert len(set(drawn)) > 10  # of 64
    assert {tuple(cell[0] for cell in each) for each in drawn} == {("a", "b", "c")}
    assert len({draw(cells, 1)[0].cell.id for _ in range(100)}) > 6
    assert {p.cell.method for p in draw(cells, 4)} == set("abc")
    assert len(draw(cells, 4)) == 4
    assert draw(cells, ALL) == cells == draw(cells, 99)


def test_the_noise_test_refuses_few_honest_numbers_and_finds_what_is_beyond():
    """Of normal noise of two items in a thousand, ten metrics, one test of level 5 %."""
    draws = np.random.default_rng(0)
    keys = [(f"m{i}", "test") for i in range(10)]
    wrong = found = 0
    for _ in range(400):
        runs = [
            {key: round(500 + 2 * draws.standard_normal()) / 1000 for key in keys}
            for _ in range(MANY + 1)
        ]
        said = {key: Reported(value, 1000) for key, value in runs[-1].items()}
        seen = deviations(said, runs[:-1], items=1000, level=0.05)
        wrong += not all(each.inside for each in seen.values())
        said[keys[0]] = Reported(runs[-1][keys[0]] + 0.016, 1000)
        found += not deviations(said, runs[:-1], items=1000, level=0.05)[keys[0]].inside
    assert wrong <= 0.08 * 400
    assert found >= 0.9 * 400


def test_a_joint_shift_is_found_where_no_judge_alone_shows_it():
    still = [Shift(1.0, 0.0, MANY)] * 3  # each judge an item better
    assert joint(still[:1]).inside
    assert not joint(still).inside
    assert joint([Shift(1.0, 0, MANY), Shift(-1.0, 0, MANY), Shift(0.0, 0, MANY)]).inside
    assert not joint([Shift(-1.0, 0.0, MANY)] * 3).inside  # rivals made worse
    assert joint([]).inside
    assert LEVEL == 0.01


def test_a_judges_metrics_move_together_and_count_once():
    runs = [{("a", "test"): v, ("b", "test"): v} for v in (0.5, 0.51, 0.49, 0.52, 0.48)]
    said = {(name, "test"): Reported(0.52, 1000) for name in "ab"}
    both = shift(said, runs, items=1000)
    one = shift({("a", "test"): said["a", "test"]}, runs, items=1000)
    assert both == one
    assert one.towards == pytest.approx(0.02 / statistics.sd([0.5, 0.51, 0.49, 0.52, 0.48]))
    assert one.spread == pytest.approx(1.0)


def test_a_lower_number_is_better_where_the_metric_says_so():
    runs = [{("ece", "test"): v} for v in (0.1, 0.1002, 0.0998)]
    low = {("ece", "test"): Reported(0.05, 1000, higher_is_better=False)}
    assert deviations(low, runs, items=1000)["ece", "test"].towards == pytest.approx(50)


def test_the_interval_for_one_more_seed_is_that_of_the_textbook():
    low, high = prediction([0.1, 0.2, 0.3])
    assert (low + high) / 2 == pytest.approx(0.2)
    assert high - 0.2 == pytest.approx(9.924843 * 0.1 * (4 / 3) ** 0.5, rel=1e-6)
    assert prediction([0.1]) is None


def test_an_attestation_that_was_edited_or_is_malformed_counts_for_nothing():
    record = Record(
        kind="train", cell_id="a" * 64, identity={}, status="ok", method="m", backbone="b",
        dataset="d", seed=0,
    ).sealed()  # fmt: skip
    row = {"level": "re-judged", "records": {record.cell_id: [record.record_id]}}
    good = sealed({"verdict": "accepted", "rows": [row]})
    assert attested([good], [record]) == {record.cell_id: "re-judged"}
    higher = sealed({"verdict": "accepted", "rows": [{**row, "level": "retrained"}]})
    assert attested([higher, good], [record]) == {record.cell_id: "retrained"}
    for bad in (
        {**good, "rows": [{**row, "level": "retrained"}]},
        sealed({"verdict": "refused", "rows": [row]}),
        sealed({"verdict": "accepted", "rows": [{**row, "level": "blessed"}]}),
        sealed({"verdict": "accepted", "rows": [3, {"records": [1]}]}),
        sealed({"verdict": "accepted", "rows": "all"}),
        {},
        [1],
    ):
        assert attested([bad], [record]) == {}


def test_every_floating_number_moves_by_one_rounding_and_nothing_else_does():
    tensors = {"w": torch.linspace(-2, 2, 1000), "n": torch.arange(3)}
    one, other = jittered(tensors, 1), jittered(tensors, 2)
    moved = (one["w"] / tensors["w"] - 1).abs()
    assert moved.max() < 2.5e-7
    assert (moved[tensors["w"] != 0] > 0).all()
    assert not torch.equal(one["w"], other["w"])
    assert torch.equal(one["n"], tensors["n"])
    assert torch.equal(one["w"], jittered(tensors, 1)["w"])
