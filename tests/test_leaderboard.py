"""Boards from records: whole outputs, and everything that must not hide or mix in them."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json

import pytest
from markdown_it import MarkdownIt  # rich depends on it
from rich.console import Console

from sslbench.cells.identity import Identity
from sslbench.leaderboard import Member, as_csv, as_json, as_markdown, as_rich, as_text, build
from sslbench.leaderboard.board.printable import printable
from sslbench.records import Costs, Failure, MetricValue, Record, Stage, Warned, loads

PRINT = "9f" * 32
KNN = {"name": "knn", "version": 1, "params": {"k": 20}}
COSTS = Costs(
    seconds=20.5,
    images_seen=28740,
    images_per_second=1400.25,
    parameters=372_000,
    flops=12_300_000.0,
    peak_memory_bytes=512 * 2**20,
    stages=(Stage(name="main", seconds=20.5, images_seen=28740),),
)


def identity(method="moco", seed=0, *, recipe=True, **other):
    own = {"name": method, "version": 1, "hyperparameters": other.pop("hyperparameters", {})}
    if recipe:
        own["recipe"] = {"epochs": other.pop("epochs", 20), "lr": other.pop("lr", 0.03)}
    return {
        "identity_version": 1,
        "method": own,
        "backbone": "net",
        "dataset": {"name": "digits", "fingerprint": other.pop("fingerprint", PRINT), "size": 32},
        "labels": other.pop("labels", "none"),
        "seed": seed,
        "precision": other.pop("precision", "fp32"),
        **other,
    }


def record(of, *, judge=None, status="ok", values=None, **other):
    """A sealed record of the cell with this identity; of an evaluation when a judge is given."""
    protocol = other.pop("protocol", f"{judge['name']}-{judge['version']}" if judge else None)
    metrics = other.pop("metrics", None) or tuple(
        MetricValue(name=name, value=value) for name, value in (values or {}).items()
    )
    other.setdefault("components", {"method": {"dist": "sslbench"}})
    made = Record(
        kind="evaluation" if judge else "train",
        cell_id=f"{of['method']['name']}-{of['seed']}",
        identity={**of, "evaluator": judge} if judge else of,
        status=status,
        method=of["method"]["name"],
        backbone=of["backbone"],
        dataset="digits",
        seed=of["seed"],
        evaluator=judge["name"] if judge else None,
        protocol=protocol,
        metrics=metrics,
        **other,
    )
    return made.sealed()


def member(method, seed, values=None, *, of=None, judge=KNN, **other):
    """A cell judged by kNN with this accuracy, or with these metrics; None: nothing is known."""
    of = of if of is not None else identity(method, seed)
    values = {"acc": values} if isinstance(values, float) else values
    ok = values is not None
    given = {
        "identity": Identity(of),
        "cell_id": f"{method}-{seed}",
        "train": record(of, costs=COSTS) if ok else None,
        "evaluations": {"knn": record(of, judge=judge, values=values) if ok else None},
        "state": "done" if ok else "missing",
        **other,
    }
    return Member(method=method, backbone="net", dataset="digits", seed=seed, **given)


def cells(method, *values, **other):
    return [member(method, seed, value, **other) for seed, value in enumerate(values)]


def baseline(method, *values):
    found = []
    for seed, value in enumerate(values):
        of = identity(method, seed, recipe=False)
        floor = method if method == "untrained" else None
        found.append(member(method, seed, value, of=of, baseline=True, anchor=floor))
    return found


def failed(method, seed, message, *, kind="nan"):
    error = Failure(kind=kind, type="NotFinite", message=message, epoch=3, step=40)
    broken = record(identity(method, seed), status="failed", error=error)
    return member(method, seed, train=broken, state="failed")


def board(*groups, suite_id="quick", **other):
    return build([m for group in groups for m in group], suite_id=suite_id, **other)


def rows(found, block=0):
    return {row.label: row for row in found.blocks[block].rows}


def scores(found, column=0, block=0):
    return {label: row.scores[column] for label, row in rows(found, block).items()}


def scored(acc, nmi):
    return {"acc": acc, "top5": 0.99, "nmi": nmi}


def small():
    """Two methods apart, one with a failure, one skipped, one missing, two baselines."""
    needs = "mae needs a ViT, net has no patches"
    return board(
        cells("swav", scored(0.90, 0.5), scored(0.91, 0.4)),
        cells("moco", scored(0.95, 0.7), scored(0.96, 0.8)),
        [member("byol", 0, scored(0.7, 0.2)), failed("byol", 1, "loss is nan, last was 0.3")],
        cells("mae", None, None, state="unsupported", sentence=needs),
        cells("dino", None, None),
        baseline("untrained", scored(0.80, 0.3), scored(0.82, 0.35)),
        baseline("pixels", scored(0.88, 0.4), scored(0.88, 0.4)),
    )


TEXT = """\
digits · net · 32 px · 20 epochs · fp32 · data 9f9f9f9f9f9f

                         knn-1         knn-1
method       n             acc           nmi           health
-------------------------------------------------------------
moco         2  *95.5 ± 6.4 #1  *75.0 ± 63.5                -
swav         2   90.5 ± 6.4 #2   45.0 ± 63.5                -
byol       1/2   70.0 (n=1)       20.0 (n=1)  below-untrained
dino       0/2      missing          missing                -
mae        0/2      skipped          skipped                -
- baselines -------------------------------------------------
pixels       2   88.0 ± 0.0       40.0 ± 0.0                -
untrained    2  81.0 ± 12.7      32.5 ± 31.8                -

costs      seconds  images/s  parameters  FLOPs/image  peak memory
------------------------------------------------------------------
moco          20.5      1400      0.37 M      12.30 M      512 MiB
swav          20.5      1400      0.37 M      12.30 M      512 MiB
byol          20.5      1400      0.37 M      12.30 M      512 MiB
dino             -         -           -            -            -
mae              -         -           -            -            -
- baselines ------------------------------------------------------
pixels        20.5      1400      0.37 M      12.30 M      512 MiB
untrained     20.5      1400      0.37 M      12.30 M      512 MiB

knn-1 acc: moco is better than swav; none is better than untrained; none is better than pixels; \
byol has one seed and no rank.

byol: failed (nan), 1 of 2 (seed 1): loss is nan, last was 0.3
byol: below-untrained (seed 0): knn-1 acc is 70.0 %, untrained has 81.0 %
dino: missing, 2 of 2
mae: skipped, 2 of 2: mae needs a ViT, net has no patches

"""
STATISTICS = (
    "Suite quick: percent, mean ± half of the 95 % t interval over 2 seeds (n=1: no interval); "
    "ranks (#) are the places that its seeds allow a method (all rows of a table compared together, "
    "corrected for all pairs), baselines have none; *: best mean; costs count every stage\n"
)
MARKDOWN = """\
### digits · net · 32 px · 20 epochs · fp32 · data 9f9f9f9f9f9f

| method | n | knn-1<br>acc | knn-1<br>nmi | health |
| --- | ---: | ---: | ---: | ---: |
| moco | 2 | **95.5 ± 6.4** #1 | **75.0 ± 63.5** | - |
| swav | 2 | 90.5 ± 6.4 #2 | 45.0 ± 63.5 | - |
| byol | 1/2 | 70.0 (n=1) | 20.0 (n=1) | below-untrained |
| dino | 0/2 | missing | missing | - |
| mae | 0/2 | skipped | skipped | - |
| pixels (baseline) | 2 | 88.0 ± 0.0 | 40.0 ± 0.0 | - |
| untrained (baseline) | 2 | 81.0 ± 12.7 | 32.5 ± 31.8 | - |

knn-1 acc: moco is better than swav; none is better than untrained; none is better than pixels; \
byol has one seed and no rank.

- **byol**: failed (nan), 1 of 2 (seed 1): loss is nan, last was 0.3
- **byol**: below-untrained (seed 0): knn-1 acc is 70.0 %, untrained has 81.0 %
- **dino**: missing, 2 of 2
- **mae**: skipped, 2 of 2: mae needs a ViT, net has no patches

| costs | seconds | images/s | parameters | FLOPs/image | peak memory |
| --- | ---: | ---: | ---: | ---: | ---: |
| moco | 20.5 | 1400 | 0.37 M | 12.30 M | 512 MiB |
| swav | 20.5 | 1400 | 0.37 M | 12.30 M | 512 MiB |
| byol | 20.5 | 1400 | 0.37 M | 12.30 M | 512 MiB |
| dino | - | - | - | - | - |
| mae | - | - | - | - | - |
| pixels (baseline) | 20.5 | 1400 | 0.37 M | 12.30 M | 512 MiB |
| untrained (baseline) | 20.5 | 1400 | 0.37 M | 12.30 M | 512 MiB |

Suite quick: percent, mean ± half of the 95 % t interval over 2 seeds (n=1: no interval); ranks \
(\\#) are the places that its seeds allow a method (all rows of a table compared together, corrected \
for all pairs), baselines have none; bold: best mean; costs count every stage.
"""
CSV = """\
suite,dataset,backbone,fingerprint,size,precision,epochs,budget,row,method,baseline,anchor,trained,\
evaluator,protocol,metric,split,higher_is_better,unit,ranks,mean,sd,low,high,level,n,declared,gaps,\
rank,rank_to,best,seed_0,seed_1,seconds,images_seen,images_per_second,parameters,flops,peak_memory_bytes,trials,health,warnings,\
conformance,attested
quick,digits,net,PRINT,32,fp32,20,,moco,moco,false,,true,knn,knn-1,acc,test,true,,true,0.75,,,,0.95,1,2,\
1 failed,,,true,0.75,,20.5,28740.0,1400.25,372000.0,12300000.0,536870912.0,0,,\
"failed (oom), 1 of 2 (seed 1): batch 256 needs 3 GiB",built in,
quick,digits,net,PRINT,32,fp32,20,,untrained,untrained,true,untrained,false,knn,knn-1,acc,test,true,,true,\
0.5,0.0,0.5,0.5,0.95,2,2,,,,false,0.5,0.5,20.5,28740.0,1400.25,372000.0,12300000.0,536870912.0,0,,,\
built in,
"""


# ---- whole outputs ---------------------------------------------------------------------------


def test_a_piped_table_is_this_text():
    assert as_text(small()) == TEXT + STATISTICS


def test_a_terminal_shows_the_same_lines_with_the_best_in_bold():
    out = Console(file=io.StringIO(), width=1000, force_terminal=True, _environ={})
    out.print(as_rich(small()))
    shown = out.file.getvalue()
    assert "\x1b[1m*95.5 ± 6.4 #1\x1b[0m" in shown
    plain = Console(file=io.StringIO(), width=1000, _environ={})
    plain.print(as_rich(small()))
    assert plain.file.getvalue() == TEXT + STATISTICS


def test_markdown_is_this():
    assert as_markdown(small()) == MARKDOWN


def test_csv_has_full_precision_and_one_line_for_each_row_and_metric():
    found = board(
        [
            member("moco", 0, 0.75),
            failed("moco", 1, "batch 256 needs 3 GiB", kind="oom"),
        ],
        baseline("untrained", 0.5, 0.5),
    )
    assert as_csv(found) == CSV.replace("PRINT", PRINT)
    (line,) = csv.DictReader(io.StringIO(as_csv(board(cells("moco", 1 / 3)))))
    assert float(line["mean"]) == 1 / 3


def _no_constant(name):
    raise AssertionError(f"{name} in JSON")


def test_json_holds_everything_and_no_nan():
    plain = json.loads(as_json(small()), parse_constant=_no_constant)
    (table,) = plain["tables"]
    assert table["setting"]["fingerprint"] == PRINT
    assert [c["metric"] for c in table["columns"]] == ["acc", "top5", "nmi"]
    assert [r["label"] for r in table["rows"]][:3] == ["moco", "swav", "byol"]
    moco, _, byol, *_ = table["rows"]
    score = moco["scores"][0]
    assert score["values"] == {"0": 0.95, "1": 0.96}
    assert (score["n"], score["rank"], score["best"]) == (2, 1, True)
    assert (moco["n"], moco["declared"]) == (2, 2)
    assert score["interval"] == pytest.approx([0.8914689763, 1.0185310237])
    paired = score["against"]["untrained"]
    assert (paired["n"], paired["mean"]) == (2, pytest.approx(0.145))
    assert 0 < paired["p"] <= 1
    assert paired["interval"][0] < paired["mean"] < paired["interval"][1]
    assert moco["cells"] == {"0": "moco-0", "1": "moco-1"}
    assert moco["costs"]["stages"] == {"main": 20.5}
    assert byol["scores"][0]["gaps"]["1"]["kind"] == "nan"
    assert byol["scores"][0]["interval"] is None
    assert byol["flags"][0]["code"] == "below-untrained"


def test_what_is_said_of_several_rows_is_said_once():
    why = "the loss is nan"
    found = board([failed("a", 0, why)], [failed("b", 0, why)], [failed("c", 0, "another")])
    assert f"\na, b: failed (nan), 1 of 1: {why}\n" in as_text(found)
    assert f"- **a**, **b**: failed (nan), 1 of 1: {why}\n" in as_markdown(found)
    assert "- **c**: failed (nan), 1 of 1: another\n" in as_markdown(found)


def test_no_cells_make_an_empty_board():
    assert as_text(board()).startswith("no cells\nSuite quick")
    assert as_markdown(board()).startswith("No cells.\n\nSuite quick")
    assert json.loads(as_json(board()))["tables"] == []
    assert as_csv(board()) == ""


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_narrow_terminal_gets_more_tables_and_loses_nothing(width):
    values = {f"m{i}": 0.5 for i in range(9)}
    found = board(cells("moco", values, values), shown=list(values))
    lines = as_text(found, width=width).splitlines()
    assert max(map(len, lines)) <= width
    start = next(i for i, line in enumerate(lines) if line.startswith("Suite quick"))
    assert all(line.startswith("  ") for line in lines[start + 1 :])
    for name in values:
        assert sum(name in line.split() for line in lines) == 1
    assert sum(line.startswith("moco ") for line in lines) >= 2
    console = Console(file=io.StringIO(), width=width, _environ={})
    console.print(as_rich(found))
    assert console.file.getvalue().splitlines() == lines


def test_the_usual_five_columns_fit_a_hundred_characters():
    judges = {
        "knn": {"acc": 0.947},
        "linear": {"acc": 0.978},
        "clustering": {"acc": 0.71, "nmi": 0.68, "ari": 0.6, "ami": 0.68},
    }
    made = []
    for method in ("deepcluster", "moco"):
        for seed in range(3):
            of = identity(method, seed)
            records = {
                name: record(
                    of,
                    judge={"name": name, "version": 1, "params": {}},
                    values={k: v + seed / 100 for k, v in values.items()},
                )
                for name, values in judges.items()
            }
            made.append(member(method, seed, of=of, evaluations=records, state="done"))
    lines = as_text(build(made, suite_id="quick")).splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["knn-1", "linear-1", "clustering-1", "clustering-1", "clustering-1"],
        ["method", "n", "acc", "acc", "acc", "nmi", "ari"],
    ]
    assert max(map(len, lines[:-1])) <= 100


# ---- rows ------------------------------------------------------------------------------------


def test_rows_come_out_the_same_in_whatever_order_cells_go_in():
    there = small()
    found = board(cells("b", 0.9, 0.8), cells("a", 0.9, 0.8), baseline("pixels", 0.99, 0.99))
    assert list(rows(found)) == ["a", "b", "pixels"]
    bare = board(baseline("pixels", None), cells("z", None))
    assert list(rows(bare)) == ["z", "pixels"]
    assert [r.label for r in there.blocks[0].rows] == [
        *("moco", "swav", "byol", "dino", "mae"),
        *("pixels", "untrained"),
    ]


def test_where_a_plugins_method_takes_part_the_kit_stands_in_a_column():
    theirs = {"components": {"method": {"dist": "lab", "conformance": 1}}}
    unchecked = {"components": {"method": {"dist": "file:mine"}}}
    rows_ = [
        member(name, 0, 0.5, train=record(identity(name), **more))
        for name, more in (("moco", {}), ("lab/new", theirs), ("file:mine/own", unchecked))
    ]
    heads, *lines = as_markdown(board(rows_)).split("\n\n")[1].splitlines()
    assert heads.endswith("| kit |")
    said = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip(" |") for line in lines}
    assert said["moco"] == "built in"
    assert said["lab/new"] == "kit 1"
    assert said["file:mine/own"] == "not checked"
    assert "kit" not in as_markdown(board(rows_[:1]))


def test_one_seed_has_no_interval_and_says_so():
    found = board(cells("moco", 0.9))
    (score,) = scores(found).values()
    assert (score.mean, score.n, score.interval, score.sd) == (0.9, 1, None, None)
    text = as_text(found)
    assert "90.0 (n=1)" in text
    assert "over 1 seed (" in text
    assert "90.0 ±" not in text


def test_a_small_interval_is_not_shown_as_none():
    assert "90.01 ± 0.02" in as_text(board(cells("moco", 0.9, 0.9001, 0.9002)))


def test_rows_that_do_not_separate_share_a_rank():
    found = board(
        cells("a", 0.90, 0.91, 0.92),
        cells("b", 0.91, 0.90, 0.91),
        cells("c", 0.70, 0.71, 0.72),
    )
    assert {k: (s.rank, s.rank_to) for k, s in scores(found).items()} == {
        "a": (1, 2),
        "b": (1, 2),
        "c": (3, 3),
    }
    assert [k for k, s in scores(found).items() if s.best] == ["a"]


def test_baselines_have_no_rank_and_take_nobodys_place():
    found = scores(board(cells("a", 0.8, 0.81), baseline("pixels", 0.99, 0.99)))
    assert (found["a"].rank, found["a"].best) == (1, True)
    assert (found["pixels"].rank, found["pixels"].best) == (None, False)


def test_where_lower_is_better_the_smallest_mean_is_best_and_first():
    def cost(method, *values):
        made = []
        for seed, value in enumerate(values):
            of = identity(method, seed)
            metric = MetricValue(name="error", value=value, higher_is_better=False)
            own = {"knn": record(of, judge=KNN, metrics=(metric,))}
            made.append(member(method, seed, of=of, evaluations=own))
        return made

    found = board(cost("worse", 0.3, 0.31, 0.32), cost("better", 0.1, 0.11, 0.12))
    assert [(k, s.rank, s.best) for k, s in scores(found).items()] == [
        ("better", 1, True),
        ("worse", 2, False),
    ]
    assert "error (lower is better)" in as_text(found)


@pytest.mark.parametrize("status", ["failed", "timeout", "interrupted", "skipped"])
def test_a_judge_that_gave_no_number_is_named_with_its_seed(status):
    of = identity("moco", 1)
    broken = record(of, judge=KNN, status=status, sentence="its features are not finite")
    found = board(cells("moco", 0.9), [member("moco", 1, of=of, evaluations={"knn": broken})])
    (score,) = scores(found).values()
    assert (score.n, score.gaps[1].state) == (1, status)
    assert f"moco: knn {status}, 1 of 2 (seed 1): its features are not finite" in as_text(found)
    assert "moco    1/2" in as_text(found)


def test_a_cell_that_failed_is_named_rather_than_the_judge_that_had_nothing_to_judge():
    cell = failed("moco", 0, "loss is nan")
    without = record(cell.identity.plain, judge=KNN, status="skipped", sentence="no encoder")
    found = as_text(board([dataclasses.replace(cell, evaluations={"knn": without})]))
    assert "moco: failed (nan), 1 of 1: loss is nan" in found
    assert "no encoder" not in found


def test_a_number_over_fewer_seeds_than_its_row_says_so():
    made = cells("moco", {"acc": 0.9, "nmi": 0.8}, {"acc": 0.91, "nmi": 0.8}, {"acc": 0.92})
    assert "80.0 ± 0.0 (n=2)" in as_text(board(made))
    assert "91.0 ± 2.5 #1" in as_text(board(made))


def test_a_long_protocol_id_is_folded_not_cut():
    protocol = "knn-1[k=5,temperature=0.07,weighting=exponential]"
    of = identity("moco")
    own = {"knn": record(of, judge=KNN, protocol=protocol, values={"acc": 0.9})}
    lines = as_text(board([member("moco", 0, of=of, evaluations=own)])).splitlines()[2:6]
    assert "".join(line.split()[0] for line in lines[:-1]) == protocol
    assert lines[-1].split() == ["method", "n", "acc"]


def test_one_judge_that_failed_does_not_fail_another_that_has_not_run():
    of = identity("moco")
    broken = record(of, judge=KNN, status="failed", sentence="k is larger than the data")
    cell = member("moco", 0, 0.9, of=of, state="failed", sentence="knn-1: k is larger")
    cell = dataclasses.replace(cell, evaluations={"knn": broken, "linear": None})
    lines = as_text(board([cell])).splitlines()
    assert "moco: knn failed, 1 of 1: k is larger than the data" in lines
    assert "moco: linear missing, 1 of 1" in lines


def test_a_column_nobody_could_fill_still_shows_who_failed():
    found = board([failed("moco", 0, "out of memory", kind="oom")])
    assert "knn" in as_text(found)
    assert "failed (oom)" in as_text(found)
    assert "failed (oom)" in as_markdown(found)
    assert "1 failed" in as_csv(found)


def test_a_board_without_judges_still_shows_who_failed():
    bare = dataclasses.replace(failed("moco", 0, "out of memory", kind="oom"), evaluations={})
    for output in (as_text, as_markdown, as_csv, as_json):
        assert "out of memory" in output(board([bare]))


def test_seeds_that_lack_a_value_for_several_reasons_are_counted_apart():
    found = board([failed("moco", 0, "x"), *cells("moco", None, None)[1:]])
    assert "1 failed (nan), 1 missing" in as_text(found)


def test_a_metric_only_some_methods_have_leaves_the_others_blank():
    found = board(cells("scan", {"acc": 0.9, "nmi": 0.8}), cells("moco", {"acc": 0.8}))
    assert scores(found, 1)["moco"].gaps[0].state == "absent"
    assert "moco: " not in as_text(found)


def test_a_method_below_the_untrained_network_is_flagged_and_others_are_not():
    found = rows(
        board(
            cells("good", 0.9, 0.9),
            cells("bad", 0.7, 0.9),
            baseline("untrained", 0.85, 0.85),
            baseline("pixels", 0.5, 0.5),
        )
    )
    assert {k: [f.code for f in row.flags] for k, row in found.items()} == {
        "good": [],
        "bad": ["below-untrained"],
        "untrained": [],
        "pixels": [],
    }


def test_a_method_that_saw_labels_says_so_unless_it_is_a_baseline():
    seen = identity("semi", labels="all")
    few = identity("few", labels={"budget": 40})
    found = rows(
        board(
            [member("semi", 0, 0.9, of=seen), member("few", 0, 0.9, of=few)],
            [member("supervised", 0, 0.9, of=identity("supervised", labels="all"), baseline=True)],
        )
    )
    assert [f.message for f in found["semi"].flags] == ["trained with every label"]
    assert [f.message for f in found["few"].flags] == ["trained with 40 labels"]
    assert found["supervised"].flags == ()


def test_warnings_of_records_reach_the_row_with_their_seeds():
    warned = (Warned(code="collapsed", message="features have rank 1"),)
    made = cells("moco", 0.9, 0.8, 0.7)
    for seed in (0, 2):
        made[seed] = dataclasses.replace(
            made[seed], train=record(made[seed].identity.plain, warnings=warned, costs=COSTS)
        )
    assert "moco: collapsed (seeds 0, 2): features have rank 1" in as_text(board(made))


def test_costs_are_means_over_the_seeds_that_finished():
    made = cells("scan", 0.9, 0.8)
    more = COSTS.model_copy(
        update={
            "seconds": 40.5,
            "peak_memory_bytes": None,
            "stages": (
                Stage(name="agree", seconds=10, images_seen=1),
                Stage(name="main", seconds=30.5, images_seen=1, reused=True),
            ),
        }
    )
    made[1] = dataclasses.replace(made[1], train=record(made[1].identity.plain, costs=more))
    broken = record(identity("scan", 2), status="failed", costs=COSTS)
    made.append(dataclasses.replace(failed("scan", 2, "x"), train=broken))
    found = rows(board(made))["scan"].costs
    assert (found.seconds, found.peak_memory_bytes) == (30.5, 512 * 2**20)
    assert found.stages == {"main": 25.5, "agree": 10}


def test_a_cell_given_twice_is_refused():
    with pytest.raises(ValueError, match="'moco-0' was given 2 times"):
        board(cells("moco", 0.9), cells("moco", 0.9))


def test_variants_of_a_method_are_rows_named_by_what_differs():
    made = [
        member(
            "moco",
            seed,
            0.9,
            cell_id=f"{temperature}-{lr}-{seed}",
            of=identity("moco", seed, hyperparameters={"temperature": temperature, "q": 1}, lr=lr),
        )
        for temperature, lr in ((0.1, 0.03), (0.2, 0.06))
        for seed in range(2)
    ]
    assert list(rows(board(made))) == [
        "moco[lr=0.03,temperature=0.1]",
        "moco[lr=0.06,temperature=0.2]",
    ]
    assert list(rows(board(made[:2]))) == ["moco"]


def test_a_pretexts_cell_is_another_for_each_seed_and_makes_no_variant():
    made = []
    for seed in range(2):
        pretext = {"pretext": {"method": "simclr", "cell": f"simclr-{seed}"}}
        made.append(member("scan", seed, 0.9, of=identity("scan", seed, hyperparameters=pretext)))
    found = board(made)
    assert rows(found)["scan"].n == 2
    other = {"pretext": {"method": "simclr", "cell": "tuned"}}
    tuned = member("scan", 0, 0.8, cell_id="tuned", of=identity("scan", hyperparameters=other))
    # which of the two cells of seed 0 belongs to that of seed 1, nothing says
    apart = rows(board([*made, tuned]))
    assert {label: row.n for label, row in apart.items()} == dict.fromkeys(
        ["scan", "scan (2)", "scan (3)"], 1
    )


def test_cells_not_yet_run_join_the_row_of_their_method():
    found = board(cells("moco", 0.9), [member("moco", 1, of={}), member("new", 0, of={})])
    assert {k: len(row.cells) for k, row in rows(found).items()} == {"moco": 2, "new": 1}


# ---- what must not be mixed ------------------------------------------------------------------


def test_protocols_get_columns_and_ranks_of_their_own_and_a_note():
    five = {"name": "knn", "version": 1, "params": {"k": 5}}
    made = []
    for seed in range(2):
        of = identity("swav", seed)
        own = {"knn": record(of, judge=five, protocol="knn-1[k=5]", values={"acc": 0.99})}
        made.append(member("swav", seed, of=of, evaluations=own))
    found = board(cells("moco", 0.9, 0.9), made)
    assert [c.protocol for c in found.blocks[0].columns] == ["knn-1", "knn-1[k=5]"]
    assert {k: (s.rank, s.mean) for k, s in scores(found, 0).items()} == {
        "moco": (1, 0.9),
        "swav": (None, None),
    }
    assert scores(found, 1)["moco"].gaps[0].state == "absent"
    note = "knn judged digits on net under knn-1 and knn-1[k=5], which cannot be compared"
    assert found.notes[0].startswith(note)
    assert f"note: {note}" in as_text(found)


def test_one_protocol_id_for_two_judges_does_not_make_them_one():
    newer = {"name": "knn", "version": 1, "params": {"k": 20, "weighting": "none"}}
    found = board(cells("moco", 0.9), cells("swav", 0.8, judge=newer))
    heads = [c.protocol for c in found.blocks[0].columns]
    assert len(set(heads)) == 2
    assert all(head.startswith("knn-1 (") for head in heads)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"fingerprint": "ab" * 32}, "fingerprint 9f9f9f9f9f9f, abababababab"),
        ({"precision": "bf16"}, "precision fp32, bf16"),
        ({"epochs": 5}, "epochs 20, 5"),
    ],
)
def test_rows_of_other_data_budget_or_precision_stand_in_another_table(changed, named):
    other = [member("swav", s, 0.99, of=identity("swav", s, **changed)) for s in range(2)]
    found = board(cells("moco", 0.9, 0.9), other)
    assert [list(rows(found, i)) for i in range(2)] == [["moco"], ["swav"]]
    assert all(s.rank == 1 for i in range(2) for s in scores(found, block=i).values())
    assert found.notes == (f"digits on net is in 2 tables, whose rows cannot be compared: {named}",)


def test_what_is_never_trained_stands_beside_every_budget():
    short = [member("swav", 0, 0.7, of=identity("swav", epochs=5))]
    found = board(cells("moco", 0.9), short, baseline("untrained", 0.8))
    assert [list(rows(found, i)) for i in range(2)] == [
        ["moco", "untrained"],
        ["swav", "untrained"],
    ]
    assert [f.code for f in rows(found, 1)["swav"].flags] == ["below-untrained"]


def test_label_budgets_are_kept_apart_and_methods_without_labels_join_each():
    made = [
        member("few", 0, 0.5, cell_id=f"few-{n}", of=identity("few", labels={"budget": n}))
        for n in (40, 400)
    ]
    found = board(made, cells("moco", 0.9))
    assert [b.setting.budget for b in found.blocks] == [40, 400]
    assert [sorted(rows(found, i)) for i in range(2)] == [["few", "moco"]] * 2


# ---- hostile text ----------------------------------------------------------------------------

HOSTILE = [
    "[bold red]x[/] [link=https://evil.example]y[/link]",
    "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b]8;;\x07 \x9b2Jgone",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a|b\n| c | d |\r\n\n# head",
    "`code` **bold** _it_ [l](javascript:alert(1)) ![i](x) ~~s~~ <b>",
    "=HYPERLINK(\"https://evil.example\")",
    "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "＝1+1",
    "right\u202eot tfel\u2066 zero\u200bwidth \x00\x07\x7f\x85",
    "\\", "\\|", "---", "x" * 5000, "漢字" * 40,
]  # fmt: skip


def hostile(text):
    """The text wherever someone else may write one."""
    judge = {"name": text, "version": 1, "params": {}}
    of = identity(text)
    warned = (Warned(code=text, message=text),)
    metric = MetricValue(name=text, value=0.5, split=text)
    good = record(of, judge=judge, protocol=text, metrics=(metric,), warnings=warned)
    bad = failed(text, 1, text, kind=text)
    skipped = member(text, 2, state="unsupported", sentence=text)
    made = [
        dataclasses.replace(m, backbone=text, dataset=text, evaluations={text: judged})
        for m, judged in ((member(text, 0, of=of), good), (bad, None), (skipped, None))
    ]
    return board(made, suite_id=text)


class Elements(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, *attrs))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_or_message_becomes_a_command_of_the_terminal(text):
    found = hostile(text)
    console = Console(file=io.StringIO(), width=90, _environ={})
    console.print(as_rich(found))
    for output in (as_text(found), as_text(found, width=90), console.file.getvalue()):
        assert all(c.isprintable() or c == "\n" for c in output)
        output.encode()
    coloured = Console(file=io.StringIO(), width=90, force_terminal=True, _environ={})
    coloured.print(as_rich(found))
    assert "8;" not in coloured.file.getvalue()  # links
    assert "\x1b[31m" not in coloured.file.getvalue()
    json.loads(as_json(found), parse_constant=_no_constant)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_or_message_becomes_markup(text):
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found = Elements(reader.render(as_markdown(hostile(text)))).found
    assert found == Elements(reader.render(as_markdown(hostile("word")))).found


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_or_message_becomes_a_formula_or_another_field(text):
    lines = list(csv.reader(io.StringIO(as_csv(hostile(text)))))
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2
    for field in lines[1]:
        assert not field.startswith(tuple("=+-@\t\r＝＋－＠"))


def test_markdown_writes_marks_as_text():
    page = as_markdown(hostile("<b>a|b</b> & [x](http://www.y) _z_"))
    assert r"&lt;b&gt;a&#124;b&lt;/b&gt; &amp; \[x\](http:\//www\.y) \_z\_" in page


def test_brackets_in_names_are_printed_as_they_are():
    found = hostile("moco[bold]")
    console = Console(file=io.StringIO(), width=200, _environ={})
    console.print(as_rich(found))
    assert "moco[bold]" in console.file.getvalue()


def test_printable_keeps_words_and_drops_what_steers():
    assert printable("a\nb\tc  d") == "a b c d"
    assert printable("\x1b[1;31mred\x1b[0m\x1b]0;title\x07.") == "red."
    assert printable("\x1b]8;;https://x\x1b\\y") == "y"
    assert printable("\ud800lone surrogate") == "lone surrogate"
    assert printable("naïve 漢字 ± λ") == "naïve 漢字 ± λ"


def test_a_number_with_a_unit_is_no_percentage():
    of = identity("moco", 0)
    metrics = (
        MetricValue(name="flops", value=8_200_000.0, higher_is_better=False, unit="FLOPs"),
        MetricValue(name="nmi", value=0.25),
    )
    judged = record(of, judge=KNN, metrics=metrics)
    found = board([dataclasses.replace(member("moco", 0, 0.5), evaluations={"knn": judged})])
    text = as_text(found)
    assert "flops (FLOPs) (lower is better)" in text
    assert "8.20 M (n=1)" in text
    assert "25.0 (n=1)" in text
    assert "percent where no unit is named" in text


def test_a_record_without_units_is_written_as_before():
    plain = record(identity(), judge=KNN, values={"acc": 0.5})
    assert "unit" not in plain.dumps()
    assert loads(plain.dumps()) == plain
    metrics = (MetricValue(name="flops", value=2.0, unit="FLOPs"),)
    united = record(identity(), judge=KNN, metrics=metrics)
    assert loads(united.dumps()).metrics[0].unit == "FLOPs"
    assert (
        united.record_id
        != record(identity(), judge=KNN, metrics=(MetricValue(name="flops", value=2.0),)).record_id
    )
