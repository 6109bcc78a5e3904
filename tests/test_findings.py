"""The sentences under a table: what they say of made-up columns, and that none is false."""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_leaderboard import baseline, board, cells


def said(*groups, **other):
    (sentence,) = board(*groups, **other).blocks[0].findings
    return sentence


def test_two_methods_are_one_pair():
    near = said(cells("a", 0.90, 0.91, 0.93), cells("b", 0.91, 0.90, 0.92))
    assert re.match(r"knn-1 acc: a and b do not separate; that takes \d+\.\d points or more", near)
    far = said(cells("a", 0.90, 0.91, 0.92), cells("b", 0.50, 0.52, 0.51))
    assert far == "knn-1 acc: a is better than b."


def test_the_better_of_two_is_the_one_that_separates_also_where_seeds_are_missing():
    a, b = cells("a", 0.50, 0.51, 0.99, 0.98), cells("b", 0.600, 0.6101)
    found = board(a, b)
    ranks = {row.label: row.scores[0].rank for row in found.blocks[0].rows}
    assert ranks == {"a": 2, "b": 1}  # though the mean of a is higher
    assert found.blocks[0].findings[0].startswith("knn-1 acc: b is better than a")


def test_many_methods_are_counted():
    draw = np.random.default_rng(0)
    rows = [cells(f"m{i}", *(0.5 + 0.05 * i + 0.004 * draw.normal(size=3))) for i in range(6)]
    text = said(*rows, baseline("untrained", 0.2, 0.21, 0.19))
    assert text.startswith("knn-1 acc: m5 is first; 15 of 15 pairs separate, none closer than ")
    assert text.endswith("; all are better than untrained.")


def test_one_seed_says_so():
    assert said(cells("a", 0.9), cells("b", 0.8)) == (
        "One seed says nothing of noise, so no ranks under knn-1."
    )
    mixed = said(cells("a", 0.9, 0.8), cells("b", 0.8, 0.9), cells("c", 0.7))
    assert "c has one seed and no rank" in mixed


def test_a_cycle_is_no_first_place():
    """Three rows that beat each other in turn, each pair on seeds of its own."""
    draw, size = np.random.default_rng(0), 10
    level = {"a": {0: 1, 2: 0}, "b": {0: 0, 1: 1}, "c": {1: 0, 2: 1}}
    rows = []
    for name, parts in level.items():
        values = [None] * (3 * size)
        for part, mean in parts.items():
            for seed in range(size):
                values[part * size + seed] = float(0.5 + 0.3 * mean + 0.001 * draw.normal())
        rows.append(cells(name, *values))
    assert "3 of 3 pairs separate" in said(*rows)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_no_sentence_is_false(seeds):
    """Of random boards: what is counted, named and promised."""
    draw = np.random.default_rng(seeds)
    for _ in range(40):
        rows = int(draw.integers(2, 9))
        values = 0.5 + 0.05 * draw.normal(size=(rows, 1)) + 0.02 * draw.normal(size=(rows, seeds))
        values *= 1 + (draw.random((rows, 1)) < 0.1)
        groups = [cells(f"m{i}", *map(float, row)) for i, row in enumerate(values)]
        made = board(
            *groups, baseline("untrained", *map(float, 0.45 + 0.03 * draw.normal(size=seeds)))
        )
        (block,) = made.blocks
        (text,) = block.findings
        ranked = [row for row in block.rows if not row.baseline]
        if found := re.search(r"(\d+) of (\d+) pairs separates?", text):
            assert int(found[2]) == rows * (rows - 1) // 2
            beaten = sum(row.scores[0].rank - 1 for row in ranked)
            assert int(found[1]) == beaten
        if found := re.search(r"about (\d+) seeds", text):
            assert int(found[1]) > seeds
        if found := re.search(r"; (\S+) is first", text.replace(": ", "; ")):
            (first,) = (row for row in ranked if row.label == found[1])
            assert first.scores[0].rank == first.scores[0].rank_to == 1
