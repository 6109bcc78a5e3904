"""A board is the same whichever command makes it: from a plan, from a store's records, from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sslbench.cli.app import program

pytestmark = pytest.mark.usefixtures("forks")
PLUGIN = """
from sslbench import hookimpl
from sslbench.methods.pixels import pixels
from sslbench.methods.supervised import Supervised

SSLBENCH_API = (1, 0)


@hookimpl
def methods():
    return {"raw": pixels, "taught": Supervised}
"""
SUITE = """
summary: a plugin's methods are the baselines
datasets: ["digits[size=32,test=30,train=100]"]
backbones: [test_resnet]
methods: [simclr]
baselines: [raw, taught]
floor: raw
evaluators: ["knn[k=20]"]
seeds: [0, 1]
epochs: 1
batch: 100
set: {simclr.blur: 0.0}
"""


def call(*args: str) -> str:
    done = CliRunner().invoke(program, ["--plugin", "mine.py", *args])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@pytest.fixture(scope="module")
def made(forks: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The JSON of the same board, by the command that makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("roads"))
        Path("mine.py").write_text(PLUGIN)
        Path("tiny.yaml").write_text(SUITE)
        run = json.loads(call("run", "--suite", "tiny.yaml", "--json", "--quiet"))
        show = json.loads(call("leaderboard", "show", "--suite", "tiny.yaml", "--json"))
        call("leaderboard", "build", "tiny.yaml", "--out", "board")
        built = json.loads(Path("board/leaderboard.json").read_text())
        again = json.loads(call("leaderboard", "show", "board", "--json"))
    return {"run": run, "show": show, "build": built, "folder": again}


def rows(board: dict) -> list[dict]:
    """Without what names the command that would run it again."""
    found = [row for block in board["tables"] for row in block["rows"]]
    for row in found:
        row["details"] = {k: v for k, v in row["details"].items() if k != "command"}
    return found


def test_a_plugins_method_is_a_baseline_and_the_floor_in_every_table(made: dict[str, dict]) -> None:
    for command, board in made.items():
        baselines = {row["method"] for row in rows(board) if row["baseline"]}
        assert baselines == {"file:mine/raw", "file:mine/taught"}, command
        anchors = {row["anchor"] for row in rows(board)}
        assert anchors == {None, "file:mine/raw"}, command


@pytest.mark.parametrize("command", ["show", "build", "folder"])
def test_rows_are_those_that_the_run_printed(made: dict[str, dict], command: str) -> None:
    assert rows(made[command]) == rows(made["run"])
    assert made[command]["left_out"] == made["run"]["left_out"] == []
