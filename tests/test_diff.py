"""What `leaderboard diff` says of two boards: each change, and the reason for it."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from click.testing import CliRunner
from made_up import ENVIRONMENT, judged, leaderboard, records_of, suite_of, train

from sslbench.cli.app import program
from sslbench.leaderboard.board.material import Material
from sslbench.leaderboard.board.members import members_of
from sslbench.leaderboard.board.table import build
from sslbench.leaderboard.folder.diff import Side, between
from sslbench.leaderboard.folder.difftext import as_markdown, as_text
from sslbench.leaderboard.folder.folder import add

LEVELS = {"moco": 0.9, "swav": 0.8, "byol": 0.7}  # far apart: ranks 1, 2, 3
SPREAD = (0.001, 0.0, -0.001)


def cells(method, level, *, seeds=(0, 1, 2), version=1, judge="knn", **other):
    """Cells of one method, judged to be of this level, with a little spread over seeds."""
    found = []
    for seed in seeds:
        cell = train(method, seed, **other)
        value = round(level + SPREAD[seed % 3], 6)
        found += [cell, judged(cell, judge, {"top1": value}, version=version)]
    return found


def three(**levels):
    return [r for m, level in {**LEVELS, **levels}.items() for r in cells(m, level)]


def side(records, **suite):
    suite = suite_of(["byol"], evaluators=("knn",), **suite)
    board = build(members_of(Material(suite, records))[0], suite_id="made-up")
    return Side(board, records, vars(suite))


def diff(old, new):
    return between(side(old), side(new))


def changes(found, column=0):
    return {change.row: change for change in found.columns[column].changes}


def why(change):
    return [(reason.kind, reason.text) for reason in change.why]


def ranks(change):
    return tuple(place.rank if place else None for place in (change.before, change.after))


def test_nothing_changed_is_said():
    found = diff(three(), list(reversed(three())))
    assert not found.changed
    assert as_text(found) == "no rank and no mean changed\n"


def test_a_record_made_again_with_the_same_number_changes_no_place():
    again = [r.model_copy(update={"finished": "2026-02-02T00:00:00.000Z"}) for r in three()]
    found = diff(three(), [r.sealed() for r in again])
    assert not found.changed
    assert as_text(found) == "no rank and no mean changed, 18 records added, 18 records gone\n"


def test_a_new_row_moves_those_below_it_and_no_other():
    found = changes(diff(three(), [*three(), *cells("dino", 0.85)]))
    assert set(found) == {"dino", "swav", "byol"}
    assert why(found["dino"]) == [("new row", "new row, seeds 0, 1, 2")]
    assert len(found["dino"].why[0].records) == 3
    assert (ranks(found["dino"]), ranks(found["swav"]), ranks(found["byol"])) == (
        (None, 2), (2, 3), (3, 4),
    )  # fmt: skip
    assert why(found["swav"]) == [("others", "others moved: dino (new)")]


def test_a_row_that_went_lets_those_below_it_up():
    found = changes(diff(three(), [r for r in three() if r.method != "moco"]))
    assert why(found["moco"]) == [("row gone", "row gone, seeds 0, 1, 2")]
    assert ranks(found["byol"]) == (3, 2)
    assert why(found["byol"]) == [("others", "others moved: moco (gone)")]


def test_a_changed_record_is_named_and_who_was_passed_says_by_whom():
    old, new = three(), three(byol=0.85)
    found = changes(diff(old, new))
    assert set(found) == {"byol", "swav"}
    ids = [[r.record_id for r in rs if r.method == "byol" and r.evaluator] for rs in (old, new)]
    assert [reason.records for reason in found["byol"].why] == list(zip(*ids, strict=True))
    assert why(found["byol"])[0][1] == (
        f"record of seed 0 changed ({ids[0][0][:12]} -> {ids[1][0][:12]})"
    )
    assert ranks(found["byol"]) == (3, 2)
    assert why(found["swav"]) == [("others", "others moved: byol (changed)")]


def test_only_those_that_passed_by_are_named_among_all_that_changed():
    new = [*three(moco=0.91), *cells("dino", 0.85)]
    assert why(changes(diff(three(), new))["swav"]) == [("others", "others moved: dino (new)")]


def test_code_and_machine_that_made_the_other_numbers_are_told():
    old = cells("moco", 0.9)
    components = {"evaluator": {"dist": "sslbench", "dist_version": "0.2.0", "version": 1}}
    made = {"components": components, "environment": {**ENVIRONMENT, "threads": 4}}
    again = judged(old[0], "knn", {"top1": 0.95}, **made)
    found = changes(diff(old, [old[0], again, *old[2:]]))["moco"]
    assert why(found)[1:] == [
        ("code", "evaluator: sslbench 0.1.0 -> 0.2.0"),
        ("code", "threads 1 -> 4"),
    ]


def test_seeds_that_came_and_went_are_counted():
    fewer, more = cells("moco", 0.9, seeds=(0, 1)), cells("moco", 0.9, seeds=(0, 1, 2))
    added = changes(diff(fewer, more))["moco"]
    assert why(added) == [("seeds", "seed 2 added")]
    assert added.why[0].records == (more[-1].record_id,)
    gone = changes(diff(more, fewer))["moco"]
    assert why(gone) == [("seeds", "seed 2 gone (missing)")]
    assert (gone.before.n, gone.after.n) == (3, 2)


def test_a_seed_that_fails_now_is_no_seed_that_vanished():
    old = cells("moco", 0.9)
    broken = train("moco", 2, status="failed", sentence="loss is nan")
    gone = changes(diff(old, [*old[:4], broken]))["moco"]
    assert why(gone) == [("seeds", "seed 2 gone (failed)")]


def test_a_protocol_raised_for_all_is_one_column_that_changed():
    new = [r for m, level in LEVELS.items() for r in cells(m, level - 0.01, version=2)]
    found = diff(three(), new)
    assert [(c.was.protocol, c.column.protocol) for c in found.columns] == [("knn-1", "knn-2")]
    assert why(changes(found)["moco"]) == [("protocol", "protocol knn-1 -> knn-2")]
    assert ranks(changes(found)["moco"]) == (1, 1)
    assert "knn-2 top1 (was knn-1)" in as_text(found)


def test_a_protocol_raised_for_some_moves_them_to_a_column_of_their_own():
    new = [*cells("moco", 0.9, version=2), *cells("swav", 0.8), *cells("byol", 0.7)]
    found = diff(three(), new)
    columns = {c.column.protocol: {x.row: x for x in c.changes} for c in found.columns}
    assert why(columns["knn-1"]["moco"]) == [("protocol", "seeds 0, 1, 2 now judged by knn-2")]
    assert why(columns["knn-1"]["swav"]) == [("others", "others moved: moco (changed)")]
    assert why(columns["knn-2"]["moco"]) == [("protocol", "first judged by knn-2")]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"recipe": {"lr": 0.3}}, "lr 0.1 -> 0.3"),
        ({"hyperparameters": {"temperature": 0.5}}, "temperature 0.2 -> 0.5"),
        (
            {"identity": {"dataset": {"name": "digits", "fingerprint": "e" * 64, "size": 32}}},
            "data set fingerprint 77af778b51ab -> eeeeeeeeeeee",
        ),
    ],
)
def test_what_makes_a_cell_another_one_is_told(other, told):
    old, new = cells("moco", 0.9), cells("moco", 0.91, **other)
    fingerprint = old[0].identity["dataset"]["fingerprint"][:12]
    told = told.replace("77af778b51ab", fingerprint)
    found = diff(old, new)
    assert len(found.columns) == 1
    assert ("identity", told) in why(changes(found)["moco"])


def test_a_method_version_raised_is_told():
    old = cells("moco", 0.9)
    method = {**old[0].identity["method"], "version": 2}
    found = changes(diff(old, cells("moco", 0.8, identity={"method": method})))["moco"]
    assert why(found) == [("identity", "method version 1 -> 2")]


def test_a_row_is_the_same_where_another_variant_gives_it_a_longer_label():
    found = diff(cells("moco", 0.9), [*cells("moco", 0.9), *cells("moco", 0.8, recipe={"lr": 0.3})])
    assert [(c.row, why(c)[0][0]) for c in found.columns[0].changes] == [
        ("moco[lr=0.3]", "new row")
    ]


def test_fields_of_the_suite_that_differ_are_told():
    found = between(side(three()), side(three(), labels=9))
    assert found.suite == ("labels none -> 9",)
    assert not found.changed


def test_markdown_shows_moves_folds_the_rest_and_lets_no_name_out_of_its_cell():
    evil = "x|<img src=x onerror=alert(1)> [a](javascript:b) @everyone `c`"
    text = as_markdown(diff(three(), [*three(swav=0.81), *cells(evil, 0.5)]))
    table, folded = text.split("<details>")
    (row,) = [line for line in table.splitlines() if line.startswith("| digits")]
    assert row.count(" | ") == 5
    assert "| not there | \\#4 50.00 (n=3) | new row, seeds 0, 1, 2 |" in row
    assert "<img" not in row
    assert "\\[a\\](javascript" in row
    assert "@&#8203;everyone" in row
    assert "1 with the same rank and another mean</summary>\n\n| table" in folded
    assert "| swav | \\#2 80.00 (n=3) | \\#2 81.00 (n=3) | record of seed 0 changed" in folded
    assert "evil" not in folded


def test_a_comment_stays_short_however_much_changed():
    new = [r for at in range(300) for r in cells(f"method-{at:03}", 0.9 - at / 1000)]
    text = as_markdown(diff(three(), new))
    assert len(text) < 60_000
    assert re.search(r"\n\d+ more: `sslbench leaderboard diff` lists them all", text)
    assert "</details>" in text or "<details>" not in text


def test_of_many_that_moved_a_row_five_are_named():
    new = [*three(), *(r for at in range(9) for r in cells(f"method-{at}", 0.85))]
    assert why(changes(diff(three(), new))["byol"])[0][1].endswith("method-4 (new) and 4 more")


# ---- the command -----------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(program, ["leaderboard", "diff", *map(str, args)])


@pytest.fixture
def two(tmp_path):
    """Two folders; the other has one method more."""
    suite = suite_of(["moco", "swav"])
    leaderboard(tmp_path / "old", suite)
    more = records_of(suite_of(["moco", "swav", "byol"]))
    add(tmp_path / "new", suite, more)
    return tmp_path / "old", tmp_path / "new"


def test_the_command_trips_its_gate_only_where_something_changed(two):
    old, new = two
    assert run(old, old, "--fail-on-change").exit_code == 0
    assert run(old, new).exit_code == 0
    tripped = run(old, new, "--fail-on-change", "--json")
    assert tripped.exit_code == 6
    said = json.loads(tripped.stdout)
    assert said["changed"] is True
    assert "byol" in {c["row"] for c in said["changes"] if c["why"][0]["kind"] == "new row"}
    assert len(said["records"]["added"]) == 9


def test_a_revision_of_git_stands_for_a_folder(two, monkeypatch):
    old, new = two
    home = old.parent

    def git(*args):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *args], cwd=home, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", "old")
    git("commit", "-q", "-m", "x")
    monkeypatch.chdir(home)
    by_folder, by_git = run(old, new), run("git:main:old", new)
    assert by_git.exit_code == 0
    assert by_git.stdout == by_folder.stdout
    assert "no revision 'nowhere'" in run("git:nowhere:old", new).stderr
    assert "no folder elsewhere in main" in run("git:main:elsewhere", new).stderr
    assert "should be git:REVISION:PATH" in run("git:main", new).stderr


def test_what_is_no_leaderboard_is_refused_in_a_sentence(tmp_path):
    done = run(tmp_path, tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "is not a leaderboard" in done.stderr
