"""Whether judges agree, and errors divided by a reference's: boards made up, scipy as oracle."""

from __future__ import annotations

import dataclasses
import math

import pytest
from scipy.stats import kendalltau

from sslbench.cells.identity import Identity
from sslbench.corruptions import BENCHMARK, EXTRA
from sslbench.leaderboard import build
from sslbench.leaderboard.board.agreement import as_markdown, between, steadiness
from sslbench.leaderboard.board.member import Member
from sslbench.records import MetricValue, Record

METHODS = ["moco", "swav", "simclr", "byol", "dino", "vicreg", "iic", "scan"]
FIRST = [0.90, 0.88, 0.86, 0.84, 0.82, 0.80, 0.78, 0.76]


def member(method, seed, judged, *, baseline=False, components=None):
    """A cell whose judges gave these metrics; a minus before a metric's name: lower is better."""
    shared = {
        "cell_id": f"{method}-{seed}",
        "identity": {"method": {"name": method}, "dataset": {"fingerprint": "f"}},
        "method": method,
        "backbone": "net",
        "dataset": "digits",
        "seed": seed,
        "status": "ok",
    }
    evaluations = {}
    for judge, metrics in judged.items():
        values = tuple(
            MetricValue(name=k.lstrip("-"), value=v, higher_is_better=not k.startswith("-"))
            for k, v in metrics.items()
        )
        more = {"components": components or {}, "protocol": f"{judge}-1", "evaluator": judge}
        evaluations[judge] = Record(kind="evaluation", metrics=values, **more, **shared).sealed()
    own = {k: shared[k] for k in ("cell_id", "method", "backbone", "dataset", "seed")}
    of = Identity(shared["identity"])
    return Member(**own, identity=of, evaluations=evaluations, baseline=baseline)


def block_of(members):
    return build(members, suite_id="made-up").blocks[0]


def judged(first, second, *, seeds=(0,), names=("knn", "linear"), metric=("acc", "acc")):
    return [
        member(method, seed, {names[0]: {metric[0]: a}, names[1]: {metric[1]: b}})
        for method, a, b in zip(METHODS, first, second, strict=True)
        for seed in seeds
    ]


def test_tau_is_scipys():
    second = [0.5, 0.7, 0.6, 0.4, 0.45, 0.2, 0.3, 0.3]
    (found,) = between(block_of(judged(FIRST, second)))
    assert found.tau == pytest.approx(kendalltau(FIRST, second).statistic)
    assert (found.methods, found.seeds) == (8, 1)


def test_the_interval_is_that_of_fishers_transform():
    second = [0.5, 0.7, 0.6, 0.4, 0.45, 0.2, 0.3, 0.31]
    (found,) = between(block_of(judged(FIRST, second)))
    half = 1.959964 * math.sqrt(0.437 / (8 - 4))
    low, high = (math.tanh(math.atanh(found.tau) + sign * half) for sign in (-1, 1))
    assert found.interval == pytest.approx((low, high))
    assert low < found.tau < high


def test_a_metric_that_is_better_low_is_turned():
    block = block_of(judged(FIRST, [-v for v in FIRST], metric=("acc", "-ece")))
    assert between(block)[0].tau == pytest.approx(1)


def test_baselines_take_no_part():
    members = judged(FIRST, FIRST)
    members.append(
        member("pixels", 0, {"knn": {"acc": 0.1}, "linear": {"acc": 0.99}}, baseline=True)
    )
    assert between(block_of(members))[0].tau == pytest.approx(1)


def test_a_judge_of_one_seed_is_compared_on_that_seed():
    members = []
    for number, method in enumerate(METHODS):
        members.append(
            member(method, 0, {"knn": {"acc": FIRST[number]}, "cost": {"acc": FIRST[number]}})
        )
        # the other seed turns kNN's order of means round
        members.append(member(method, 1, {"knn": {"acc": 3 * number}}))
    (found,) = between(block_of(members))
    assert (found.tau, found.seeds) == (pytest.approx(1), 1)


def test_a_protocol_against_itself_is_the_mean_over_pairs_of_seeds():
    seeds = {0: FIRST, 1: FIRST[::-1], 2: FIRST}
    members = [
        member(method, seed, {"knn": {"acc": values[number]}})
        for seed, values in seeds.items()
        for number, method in enumerate(METHODS)
    ]
    (found,) = steadiness(block_of(members))
    assert found.pairs == 3
    assert found.tau == pytest.approx((-1 - 1 + 1) / 3)


def test_what_a_variant_only_repeats_is_said_once():
    members = [
        member(
            method,
            0,
            {
                "linear": {"top1": FIRST[number]},
                "linear[layers=true]": {"top1": FIRST[number], "best_layer": 0.1 * number},
            },
        )
        for number, method in enumerate(METHODS)
    ]
    block = block_of(members)
    shown = [(c.evaluator, c.metric) for c in block.columns if c.narrow]
    assert shown == [("linear", "top1"), ("linear[layers=true]", "best_layer")]
    assert between(block) == []


def test_few_methods_and_one_value_have_no_order():
    few = [m for m in judged(FIRST, FIRST, seeds=(0, 1)) if m.method in METHODS[:4]]
    assert between(block_of(few)) == steadiness(block_of(few)) == []
    assert between(block_of(judged(FIRST, [0.5] * 8))) == []


def test_the_page_names_every_pair():
    page = as_markdown(block_of(judged(FIRST, FIRST[::-1], seeds=(0, 1))))
    assert "| `knn-1` | `linear-1` | -1.00 | - | 8 | 2 |" in page
    assert "on another seed: `knn-1` 1.00, `linear-1` 1.00." in page
    assert "order of fewer says nothing" in as_markdown(block_of(judged(FIRST, FIRST)[:1]))


# ---- mce


def errors(each, **other):
    accuracies = dict.fromkeys(BENCHMARK, 1 - each) | dict.fromkeys(EXTRA, 0.0)
    return {"corruption": {"mean15": 1 - each, **accuracies, **other}}


def mce_of(members, method="moco", seed=0):
    block = build(members, suite_id="made-up", normaliser="supervised").blocks[0]
    names = [column.metric for column in block.columns]
    row = next(row for row in block.rows if row.method == method)
    return row.scores[names.index("mce(supervised)")].values.get(seed)


def test_mce_is_the_mean_of_the_ratios_of_errors():
    own = errors(0.3, **{BENCHMARK[0]: 0.9})  # an error of .1 there
    members = [member("moco", 0, own), member("supervised", 0, errors(0.2), baseline=True)]
    assert mce_of(members) == pytest.approx((14 * 0.3 / 0.2 + 0.1 / 0.2) / 15)
    assert mce_of(members, "supervised") == pytest.approx(1)


def test_mce_is_of_the_same_seed_or_not_at_all():
    members = [
        member("moco", 0, errors(0.3)),
        member("moco", 1, errors(0.3)),
        member("supervised", 0, errors(0.2), baseline=True),
    ]
    assert mce_of(members, seed=1) is None


def test_mce_is_not_taken_across_sets_nor_of_judges_without_corruptions():
    other = {"data fashion-regen-c": {"fingerprint": "1"}}
    members = [
        member("moco", 0, errors(0.3), components=other),
        member("supervised", 0, errors(0.2), baseline=True),
    ]
    block = build(members, suite_id="made-up", normaliser="supervised").blocks[0]
    row = next(row for row in block.rows if row.method == "moco")
    names = [column.metric for column in block.columns]
    assert "mce(supervised)" not in [
        name for name, score in zip(names, row.scores, strict=True) if score.values
    ]
    plain = [
        member("moco", 0, {"knn": {"acc": 0.5}}),
        member("supervised", 0, {"knn": {"acc": 0.6}}),
    ]
    board = build(plain, suite_id="made-up", normaliser="supervised")
    assert not any("mce" in column.metric for column in board.blocks[0].columns)
    assert board.notes == ()


def test_what_mce_is_stands_below_the_table():
    members = [member("moco", 0, errors(0.3)), member("supervised", 0, errors(0.2), baseline=True)]
    board = build(members, suite_id="made-up", normaliser="supervised")
    assert any("mce(supervised): the mean over 15" in note for note in board.notes)
    assert dataclasses.asdict(board)["blocks"][0]["rows"]
