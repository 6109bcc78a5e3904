"""The processes that tests work in: one thread each, and forks that leave when they are let go."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from processes import Forks

from sslbench.plan.selection import Selection
from sslbench.run import local
from sslbench.run.local import Spare
from sslbench.run.worker import Setup
from sslbench.store import Store
from sslbench.train.options import RunOptions

THREADS = "import torch; raise SystemExit(torch.get_num_threads())"


def waiting(connection):
    with pytest.raises(EOFError):
        connection.recv()


@pytest.mark.slow
def test_torch_has_the_threads_that_tests_allow_here_and_in_other_processes():
    allowed = int(os.environ["OMP_NUM_THREADS"])
    assert torch.get_num_threads() == allowed
    done = subprocess.run([sys.executable, "-c", THREADS], check=False)
    assert done.returncode == allowed


def test_a_fork_leaves_when_its_parent_lets_go():
    forks, begun = Forks(), []
    for _ in range(2):  # the second is born with the end that leads to the first
        ours, theirs = forks.Pipe()
        process = forks.Process(target=waiting, args=(theirs,))
        process.start()
        theirs.close()
        begun.append((ours, process))
    for ours, process in begun:
        ours.close()
        process.join(20)
        assert process.exitcode == 0


class Started:
    """In place of a started process."""

    def __init__(self, threads: int, download: bool) -> None:
        self.process, self.threads, self.killed = self, threads, False

    def kill(self) -> None:
        self.killed = True


def of_device(options: Selection, device: str, threads: int) -> Setup:
    return Setup(replace(options, how=replace(options.how, device=device, threads=threads)), "s")


def test_a_spare_process_is_for_a_new_store_and_the_cpu(tmp_path, monkeypatch):
    begun: list[Started] = []
    monkeypatch.setattr(
        local,
        "_start",
        lambda threads, download: begun.append(Started(threads, download)) or begun[-1],
    )
    new = Selection(store=tmp_path / "new", how=RunOptions(jobs=1, threads=3))
    with Spare(new) as spare:
        assert [each.threads for each in begun] == [3]
        assert spare.taken(of_device(new, "cuda:0", 3)) is None
        assert spare.taken(of_device(new, "cpu", 1)) is None
        assert spare.taken(of_device(new, "cpu", 3)) is begun[0]
        assert spare.taken(of_device(new, "cpu", 3)) is None
    assert not begun[0].killed
    with Spare(new):
        pass
    assert begun[1].killed
    Store(tmp_path / "old").create()
    for other in (
        replace(new, store=tmp_path / "old"),
        replace(new, how=RunOptions(device="cuda")),
    ):
        with Spare(other) as spare:
            assert spare.taken(of_device(other, "cpu", 3)) is None
    assert len(begun) == 2
