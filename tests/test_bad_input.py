"""What cannot be gets one sentence and exit code 2, at once: names before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sslbench.cells.settings import resolve_recipe
from sslbench.cli.app import program
from sslbench.cli.options import seeds
from sslbench.errors import UserError
from sslbench.plugins import registry

SUITE = """summary: a test
datasets: [digits]
backbones: [test_resnet]
methods: [moco]
baselines: [untrained]
evaluators: [knn]
seeds: [0]
"""
TUNING = "tuning: {trials: 2, epochs: 8, judge: knn, seed: 100, space: {moco.lr: [0.1]}}\n"
BOMB = "\n".join(
    ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)]
)
LONG = "9" * 5000
FILES = {
    "equal.yaml": SUITE + "seeds: [1]\n",
    "bomb.yaml": BOMB,
    "large.yaml": SUITE + "# " + "x" * 10_000_000,
    "seed.yaml": SUITE.replace("[0]", f"[{LONG}]"),
    "judge.yaml": SUITE + TUNING.replace("knn", "3"),
    "judges.yaml": SUITE + TUNING.replace("knn", "knnn"),
    "space.yaml": SUITE + TUNING.replace("moco.lr", "3"),
    "trials.yaml": SUITE + TUNING.replace("trials: 2", "trials: true"),
    "lr.yaml": SUITE + "set: {lr: 0.1}\n",
    "method.yaml": SUITE.replace("moco", "moko"),
    "dataset.yaml": SUITE.replace("digits", "digts"),
    "once.yaml": SUITE + "once: [lineer]\n",
}
NAMES = {  # known to be wrong without torch
    "run --suite equal.yaml": (
        "the suite equal.yaml, line 8: 'seeds' stands here and in line 7; keep one of the two"
    ),
    "plan --suite bomb.yaml": (
        "the suite bomb.yaml, line 5: more than 10,000 values, with those that aliases repeat; "
        "shorten it"
    ),
    "run --suite large.yaml": (
        "the suite large.yaml is longer than the 1,000,000 bytes that are read; shorten it"
    ),
    "run --suite seed.yaml": (
        "the suite seed.yaml, line 7: a number of 5,000 characters is longer than the 400 that "
        "are read; write it in quotes if it is text"
    ),
    f"run --seeds {LONG}": (
        "--seeds: 99999999999999999999... has 5000 digits; the largest seed is 9223372036854775807"
    ),
    "plan --suite judge.yaml": (
        "tuning.judge of the suite judge.yaml must be text, not 3; write '3' in quotes"
    ),
    "plan --suite judges.yaml": "unknown evaluator 'knnn'; did you mean 'knn'?",
    "plan --suite space.yaml": (
        "the suite space.yaml, line 8: a key must be text, not a number; write '3' in quotes"
    ),
    "plan --suite trials.yaml": (
        "tuning.trials of the suite trials.yaml must be a whole number, not true"
    ),
    "plan --suite lr.yaml": "set of the suite lr.yaml: lr=0.1 names no method; write moco.lr=0.1",
    "run --suite gone.YAML": (
        "there is no suite file gone.YAML; `sslbench list suites` has names of suites"
    ),
    "run --suite method.yaml": "unknown method 'moko'; did you mean 'moco'?",
    "run --suite dataset.yaml": "unknown dataset 'digts'; did you mean 'digits'?",
    "run --suite once.yaml": "unknown evaluator 'lineer'; did you mean 'linear'?",
    "run --methods moko": "unknown method 'moko'; did you mean 'moco'?",
    "plan --methods moko": "unknown method 'moko'; did you mean 'moco'?",
    "evaluate --methods moko": "unknown method 'moko'; did you mean 'moco'?",
    "leaderboard show --methods moko": "unknown method 'moko'; did you mean 'moco'?",
    "leaderboard agreement --methods moko": "unknown method 'moko'; did you mean 'moco'?",
    "leaderboard build quick --out b --methods moko": (
        "unknown method 'moko'; did you mean 'moco'?"
    ),
    "run --methods extern:mine": "unknown method 'extern'; did you mean 'external'?",
    "run --datasets digts": "unknown dataset 'digts'; did you mean 'digits'?",
    "run --transfer-to digts": "unknown dataset 'digts'; did you mean 'digits'?",
    "run --evaluators knnn": "unknown evaluator 'knnn'; did you mean 'knn'?",
    "run --watch knnn:5": "unknown evaluator 'knnn'; did you mean 'knn'?",
    "run --watch knn:x": "--watch 'knn:x' is not EVALUATOR:EPOCHS, such as knn:5",
    "run --suite quik": "unknown suite 'quik'; did you mean 'quick'?",
    "run --set moko.lr=1": "unknown method 'moko'; did you mean 'moco'?",
    "run --set lr=0.1": "--set lr=0.1 names no method; write moco.lr=0.1",
    "run --methods swav --set lr=0.1": "--set lr=0.1 names no method; write swav.lr=0.1",
    "run --set epochs=3": (
        "--set epochs=3 names no method; write moco.epochs=3, or --epochs 3 for all methods"
    ),
    "run --set moco=3": "--set moco=3 names no parameter of moco; write moco.PARAMETER=3",
    "run --set moco.lr": "--set 'moco.lr' is not METHOD.PARAMETER=VALUE",
    "run --set moco.lr=1 --set moco.lr=2": "--set moco.lr is given twice; keep one of the two",
    "run --set moco.blur=[0,1": (
        "--set moco.blur=[0,1 cannot be read: expected ',' or ']', but got the end; "
        "close the bracket or the quote"
    ),
    "run --device gpu": "--device 'gpu' is not a device; did you mean cuda?",
    "plan --device GPU:1": "--device 'GPU:1' is not a device; did you mean cuda?",
    "run --device tpu": "--device 'tpu' is not a device; write auto, cpu, cuda, cuda:N or mps",
    "corrupt digits --device gpu": "--device 'gpu' is not a device; did you mean cuda?",
    "run --datasets /path/photos": (
        "'/path/photos' is a path, not the name of a dataset; did you mean folder:/path/photos?"
    ),
    "run --datasets ~/photos": (
        "'~/photos' is a path, not the name of a dataset; did you mean folder:~/photos?"
    ),
    "run --datasets C:\\photos": (
        "'C:\\\\photos' is a path, not the name of a dataset; did you mean folder:C:\\photos?"
    ),
    "run --datasets photos": (
        "'photos' is a path, not the name of a dataset; did you mean folder:photos?"
    ),
    "run --datasets folder:photos[size=32": (
        "'folder:photos[size=32' cannot be read: its bracket is not closed; a bracket looks like "
        "[size=64,train=1000]; where the bracket is part of the path, write folder:photos[size=32[]"
    ),
    "run --datasets digits[size=32": (
        "the bracket of 'digits[size=32' is not closed; a bracket looks like [size=64,train=1000]"
    ),
    "run moco": (
        "`sslbench run` takes no argument 'moco': is it a suite or a method? "
        "write --suite moco or --methods moco"
    ),
    "plan quick": (
        "`sslbench plan` takes no argument 'quick': is it a suite or a method? "
        "write --suite quick or --methods quick"
    ),
    "evaluate quick moco": (
        "`sslbench evaluate` takes no argument 'moco' beside the suite; "
        "methods are named by --methods moco"
    ),
    "list methods moco": (
        "`sslbench list` takes no argument 'moco'; `sslbench list --help` says what it takes"
    ),
    "run --dry-run": (
        "`sslbench run` has no --dry-run; `sslbench plan` with the same options says what would "
        "be done, and does nothing"
    ),
    "train": "unknown command 'train'; `sslbench run` trains and judges",
    "eval": "unknown command 'eval'; `sslbench evaluate` judges what is trained",
    "run --track wandb": (
        "--track wandb needs the plugin sslbench-trackers and wandb, which are not installed: "
        "pip install 'sslbench-trackers[wandb]'"
    ),
    "run --track mine": "unknown tracker 'mine'; there is none",
    "run --seeds 4-0": "--seeds: 4-0 runs backwards; write 0-4",
    "run --seeds 0-99999": "--seeds: 0-99999 are 100,000 seeds; a range holds 1,000 at most",
    "run --seeds -1": "--seeds: '-1' is not a whole number; seeds look like 0,1,2 or 0-4",
    "run --seeds 1-": "--seeds: '1-' is not a whole number; seeds look like 0,1,2 or 0-4",
}
VALUES = {  # known to be wrong once the method is imported
    "plan --set moco.dim=1e9": (
        "moco: dim=1000000000 asks for a tensor of 1,000,000,000 x 96 numbers, 384 GB, which "
        "takes 4 times as much to train; this machine has "
    ),
    "plan --set swav.prototypes=1e9": "swav: prototypes=1000000000 asks for a tensor of ",
    "plan --datasets digits[size=30000]": (
        "digits: size is a side in pixels such as 32, 1,024 at most, not 30000"
    ),
    "plan --datasets digits[size=true]": (
        "digits: size is a side in pixels such as 32, 1,024 at most, not True"
    ),
    "plan --datasets folder:photos[size=30000]": (
        "folder:photos: size is a side in pixels such as 32, 1,024 at most, not 30000"
    ),
    "plan --set moco.lr=-1": "moco.lr must be 0 or more, not -1.0",
    "plan --set moco.momentum=1.5": "moco.momentum must be from 0 to 1, not 1.5",
    "plan --set moco.weight_decay=-1e-4": "moco.weight_decay must be 0 or more, not -0.0001",
    "plan --set moco.clip=0": "moco.clip must be above 0, or null, not 0.0",
    "plan --set moco.betas=[0.9,1]": "moco.betas must be from 0 to below 1, each, not [0.9,1.0]",
    "plan --set scan.agree.lr=-1 --methods scan": "scan.agree.lr must be 0 or more, not -1.0",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with FILES, and one with pictures' name."""
    home = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        (home / name).write_text(content)
    (home / "photos").mkdir()
    return home


@pytest.fixture(autouse=True)
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def call(line: str) -> Result:
    return CliRunner().invoke(program, ["--no-plugins", *line.split()])


@pytest.mark.parametrize("line", NAMES, ids=lambda line: line[:60])
def test_a_slip_is_one_sentence(line: str) -> None:
    result = call(line)
    assert result.output == f"error: {NAMES[line]}\n"
    assert result.exit_code == 2
    assert not Path("sslbench-store").exists()


@pytest.mark.parametrize("line", VALUES)
def test_a_value_that_cannot_be_is_one_sentence_of_the_plan(line: str) -> None:
    result = call(line)
    assert result.output.startswith(f"error: {VALUES[line]}")
    assert result.output.count("\n") == 1
    assert result.exit_code == 2


def test_a_slip_is_told_without_torch() -> None:
    """All of them in one process, which must not have imported it at the end."""
    script = (
        "import json, sys\n"
        "from click.testing import CliRunner\n"
        "from sslbench.cli.app import program\n"
        "for line in json.load(sys.stdin):\n"
        "    result = CliRunner().invoke(program, ['--no-plugins', *line.split()])\n"
        "    assert result.exit_code == 2, line\n"
        "    assert 'torch' not in sys.modules, line\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(list(NAMES)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("0-2,7", (0, 1, 2, 7)),
        ("3-3", (3,)),
        ("1,0-2", (1, 0, 2)),
        ("007", (7,)),
    ],
)
def test_seeds_may_be_a_range(text: str, found: tuple[int, ...]) -> None:
    assert seeds(None, None, text) == found  # type: ignore[arg-type]


def test_more_seeds_than_a_range_may_hold_are_several_ranges() -> None:
    found = seeds(None, None, "0-999,1000-1999")  # type: ignore[arg-type]
    assert found == tuple(range(2000))


def test_no_recipe_that_is_built_in_is_out_of_range() -> None:
    from sslbench.cells.parameters import anatomy

    for name, entry in registry(installed=False).entries("methods").items():
        parts = anatomy(entry)
        stages = getattr(parts.target, "stages", {}).values() if parts.recipe else ()
        for recipe in filter(None, (parts.recipe, *(stage.recipe for stage in stages))):
            resolve_recipe(recipe, {}, what=name)


def test_the_plan_of_a_file_with_a_large_ending_is_made() -> None:
    Path("suite.YAML").write_text(SUITE)
    result = call("plan --suite suite.YAML --set moco.queue=256 --json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["suite"].startswith("suite+")


def test_a_path_with_half_a_bracket_can_be_named() -> None:
    from sslbench.names import Name, parse

    name = Name("folder", "photos[size=32")
    assert parse(str(name)) == name
    with pytest.raises(UserError, match="its bracket is not closed"):
        parse("folder:photos[size=32")
    assert parse("folder:photos[32").argument == "photos[32"
