"""What `leaderboard validate` finds in a folder that somebody edited, sealing it anew where they can."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from sslbench.cells.identity import JudgedIdentity
from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.leaderboard.folder.folder import LOCK, place_of
from sslbench.leaderboard.folder.validate import validate
from sslbench.plugins import registry
from sslbench.records import Record, digest

SUITE = """
name: made-up
summary: a made-up suite
datasets: [digits]
backbones: [net]
methods: [ours]
baselines: [floor]
evaluators: [judge]
seeds: [0, 1]
epochs: 3
set: {ours.lr: 0.1}
"""
COMMON = {"backbone": "net", "dataset": "digits", "suite": "made-up", "status": "ok"}


def identity(method, seed):
    own = {"name": method, "version": 1, "hyperparameters": {"dim": 8} if method == "ours" else {}}
    if method == "ours":
        own["recipe"] = {"epochs": 3, "lr": 0.1}
    return {
        "identity_version": 1,
        "method": own,
        "backbone": "net",
        "dataset": {"name": "digits", "fingerprint": "f" * 64, "size": 32},
        "labels": "none",
        "seed": seed,
        "precision": "fp32",
    }


def cell(method, seed):
    """Plain records of a training and its judge."""
    meant = identity(method, seed)
    whole = {**COMMON, "method": method, "seed": seed, "cell_id": digest(meant)}
    whole["hyperparameters"] = {"dim": 8, "added": 0} if method == "ours" else {}
    whole["recipe"] = {"epochs": 3, "lr": 0.1, "batch": 64} if method == "ours" else {}
    right = {"ours": 90, "floor": 70}[method] + seed
    parts = {"version": 1, "dist": "sslbench", "dist_version": "0.1.0", "source_sha256": "s"}
    judged = {"name": "judge", "version": 1, "params": {}}
    return [
        {
            **whole,
            "kind": "train",
            "identity": meant,
            "costs": {
                "seconds": 1.0,
                "stages": [{"name": "main", "seconds": 1.0, "images_seen": 3}],
            },
            "curves": {"loss": [[0, 1.0], [1, 0.5]]},
            "started": "2026-01-01T00:00:00.000Z",
            "finished": "2026-01-01T00:01:00.000Z",
        },
        {
            **whole,
            "kind": "evaluation",
            "identity": {"cell": digest(meant), "evaluator": judged},
            "evaluator": "judge",
            "protocol": "judge-1",
            "components": {"evaluator": parts},
            "metrics": [value("top1", right), value("top5", 97), value("nmi", 53.21)],
        },
    ]


def value(name, right):
    share = right / 100
    error = (share * (1 - share) / 100) ** 0.5
    return {"name": name, "value": share, "n": 100, "stderr": error if name != "nmi" else None}


def plains():
    """Of four cells: ours 0, ours 1, floor 0, floor 1; the training of each before its judge."""
    return [r for method in ("ours", "floor") for seed in (0, 1) for r in cell(method, seed)]


def folder(root: Path, records) -> Path:
    (root / "records").mkdir(parents=True)
    (root / "suite.yaml").write_text(SUITE)
    for plain in records:
        put(root, Record.model_validate(plain).sealed())
    return root


def put(root, record, text=""):
    path = root / place_of(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or record.dumps())
    return path


def errors(root):
    return [f.sentence for f in validate(root, locked=False) if f.level == "error"]


def warned(root, **how):
    return [f.sentence for f in validate(root, **how) if f.level == "warning"]


def test_a_sound_folder_has_no_finding_but_that_it_was_never_built(tmp_path):
    root = folder(tmp_path / "board", plains())
    assert validate(root, locked=False) == []
    assert [f.file for f in validate(root)] == [LOCK]


def metric(index, **changed):
    def change(records):
        records[1]["metrics"][index] |= changed

    return change


def field(which, **changed):
    def change(records):
        records[which] |= changed

    return change


def inside(which, *path, to):
    def change(records):
        place = records[which]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


EDITED = {
    "not a whole number of items": (metric(0, value=0.9042), "90.4200 of 100 items"),
    "a stale standard error": (metric(0, value=0.95), "whose standard error is 0.0217945"),
    "above one": (metric(0, value=1.2, stderr=None), "a fraction outside 0 to 1"),
    "far below zero": (metric(2, value=-1.5), "nmi is -1.5, a fraction outside -1 to 1"),
    "top1 above top5": (metric(1, value=0.5, stderr=0.05), "top1 is 0.9, above top5, 0.5"),
    "of no items": (metric(2, n=0), "nmi is of 0 items"),
    "a negative error": (metric(2, stderr=-0.1), "nmi has a negative standard error"),
    "a metric twice": (metric(2, name="top1", stderr=0.05), "one metric stands in it twice"),
    "a negative cost": (inside(0, "costs", "seconds", to=-1.0), "its seconds is -1.0"),
    "a negative stage": (
        inside(0, "costs", "stages", 0, "seconds", to=-1.0),
        "its stage main took -1.0 s",
    ),
    "out of time": (field(0, finished="2025-12-31T00:00:00.000Z"), "before it started"),
    "another protocol": (field(1, protocol="judge-2"), "its identity's judge-1"),
    "another evaluator": (field(1, evaluator="juror"), "its evaluator is juror"),
    "another method": (field(0, method="theirs"), "its method is theirs, its identity's ours"),
    "another data set": (field(0, dataset="letters"), "its dataset is letters"),
    "another seed": (field(0, seed=1), "its seed is 1, its identity's 0"),
    "another setting": (
        field(0, hyperparameters={"dim": 16}),
        "its hyperparameter dim is 16, its identity's 8",
    ),
    "another recipe": (
        inside(0, "recipe", "lr", to=0.2),
        "its recipe field lr is 0.2, its identity's 0.1",
    ),
    "an edited identity": (inside(0, "identity", "seed", to=5), "its identity makes cell"),
    "no identity": (field(0, identity={}), "its identity is not one that sslbench writes"),
    "another cell": (inside(1, "identity", "cell", to="0" * 64), "judges cell 000000000000"),
    "a judge of other settings": (
        field(1, recipe={"epochs": 30}),
        'its recipe is {"epochs":30}, that of its training',
    ),
    "metrics of a failure": (field(1, status="failed"), "it is failed and has metrics"),
    "nothing measured": (field(1, metrics=[]), "it is ok and has no metric"),
    "a hidden failure": (field(0, status="failed"), "judges a cell whose training failed"),
}


@pytest.mark.parametrize("what", EDITED)
def test_an_edit_is_found_though_the_record_was_sealed_anew(tmp_path, what):
    change, said = EDITED[what]
    records = plains()
    change(records)
    found = errors(folder(tmp_path / "board", records))
    assert [sentence for sentence in found if said in sentence], found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"value": 0.9\n', '"value": NaN\n', "NaN"),
        ('"value": 0.9\n', '"value": 0.91\n', "its content does not match its record_id"),
        ('"seed": 0,', '"seed": 0,\n "seed": 0,', "it says 'seed' twice"),
        ('"seed": 0,', '"seed": 0,\n "prize": 1,', "prize"),
        ('"schema_version": "1.0"', '"schema_version": "9.0"', "written with schema 9.0"),
        ("{", "", "not a record"),
    ],
)
def test_a_file_that_holds_no_sound_record_is_named(tmp_path, old, new, said):
    root = folder(tmp_path / "board", plains())
    record = Record.model_validate(plains()[1]).sealed()
    text = record.dumps()
    assert old in text
    path = put(root, record, text.replace(old, new, 1))
    (found,) = [f for f in validate(root, locked=False) if said in f.sentence]
    assert (found.level, found.file) == ("error", path.relative_to(root).as_posix())


def test_a_string_sealed_as_such_is_still_no_number(tmp_path):
    root = folder(tmp_path / "board", plains()[:1] + plains()[2:])
    record = Record.model_validate(plains()[1]).sealed()
    plain = json.loads(record.dumps())
    plain["metrics"][0]["value"] = "0.9"
    plain.pop("record_id")
    put(root, record, json.dumps({**plain, "record_id": digest(plain)}))
    assert [s for s in errors(root) if "metrics.0.value: Input should be a valid number" in s]


def test_records_that_are_twice_or_contradict_or_hang_in_the_air_are_errors(tmp_path):
    records = plains()
    twice = {**records[1], "metrics": [value("top1", 80), *records[1]["metrics"][1:]]}
    root = folder(tmp_path / "board", [*records, twice])
    assert [s for s in errors(root) if "has other numbers than" in s]
    again = folder(tmp_path / "again", [*records, {**records[1], "suite": "other"}])
    assert errors(again) == []
    assert [s for s in warned(again, locked=False) if s.startswith("says the same as")]
    orphan = folder(tmp_path / "orphan", records[1:])
    assert "there is no record of how its cell was trained" in errors(orphan)


def test_files_that_are_none_of_records_are_errors(tmp_path):
    root = folder(tmp_path / "board", plains())
    first = next((root / "records").rglob("*.json"))
    shutil.copy(first, first.with_name("notes.json"))
    (root / "records" / "link").symlink_to("/etc/passwd")
    assert sorted(errors(root)) == ["it is not a regular file", "no record has such a name"]
    moved = folder(tmp_path / "moved", plains())
    first = next((moved / "records").rglob("*.json"))
    first.rename(first.with_name(f"judge-{'0' * 24}.json"))
    assert [s for s in errors(moved) if s.startswith("its record belongs at records/")]


def test_seeds_are_held_against_those_declared(tmp_path):
    lacking = folder(tmp_path / "lacking", plains()[:2] + plains()[4:])
    assert errors(lacking) == ["ours on digits, net lacks seed 1 of the 2 declared"]
    extra = folder(tmp_path / "extra", [*plains(), *cell("ours", 7)])
    assert errors(extra) == []
    assert [s for s in warned(extra, locked=False) if "seed 7 is not the suite's (0, 1)" in s]
    absent = folder(tmp_path / "absent", plains()[:4])
    assert errors(absent) == []
    (said,) = warned(absent, locked=False)
    assert said == "floor on digits, net is in the suite, and there is no record of it"
    records = plains()
    failed = [{**records[0], "status": "failed"}, *records[2:]]
    assert errors(folder(tmp_path / "failed", failed)) == []  # it is shown, not hidden
    unjudged = folder(tmp_path / "unjudged", [records[0], *records[2:]])
    assert errors(unjudged) == ["its cell was not judged by judge"]
    again = folder(tmp_path / "again", [{**records[0], "attempt": 3}, *records[1:]])
    assert warned(again, locked=False) == ["is attempt 3: how 2 ended is not shown"]


def test_a_cell_made_otherwise_than_the_suite_says_is_found(tmp_path):
    def other(records, key, new):
        for plain in records[:2]:
            plain["recipe"] = {**plain["recipe"], key: new}
        records[0]["identity"]["method"]["recipe"][key] = new
        for plain in records[:2]:
            plain["cell_id"] = digest(records[0]["identity"])
        records[1]["identity"]["cell"] = records[0]["cell_id"]
        return records

    faster = folder(tmp_path / "faster", other(plains(), "lr", 0.9))
    assert "lr is 0.9, the suite sets 0.1" in errors(faster)
    longer = folder(tmp_path / "longer", other(plains(), "epochs", 30))
    assert [s for s in warned(longer, locked=False) if "epochs 30 is not the suite's (3)" in s]
    assert errors(longer) == ["ours on digits, net lacks seed 0 of the 2 declared"]


def test_code_that_changed_while_its_version_stayed_is_warned_of(tmp_path):
    records = plains()
    records[1]["components"]["evaluator"] = {
        **records[1]["components"]["evaluator"],
        "source_sha256": "t",
    }
    root = folder(tmp_path / "board", records)
    (said,) = warned(root, locked=False)
    assert said.startswith("evaluator judge version 1 of sslbench 0.1.0 had 2 sources")


def test_a_lock_that_does_not_match_is_an_error(tmp_path):
    root = folder(tmp_path / "board", plains())
    files = {p.relative_to(root).as_posix(): p for p in (root / "records").rglob("*.json")}
    sums = {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in files.items()}
    ids = {name: json.loads(p.read_text())["record_id"] for name, p in files.items()}
    (root / "README.md").write_text("table")
    lock = {
        "format": 1,
        "suite": hashlib.sha256(SUITE.encode()).hexdigest(),
        "records": {name: {"id": ids[name], "sha256": sums[name]} for name in files},
        "generated": {"README.md": hashlib.sha256(b"table").hexdigest()},
    }
    (root / LOCK).write_text(json.dumps(lock))
    assert validate(root) == []
    (root / "README.md").write_text("another table")
    assert [f.sentence for f in validate(root)] == [
        "does not match: README.md is not what was built"
    ]
    first = min(files)
    files[first].unlink()
    found = [f.sentence for f in validate(root) if f.file == LOCK]
    assert f"does not match: {first} is in the lock and not there" in found
    (root / LOCK).write_text("{")
    assert [f for f in validate(root) if f.file == LOCK and "is not a lock" in f.sentence]


def test_the_command_prints_findings_and_exits_with_5(tmp_path):
    records = plains()
    records[1]["metrics"][0]["value"] = 0.9042
    root = folder(tmp_path / "board", records)
    done = CliRunner().invoke(program, ["leaderboard", "validate", str(root)])
    assert done.exit_code == 5
    assert "not a whole number" in done.stdout
    assert "1 error" in done.stdout or "2 errors" in done.stdout
    plain = CliRunner().invoke(program, ["leaderboard", "validate", str(root), "--json"])
    assert plain.exit_code == 5
    assert {"level", "file", "sentence"} == set(json.loads(plain.stdout)[0])
    good = folder(tmp_path / "good", plains())
    assert CliRunner().invoke(program, ["leaderboard", "validate", str(good)]).exit_code == 0
    none = CliRunner().invoke(program, ["leaderboard", "validate", str(tmp_path)])
    assert none.exit_code == 2
    assert "is not a leaderboard" in none.stderr
    with pytest.raises(UserError, match="is not a leaderboard"):
        validate(tmp_path)


def test_protocols_follow_from_identities_as_they_are_made():
    from sslbench.cells.protocol import resolve_judge

    found = registry(installed=False)
    names = ("knn[k=5]", "corruption[images=20,set=regen]", "linear", "tent[set=regen]")
    for name in names:
        judge, _ = resolve_judge(name, found)
        assert JudgedIdentity.written("c", judge.identity()).protocol == judge.protocol
    held, _ = resolve_judge("knn", found, held_out=True)
    assert JudgedIdentity.written("c", held.identity()).protocol == held.protocol
