"""A cell fails alone, changes no other, and nothing that was merely stopped is called failed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from click.testing import CliRunner, Result
from processes import CONTEXT

from sslbench.cli import progress
from sslbench.cli.app import program
from sslbench.records import Record
from sslbench.store import Store

pytestmark = pytest.mark.usefixtures("forks")
TINY = """
summary: a tiny suite
datasets: ["digits[test=30,train=64]"]
backbones: [test_resnet]
methods: [simclr]
baselines: []
evaluators: [knn]
seeds: [0]
epochs: 1
batch: 32
set: {simclr.blur: 0.0}
"""
PLUGIN = """
import os, sys, threading, warnings
import torch
from torch import nn
from torch.nn import functional as F
from sslbench import Method, hookimpl
from sslbench.errors import UserError


class Odd(Method):
    "It changes what is everybody's. arXiv 0000.00000. Departures: all."

    def __init__(self, backbone, data):
        super().__init__()
        self.backbone = backbone

    def views(self):
        return lambda images: images.float() / 255

    def step(self, batch):
        DEED
        yield self.backbone(batch.views).float().mean()


class Choosy(Odd):
    "Its `needs` is broken. arXiv 0000.00000. Departures: all."

    @classmethod
    def needs(cls, backbone, data):
        raise RuntimeError("no such attribute")


@hookimpl
def methods():
    return {"odd": Odd, "choosy": Choosy}
"""
DEEDS = {
    "rand": "torch.rand = lambda *shape, **more: torch.full(shape, 0.5)",
    "normalize": "F.normalize = lambda x, **more: x",
    "batch norm": "nn.BatchNorm2d.forward = lambda self, x: x",
    "dtype": "torch.set_default_dtype(torch.float16)",
    "environment": "os.environ['SSLBENCH_STORE'] = '/nowhere'",
    "folder": "os.chdir('/')",
    "warnings": "warnings.simplefilter('error')",
    "generators": "torch.manual_seed = lambda seed: torch.default_generator",
}
RAISED = {
    "UserError('set less')": "set less",
    "RuntimeError('oh')": "RuntimeError: oh",
    "SystemExit('enough')": "SystemExit: enough",
    "KeyboardInterrupt('who?')": "KeyboardInterrupt: who?",
    "BaseException('odd')": "BaseException: odd",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SSLBENCH_STORE", "SSLBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    Path("tiny.yaml").write_text(TINY)


def ran(methods: str, deed: str = "pass") -> Result:
    """Runs the methods in one process at a time."""
    Path("odd.py").write_text(PLUGIN.replace("DEED", deed))
    line = ["run", "--suite", "tiny.yaml", "--methods", methods, "--jobs", "1"]
    return CliRunner().invoke(program, [*line, "--plugin", "odd.py"])


def records(method: str) -> list[Record]:
    found = [r for cell in Store(Path("sslbench-store")).cells() for r in cell.records()]
    return [r for r in found if r.method.endswith(method)]


def numbers() -> dict[str, Any]:
    """What was measured of simclr, to the last bit, and on how many threads."""
    of = records("simclr")
    return {r.kind: (r.metrics, r.curves, r.health, r.environment["threads"]) for r in of}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is measured where no plugin is near."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("alone"))
        Path("tiny.yaml").write_text(TINY)
        CliRunner().invoke(program, ["run", "--suite", "tiny.yaml", "--jobs", "1"])
        return numbers()


@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_plugin_changes_ends_with_its_cell(deed: str, alone: dict[str, Any]) -> None:
    said = ran("odd,simclr", DEEDS[deed])
    assert records("odd"), said.output
    assert len(alone) == 2
    assert numbers() == alone


@pytest.mark.slow
def test_threads_that_a_plugin_sets_end_with_its_cell(alone: dict[str, Any]) -> None:
    """In fresh processes: a fork that works on more threads than its parent hangs in OpenMP."""
    Path("odd.py").write_text(PLUGIN.replace("DEED", "torch.set_num_threads(2)"))
    line = [sys.executable, "-m", "sslbench", "run", "--suite", "tiny.yaml", "--jobs", "1"]
    line += ["--methods", "odd,simclr", "--plugin", "odd.py"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {r.environment["threads"] for r in records("simclr")} == {torch.get_num_threads()}
    assert numbers() == alone


@pytest.mark.parametrize("raised", RAISED)
def test_what_a_step_raises_fails_its_cell_with_its_text(raised: str) -> None:
    said = ran("odd,untrained", f"raise {raised}")
    assert said.exit_code == 3, said.output
    (failed,) = records("odd")
    assert (failed.status, failed.sentence) == ("failed", RAISED[raised])
    assert failed.error is not None
    assert "odd.py" in failed.error.traceback
    assert {r.status for r in records("untrained")} == {"ok"}
    assert "1 failed" in said.stdout


def test_a_needs_that_raises_fails_its_cell_and_no_other() -> None:
    said = ran("choosy,untrained")
    assert said.exit_code == 3, said.output
    (failed,) = records("choosy")
    assert "its `needs` raised RuntimeError: no such attribute" in failed.sentence
    assert {r.status for r in records("untrained")} == {"ok"}


# ---- output that nobody reads ----------------------------------------------------------------


class Piped:
    """`sslbench LINE` in a fork that writes to a file descriptor, whose other end is `ours`."""

    def __init__(self, line: list[str], output: int, ours: int = -1) -> None:
        self._process = CONTEXT.Process(target=_call, args=(line, output, ours))
        self._process.start()
        os.close(output)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def ended(self) -> int:
        self._process.join(60)
        assert self._process.exitcode is not None
        return self._process.exitcode


def _call(line: list[str], output: int, ours: int) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started these tests
    with contextlib.suppress(OSError):
        os.close(ours)
    os.dup2(output, 1)
    os.close(output)
    sys.stdout = open(1, "w")  # noqa: SIM115
    sys.stderr = open("stderr", "w")  # noqa: PTH123, SIM115
    program.main(line)


LONG = ["run", "--suite", "tiny.yaml", "--epochs", "30", "--checkpoint-seconds", "0"]


@contextlib.contextmanager
def begun() -> Iterator[tuple[Piped, BinaryIO]]:
    """A run that is in its second epoch, and what reads its output until the end of the block."""
    ours, theirs = os.pipe()
    run = Piped(LONG, theirs, ours)
    with open(ours, "rb") as reader:  # noqa: PTH123
        while b"epoch 2/" not in reader.readline():
            pass
        yield run, reader


def goes_on() -> None:
    """The stopped run left a checkpoint and no failure, and the same command takes it up."""
    assert [r.status for r in records("simclr")] == ["interrupted"]
    (resume,) = Path("sslbench-store").glob("cells/*/*/resume-main.safetensors")
    said = CliRunner().invoke(program, LONG)
    assert said.exit_code == 0, said.output
    assert "epoch 1/30" not in said.stdout
    assert "epoch 30/30" in said.stdout
    assert not resume.exists()


@pytest.mark.slow
def test_a_reader_who_leaves_stops_the_run_as_ctrl_c_does() -> None:
    with begun() as (run, _):
        pass
    assert run.ended() == 130, Path("stderr").read_text()
    assert "to continue: sslbench run --suite tiny.yaml" in Path("stderr").read_text().lower()
    goes_on()


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGHUP, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_signal_to_the_leader_stops_the_run_and_nothing_fails(number: int) -> None:
    with begun() as (run, reader):
        os.kill(run.pid, number)
        rest = reader.read()
    assert run.ended() == 130, Path("stderr").read_text()
    assert b"to continue: sslbench run" in rest
    goes_on()


def test_a_parent_that_is_killed_leaves_a_checkpoint_and_no_failure() -> None:
    with begun() as (run, _):
        os.kill(run.pid, signal.SIGKILL)
        run.ended()
        deadline = time.monotonic() + 30
        while not records("simclr") and time.monotonic() < deadline:
            time.sleep(0.05)
    goes_on()


def test_a_full_output_stops_before_anything_runs() -> None:
    assert Piped(LONG, os.open("/dev/full", os.O_WRONLY)).ended() == 2
    said = Path("stderr").read_text()
    assert said == "error: standard output cannot be written: No space left on device\n"
    assert not Path("sslbench-store/cells").exists()


@pytest.mark.parametrize("line", [["list", "methods"], ["--help"], ["list", "methods", "--json"]])
def test_other_commands_end_in_silence_when_their_reader_leaves(line: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    assert Piped(line, theirs).ended() == 141
    assert Path("stderr").read_text() == ""


def test_a_terminal_that_closes_twice_does_not_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(progress, "kill", lambda: killed.append(1))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started these tests
    with progress.Stop().listening(lambda text: None) as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.wait(5)
            time.sleep(0.05)
    signal.signal(signal.SIGHUP, before)
    assert killed == []


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with progress.Stop().listening(lambda text: None) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0.1)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_after_the_last_cell_is_no_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    from sslbench.run import matrix

    whole = matrix._count

    def count(outcome: Any, done: Any) -> None:
        whole(outcome, done)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(matrix, "_count", count)
    said = CliRunner().invoke(program, ["run", "--suite", "tiny.yaml"])
    assert said.exit_code == 0, said.output
    assert "trained 1 cell, made 1 evaluation" in said.stdout


def test_evaluations_of_another_run_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from sslbench.run import local

    begun = local._begun

    def late(*args: Any) -> Any:
        if not Path("other").exists():
            Path("other").touch()
            done = CONTEXT.Process(target=_quietly, args=(["run", "--suite", "tiny.yaml"],))
            done.start()
            done.join()
        return begun(*args)

    monkeypatch.setattr(local, "_begun", late)
    said = CliRunner().invoke(program, ["run", "--suite", "tiny.yaml"])
    assert "trained 0 cells, made 0 evaluations" in said.stdout


def _quietly(line: list[str]) -> None:
    with contextlib.redirect_stdout(None):
        CliRunner().invoke(program, line)
