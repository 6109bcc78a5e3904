"""The README says what is so: its code runs, its commands parse, what it lists is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from sslbench.cells.suite import load_suite
from sslbench.cli.app import program
from sslbench.plugins import registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
LINES = [
    line.split("#")[0].strip()
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
    if "sslbench " in line.split("#")[0]
]


def test_the_method_of_the_readme_runs_by_the_readmes_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [code] = [text for kind, text in BLOCKS if kind == "python"]
    Path("mine.py").write_text(code)
    [line] = [line for line in LINES if "mine.py" in line]
    small = "--seeds 0 --epochs 1 --batch 32 --evaluators knn --set moco.queue=64"
    small += " --datasets digits[train=100,test=30]"
    done = CliRunner().invoke(program, [*shlex.split(line)[1:], *small.split()])
    assert done.exit_code == 0, done.output
    assert re.search(r"^file:mine/mine +1 ", done.output, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_the_commands_of_the_readme_are_known(line):
    words = shlex.split(line.rpartition("&&")[2])
    done = CliRunner().invoke(program, [*words[1:], "--help"])
    assert done.exit_code == 0, done.output
    for option in (word for word in words if word.startswith("--")):
        assert option in done.output or option == "--plugin"


@pytest.mark.parametrize("kind", ["methods", "datasets", "evaluators"])
def test_what_is_built_in_is_named_somewhere_a_newcomer_reads(kind):
    pages = [*(ROOT / "sslbench" / "suites").glob("*.yaml"), *(ROOT / "docs").glob("*.md")]
    text = README + "".join(path.read_text() for path in pages)
    assert [name for name in registry(installed=False).names(kind) if name not in text] == []


def test_every_suite_loads_and_every_setting_of_it_is_known():
    from sslbench.cells.resolve import Settings, check_settings

    found = registry(installed=False)
    for name in found.names("suites"):
        suite = load_suite(name, found)
        names = {key.partition(".")[0] for key in suite.set}
        check_settings(found, Settings((({}, suite.set),)), names)
        for method in (*suite.methods, *suite.baselines):
            found.find("methods", method)


def test_no_path_of_one_machine_stands_in_what_is_published():
    for path in (ROOT / "leaderboards").rglob("*.*"):
        if path.is_file():
            assert not re.search(r"(^|[^\w.])/(tmp|root|home|work)/", path.read_text()), path
