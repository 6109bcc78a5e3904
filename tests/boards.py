"""Made-up boards, for tests of what renders them."""

from __future__ import annotations

import dataclasses
import math
import random

from sslbench.leaderboard import statistics
from sslbench.leaderboard.board.board import (
    Block,
    Board,
    Column,
    Details,
    Flag,
    Gap,
    LeftOut,
    MeanCosts,
    Overall,
    Reference,
    Row,
    Score,
    Setting,
    Standing,
    Trouble,
)
from sslbench.leaderboard.together import together

CORRUPTIONS = ("gaussian_noise", "fog", "contrast")
COLUMNS = (
    Column("knn", "knn-1", "top1", ranks=True, narrow=True),
    Column("knn", "knn-1", "top5"),
    Column("linear", "linear-1", "top1", ranks=True, narrow=True),
    Column("clustering", "clustering-1", "acc", ranks=True, narrow=True),
    Column("clustering", "clustering-1", "nmi", narrow=True),
    Column("geometry", "geometry-1", "rankme", unit="dimensions", ranks=True, narrow=True),
    Column("calibration", "calibration-1(linear-1)", "ece", higher_is_better=False, ranks=True),
)
NOISE = (
    Column("corruption", "corruption-1(linear-1)[images=2000]", "mean15", ranks=True, narrow=True),
    *(
        Column("corruption", "corruption-1(linear-1)[images=2000]", f"{name}.{level}")
        for name in CORRUPTIONS
        for level in range(1, 6)
    ),
)


def board_of(
    *, methods=6, datasets=2, seeds=3, columns=COLUMNS + NOISE, points=12, text="", baselines=True
) -> Board:
    """Makes a board with something of everything; `text` is added to each text from records."""
    names = [f"data{d}{text}" for d in range(datasets)]
    blocks = tuple(
        _block(
            name, columns, methods=methods, seeds=seeds, points=points, text=text, base=baselines
        )
        for name in names
    )
    paper = (
        f"linear, 800 epochs{text}",
        f"Somebody 2020{text}",
        f"https://example.org/{text}",
        f"2026-01-02{text}",
        f"a note{text}",
    )
    return Board(
        f"made-up{text}",
        0.95,
        blocks,
        (f"a note{text}",),
        f"Nothing here was measured.{text}",
        _overall(names, methods, text),
        (
            Reference(names[0], f"Paper{text}", f"resnet50{text}", f"top1{text}", 0.766, *paper),
            Reference(names[0], f"Paper{text}", f"resnet50{text}", f"top5{text}", 0.9325, *paper),
            Reference("elsewhere", "Trick", "net", "top1", 0.5, "linear", "bad address",
                      "javascript:window.__pwn=1", "2026-01-02"),
        ),
        (LeftOut("ab" * 12, f"judged by an older version{text}"), LeftOut(f"id{text}", "foreign")),
    )  # fmt: skip


def _overall(names, methods, text):
    rng = random.Random(5)
    standings = [
        Standing(f"method{m}{text}", (rank := 1 + 5 * rng.random()), (rank - 0.5, rank + 0.7))
        for m in range(methods)
    ]
    ordered = tuple(sorted(standings, key=lambda each: each.rank))
    return (
        Overall(f"net{text}", "knn", f"knn-1{text}", f"top1{text}", tuple(names), ordered,
                (f"late{text}",)),
    )  # fmt: skip


def _block(dataset, columns, *, methods, seeds, points, text, base):
    rng = random.Random(int(dataset[4]) * 7919 + methods)
    columns = tuple(
        dataclasses.replace(c, protocol=f"{c.protocol}{text}", metric=f"{c.metric}{text}")
        for c in columns
    )
    labels = [f"method{m}{text}" for m in range(methods)] + [f"untrained{text}"] * base
    values = [
        [_values(rng, column, seeds, last=base and at == methods) for column in columns]
        for at in range(len(labels))
    ]
    scores = [
        _scores([row[i] for row in values], column, held=methods)
        for i, column in enumerate(columns)
    ]
    rows = [
        _row(label, at, [own[at] for own in scores], (dataset, seeds, points, text, at == methods))
        for at, label in enumerate(labels)
    ]
    top = [r for r in rows if not r.baseline]
    top.sort(key=lambda row: -(row.scores[0].mean or 0))
    setting = Setting(dataset, f"net{text}", "9f" * 32, 32, "fp32", 10)
    return Block(setting, columns, (*top, *(r for r in rows if r.baseline)))


def _values(rng, column, seeds, last):
    if column.unit:
        return {s: 20 + 30 * rng.random() for s in range(seeds)}
    centre = (0.3 if last else 0.5) + 0.3 * rng.random()
    if not column.higher_is_better:
        centre /= 50
    return {s: centre + 0.01 * rng.random() for s in range(seeds)}


def _scores(values, column, held):
    """Scores of one column; `held` is the index of the baseline's row."""
    if len(values) > 2:
        values[1] = {}  # failed
        values[2] = dict(list(values[2].items())[:1])
    own = [{} if at == held else v for at, v in enumerate(values)]
    compared = together(values, [at == held for at in range(len(values))])
    ranked = [at for at, v in enumerate(own) if len(v) > 1]
    sign = 1 if column.higher_is_better else -1
    means = [statistics.mean(list(v.values())) if v else None for v in values]
    known = [sign * m for m, v in zip(means, own, strict=True) if v]
    found = []
    for at, (v, mean) in enumerate(zip(values, means, strict=True)):
        best = bool(own[at]) and sign * mean == max(known)
        gaps = {s: Gap("failed", "nan", "it fell apart") for s in range(3) if not v}
        pair = compared.paired(values, at, 0) if column.ranks and at and v else None
        ranks = (None, None)
        if column.ranks and at in ranked:
            signs = sign * compared.separated[at, ranked]
            ranks = (1 + int((signs < 0).sum()), len(ranked) - int((signs > 0).sum()))
        against = {f"untrained{''}": pair} if pair and at != held else {}
        found.append(
            Score(v, gaps, mean, statistics.sd(list(v.values())) if len(v) > 1 else None,
                  statistics.t_interval(list(v.values())) if v else None, *ranks, best, pair, against)
        )  # fmt: skip
    return found


def _row(label, at, scores, known):
    dataset, seeds, points, text, held = known
    gap = Gap("failed", "nan", f"the loss was nan{text}")
    flag = Flag(f"empty-clusters{text}", f"2 of 10 clusters are empty{text}", (0,), health=True)
    curves = {
        "loss": {
            s: tuple((e + 1.0, 5 * math.exp(-e / (3 + at % 5)) + s / 20) for e in range(points))
            for s in range(seeds)
        },
        f"knn-1{text}": {0: tuple((e + 1.0, 0.5 + e / 100) for e in range(0, points, 3))},
    }
    recipe = {"epochs": 10, "lr": 0.1 + at / 1000, "milestones": [0.6, 0.8], "note": f"x{text}"}
    own = {"temperature": 0.1, "dim": 128, f"key{text}": f"value{text}"}
    details = Details(
        {"dataset": {"name": dataset, "fingerprint": "9f" * 32},
         "method": {"name": label, "hyperparameters": own, "recipe": recipe}},
        own,
        recipe,
        {"method": {"dist": f"sslbench{text}", "version": 1, "source_sha256": "ab" * 32},
         f"evaluator knn-1{text}": {"dist": "sslbench", "version": 1}},
        ({"torch": f"2.15.0{text}", "cpu": "AMD", "threads": 1},),
        f"sslbench run --suite made-up --methods {label} --seeds 0,1,2{text}",
        curves if not held else {},
        "built in" if at % 2 else "",
        f"re-judged{text}" if at % 3 else "",
    )  # fmt: skip
    return Row(
        label,
        label,
        held,
        "untrained" if held else None,
        not held,
        {s: f"{at:02x}{s:02x}{len(dataset):02x}" + "0d" * 29 + text for s in range(seeds)},
        tuple(scores),
        MeanCosts(12.5 * (at + 1), 1e6, 1234.567, 372_688, 6.76e6 * (1 + at % 3), 5e8 + at,
              {f"main{text}": 12.5 * (at + 1)}),
        (Trouble(gap, (0, 1, 2)),) if at == 1 else (),
        (flag,) if at == 3 else (),
        {f"feature_std{text}": 0.77},
        details if at != 4 else None,
    )  # fmt: skip
