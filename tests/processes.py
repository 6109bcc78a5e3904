"""Processes that need no second to import torch: forks of this one, where the road there is not the point."""

from __future__ import annotations

import multiprocessing
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

CONTEXT = multiprocessing.get_context("fork")


class Forks:
    """In place of multiprocessing's context of fresh processes; sslbench.run.local asks it for these."""

    def __init__(self) -> None:
        self._parents: list[Any] = []

    def Pipe(self) -> Any:  # noqa: N802  # the name that multiprocessing gives it
        ours, theirs = CONTEXT.Pipe()
        self._parents.append(ours)
        return ours, theirs

    def Process(self, target: Callable[..., None], args: Any, name: str = "") -> Any:  # noqa: N802
        def run(*args: Any) -> None:
            for each in self._parents:
                each.close()  # else it would never see the parent let go
            target(*args)

        return CONTEXT.Process(target=run, args=args, name=name, daemon=True)


def forking(patch: pytest.MonkeyPatch) -> None:
    """Lets `run` work in forks. What was imported, patched or plugged in here, is so there."""
    import torch

    if torch.cuda.is_available():  # which no fork can use
        return
    forks = Forks()
    only = SimpleNamespace(get_context=lambda _: forks)
    patch.setattr("sslbench.run.local.multiprocessing", only)
    patch.setattr(
        "sslbench.run.worker._hush", lambda: None
    )  # output is this process's, and captured


class Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Command:
    """`sslbench LINE` in a fork, begun."""

    def __init__(self, line: Sequence[str], home: Path, before: Callable[[], None] = int) -> None:
        self._home = home
        home.mkdir()
        self._process = CONTEXT.Process(target=_call, args=(line, home, before))
        self._process.start()

    def ended(self, patience: float = 120) -> Ended:
        self._process.join(patience)
        out, err = ((self._home / name).read_text() for name in ("stdout", "stderr"))
        assert self._process.exitcode is not None, out + err
        return Ended(self._process.exitcode, out, err)


def _call(line: Sequence[str], home: Path, before: Callable[[], None]) -> None:
    from sslbench.cli.app import program

    before()
    done = CliRunner().invoke(program, list(line))
    (home / "stdout").write_text(done.stdout)
    faults = "".join(traceback.format_exception(*done.exc_info)) if done.exc_info else ""
    (home / "stderr").write_text(done.stderr + (faults if done.exit_code == 1 else ""))
    sys.exit(done.exit_code)
