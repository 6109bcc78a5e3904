"""The processes that tests work in: one thread each, and forks that leave when they are let go."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from processes import Forks

THREADS = "import torch; raise SystemExit(torch.get_num_threads())"


def waiting(connection):
    with pytest.raises(EOFError):
        connection.recv()


def test_torch_has_the_threads_that_tests_allow_here_and_in_other_processes():
    allowed = int(os.environ["OMP_NUM_THREADS"])
    assert torch.get_num_threads() == allowed
    done = subprocess.run([sys.executable, "-c", THREADS], check=False)
    assert done.returncode == allowed


def test_a_fork_leaves_when_its_parent_lets_go():
    forks, begun = Forks(), []
    for _ in range(2):  # the second is born with the end that leads to the first
        ours, theirs = forks.Pipe()
        process = forks.Process(target=waiting, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        begun.append((ours, process))
    for ours, process in begun:
        ours.close()
        process.join(20)
        assert process.exitcode == 0
