"""`plugins new`: what it writes installs, passes its own tests and runs; what it refuses, and why."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sslbench import __version__
from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.hookspecs import API_VERSION
from sslbench.plugins import KINDS, scaffold
from sslbench.plugins.scaffold import THINGS, names_of, write

PIP = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]


def typed(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(program, ["plugins", "new", *words])
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A package of each kind, as the command writes it."""
    home = tmp_path_factory.mktemp("written")
    for kind in THINGS:
        code, output = typed(f"sslbench-new-{kind}", "--kind", kind, "--out", str(home))
        assert code == 0, output
    return home


@pytest.fixture(scope="module")
def fresh(written, tmp_path_factory):
    """A process that finds all five installed, and nothing else that is new."""
    site, home = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("home")
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(
            command, env=environment, cwd=home, capture_output=True, text=True, check=False
        )

    done = run(*PIP, "--target", str(site), *map(str, sorted(written.iterdir())))
    assert done.returncode == 0, done.stderr
    return run


# ---- what is written ---------------------------------------------------------------------------


@pytest.mark.slow
def test_all_five_pass_their_own_tests(fresh, written):
    done = fresh("-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", "-W", "error", str(written))
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.findall(
        r"^PASSED \S*sslbench-new-(\w+)/tests/\S+::(\w+)", done.stdout, re.MULTILINE
    )
    for kind in THINGS:
        tests = {name for of, name in passed if of == kind}
        assert any("promises" in name for name in tests), kind
        assert any("promises" not in name for name in tests), kind


@pytest.mark.slow
def test_each_is_listed_with_what_it_provides(fresh):
    plugins = json.loads(fresh("-m", "sslbench", "plugins", "list", "--json").stdout)
    found = {p["distribution"]: p for p in plugins}
    for kind in THINGS:
        plugin = found[f"sslbench-new-{kind}"]
        assert (plugin["error"], plugin["notes"], plugin["version"]) == (None, [], "0.1.0")
        assert plugin["api"] == list(API_VERSION)
        assert plugin["provides"] == {f"{kind}s": [f"new-{kind}"]}


@pytest.mark.slow
def test_they_run_together_in_one_line(fresh):
    line = "--methods new-method --backbones new-backbone --datasets new-dataset[size=16]"
    line += " --evaluators new-evaluator --seeds 0 --epochs 1 --device cpu --store here"
    done = fresh("-m", "sslbench", "run", "--quiet", *line.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^new-dataset\[size=16\] · new-backbone · 16 px · 1 epoch", done.stdout)
    assert re.search(r"^(\S*/)?new-method +1 +\*\d", done.stdout, re.MULTILINE)
    counted = fresh("-m", "sslbench", "new-command", "--store", "here")
    assert [line.split() for line in counted.stdout.splitlines()] == [
        [name, "ok", "2"] for name in ("sslbench-new-method/new-method", "supervised", "untrained")
    ]


def test_what_is_written_is_clean_and_whole(written):
    for kind in THINGS:
        folder = written / f"sslbench-new-{kind}"
        lint = ["check", "--select", "E,F,W,I,UP,B"], ["format", "--check"]
        for words in lint:
            command = [sys.executable, "-m", "ruff", *words, "--isolated", "--no-cache"]
            command += ["--line-length", "100"]
            done = subprocess.run([*command, "."], cwd=folder, capture_output=True, check=False)
            assert done.returncode == 0, done.stdout.decode()
        kept = (
            path for path in folder.rglob("*.*") if path.suffix in (".py", ".toml", ".md", ".in")
        )
        texts = {path: path.read_text() for path in kept}
        assert {path.name for path in texts} >= {"pyproject.toml", "README.md", "__init__.py"}
        for path, text in texts.items():
            assert "$" not in text, path
            assert path.suffix != ".in"
        assert f"sslbench>={__version__}" in texts[folder / "pyproject.toml"]


def test_a_template_is_there_for_every_kind_that_is_code():
    kinds = {path.name for path in scaffold.TEMPLATES.iterdir()} - {"every"}
    assert kinds == set(THINGS)
    assert {f"{kind}s" for kind in THINGS} == set(KINDS) - {"suites", "trackers"}


# ---- the command ---------------------------------------------------------------------------------


def test_it_ends_with_what_to_type_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = typed("sslbench-two", "--kind", "dataset", "--out", "a folder")
    assert code == 0
    assert [line.strip() for line in output.partition("next:\n")[2].splitlines()] == [
        "cd 'a folder/sslbench-two'",
        "pip install -e '.[test]'",
        "pytest",
        "sslbench plugins check sslbench-two",
        "sslbench run --datasets two --seeds 0",
    ]
    assert Path("a folder/sslbench-two/sslbench_two/dataset.py").is_file()
    assert [path.name for path in Path("a folder").iterdir()] == ["sslbench-two"]


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("../up", "method", "is not a name for a package"),
        ("a/b", "method", "is not a name for a package"),
        ("/etc/mine", "method", "is not a name for a package"),
        ("..", "method", "is not a name for a package"),
        ("-mine", "method", "is not a name for a package"),
        ("mine_", "method", "is not a name for a package"),
        ("two words", "method", "such as sslbench-two-words"),
        ("überall", "method", "is not a name for a package"),
        ("mine\n", "method", "is not a name for a package"),
        ("x" * 65, "method", "64 at most"),
        ("sslbench", "method", "it is sslbench's own"),
        ("sslbench-moco", "method", "there is a method 'moco' of sslbench already"),
        ("SSLBench.MoCo", "method", "there is a method 'moco' of sslbench already"),
        ("sslbench-digits", "dataset", "there is a dataset 'digits' of sslbench already"),
        ("sslbench-run", "command", "there is a command 'run' of sslbench already"),
        ("class", "command", "'class' cannot be a module of it; sslbench-class will do"),
        ("tests", "command", "'tests' cannot be a module of it"),
        ("json", "method", "there is a module 'json' here already; sslbench-json will do"),
        ("torch", "method", "there is a module 'torch' here already"),
        ("sslbench-3d", "method", "begins with a digit"),
        ("sslbench-recipe", "method", "its class would be Recipe"),
    ],
)
def test_a_name_that_will_not_do_is_refused_and_nothing_is_written(tmp_path, name, kind, sentence):
    code, output = typed("--kind", kind, "--out", str(tmp_path), "--", name)
    assert code == 2
    assert sentence in output
    assert len(output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_one_name_stands_in_all_its_places():
    names = names_of("SSLBench_My.Net", "method", {})
    assert (names.dist, names.key, names.module) == ("SSLBench_My.Net", "my-net", "sslbench_my_net")
    assert names.title == "MyNet"
    assert names_of("spread", "method", {}).module == "spread"
    # a name that is another kind's is free
    assert names_of("sslbench-moco", "dataset", {"digits": "sslbench"}).key == "moco"


@pytest.mark.parametrize("there", ["a file", "a folder with something", "a link to nowhere"])
def test_nothing_is_written_over(tmp_path, there):
    place = tmp_path / "sslbench-mine"
    if there == "a file":
        place.write_text("mine")
    elif there == "a link to nowhere":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.mkdir()
        (place / "notes").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    code, output = typed("sslbench-mine", "--kind", "method", "--out", str(tmp_path))
    assert code == 2
    assert "is there already, and nothing is written over" in output
    assert sorted(tmp_path.rglob("*")) == before
    assert place.is_symlink() or place.is_dir() or place.read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "sslbench-mine").mkdir()
    found = write(names_of("sslbench-mine", "command", {}), tmp_path)
    assert all((found.folder / file).is_file() for file in found.files)


def test_a_disk_that_gives_out_leaves_nothing_behind(tmp_path, monkeypatch):
    whole = Path.write_text

    def fails(path: Path, *args: object, **more: object) -> int:
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        return whole(path, *args, **more)

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(UserError, match="No space left on device"):
        write(names_of("sslbench-mine", "method", {}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_folder_should_be_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write(names_of("sslbench-mine", "method", {}), tmp_path / "file")
