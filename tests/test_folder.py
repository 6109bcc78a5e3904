"""A leaderboard's folder: from records alone, locked, and never over what is not ours."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import pandas
import pytest
from made_up import judged, leaderboard, records_of, suite_of, train

import sslbench
from sslbench.errors import UserError
from sslbench.leaderboard.board.material import Material
from sslbench.leaderboard.board.members import members_of
from sslbench.leaderboard.folder import folder as folders
from sslbench.leaderboard.output.files import files_of
from sslbench.plan.selection import Selection, whole_suite
from sslbench.records import loads


def build(folder):
    board = folders.board_of(folder)
    folders.write(folder, board, files_of(board))
    return board


def rows_of(board, block=0):
    return {row.label: row for row in board.blocks[block].rows}


# ---- which records count ---------------------------------------------------------------------


def test_every_record_of_the_suite_is_on_the_board():
    suite = suite_of(baselines=("untrained",), floor="untrained")
    members, left = members_of(Material(suite, records_of(suite)))
    assert not left
    assert [(m.method, m.seed) for m in members] == [
        (method, seed) for method in ("moco", "swav", "untrained") for seed in (0, 1, 2)
    ]
    assert [m.method for m in members if m.baseline] == ["untrained"] * 3
    assert all(record is not None for m in members for record in m.evaluations.values())


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"dataset": "svhn"}, "data set svhn is not the suite's (digits)"),
        ({"seed": 7}, "seed 7 is not the suite's (0, 1, 2)"),
        ({"identity": {"precision": "bf16"}}, "precision bf16 is not the suite's (fp32)"),
        ({"identity": {"backbone": "resnet18"}}, "backbone resnet18 is not the suite's"),
        ({"recipe": {"epochs": 50}}, "budget of epochs 50 is not the suite's (5)"),
    ],
)
def test_a_cell_that_the_suite_does_not_mean_is_left_out_with_its_judgements(other, reason):
    cell = train("moco", other.pop("seed", 0), **other)
    found = [cell, judged(cell, "knn", {"top1": 0.99})]
    suite = suite_of(["swav"])
    members, left = members_of(Material(suite, [*records_of(suite), *found]))
    assert {m.method for m in members} == {"swav"}
    assert {each.record for each in left} == {record.record_id for record in found}
    assert all(each.reason.startswith(reason) for each in left)


def test_a_method_that_the_suite_does_not_name_takes_part():
    suite = suite_of(["swav"])
    cell = train("theirs/new", 0)
    members, left = members_of(Material(suite, [*records_of(suite), cell]))
    assert not left
    assert [(m.seed, m.state) for m in members if m.method == "theirs/new"] == [
        (0, "done"), (1, "missing"), (2, "missing"),
    ]  # fmt: skip


def test_seeds_that_were_declared_and_never_came_are_gaps_not_a_smaller_sample():
    suite = suite_of(["moco"])
    found = [r for r in records_of(suite) if r.seed != 1]
    (row,) = folders_board(suite, found).blocks[0].rows
    assert sorted(row.cells) == [0, 1, 2]
    assert row.scores[0].gaps[1].state == "missing"
    assert row.scores[0].n == 2


def folders_board(suite, records):
    from sslbench.leaderboard import build as make

    return make(members_of(Material(suite, records))[0], suite_id="made-up")


def test_a_method_without_any_record_is_a_row_of_gaps():
    suite = suite_of(["moco", "swav"])
    found = [r for r in records_of(suite) if r.method == "moco"]
    rows = rows_of(folders_board(suite, found))
    assert {gap.state for gap in rows["swav"].scores[0].gaps.values()} == {"missing"}


def test_of_two_versions_of_a_protocol_the_later_counts_and_the_other_is_named():
    cell = train("moco", 0)
    old, new = judged(cell, "knn", {"top1": 0.8}), judged(cell, "knn", {"top1": 0.7}, version=2)
    members, left = members_of(Material(suite_of(["moco"]), [cell, old, new]))
    assert members[0].evaluations["knn"] == new
    assert [(e.record, e.reason) for e in left] == [
        (old.record_id, "the same cell was judged by knn-2 too")
    ]


def test_two_numbers_for_one_thing_are_refused_whichever_came_last():
    cell = train("moco", 0)
    one = judged(cell, "knn", {"top1": 0.8})
    other = judged(cell, "knn", {"top1": 0.81}, finished="2027-01-01T00:00:00.000Z")
    for order in ([one, other], [other, one]):
        with pytest.raises(UserError, match=r"two answers for cell .* neither is taken"):
            members_of(Material(suite_of(["moco"]), [cell, *order]))


def test_a_failure_before_an_answer_is_no_contradiction():
    cell = train("moco", 0)
    failed = judged(cell, "knn", {}, status="failed", sentence="out of memory")
    good = judged(cell, "knn", {"top1": 0.8})
    members, left = members_of(Material(suite_of(["moco"]), [cell, good, failed]))
    assert members[0].evaluations["knn"] == good
    assert not left


def test_a_judgement_of_a_cell_that_nobody_trained_is_left_out():
    orphan = judged(train("moco", 0), "knn", {"top1": 0.8})
    _, left = members_of(Material(suite_of(["moco"]), [orphan]))
    assert [e.reason for e in left] == ["nothing says how its cell was trained"]


# ---- the folder ------------------------------------------------------------------------------


def test_what_was_written_is_read_back_and_built_to_the_same_bytes(tmp_path):
    folder = leaderboard(tmp_path / "a")
    build(folder)
    first = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.is_file()}
    again = folders.read(tmp_path / "a")
    assert again.suite == folder.suite
    assert again.records == sorted(records_of(suite_of()), key=folders.place_of)
    build(again)
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.is_file()}
    assert not folders.differences(again, folders.read_lock(tmp_path / "a"))


def test_the_order_in_which_records_came_changes_no_byte(tmp_path):
    suite = suite_of()
    records = records_of(suite)
    folders.add(tmp_path / "a", suite, records)
    for half in (records[9:], records[:9]):
        folders.add(tmp_path / "b", suite, half)
    for name in "ab":
        build(folders.read(tmp_path / name))
    for file in (tmp_path / "a").rglob("*"):
        if file.is_file():
            assert (
                file.read_bytes()
                == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
            )


def test_the_lock_names_each_change_below_it(tmp_path):
    folder = leaderboard(tmp_path / "a")
    build(folder)
    lock = folders.read_lock(tmp_path / "a")
    gone = folder.kept[0]
    (tmp_path / "a" / gone.path).unlink()
    cell = train("byol", 0)
    folders.add(tmp_path / "a", suite_of(["moco", "swav", "byol"]), [cell])
    (tmp_path / "a" / "README.md").write_text("mine")
    found = folders.differences(folders.read(tmp_path / "a"), lock)
    assert set(found) == {
        "suite.yaml is not the one that the leaderboard was built from",
        f"{gone.path} is in the lock and not there",
        f"{folders.place_of(cell)} is not in the lock",
        "README.md is not what was built",
    }


def test_more_records_are_added_and_none_is_taken_away(tmp_path):
    folder = leaderboard(tmp_path / "a", suite_of(["moco"]))
    after = folders.add(tmp_path / "a", suite_of(["swav"]), records_of(suite_of(["swav"])))
    assert len(after.kept) == 2 * len(folder.kept)
    assert after.suite.methods == ("moco", "swav")


def test_another_protocol_under_the_same_folder_is_refused(tmp_path):
    leaderboard(tmp_path / "a")
    other = suite_of(epochs=50)
    with pytest.raises(UserError, match=r"two suites, which cannot be united: epochs 5 and 50"):
        folders.add(tmp_path / "a", other, [])


def test_a_record_that_contradicts_is_not_added(tmp_path):
    leaderboard(tmp_path / "a")
    before = sorted((tmp_path / "a").rglob("*.json"))
    cell = train("moco", 0)
    with pytest.raises(UserError, match="two answers"):
        folders.add(tmp_path / "a", suite_of(), [judged(cell, "knn", {"top1": 0.123})])
    assert sorted((tmp_path / "a").rglob("*.json")) == before


@pytest.mark.parametrize("name", ["README.md", "leaderboard.csv"])
def test_a_file_that_is_not_ours_is_never_written_over(tmp_path, name):
    folder = leaderboard(tmp_path / "a")
    (tmp_path / "a" / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name} was not built by sslbench; move it away"):
        build(folder)
    assert (tmp_path / "a" / name).read_text() == "mine"
    assert not (tmp_path / "a" / folders.LOCK).exists()


def test_a_generated_file_that_was_edited_is_never_written_over(tmp_path):
    build(folder := leaderboard(tmp_path / "a"))
    (tmp_path / "a" / "README.md").write_text("mine")
    with pytest.raises(UserError, match="was edited since it was built"):
        build(folder)


def test_a_folder_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is there and is not a leaderboard"):
        folders.add(tmp_path / "a", suite_of(), records_of(suite_of()))
    with pytest.raises(
        UserError, match=r"is not a leaderboard: it has no suite.yaml beside records/"
    ):
        folders.read(tmp_path / "a")


# ---- bad records -----------------------------------------------------------------------------


def spoilt(folder, change):
    """The folder's first record, changed as plain data."""
    path = folder.root / next(k.path for k in folder.kept if k.record.metrics)
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.update(seed=9), "its content does not match its record_id"),
        (lambda r: r["metrics"][0].update(value=float("nan")), "NaN where a number belongs"),
        (lambda r: r["metrics"][0].update(value="high"), r"metrics\.0\.value: Input should be"),
        (lambda r: r.update(schema_version="2.3"), "schema 2.3, this sslbench reads 1.0; upgrade"),
        (lambda r: r.update(schema_version="1.1"), "schema 1.1, this sslbench reads 1.0; upgrade"),
        (lambda r: r.pop("schema_version"), "it lacks 'schema_version'"),
        (lambda r: r.update(rank=1), "rank: Extra inputs are not permitted"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_in_one_sentence(tmp_path, change, sentence):
    folder = leaderboard(tmp_path / "a")
    path = spoilt(folder, change)
    with pytest.raises(UserError, match=sentence) as caught:
        folders.read(tmp_path / "a")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_given_twice_is_refused(tmp_path):
    folder = leaderboard(tmp_path / "a")
    path = folder.root / folder.kept[0].path
    shutil.copy(path, path.with_name("copy.json"))
    with pytest.raises(UserError, match=r"copy\.json is not named as the store names records"):
        folders.read(tmp_path / "a")
    path.with_name("copy.json").rename(path.with_name(f"train-{'0' * 24}.json"))
    with pytest.raises(UserError, match="are one record"):
        folders.read(tmp_path / "a")


def test_an_older_record_without_later_fields_is_read():
    record = train("moco", 0)
    plain = json.loads(record.dumps())
    assert "health" not in plain  # empty: as before there was such a field
    assert loads(json.dumps(plain)) == record


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "is not a lock"),
        ('{"format": 9}', "has format 9, this sslbench knows 1; upgrade sslbench"),
        ('{"format": 1, "records": {}}', "is not a lock"),
    ],
)
def test_a_lock_that_is_none_is_refused(tmp_path, text, sentence):
    (tmp_path / folders.LOCK).write_text(text)
    with pytest.raises(UserError, match=sentence):
        folders.read_lock(tmp_path)


# ---- what is known beside the numbers --------------------------------------------------------


def test_details_say_how_a_row_is_made_again():
    suite = suite_of(["moco"])
    warm = [train("moco", s, hyperparameters={"temperature": 0.5}) for s in (0, 1, 2)]
    members, _ = members_of(Material(suite, [*records_of(suite), *warm]))
    from sslbench.leaderboard import build as make

    rows = rows_of(make(members, suite_id="made-up", command="sslbench run --suite suite.yaml"))
    details = rows["moco[temperature=0.5]"].details
    assert details.command == (
        "sslbench run --suite suite.yaml --methods moco --seeds 0,1,2 --set moco.temperature=0.5"
    )
    assert details.hyperparameters == {"temperature": 0.5}
    assert details.recipe["epochs"] == 5
    assert "seed" not in details.identity
    assert details.curves["loss"][2][0] == (1.0, 1.0)
    assert details.conformance == "built in"
    assert len(details.environments) == 1


def test_a_kit_that_was_passed_is_shown_and_none_is_not_made_up():
    theirs = {"dist": "theirs", "dist_version": "1", "source_sha256": "6" * 64, "version": 1}
    for stamp, shown in (({"conformance": 1}, "kit 1"), ({}, "")):
        cell = train("theirs/new", 0, components={"method": {**theirs, **stamp}})
        board = folders_board(suite_of(["theirs/new"]), [cell])
        assert board.blocks[0].rows[0].details.conformance == shown


def test_what_a_record_says_reaches_details_without_control_characters():
    cell = train("moco", 0, environment={"cpu": "\x1b[31mfast\x07"}, curves={"lo\nss": [(0, 1)]})
    details = folders_board(suite_of(["moco"]), [cell]).blocks[0].rows[0].details
    assert details.environments[0]["cpu"] == "fast"
    assert list(details.curves) == ["lo ss"]


# ---- across data sets ------------------------------------------------------------------------


def over(count):
    suite = suite_of(["moco", "swav", "byol"], datasets=tuple(f"set{i}" for i in range(count)))
    return suite, records_of(suite)


def test_ranks_are_averaged_over_data_sets_with_an_interval_from_six_on():
    for count, some in ((1, None), (5, False), (6, True)):
        board = folders_board(*over(count))
        if some is None:
            assert board.overall == ()
            continue
        assert [o.protocol for o in board.overall] == ["knn-1", "linear-1"]
        for overall in board.overall:
            assert len(overall.datasets) == count
            ranks = [s.rank for s in overall.standings]
            assert ranks == sorted(ranks)
            assert sum(ranks) == pytest.approx(6)  # 1 + 2 + 3
            assert all((s.interval is not None) == some for s in overall.standings)


def test_a_row_that_lacks_a_data_set_is_named_and_not_ranked_across_them():
    suite, records = over(3)
    records = [r for r in records if (r.method, r.dataset) != ("byol", "set1")]
    (knn, _) = folders_board(suite, records).overall
    assert {s.label for s in knn.standings} == {"moco", "swav"}
    assert knn.lacking == ("byol",)


def test_tables_of_another_budget_are_not_averaged_together():
    suite = suite_of(["moco", "swav"], datasets=("set0", "set1"), epochs=None)
    found = []
    for dataset, epochs in (("set0", 5), ("set1", 50)):
        for method in suite.methods:
            cell = train(method, 0, dataset=dataset, recipe={"epochs": epochs})
            found += [cell, judged(cell, "knn", {"top1": 0.5})]
    assert folders_board(suite, found).overall == ()


def test_a_suite_file_says_all_of_its_suite(tmp_path):
    suite = replace(
        suite_of(baselines=("untrained",), floor="untrained", once=("mlp",)),
        set={"moco.per": {"head": {"lr": 2}}},
        notes=("tuned by hand",),
    )
    folder = folders.add(tmp_path / "a", suite, [train("moco", 0)])
    assert folder.suite == suite


def test_a_title_and_authors_stay_and_unite(tmp_path):
    leaderboard(tmp_path / "a")
    named = folders.entitled(folders.read(tmp_path / "a"), title="Moths", authors=("A. Moth",))
    board = build(folders.read(tmp_path / "a"))
    assert (board.title, board.authors) == ("Moths", ("A. Moth",))
    readme = (tmp_path / "a" / "README.md").read_text()
    assert readme.startswith("# Moths\n\nmade up\n\nBy A. Moth.\n")
    page = (tmp_path / "a" / "index.html").read_text()
    assert "<h1>Moths</h1>" in page
    assert "<li>suite made-up</li>" in page
    other = replace(named.suite, title="", authors=("B",))
    for pair in ((named.suite, other), (other, named.suite)):
        both = folders.united(*pair)
        assert (both.title, both.authors) == ("Moths", ("A. Moth", "B"))


def test_every_value_is_read_as_columns_and_as_a_frame(tmp_path):
    folder = leaderboard(tmp_path / "a")
    columns = sslbench.read(str(tmp_path / "a")).columns()
    judged_ = [record for record in folder.records if record.kind == "evaluation"]
    assert len({len(values) for values in columns.values()}) == 1
    assert len(columns["value"]) == sum(len(record.metrics) for record in judged_)
    found = set(
        zip(columns["cell"], columns["protocol"], columns["metric"], columns["value"], strict=True)
    )
    assert found == {(r.cell_id, r.protocol, m.name, m.value) for r in judged_ for m in r.metrics}
    pandas.testing.assert_frame_equal(folder.frame(), pandas.DataFrame(columns))


def test_a_suites_summary_is_not_said_of_other_data():
    options = Selection(suite="quick", datasets=("folder:moths",), epochs=2)
    assert whole_suite(suite_of(), "made-up+1", options).summary == (
        "made-up, changed by --datasets folder:moths --epochs 2"
    )
    options = Selection(suite="quick", epochs=2)
    assert whole_suite(suite_of(), "made-up+1", options).summary.endswith("own summary: made up")


@pytest.mark.parametrize("name", ["leaderboard.lock.json", "attestations/x.json"])
@pytest.mark.parametrize("kind", ["pipe", "loop", "deep"])
def test_what_is_no_file_or_nested_too_deep_is_a_sentence(tmp_path, name, kind):
    build(leaderboard(tmp_path / "a"))
    path = tmp_path / "a" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(UserError, match=r"not a regular file|nested too deep|is not a lock"):
        build(folders.read(tmp_path / "a"))
