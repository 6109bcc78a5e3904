"""Two rows against each other: by hand, against scipy, and on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from made_up import judged, records_of, suite_of, train
from scipy import stats

from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.leaderboard import build
from sslbench.leaderboard.board.material import Material
from sslbench.leaderboard.board.members import members_of
from sslbench.leaderboard.board.pairs import compared
from sslbench.leaderboard.folder import folder as folders

VALUES = {"moco": (0.90, 0.91, 0.92), "swav": (0.80, 0.80, 0.83), "lab/byol": (0.85, 0.95, 0.9)}


def records(values=VALUES):
    found = []
    for method, numbers in values.items():
        for seed, value in enumerate(numbers):
            cell = train(method, seed)
            found += [cell, judged(cell, "knn", {"top1": value, "top5": 1.0})]
    return found


def block():
    suite = suite_of(list(VALUES), evaluators=("knn",))
    return build(members_of(Material(suite, records()))[0], suite_id="x").blocks[0]


def test_a_pair_is_compared_as_the_whole_table_compares_it():
    one, other = compared(block(), [("moco", "swav"), ("moco", "lab/byol")])
    assert (one.column.protocol, one.column.metric) == ("knn-1", "top1")  # not top5: it ranks not
    values = np.array(list(VALUES.values()))
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    noise = np.sqrt((rest**2).sum() / 4)
    p = stats.studentized_range.sf(0.1 / noise * np.sqrt(3), 3, 4)
    assert one.paired.p == pytest.approx(p, abs=1e-4)
    assert one.paired.mean == pytest.approx(0.1)
    assert one.paired.interval[0] < 0.1 < one.paired.interval[1]
    assert (one.leads, other.leads) == ("moco" if p < 0.05 else "", "")


def test_asking_for_fewer_pairs_buys_nothing():
    asked = [("moco", "swav"), ("moco", "lab/byol"), ("swav", "lab/byol")]
    every = list(compared(block(), asked))
    assert [next(compared(block(), [pair])) for pair in asked] == every


def test_the_better_row_is_named_whichever_way_it_is_asked():
    [turned] = compared(block(), [("swav", "moco")])
    assert turned.paired.mean == pytest.approx(-0.1)
    assert turned.leads == "moco"


def test_a_row_is_found_without_its_distribution_and_a_wrong_name_is_helped():
    [found] = compared(block(), [("byol", "moco")])
    assert found.one == "lab/byol"
    with pytest.raises(UserError, match=r"unknown row 'mocco'.*moco"):
        list(compared(block(), [("mocco", "swav")]))


def test_the_command_prints_each_pair_and_json_alone(tmp_path):
    suite = suite_of(["moco", "swav"])
    folders.add(tmp_path / "a", suite, records_of(suite))
    line = ["leaderboard", "compare", str(tmp_path / "a"), "moco,swav"]
    said = CliRunner().invoke(program, line).output
    assert said.count("moco - swav") == 2  # two judges
    plain = json.loads(CliRunner().invoke(program, [*line, "--json"]).output)
    assert [each["protocol"] for each in plain] == ["knn-1", "linear-1"]
    assert set(plain[0]["differences"]) == {"0", "1", "2"}
    wrong = CliRunner().invoke(program, [*line[:-1], "moco"])
    assert wrong.exit_code == 2
    assert "'moco' is not a pair of rows; write A,B" in wrong.output
