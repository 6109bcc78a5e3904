"""The suite that a leaderboard's folder has asks for the very cells that are in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import train

from sslbench.leaderboard.board.planned import material_of
from sslbench.leaderboard.folder.folder import add, read
from sslbench.plan.planning import make_plan
from sslbench.plan.selection import Selection
from sslbench.plugins import registry

MINE = """
from sslbench import hookimpl
from sslbench.methods.simclr import SimCLR

SSLBENCH_API = (1, 0)


@hookimpl
def methods():
    return {"mine": SimCLR}
"""
TUNED = """
extends: quick
summary: each method tuned by two trials
methods: [moco, mine]
tuning:
  trials: 2
  epochs: 8
  judge: knn
  seed: 100
  space:
    "*.lr": {times: [0.5, 2]}
    mine.temperature: [0.1, 0.2]
"""


def cells_of(options: Selection) -> set[str]:
    found = registry(installed=False, files=[Path("mine.py")])
    return {planned.cell.id for planned in make_plan(options, found, preflight=False).cells}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"epochs": 3, "batch": 64},
        {"batch": 128},  # the suite's own, and above what it sets for one method
        {"set": {"moco.temperature": 0.5, "moco.queue": 256, "moco.lr": 1e-3}, "seeds": (0, 1)},
        {"methods": ("mine", "simclr"), "set": {"mine.temperature": 0.7}, "evaluators": ("knn",)},
        {"suite": "tuned.yaml"},
        {"suite": "tuned.yaml", "epochs": 3, "set": {"mine.lr": 0.1}},
    ],
    ids=lambda asked: " ".join(asked) or "as it is",
)
def test_the_written_suite_asks_for_the_same_cells(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("tuned.yaml").write_text(TUNED)
    options = Selection(**asked)
    found = registry(installed=False, files=[Path("mine.py")])
    suite = material_of(make_plan(options, found, preflight=False), found).suite
    add(Path("board"), suite, [train("moco", 0)])
    assert read(Path("board")).suite == suite
    assert cells_of(Selection(suite="board/suite.yaml")) == cells_of(options)


def test_what_stands_above_a_methods_own_setting_is_another_protocol():
    found = registry(installed=False)
    plain = make_plan(Selection(), found, preflight=False)
    above = make_plan(Selection(batch=plain.suite.batch), found, preflight=False)
    own = [key for key in plain.suite.set if key.endswith(".batch")]
    assert (above.suite_id != plain.suite_id) == bool(own)
    ids = [{p.cell.id for p in plan.cells} for plan in (plain, above)]
    assert (ids[0] != ids[1]) <= (above.suite_id != plain.suite_id)
