"""The command line, whole: what it prints, what it exits with, what it leaves in the store."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load, load_file

import sslbench
from sslbench.cli import progress
from sslbench.cli.app import COMMANDS, program
from sslbench.cli.options import split
from sslbench.cli.progress import Stop
from sslbench.errors import UserError
from sslbench.events import CellDone, CellStarted, EpochDone, EvaluationDone, Progress
from sslbench.plugins import registry
from sslbench.store import Store

pytestmark = pytest.mark.usefixtures("forks")
DATA = "digits[test=50,train=100]"
TINY = f"""
summary: A hundred digits
datasets: ["{DATA}"]
backbones: [test_resnet]
methods: [simclr]
baselines: [untrained]
floor: untrained
evaluators: [knn]
seeds: [0]
epochs: 1
batch: 32
set:
  simclr.optimizer: sgd
  simclr.lr: 0.03
  simclr.lr_scaling: none
"""
BOOM = '''
from sslbench import Method, hookimpl

SSLBENCH_API = (1, 0)

class Boom(Method):
    """Fails \x1b[31mred\x1b[0m [bold]loudly[/bold]."""

    def __init__(self, backbone, data):
        super().__init__()
        self.backbone = backbone

    def views(self):
        return lambda images: images.float() / 255

    def step(self, batch):
        raise RuntimeError("a \x1b[31mred\x1b[0m [bold]boom[/bold]")
        yield

@hookimpl
def methods():
    return {"boom": Boom}
'''
HELLO = '''
import click
from sslbench import hookimpl

SSLBENCH_API = (1, 0)

@click.command()
@click.argument("name")
def hello(name):
    """Greets."""
    click.echo(f"hello {name}")
    return 7

@hookimpl
def commands():
    return {"hello": hello}
'''


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("SSLBENCH_", "_SSLBENCH", "NO_COLOR")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    yield
    for name in [name for name in sys.modules if name.startswith("sslbench_file_")]:
        del sys.modules[name]


def call(*args: str, code: int = 0, **more: Any) -> Result:
    """The program in this process; `code` is what it must exit with."""
    result = CliRunner().invoke(program, list(args), **more)
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def first_run(forks: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with two finished cells, and what the run said."""
    home = tmp_path_factory.mktemp("first")
    (home / "tiny.yaml").write_text(TINY)
    result = call("run", "--suite", str(home / "tiny.yaml"), "--store", str(home / "store"))
    return home / "store", result.stdout


@pytest.fixture
def store(first_run: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy to spoil, where the commands look by default."""
    shutil.copytree(first_run[0], tmp_path / "sslbench-store")
    return tmp_path / "sslbench-store"


def cell_of(store: Path, method: str) -> Any:
    return next(c for c in Store(store).cells() if c.identity().method == method)


def files_of(store: Path) -> dict[str, tuple[int, int]]:
    """Every file but locks, with size and time: what was written shows."""
    return {
        str(path.relative_to(store)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in store.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


# ---- help, laziness, exit codes --------------------------------------------------------------


def test_help_is_whole() -> None:
    assert call("--help").output == dedent(
        """\
        Usage: sslbench [OPTIONS] COMMAND [ARGS]...

          A benchmark harness for self-supervised learning of visual features.

          `sslbench run --methods moco,swav` trains and judges what the store lacks of
          the default suite, and prints the leaderboard.

          Exit codes: 0 success, 1 internal error, 2 usage error, 3 a cell failed, 4
          nothing is selected, 5 a check failed, 6 `leaderboard diff --fail-on-change`
          found a change, 130 interrupted, 141 the reader of the output left.

        Options:
          --plugin FILE.py  Load a plugin from one file. Repeatable; here or after the
                            command.
          --no-plugins      Do not load installed plugins.
          --no-plugin NAME  Do not load this plugin or distribution. Repeatable.
          -v, --verbose     Show tracebacks and libraries' warnings.
          --version         Show the version and exit.
          -h, --help        Show this message and exit.

        Commands:
          run          Run what is missing and print the leaderboard.
          evaluate     Judge the trained cells of a suite; train nothing.
          plan         Print every cell and its state.
          watch        Show a suite while it runs, on a page of this machine.
          list         List methods, datasets, evaluators and so on, a line each.
          show         Show one cell, or one method, dataset, evaluator or suite.
          leaderboard  Show, build, check, compare and publish leaderboards.
          plugins      List plugins, check them, and write new ones.
          corrupt      Corrupt a test split, as files or as a picture.
          store        Inspect and clean up the store of cells and records.
          doctor       Check the installation, devices, plugins, data and store.
        """
    )


def test_help_of_run_is_whole_and_in_groups() -> None:
    assert call("run", "--help").output == dedent(
        """\
        Usage: sslbench run [OPTIONS]

          Run what is missing and print the leaderboard.

          Finished cells are never computed again. Ctrl-C saves and stops; the same
          command goes on.

          Examples:
            sslbench run --methods moco,swav
            sslbench run --suite cifar --methods simclr --seeds 0 --data ~/data --download

        What to run:
          --suite NAME|PATH  The suite, by name or as a YAML file.  [default: quick]
          --methods A,B      Methods, instead of the suite's; its baselines stay.
          --backbones A,B    Backbones, instead of the suite's.
          --datasets A,B     Datasets, such as digits,fashion-mnist[train=10000].
          --evaluators A,B   Evaluators, such as knn,linear; full: all of them.
          --transfer-to A,B  Judge the encoders on these datasets too.
          --layers           Let linear judge the features of every stage of the
                             backbone too.
          --seeds 0,1,2      Seeds, instead of the suite's; 0-2 is a range.

        The protocol (a change gives it another id):
          --epochs N                Epochs of each stage of training.  [x>=0]
          --batch N                 Images per step.  [x>=1]
          --precision P             Precision of training: fp32, tf32, bf16 or fp16.
          --labels N                Labels that methods of few labels see: 40, 4/class,
                                    10% or all.
          --set METHOD.PARAM=VALUE  Set a hyperparameter or recipe field. Repeatable.

        Where things lie:
          --store DIR    The store: the folder with cells and their records.  [default:
                         (SSLBENCH_STORE, or ./sslbench-store)]
          --data DIR     Folder of datasets; searched before SSLBENCH_DATA.
          --download     Download data that is not there.
          --skip-broken  Leave out broken images and count them.

        How it is done:
          --device DEVICE           cpu, cuda, cuda:N or mps; auto takes a GPU if there
                                    is one.  [default: auto]
          --jobs N                  Run N cells at once, each in a process.  [default:
                                    one per GPU, or one]  [x>=1]
          --no-predictions          Keep neither predictions for each image nor sheets.
          --watch EVALUATOR:EPOCHS  Judge on the held-out tenth of the training images
                                    every so many epochs, such as knn:5.
          --compile                 Compile backbones and, on a GPU, views with
                                    torch.compile.
          --deterministic           Let a GPU repeat itself to the bit, which is slower.
                                    A CPU always does.
          --checkpoint-seconds S    Save a running cell every S seconds.  [default:
                                    60.0; x>=0]
          --skip-failed             Do not try failed cells again.

        Output:
          --track A,B    Report to these trackers too, such as tensorboard[dir=runs].
          -q, --quiet    Print only the table and errors.
          -v, --verbose  Print libraries' warnings too.
          --json         Print only JSON on standard output.
          -h, --help     Show this message and exit.

        --plugin FILE.py, --no-plugin NAME and --no-plugins work here too: see sslbench
        --help.
        """
    )


def groups_of(help: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in help.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            found[line[:-1]] = []
        elif flag := re.match(r"  (?:-\w, )?(--[a-z-]+)", line):
            found[[*found][-1]].append(flag[1])
    return found


@pytest.mark.parametrize(
    "line",
    ["plan", "watch", "evaluate", "leaderboard build", "leaderboard show", "leaderboard agreement"],
)
def test_an_option_stands_in_the_group_and_words_that_it_has_in_run(line: str) -> None:
    """The lines of a group that all these commands share are the same lines."""
    of_run, here = call("run", "--help").output, call(*line.split(), "--help").output
    for group in ("The protocol (a change gives it another id):", "Where things lie:"):
        shared = of_run.partition(group)[2].partition("\n\n")[0]
        assert f"{group}{shared}\n\n" in here
    found = groups_of(here)
    for name, options in groups_of(of_run).items():
        for option in {*options} & {each for group in found.values() for each in group}:
            assert option in found[name]
    assert list(found)[-1] == "Output"
    assert found["Output"][-1] == "--help"


def options_of(command: click.Command) -> str:
    return " ".join(flag for p in command.params for flag in p.opts if flag.startswith("--"))


def test_every_option_is_listed_here() -> None:
    selection = (
        "--suite --methods --backbones --datasets --evaluators --transfer-to --layers --seeds "
        "--epochs --batch --precision --labels --set --store --data --download --skip-broken"
    )
    found: dict[str, str] = {}
    for name in COMMANDS:
        command = program.get_command(click.Context(program), name)
        assert isinstance(command, click.Command)
        found[name] = options_of(command)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for sub in command.list_commands(context):
                inner = command.get_command(context, sub)
                assert isinstance(inner, click.Command)
                found[f"{name} {sub}"] = options_of(inner)
    assert {name: options for name, options in found.items() if options} == {
        "run": f"{selection} --device --jobs --no-predictions --watch --compile "
        "--deterministic --checkpoint-seconds --skip-failed --track --quiet --verbose --json",
        "evaluate": f"{selection.removeprefix('--suite ')} --encoder --backbone --name --keys "
        "--resize-positions --mean --std --device --jobs --no-predictions --track --quiet --verbose --json",
        "plan": f"{selection} --time --mde --device --json",
        "watch": f"{selection} --port --no-browser",
        "list": "--verbose --json",
        "show": "--sheet --dataset --suite --data --download --store --json",
        "leaderboard show": f"{selection} --format --json",
        "leaderboard agreement": f"{selection} --json --markdown",
        "leaderboard build": "--out --title --summary --author --reference "
        + selection.removeprefix("--suite "),
        "leaderboard validate": "--json",
        "leaderboard compare": "--json",
        "leaderboard diff": "--format --fail-on-change --json",
        "leaderboard merge": "--out --skip-conflicts --json",
        "leaderboard bundle": f"--out --without-models {selection.removeprefix('--suite ')}",
        "leaderboard verify": "--cells --retrain --data --device --out --json",
        "leaderboard publish": "--to --branch --repository --push --dry-run --json",
        "leaderboard workflow": "--out",
        "corrupt": "--out --sheet --corruptions --severities --frost --seed --device --data "
        "--download --json",
        "plugins list": "--store --json",
        "plugins check": "--example --backbone --dataset --data --store --json",
        "plugins new": "--kind --out",
        "store du": "--store --json",
        "store ls": "--store --json",
        "store rm": "--store --yes",
        "store gc": "--store",
        "store export": "--store --out",
        "doctor": "--store --data --smoke --json",
    }


@pytest.mark.parametrize(
    ("line", "unwanted"),
    [
        ("--help", "torch timm torchvision sklearn scipy pydantic rich numpy faiss"),
        ("run --help", "torch timm torchvision sklearn scipy pydantic rich numpy faiss"),
        ("evaluate --help", "torch timm torchvision sklearn scipy pydantic rich numpy faiss"),
        ("corrupt --help", "torch timm torchvision sklearn scipy pydantic rich numpy faiss"),
        ("list methods", "torch timm torchvision sklearn scipy pydantic rich numpy faiss"),
        ("list suites -v", "torch timm torchvision sklearn scipy pydantic rich numpy faiss"),
        ("plugins list", "torch timm torchvision sklearn scipy pydantic rich numpy faiss"),
        ("store du", "torch timm torchvision sklearn scipy rich numpy faiss"),
        ("run --suite tiny.yaml", "timm torchvision sklearn scipy.stats"),
        ("leaderboard show --suite tiny.yaml", "timm torchvision sklearn scipy.stats"),
    ],
)
def test_what_needs_no_library_imports_none(line: str, unwanted: str, store: Path) -> None:
    script = (
        "import sys\nfrom sslbench.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(*sorted(sys.modules), file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, *line.split()], capture_output=True, text=True, check=True
    )
    assert not {*unwanted.split()} & {*found.stderr.split()}


def test_completion_of_names_imports_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom sslbench.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    assert 'torch' not in sys.modules"
    )
    words = {"COMP_WORDS": "sslbench run --methods moco,sw", "COMP_CWORD": "3"}
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **words, "_SSLBENCH_COMPLETE": "bash_complete"},
    )
    assert found.stdout.split() == [
        "plain,moco,swav",
        "plain,moco,swav-256",
        "plain,moco,swav-imagenet",
    ]


def completed(monkeypatch: pytest.MonkeyPatch, words: str) -> list[str]:
    monkeypatch.setenv("_SSLBENCH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    output = CliRunner().invoke(program, []).output
    return [line.partition(",")[2] for line in output.splitlines() if line]


def test_completion_knows_every_kind(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    assert completed(monkeypatch, "sslbench run --datasets cifar100-") == ["cifar100-20"]
    assert completed(monkeypatch, "sslbench run --suite qu") == ["quick"]
    assert completed(monkeypatch, "sslbench plan --evaluators knn,clu") == ["knn,clustering"]
    assert completed(monkeypatch, "sslbench run --set superv") == ["supervised."]
    assert completed(monkeypatch, "sslbench run --set moco.te") == ["moco.temperature="]
    assert completed(monkeypatch, "sslbench run --set simsiam.war") == ["simsiam.warmup="]
    assert completed(monkeypatch, "sslbench run --set nobody.te") == []
    assert completed(monkeypatch, "sslbench list back") == ["backbones"]
    cell = cell_of(store, "simclr").id
    assert completed(monkeypatch, f"sslbench show {cell[:8]}") == [cell[:12]]


def test_completion_goes_on_with_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("photos/moths", "photos/owls", "phones", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "phone.txt").touch()
    monkeypatch.chdir(tmp_path)
    line = "sslbench run --datasets digits,folder:"
    assert completed(monkeypatch, f"{line}ph") == ["digits,folder:phones", "digits,folder:photos"]
    assert [each.partition(":")[2] for each in completed(monkeypatch, f"{line}photos/")] == [
        "photos/moths",
        "photos/owls",
    ]
    assert completed(monkeypatch, f"{line}nowhere/x") == []
    whole = f"sslbench run --datasets folder:{tmp_path}/photos/m"
    assert completed(monkeypatch, whole) == [f"folder:{tmp_path}/photos/moths"]


def test_completion_is_silent_about_broken_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "sslbench --plugin nowhere.py run --methods si"
    assert completed(monkeypatch, line) == []


def test_an_internal_error_says_how_to_see_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("sslbench.cli.listing.say_table", broken)
    result = call("list", "methods", code=1)
    assert result.stderr == (
        "internal error: KeyError: 'a bug'\n"
        "SSLBENCH_DEBUG=1 or `sslbench -v ...` shows the traceback\n"
    )
    assert "Traceback" in call("-v", "list", "methods", code=1).stderr
    monkeypatch.setenv("SSLBENCH_DEBUG", "1")
    assert "Traceback" in call("list", "methods", code=1).stderr


def test_an_interruption_outside_a_run_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sslbench.cli.listing.say_table", interrupted)
    result = call("list", "methods", code=130)
    assert "interrupted" in result.stderr


# ---- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("run --methods mocco", "error: unknown method 'mocco'; did you mean 'moco'"),
        ("run --backbones tets_resnet", "'test_resnet'"),
        ("run --datasets digts", "error: unknown dataset 'digts'; did you mean 'digits'"),
        ("run --evaluators knnn", "error: unknown evaluator 'knnn'; did you mean 'knn'"),
        ("run --suite quik", "error: unknown suite 'quik'; did you mean 'quick'"),
        (
            "run --suite gone.yaml",
            "error: there is no suite file gone.yaml; `sslbench list suites`",
        ),
        ("run --set moco.temprature=1", "did you mean 'temperature'"),
        ("run --set mocco.lr=1", "error: unknown method 'mocco'; did you mean 'moco'"),
        ("run --set scan.agre.lr=1", "scan has no stage 'agre'; did you mean 'agree'"),
        ("run --set moco.lr", "error: --set 'moco.lr' is not METHOD.PARAMETER=VALUE"),
        ("run --set moco.temperature=warm", "expects a number above 0, got 'warm'"),
        ("run --evaluators knn[kk=3]", "did you mean 'k'"),
        ("run --precision fp8", "precision 'fp8' is not one of fp32, tf32, bf16, fp16"),
        ("run --seeds 0,x", "'x' is not a whole number; seeds look like 0,1,2 or 0-4"),
        ("run --seeds -1", "'-1' is not a whole number"),
        ("run --device tpu", "--device"),
        ("run --watch knn:x", "error: --watch 'knn:x' is not EVALUATOR:EPOCHS, such as knn:5"),
        ("run --watch knnn:5", "did you mean 'knn'"),
        ("run --batch 9000", "a batch of 9000 is larger than the"),
        ("run --datasets digits[train=10", "digits[train=10"),
        ("plan --methods mocco", "error: unknown method 'mocco'; did you mean 'moco'"),
        ("leaderboard show --methods mocco", "did you mean 'moco'"),
        ("leaderboard show --backbones tets_resnet", "'test_resnet'"),
        ("leaderboard sow", "error: unknown command 'sow'; did you mean 'show'"),
        ("rum", "error: unknown command 'rum'; did you mean 'run'"),
        ("list method", "did you mean 'methods'"),
        ("show mocco", "error: unknown cell or name 'mocco'; did you mean 'moco'"),
        ("show 0123456789ab", "no cell '0123456789ab' in the store"),
        ("store du", "error: there is no store at sslbench-store; name another with --store DIR"),
        ("--plugin gone.py list methods", "gone.py"),
        ("--no-plugin gone list methods", "unknown plugin 'gone'"),
    ],
)
def test_bad_input_gets_a_sentence_and_leaves_nothing(line: str, sentence: str) -> None:
    args = line.split()
    if args[0] in ("run", "plan", "leaderboard") and "--suite" not in args and len(args) > 2:
        args += ["--suite", "tiny.yaml"]
    result = call(*args, code=2)
    assert sentence in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("name", ["seeds", "datasets", "backbones", "evaluators"])
def test_an_empty_selection_exits_with_4(name: str) -> None:
    result = call("run", "--suite", "tiny.yaml", f"--{name}", "", code=4)
    assert result.stderr == f"error: the selection is empty: --{name} names none\n"


def test_no_methods_are_baselines_alone_and_without_those_empty(tmp_path: Path) -> None:
    found = call("plan", "--suite", "tiny.yaml", "--methods", "", "--json")
    assert [cell["method"] for cell in json.loads(found.stdout)["cells"]] == ["untrained"]
    (tmp_path / "bare.yaml").write_text(
        TINY.replace("[untrained]", "[]").replace("floor: untrained\n", "")
    )
    result = call("run", "--suite", "bare.yaml", "--methods", "", code=4)
    assert "the selection is empty" in result.stderr


def test_commas_in_brackets_and_quotes_do_not_split() -> None:
    assert split("fashion-mnist[train=10000,test=100],digits") == (
        "fashion-mnist[train=10000,test=100]",
        "digits",
    )
    assert split('folder:/a[x="1,]",y=2],b') == ('folder:/a[x="1,]",y=2]', "b")
    assert split(" a, ,b,a ") == ("a", "b")
    assert split("") == ()


# ---- list, show, plugins, doctor -------------------------------------------------------------


def test_list_has_a_line_on_everything() -> None:
    lines = call("list", "evaluators").output.splitlines()
    assert lines[0].split() == ["evaluators", "from", "what"]
    assert [line.split()[:3] for line in lines[1:]] == [
        [name, "sslbench", sslbench.__version__] for name in registry().names("evaluators")
    ]
    for kind in ("methods", "backbones", "datasets", "evaluators"):
        for entry in json.loads(call("list", kind, "--json").stdout):
            assert entry["summary"], entry
    assert "sslbench.methods.moco:MoCoV1" in call("list", "methods", "-v").output


def test_show_describes_what_has_a_name() -> None:
    assert re.search(r"^  licence +CC BY 4.0$", call("show", "digits").output, re.MULTILINE)
    assert "Metrics: top1 (accuracy)" in call("show", "knn").output
    assert "baselines: [untrained, supervised]" in call("show", "quick").output


def test_a_broken_plugin_breaks_nothing_but_itself(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('no \x1b[31mred\x1b[0m [bold]luck')\n")
    plugin = ("--plugin", "broken.py")
    text = call("plugins", "list", *plugin).output
    assert re.search(r"^file:broken \w+ · API - · not checked$", text, re.MULTILINE)
    assert "[bold]luck" in text
    assert "\x1b" not in text
    assert "moco" in call(*plugin, "list", "methods").stdout
    assert "Commands:" in call(*plugin, "--help").output
    found = json.loads(call("plugins", "list", *plugin, "--json").stdout)
    assert [(p["name"], p["state"]) for p in found] == [("builtin", "ok"), ("broken", "error")]
    found = json.loads(call("plan", "--suite", "tiny.yaml", "--json", *plugin).stdout)
    assert len(found["cells"]) == 2


def test_a_plugin_brings_commands_wherever_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text(HELLO)
    assert call("--plugin", "greet.py", "hello", "you").output == "hello you\n"
    assert call("hello", "you", "--plugin=greet.py").output == "hello you\n"
    assert re.search(
        r"^  hello +Greets\.$", call("--help", "--plugin", "greet.py").output, re.MULTILINE
    )
    assert call("hello", "--", "--plugin", code=2).exit_code == 2


def test_doctor_finds_everything_and_a_store_that_cannot_be(tmp_path: Path) -> None:
    checks = {c["name"]: c for c in json.loads(call("doctor", "--json").stdout)}
    assert checks["torch"] == {"name": "torch", "state": "ok", "says": torch.__version__}
    assert checks["data digits"]["says"] == "1,437 train and 360 test images"
    assert checks["data tiny-imagenet"]["state"] == "note"
    assert checks["store"]["state"] == "ok"
    assert not (tmp_path / "sslbench-store").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "store.json").write_text('{"format": 99}')
    result = call("doctor", "--store", "old", code=5)
    assert re.search(r"^store +ERROR +the store old has format 99", result.stdout, re.MULTILINE)
    assert result.stderr == "error: broken: store; the table above says why\n"


# ---- plan ------------------------------------------------------------------------------------


def test_a_plan_of_an_empty_store_says_everything_is_missing(tmp_path: Path) -> None:
    lines = call("plan", "--suite", "tiny.yaml", "--seeds", "0,1").output.splitlines()
    assert lines[0].startswith("suite tiny+")
    assert lines[1].split() == ["cell", "method", "backbone", "dataset", "seed", "state", "why"]
    rows = [line.split() for line in lines[2:6]]
    assert [row[1:] for row in rows] == [
        ["untrained", "test_resnet", DATA, "0", "missing", "baseline"],
        ["simclr", "test_resnet", DATA, "0", "missing"],
        ["untrained", "test_resnet", DATA, "1", "missing", "baseline"],
        ["simclr", "test_resnet", DATA, "1", "missing"],
    ]
    assert all(re.fullmatch("[0-9a-f]{12}", row[0]) for row in rows)
    assert lines[6] == "4 cells: 4 missing; store sslbench-store"
    assert lines[-3].split(maxsplit=1) == ["simclr", "1 epoch, batch 32, sgd, lr 0.03"]
    assert lines[-1] == "to do them: sslbench run --suite tiny.yaml --seeds 0,1"
    assert not (tmp_path / "sslbench-store").exists()


def test_a_plan_says_what_is_done_and_what_went_stale(store: Path) -> None:
    found = json.loads(call("plan", "--suite", "tiny.yaml", "--json").stdout)
    assert found["counts"] == {"done": 2}
    args = ("plan", "--suite", "tiny.yaml", "--set", "simclr.temperature=0.5", "--json")
    cells = {cell["method"]: cell for cell in json.loads(call(*args).stdout)["cells"]}
    assert cells["simclr"]["state"] == "stale"
    assert cells["simclr"]["why"] == "method.hyperparameters.temperature: 0.1 -> 0.5"
    assert cells["untrained"]["state"] == "done"
    args = ("plan", "--suite", "tiny.yaml", "--evaluators", "knn,knn[k=3]", "--json")
    found = json.loads(call(*args).stdout)
    assert found["counts"] == {"evaluate": 2}
    assert found["cells"][0]["judges"] == {"knn-1": "done", "knn-1[k=3]": "missing"}


def test_a_plan_warns_when_code_changed_and_its_version_did_not(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sslbench.plugins.Entry.source_sha256", lambda entry: "0" * 64)
    text = call("plan", "--suite", "tiny.yaml").output
    assert "warning: the code of method simclr changed since 1 record of this plan was" in text
    assert "warning: the code of evaluator knn changed since 2 records of this plan were" in text


def test_plan_time_times_open_cells_stage_by_stage(tmp_path: Path) -> None:
    args = ("plan", "--suite", "tiny.yaml", "--methods", "scan", "--seeds", "0,1", "--time")
    more = ("--set", "scan.neighbours=5", "--epochs", "4", "--json")
    estimates = json.loads(call(*args, *more).stdout)["estimates"]
    assert [(e["method"], e["stage"]) for e in estimates] == [
        ("simclr", "main"),
        ("scan", "agree"),
        ("scan", "main"),
    ]
    for each in estimates:
        assert each["steps"] == 4 * (100 // 32)
        assert each["cells"] == 2
        assert 0 < each["step"] < 20
        assert each["seconds"] == pytest.approx(each["step"] * each["steps"] * 2)
    assert not (tmp_path / "sslbench-store").exists()


# ---- run -------------------------------------------------------------------------------------


def test_a_first_run_ends_with_the_table(first_run: tuple[Path, str]) -> None:
    store, said = first_run
    lines = said.splitlines()
    assert lines[0] == f"suite tiny: 2 cells, 2 to do; store {store}"
    assert any(re.match(r"simclr · .* · epoch 1/1 · loss \d", line) for line in lines)
    assert any(re.match(r"simclr · .* · knn-1 top1 0\.\d{4}$", line) for line in lines)
    assert any(re.match(r"simclr · .*: ok in .* \(2/2 done, 0 left\)", line) for line in lines)
    assert any(re.match(r"simclr +1 +\*?\d+\.\d \(n=1\)", line) for line in lines)
    assert "trained 2 cells, made 2 evaluations" in lines
    assert f"store: {store}" in lines
    suite = store.parent / "tiny.yaml"
    assert lines[-2:] == [
        f"to see the table again: sslbench leaderboard show --suite {suite} --store {store}",
        f"to publish it: sslbench leaderboard build {suite} --out DIR --store {store}",
    ]
    assert "\x1b" not in said


def test_a_second_run_trains_and_judges_nothing(store: Path) -> None:
    before = files_of(store)
    lines = call("run", "--suite", "tiny.yaml").stdout.splitlines()
    assert "trained 0 cells, made 0 evaluations" in lines
    assert lines[0].startswith(DATA)
    assert files_of(store) == before


def test_quiet_is_the_table_and_where_things_are(store: Path) -> None:
    loud, quiet = call("run", "--suite", "tiny.yaml"), call("run", "--suite", "tiny.yaml", "-q")
    assert quiet.stdout == loud.stdout  # nothing was to do


def test_json_is_all_there_is_on_standard_output(store: Path) -> None:
    table = json.loads(call("run", "--suite", "tiny.yaml", "--json").stdout)
    assert table["suite"] == "tiny"
    assert table == json.loads(call("leaderboard", "show", "--suite", "tiny.yaml", "--json").stdout)


def test_only_what_is_deleted_or_damaged_is_made_again(store: Path) -> None:
    trained, untrained = cell_of(store, "simclr").path, cell_of(store, "untrained").path
    [deleted] = (trained / "records").glob("knn-*.json")
    [forged] = (untrained / "records").glob("knn-*.json")
    features = untrained / "features-test.safetensors"
    values = [json.loads(path.read_text())["metrics"] for path in (deleted, forged)]
    deleted.unlink()
    forged.write_text(forged.read_text().replace('"value": 0.', '"value": 0.9', 1))
    features.write_bytes(features.read_bytes()[:-100])
    before = files_of(store)

    said = call("run", "--suite", "tiny.yaml", "--json")
    assert json.loads(said.stdout)["suite"] == "tiny"
    assert "trained 0 cells, made 2 evaluations\n" in said.stderr
    for path in (forged, features):
        assert f"notice: damaged, not used: {path.relative_to(store.parent)} (" in said.stderr
    fresh = [
        store / name
        for name, when in files_of(store).items()
        if before.get(name) != when and ".damaged-" not in name
    ]
    assert sorted(re.sub("-[0-9a-f]{24}", "", path.name) for path in fresh) == [
        "features-test.safetensors",
        "knn.json",
        "knn.json",
        "knn.npz",
        "knn.npz",
    ]
    made = {path.parent.parent: path for path in fresh if path.suffix == ".json"}
    again = [json.loads(made[cell].read_text())["metrics"] for cell in (trained, untrained)]
    assert again == values


def test_a_failed_cell_is_a_row_and_exits_with_3(store: Path, tmp_path: Path) -> None:
    (tmp_path / "boom.py").write_text(BOOM)
    line = ("run", "--suite", "tiny.yaml", "--methods", "boom,simclr", "--plugin", "boom.py")
    said = call(*line, code=3)
    cell = cell_of(store, "file:boom/boom").id
    assert re.search(r"^file:boom/boom +0/1 +failed", said.stdout, re.MULTILINE)
    assert f"  sslbench show {cell[:12]}\n" in said.stdout
    assert "to try them again: sslbench run --suite tiny.yaml --methods boom,simclr" in said.stdout
    assert "[bold]boom[/bold]" in said.stdout
    assert "\x1b" not in said.output
    shown = call("show", cell[:12]).output
    assert "raise RuntimeError" in shown
    assert "\\x1b[31mred" in shown
    assert "\x1b" not in shown
    again = call(*line, "--skip-failed", code=3)
    assert "trained 0 cells, made 0 evaluations, 1 failed" in again.stdout


def start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sslbench", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_ctrl_c_saves_and_the_command_it_names_goes_on(store: Path) -> None:
    line = ("run", "--suite", "tiny.yaml", "--epochs", "30")
    process = start(*line)
    assert process.stdout is not None
    said = ""
    for text in process.stdout:
        said += text
        if "epoch 2/30" in text:
            os.killpg(process.pid, signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 130, (said, rest, errors)
    assert "saving, press Ctrl-C again to kill" in rest
    assert re.search(r"^simclr +0/1 +interrupted", rest, re.MULTILINE)
    assert rest.splitlines()[-1] == f"to continue: sslbench {' '.join(line)}"
    [resume] = store.glob("cells/*/*/resume-main.safetensors")
    said = call(*line).stdout
    assert "epoch 1/30" not in said
    assert "epoch 30/30" in said
    assert "trained 1 cell, made 1 evaluation" in said
    assert not resume.exists()


def test_the_first_signal_stops_and_the_second_one_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    killed, said = threading.Event(), []
    monkeypatch.setattr(progress, "kill", killed.set)
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    with Stop().listening(said.append) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        assert not killed.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert killed.wait(5)
    assert said == ["saving, press Ctrl-C again to kill"]
    assert {s: signal.getsignal(s) for s in before} == before


# ---- progress --------------------------------------------------------------------------------

EVENTS = """
from sslbench.cli.progress import reporter
from sslbench.events import *
with reporter(3, quiet=False, err=False) as say:
    say(CellStarted("a", "moco [bold]x \\x1b[31m"))
    say(Progress("a", "agree", 1, 4, 5, 10, 2.5, 1234.0))
    say(EpochDone("a", "agree", 2, 4, 2.25, 1234.0, (("watch.knn-1.top1", 0.5),)))
    say(EvaluationDone("a", "knn-1", "ok", "top1", 0.75))
    say(CellDone("a", "moco [bold]x \\x1b[31m", "failed", 12.0, "it [red]broke"))
"""


def on_a_terminal(environment: dict[str, str]) -> str:
    """What a terminal of 100 columns is sent."""
    mine, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment}
    process = subprocess.Popen([sys.executable, "-c", EVENTS], stdout=theirs, env=env)
    os.close(theirs)
    found = b""
    while True:
        try:
            part = os.read(mine, 65536)
        except OSError:  # how Linux says that the other side is closed
            part = b""
        if not part:
            break
        found += part
    os.close(mine)
    assert process.wait(30) == 0
    return found.decode()


def test_a_pipe_gets_plain_lines() -> None:
    found = subprocess.run([sys.executable, "-c", EVENTS], capture_output=True, text=True)
    assert found.stdout == (
        "moco [bold]x \\x1b[31m · agree · epoch 2/4 · loss 2.25 · 1,234 images/s"
        " · watch.knn-1.top1 0.5000\n"
        "moco [bold]x \\x1b[31m · knn-1 top1 0.7500\n"
        "moco [bold]x \\x1b[31m: failed in 0:00:12: it [red]broke (1/3 done, 1 failed, 2 left)\n"
    )
    assert found.stderr == ""


def test_a_terminal_gets_a_bar_for_the_matrix_and_one_for_each_cell() -> None:
    found = on_a_terminal({})
    assert "\x1b[?25l" in found
    assert re.search(r"cells .*1/3 done, 1 failed, 2 left", found)
    assert "moco [bold]x \\x1b[31m: failed in 0:00:12: it [red]broke" in found
    assert "\x1b[31m:" not in found


def test_no_color_takes_colours_from_a_terminal() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*m")
    assert colour.search(on_a_terminal({}))
    assert not colour.search(on_a_terminal({"NO_COLOR": "1"}))
    assert "\x1b" not in on_a_terminal({"TERM": "dumb"})


def test_the_tally_counts_parts_of_cells() -> None:
    tally = progress.Tally(4)
    assert tally.left() == "?"
    for event in (
        CellStarted("a", "A"),
        EpochDone("a", "main", 1, 4, None, None),
        CellStarted("b", "B"),
        Progress("b", "main", 1, 4, 5, 10, None, None),
    ):
        tally.note(event)
    assert tally.ahead == pytest.approx(1 / 4 + 1.5 / 4)
    tally.note(EvaluationDone("a", "knn-1", "ok", "top1", 0.5))
    tally.note(CellDone("a", "A", "ok", 20.0))
    tally.note(CellDone("b", "B", "interrupted", 1.0))
    assert tally.sentence() == "1/4 done, 3 left"
    assert tally.left() == "0:01:00"


def test_the_time_left_falls_while_cells_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock)
    tally = progress.Tally(4)
    for cell in "ab":
        tally.note(CellStarted(cell, cell))
    clock += 30
    for cell in "ab":
        tally.note(EpochDone(cell, "main", 3, 4, None, None))
    assert tally.left() == "0:00:50"  # 10 of these two and 40 of the next two
    clock += 10
    tally.note(EpochDone("a", "main", 4, 4, None, None))  # trained; 60 seconds of judging follow
    clock += 60
    tally.note(CellDone("a", "a", "ok", 100.0))
    tally.note(CellStarted("c", "c"))
    assert tally.left() == "0:01:40"  # 0 of b, 100 of c, 100 of d, by two
    clock += 50
    assert tally.left() == "0:01:15"


# ---- leaderboard, store, load ----------------------------------------------------------------


def test_the_leaderboard_is_printed_in_every_format_and_built(store: Path) -> None:
    show = ("leaderboard", "show", "--suite", "tiny.yaml")
    said = call("leaderboard", "build", "tiny.yaml", "--out", "board/tiny").stdout.splitlines()
    assert said[-2] == "4 records, 0 of them left out"
    written = [Path(name).name for name in said[-1].removeprefix("written: ").split(", ")]
    assert {"README.md", "leaderboard.csv", "leaderboard.json", "leaderboard.lock.json"} <= {
        *written
    }
    markdown = Path("board/tiny/README.md").read_text()
    assert markdown.startswith("# tiny\n\nA hundred digits\n\n### digits")
    assert call(*show, "--format", "markdown").stdout in markdown
    rows = list(csv.DictReader(io.StringIO(Path("board/tiny/leaderboard.csv").read_text())))
    assert {row["method"] for row in rows} == {"simclr", "untrained"}
    assert call(*show, "--format", "csv").stdout == Path("board/tiny/leaderboard.csv").read_text()


def test_a_leaderboard_is_built_again_without_store_data_or_plugin(store: Path) -> None:
    call("leaderboard", "build", "tiny.yaml", "--out", "board")
    before = {p: p.read_bytes() for p in Path("board").rglob("*") if p.is_file()}
    store.rename(store.with_name("elsewhere"))
    assert call("leaderboard", "build", "board").exit_code == 0
    store.with_name("elsewhere").rename(store)
    refused = call("leaderboard", "build", "board", "--store", "nowhere", code=2).stderr
    assert "board is a leaderboard, whose records say what is in it; --store is for a" in refused
    assert {p: p.read_bytes() for p in Path("board").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("tiny.yaml",), "say where to write the leaderboard of tiny.yaml: --out DIR"),
        (
            ("tiny.yaml", "--out", "."),
            ". is there and is not a leaderboard; name another --out DIR",
        ),
        (("tiny.yaml", "--out", "x", "--store", "empty"), "the store empty has no records of the"),
        ((".",), ". is not a leaderboard: it has no suite.yaml beside records/"),
        ((".", "--out", "x"), "unknown suite '.'; there are "),
        (("fashoin", "--out", "x"), "fashion"),
    ],
)
def test_a_leaderboard_that_cannot_be_built_is_a_sentence(
    store: Path, args: tuple[str, ...], sentence: str
) -> None:
    result = call("leaderboard", "build", *args, code=2)
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("x").exists()


def test_the_leaderboard_of_an_empty_store_says_what_is_missing(tmp_path: Path) -> None:
    said = call("leaderboard", "show", "--suite", "tiny.yaml").stdout
    assert re.search(r"^simclr +0/1 +missing", said, re.MULTILINE)
    assert "2 of 2 cells are still to do: sslbench run" in said
    assert not (tmp_path / "sslbench-store").exists()


def test_show_prints_a_cell_whole(store: Path) -> None:
    cell = cell_of(store, "simclr")
    text = call("show", cell.id[:12]).output
    assert text.splitlines()[:2] == [cell.id, f"simclr · test_resnet · {DATA} · seed 0"]
    for section in ("identity", "hyperparameters", "recipe", "costs", "environment", "records"):
        assert re.search(f"^{section}$", text, re.MULTILINE)
    assert re.search(r"^  temperature +0.1$", text, re.MULTILINE)
    assert re.search(r"^  optimizer +sgd$", text, re.MULTILINE)
    assert re.search(r"^  stage main +\d", text, re.MULTILINE)
    assert re.search(r"^knn-1 +ok +1 .* top1 0\.\d{4} ± ", text, re.MULTILINE)
    assert "main epoch 1/1 loss" in text.splitlines()[-1]
    plain = json.loads(call("show", cell.id[:12], "--json").stdout)
    assert plain["identity"] == cell.identity().plain
    assert [record["kind"] for record in plain["records"]] == ["train", "evaluation"]


def test_du_weighs_cells(store: Path) -> None:
    lines = call("store", "du").output.splitlines()
    assert lines[0].split() == ["size", "cell", "method", "backbone", "dataset", "seed"]
    rows = [line.split() for line in lines[1:3]]
    assert {row[3] for row in rows} == {"simclr", "untrained"}
    plain = json.loads(call("store", "du", "--json").stdout)
    sizes = {cell["id"]: cell["bytes"] for cell in plain["cells"]}
    assert sizes == {c.id: c.size() for c in Store(store).cells()}
    assert plain["bytes"] == sum(sizes.values())


def test_rm_asks_and_removes_one_cell(store: Path) -> None:
    cell = cell_of(store, "simclr")
    assert "nothing removed" in call("store", "rm", cell.id[:8], input="n\n").output
    assert "--yes" in call("store", "rm", cell.id[:8], code=2).stderr
    with cell.lock():
        busy = call("store", "rm", cell.id[:8], "--yes", code=2)
        assert f"cell {cell.id[:12]} is being worked on" in busy.stderr
    assert "removed 1 cell" in call("store", "rm", cell.id[:8], input="y\n").output
    assert [c.identity().method for c in Store(store).cells()] == ["untrained"]


def test_gc_removes_what_can_be_done_without_and_says_how_much(store: Path) -> None:
    cell = cell_of(store, "simclr")
    for name in ("resume-main.safetensors", "model.safetensors.damaged-abc", ".x.1.tmp"):
        (cell.path / name).write_bytes(b"x" * 100)
    (cell.path / "records" / ".train.json.1.tmp").write_bytes(b"x" * 100)
    (cell.path / "records" / "knn-gone.npz").write_bytes(b"x" * 100)
    kept = list((cell.path / "records").glob("knn-*.json"))
    features = [f for c in Store(store).cells() for f in c.path.glob("features-*")]
    size = sum(path.stat().st_size for path in features) + 500
    text = call("store", "gc").output
    assert f"({size:,} bytes) in {len(features) + 5} files" in text
    assert [path.with_suffix(".json") for path in (cell.path / "records").glob("*.npz")] == kept
    assert call("store", "gc").output == "freed 0 B (0 bytes) in 0 files\n"
    assert "trained 0 cells, made 0 evaluations" in call("run", "--suite", "tiny.yaml").output


def test_gc_leaves_unfinished_and_busy_cells_alone(store: Path) -> None:
    unfinished, busy = cell_of(store, "simclr"), cell_of(store, "untrained")
    for record in (unfinished.path / "records").glob("train-*"):
        record.unlink()
    (unfinished.path / "resume-main.safetensors").write_bytes(b"x" * 100)
    with busy.lock():
        text = call("store", "gc").output
    assert text == ("freed 0 B (0 bytes) in 0 files\nleft alone: 1 cell that a run works on\n")
    assert (unfinished.path / "resume-main.safetensors").exists()


def test_an_exported_encoder_is_the_one_that_load_gives(store: Path, tmp_path: Path) -> None:

    cell = cell_of(store, "simclr").id[:12]
    text = call("store", "export", cell, "--out", "out/simclr.safetensors").output
    assert text.splitlines()[-1] == f'encoder:  sslbench.load("{cell}")'
    weights = load_file(tmp_path / "out" / "simclr.safetensors")
    encoder = sslbench.load(cell)
    assert not encoder.training
    assert {k: v.shape for k, v in encoder.state_dict().items()} == {
        k: v.shape for k, v in weights.items()
    }
    assert all(torch.equal(v, weights[k]) for k, v in encoder.state_dict().items())
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert encoder(images).shape == (2, 96)
        assert not torch.equal(
            encoder(images), sslbench.load(cell_of(store, "untrained").id)(images)
        )


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [flip, Path.unlink], ids=["damaged", "lost"])
def test_an_encoder_is_made_again_from_its_model(store: Path, spoil: Any) -> None:
    path = cell_of(store, "simclr").path / "encoder.safetensors"
    whole = load(path.read_bytes())  # not a map of the file, which is about to change
    spoil(path)
    result = call("store", "export", path.parent.name, "--out", "x.safetensors")
    assert ("notice: damaged, not used" in result.stderr) == (spoil is flip)
    for made in (load_file(path), load_file("x.safetensors")):
        assert all(torch.equal(made[name], tensor) for name, tensor in whole.items())


def test_a_cell_is_loaded_from_its_encoder_where_the_model_is_lost(store: Path) -> None:
    cell = cell_of(store, "simclr")
    whole = sslbench.load(cell.id).state_dict()
    (cell.path / "model.safetensors").unlink()
    again = sslbench.load(cell.id).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_whoever_wants_lost_weights_is_told_the_same(store: Path) -> None:
    with pytest.raises(UserError, match="no cell 'ffff'"):
        sslbench.load("ffff")
    cell = cell_of(store, "simclr")
    (cell.path / "model.safetensors").unlink()
    (cell.path / "encoder.safetensors").unlink()
    lost = f"the weights of cell {cell.id[:12]} are lost; `sslbench store rm {cell.id[:12]}` and"
    with pytest.raises(UserError, match=re.escape(lost)):
        sslbench.load(cell.id)
    assert lost in call("store", "export", cell.id, "--out", "x.safetensors", code=2).stderr
    assert not Path("x.safetensors").exists()
    judged = ("--evaluators", "clustering", "--methods", "simclr")
    assert lost in call("evaluate", "tiny.yaml", *judged, code=3).output


@pytest.mark.parametrize("by_record", [False, True], ids=["by the file", "by the record"])
def test_the_model_of_another_seed_is_refused(store: Path, by_record: bool) -> None:
    call("run", "--suite", "tiny.yaml", "--seeds", "0,1", "--methods", "simclr")
    cells = [c for c in Store(store).cells() if (r := c.trained()) and r.method == "simclr"]
    mine, other = sorted(cells, key=lambda c: c.trained().seed)[:2]
    for name in ("model", "encoder"):
        shutil.copy(other.path / f"{name}.safetensors", mine.path)
        if by_record:  # as a file that does not name its cell
            content = (mine.path / f"{name}.safetensors").read_bytes()
            assert content.count(other.id.encode()) == 1
            fitting = content.replace(other.id.encode(), mine.id.encode())
            (mine.path / f"{name}.safetensors").write_bytes(fitting)
    with pytest.raises(UserError, match=f"the weights of cell {mine.id[:12]} are lost") as caught:
        sslbench.load(mine.id)
    why = "it holds other weights than its" if by_record else f"it belongs to cell {other.id[:12]}"
    assert why in str(caught.value)
    assert sslbench.load(other.id)


def test_python_m_is_the_same_program() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "sslbench", "--help"], capture_output=True, text=True, check=True
    )
    assert found.stdout == call("--help").output
