"""Trackers: what they are told, and that none of them can harm the run beside which it stands."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import sslbench
from sslbench.api import CellInfo, RunInfo, Tracker
from sslbench.cells.cell import Cell
from sslbench.cells.settings import Context, Settings, resolve
from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.events import CellDone, CellStarted, EpochDone, Event, Progress
from sslbench.plugins import registry
from sslbench.run import tracking
from sslbench.run.tracking import NamedTracker, make_trackers, tracked

pytestmark = pytest.mark.usefixtures("forks")
PLUGIN = '''
import dataclasses, json
from functools import partial
from pathlib import Path
from sslbench import hookimpl
from sslbench.api import Positive, Tracker

SSLBENCH_API = (1, 1)

class Diary(Tracker):
    """Writes down all it is told."""

    def __init__(self, *, file: str = "diary.jsonl", scale: Positive = 1.0):
        self.file = Path(file)

    def write(self, kind, **more):
        with self.file.open("a") as file:
            print(json.dumps({"kind": kind, **more}, default=str), file=file)

    def start(self, run):
        self.write("start", **dataclasses.asdict(run))

    def __call__(self, event, cell):
        told = {"event": dataclasses.asdict(event), "cell": dataclasses.asdict(cell)}
        self.write(type(event).__name__, **told)

    def close(self):
        self.write("close")

class Quits(Diary):
    """Leaves when the first epoch is done."""

    def __call__(self, event, cell):
        super().__call__(event, cell)
        if type(event).__name__ == "EpochDone":
            raise SystemExit("enough \\x1b[31mof this")

class Unmade(Tracker):
    """Lacks what it needs."""

    def __init__(self):
        print("to be read by nobody")
        raise RuntimeError("no ink")

    def __call__(self, event, cell):
        pass

@hookimpl
def trackers():
    return {
        "diary": Diary,
        "quits": partial(Quits, file="quits.jsonl"),
        "unmade": Unmade,
        "no-tracker": Path,
    }
'''
SUITE = """
summary: A hundred digits
datasets: ["digits[test=50,train=100]"]
backbones: [test_resnet]
methods: [simclr]
baselines: []
evaluators: [knn]
seeds: [0]
epochs: 2
batch: 32
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "tiny.yaml").write_text(SUITE)
    return tmp_path


def call(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(program, ["--plugin", "mine.py", "--no-plugins", *args])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def test_a_run_is_told_whole_and_a_tracker_that_quits_is_named_once(home: Path) -> None:
    asked = ("--suite", "tiny.yaml", "--watch", "knn:1")
    result = call("run", *asked, "--track", "quits,diary[file='told, all.jsonl']")
    assert "simclr" in result.stdout
    said = [line for line in result.stderr.splitlines() if "quits" in line]
    why = r"it calls sys.exit(enough \x1b[31mof this)"  # nothing that a terminal takes as its own
    [sentence] = said
    assert sentence.startswith(
        f"tracker quits failed and is left out from here on: {why} (mine.py:"
    )

    told = lines("told, all.jsonl")
    kinds = [each["kind"] for each in told if each["kind"] != "Progress"]
    middle = ["CellStarted", "EpochDone", "EpochDone", "EvaluationDone", "CellDone"]
    assert kinds == ["start", *middle, "close"]
    assert told[0]["suite"] == "tiny"
    assert told[0]["store"] == "sslbench-store"
    assert told[0]["version"] == sslbench.__version__
    [cell] = {each["cell"]["id"] for each in told[1:-1]}
    assert (home / "sslbench-store" / "cells" / cell[:2] / cell).is_dir()
    known = told[1]["cell"]
    assert known["identity"]["method"]["name"] == known["method"] == "simclr"
    assert known["dataset"] == "digits[test=50,train=100]"
    assert known["recipe"]["epochs"] == 2
    assert known["hyperparameters"]["temperature"] > 0
    epochs = [each["event"] for each in told if each["kind"] == "EpochDone"]
    assert [each["epoch"] for each in epochs] == [1, 2]
    assert all(each["loss"] > 0 and each["watched"][0][0].startswith("watch.") for each in epochs)
    # it was told up to its end, closed, and told no more
    quits = [each["kind"] for each in lines("quits.jsonl") if each["kind"] != "Progress"]
    assert quits == ["start", "CellStarted", "EpochDone", "close"]


@pytest.mark.parametrize(
    ("track", "sentence"),
    [
        ("diray", "unknown tracker 'diray'; did you mean 'diary'?"),
        ("diary[fiel=x]", "diary has no parameter 'fiel'; did you mean 'file'?"),
        ("diary[scale=0]", "diary[scale] expects a number above 0"),
        ("diary:x", "--track diary:x: a tracker takes its parameters as diary[key=value]"),
        ("unmade", "tracker 'unmade' of file:mine"),
        ("unmade", "cannot be made: RuntimeError: no ink"),
        ("no-tracker", "not an api.Tracker"),
    ],
)
def test_what_cannot_be_had_ends_the_command_before_anything_runs(
    home: Path, track: str, sentence: str
) -> None:
    result = call("run", "--suite", "tiny.yaml", "--json", "--track", track, code=2)
    assert sentence in result.stderr
    assert result.stdout == ""
    assert not (home / "sslbench-store").exists()


def test_evaluate_takes_trackers_too(home: Path) -> None:
    result = call("evaluate", "tiny.yaml", "--track", "diray", code=2)
    assert "unknown tracker 'diray'" in result.stderr


def test_trackers_are_listed_and_completed(home: Path) -> None:
    assert "Writes down all it is told." in call("list", "trackers").stdout
    command = "sslbench --plugin mine.py --no-plugins run --track diary,q"
    env = {"_SSLBENCH_COMPLETE": "bash_complete", "COMP_WORDS": command, "COMP_CWORD": "6"}
    result = CliRunner().invoke(program, [], prog_name="sslbench", env=env)
    assert "diary,quits" in result.stdout


# ---- beside a made-up run --------------------------------------------------------------------


@dataclass
class Kept(Tracker):
    """Remembers; waits at its first event until `free` is set."""

    free: threading.Event = field(default_factory=threading.Event)
    told: list[Event] = field(default_factory=list)
    cells: list[CellInfo] = field(default_factory=list)
    closed: int = 0
    fails: str = ""

    def start(self, run: RunInfo) -> None:
        if self.fails == "start":
            raise OSError("no room")

    def __call__(self, event: Event, cell: CellInfo) -> None:
        assert self.free.wait(10)
        self.told.append(event)
        self.cells.append(cell)

    def close(self) -> None:
        self.closed += 1
        if self.fails == "close":
            raise OSError("no room")


@pytest.fixture(scope="module")
def cell() -> Cell:
    return resolve(
        "scan", registry(installed=False), Context("test_resnet", "digits", "f", 32, 0), Settings()
    )


def plan_of(*cells: Cell) -> Any:
    store = SimpleNamespace(root=Path("store"))
    return SimpleNamespace(
        suite_id="tiny", store=store, cells=[SimpleNamespace(cell=each) for each in cells]
    )


def epoch(cell: Cell, number: int) -> EpochDone:
    return EpochDone(cell.id, "main", number, 10, 0.5, 100.0)


def test_a_tracker_that_stands_still_holds_nobody_up_and_loses_no_epoch(cell: Cell) -> None:
    slow, shown, said = Kept(), [], []
    with tracked([NamedTracker("slow", slow)], plan_of(cell), shown.append, said.append) as tell:
        for number in range(3):
            tell(epoch(cell, number))
            for step in range(1000):
                tell(Progress(cell.id, "main", number, 3, step, 1000, 0.5, None))
        assert len(shown) == 3003  # all of it was shown while the tracker had not moved
        assert not slow.told
        slow.free.set()
    epochs = [event.epoch for event in slow.told if isinstance(event, EpochDone)]
    assert epochs == [0, 1, 2]
    assert len(slow.told) <= tracking.BACKLOG + 3
    assert (slow.closed, said) == (1, [])


def test_one_that_never_ends_is_left_behind_with_a_sentence(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "GRACE", 0.05)
    slow, good, said = Kept(), Kept(), []
    good.free.set()
    made = [NamedTracker("slow", slow), NamedTracker("good", good)]
    with tracked(made, plan_of(cell), lambda event: None, said.append) as tell:
        tell(epoch(cell, 1))
    slow.free.set()
    assert [line.partition(" was not done")[0] for line in said] == ["tracker slow"]
    assert (good.told, good.closed) == ([epoch(cell, 1)], 1)


@pytest.mark.parametrize("broken", [KeyboardInterrupt, UserError])
def test_trackers_are_closed_when_the_run_breaks_off(
    cell: Cell, broken: type[BaseException]
) -> None:
    kept = Kept()
    kept.free.set()

    def run() -> None:
        with tracked(
            [NamedTracker("kept", kept)], plan_of(cell), lambda event: None, print
        ) as tell:
            tell(epoch(cell, 1))
            raise broken

    with pytest.raises(broken):
        run()
    assert (kept.told, kept.closed) == ([epoch(cell, 1)], 1)


@pytest.mark.parametrize(("fails", "told"), [("start", 0), ("close", 1)])
def test_a_fault_at_either_end_is_said_once_and_closing_happens_once(
    cell: Cell, fails: str, told: int
) -> None:
    kept, said = Kept(fails=fails), []
    kept.free.set()
    with tracked(
        [NamedTracker("kept", kept)], plan_of(cell), lambda event: None, said.append
    ) as tell:
        tell(epoch(cell, 1))
    assert (len(kept.told), kept.closed) == (told, 1)
    [sentence] = said
    assert sentence.startswith("tracker kept failed and is left out from here on: OSError: no room")


def test_pretexts_and_cells_that_a_tuning_adds_are_known_when_they_come(cell: Cell) -> None:
    kept, plan = Kept(), plan_of()
    kept.free.set()
    [pretext] = cell.pretexts.values()
    with tracked([NamedTracker("kept", kept)], plan, lambda event: None, print) as tell:
        tell(CellStarted(cell.id, cell.title))  # of nobody's plan: not told
        plan.cells = plan_of(cell).cells
        tell(epoch(pretext, 1))
        tell(CellDone(cell.id, cell.title, "ok", 1.0))
    assert [each.method for each in kept.cells] == [pretext.method, "scan"]
    assert kept.cells[1].hyperparameters["pretext"] == pretext.method
    assert kept.cells[1].recipe["epochs"] == cell.recipe.epochs


def test_where_nothing_is_left_to_do_no_tracker_is_started(cell: Cell) -> None:
    kept, said = Kept(fails="start"), []
    with tracked([NamedTracker("kept", kept)], plan_of(cell), lambda event: None, said.append):
        pass
    assert (kept.closed, said) == (0, [])


def test_without_trackers_the_listener_is_the_one_that_was_given() -> None:
    with tracked([], plan_of(), print, print) as tell:
        assert tell is print


def test_names_that_come_twice_with_other_parameters_are_two_trackers(home: Path) -> None:
    found = registry(installed=False, files=[home / "mine.py"])
    first, second = make_trackers(["diary", "diary[file=b.jsonl]"], found)
    assert (first.tracker.file, second.tracker.file) == (Path("diary.jsonl"), Path("b.jsonl"))


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    import sys

    yield
    for name in [name for name in sys.modules if name.startswith("sslbench_file_")]:
        del sys.modules[name]
