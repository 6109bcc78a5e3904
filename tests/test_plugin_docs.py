"""docs/plugins.md is so: its files are written, its lines typed, and what it prints is printed.

One folder, in the page's order. What is typed runs in this process and forks of it, on a hundred
digits and offline; what is installed lands in a folder of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from sslbench import hookspecs
from sslbench.cli.app import COMMANDS, program
from sslbench.plugins import KINDS

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one the wrong way round: 0 is "none"
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
SMALL = {
    "--datasets": "digits[test=30,train=100]",
    "--evaluators": "knn",
    "--batch": "32",
    "--set": "moco.queue=64",
}


@dataclass
class Reader:
    """Someone who does what the page says."""

    home: Path
    site: Path
    printed: list[str] = field(default_factory=list)  # by each block

    def follow(self, kind: str, text: str) -> str:
        if kind == "sh":
            lines = text.replace("\\\n", " ").splitlines()
            return "".join(self.type(line) for line in lines)
        path = self.home / text.partition("\n")[0].removeprefix("# ")
        if kind in ("python", "yaml"):
            before = path.read_text() if path.exists() else ""
            path.write_text(text)
            return before
        if kind == "toml":  # a part of what is there
            return path.read_text()
        return self.printed[-1]

    def type(self, line: str) -> str:
        words = shlex.split(line, comments=True)
        if words[0] == "cd":
            os.chdir(words[1])
            return ""
        if words[0] == "sslbench":
            done = CliRunner().invoke(program, thrifty(words[1:]))
            assert done.exit_code == 0, f"{line}\n{done.output}"
            return done.output
        if words[:2] == ["pip", "install"]:
            # not editable: those work in site-packages alone
            line = f"python -m {line} --target {self.site}".replace(" -e ", " ")
        line = re.sub(r"^(pip|pytest)\b", r"python -m \1", line)
        line = re.sub(r"^python\b", sys.executable, line)
        environment = os.environ | OFFLINE | {"PYTHONPATH": str(self.site)}
        ended = subprocess.run(
            line, shell=True, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
        return ended.stdout


def thrifty(words: list[str]) -> list[str]:
    """On a hundred digits, unless the page says on what."""
    if not {"run", "build"} & set(words) or "--suite" in words:
        return words
    more = [w for key, value in SMALL.items() if key not in words for w in (key, value)]
    return [*words, *more, *(["--device", "cpu"] if "run" in words else [])]


@pytest.fixture(scope="module")
def reader(forks, tmp_path_factory):
    """Having read all of the page."""
    home, site = tmp_path_factory.mktemp("reader"), tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(site)
        patch.setattr("os.fsync", lambda _: None)  # this store outlives no power cut
        patch.setenv("SSLBENCH_STORE", "sslbench-store")
        # what a method promises is asked by `pytest`, a few lines before `plugins check`
        patch.setattr("sslbench.testing.kit.method_checks", lambda trial: ())
        found = Reader(home, site)
        for kind, text in BLOCKS:
            found.printed.append(found.follow(kind, text))
        yield found
    for name in [name for name in sys.modules if name.startswith("sslbench_spread")]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("number", [n for n, (kind, _) in enumerate(BLOCKS) if kind == "text"])
def test_what_it_prints_is_printed(reader, number):
    printed = [" ".join(line.split()) for line in reader.printed[number].splitlines()]
    for line in BLOCKS[number][1].splitlines():
        wanted = " ".join(line.split())
        assert any(wanted in each for each in printed), f"{wanted}\nis not in\n{printed}"


@pytest.mark.slow
def test_the_package_is_what_is_shown_of_it(reader):
    for (kind, text), before in zip(BLOCKS, reader.printed, strict=True):
        name, _, content = text.partition("\n")
        if kind == "toml":
            assert content in before, name
        if name.endswith("__init__.py"):
            assert content == before


def test_there_is_an_example_of_every_hook():
    python = "".join(text for kind, text in BLOCKS if kind == "python")
    assert [kind for kind in KINDS if f"@hookimpl\ndef {kind}():" not in python] == []
    table = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert table == list(KINDS)
    assert [kind for kind in KINDS if not hasattr(hookspecs, kind)] == []


def test_the_method_takes_less_than_forty_lines():
    [method] = [text for _, text in BLOCKS if text.startswith("# spread.py")]
    assert len([line for line in method.splitlines()[1:] if line.strip()]) < 40


@pytest.mark.slow
def test_every_line_has_its_effect(reader):
    """One command that only looks as if it ran would leave nothing behind."""
    typed = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    assert {words[0] for line in typed if (words := shlex.split(line))} >= {"sslbench", "pytest"}
    assert list((reader.home / "wheels").glob("sslbench_spread-0.1.0-*.whl"))
    board = (reader.home / "board" / "README.md").read_text()
    assert re.search(r"^\| sslbench-spread/spread \| 1 \| \**\d", board, re.MULTILINE)
    assert "missing" not in board
    head, *curve = (reader.home / "spread.csv").read_text().splitlines()
    assert head == "method,seed,epoch,loss"
    rows = [line.split(",") for line in curve if "spread" in line]
    assert [row[:3] for row in rows] == [["sslbench-spread/spread", "1", n] for n in "12"]
    assert float(rows[1][3]) < float(rows[0][3])


def test_the_files_it_links_to_are_there():
    for target in re.findall(r"\]\(\.\./([^)]+)\)", PAGE):
        assert (Path(__file__).parents[1] / target).exists(), target


def test_the_options_it_names_in_passing_are_known():
    help_of_all = CliRunner().invoke(program, ["--help"]).output
    for name in COMMANDS:
        help_of_all += CliRunner().invoke(program, [name, "--help"]).output
    named = set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--kind", "--target"}
    assert [option for option in named if option not in help_of_all] == []
