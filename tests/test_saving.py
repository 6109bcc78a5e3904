"""Checkpoints that are written beside the training: as it was when it was saved, whole, one by one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

import pytest
import torch
from pretending import where_it_works

from sslbench.disk import DiskError
from sslbench.store import CellFolder, Store
from sslbench.testing.pretend_cuda import pretend_cuda
from sslbench.train.saving import Saver

CELL = "ab" * 32


@pytest.fixture
def folder(tmp_path):
    return Store(tmp_path).cell(CELL)


@pytest.fixture
def held(monkeypatch):
    """Writing waits until this event is set."""
    event, whole = threading.Event(), CellFolder.save

    def save(self, *args):
        assert event.wait(20)
        return whole(self, *args)

    monkeypatch.setattr(CellFolder, "save", save)
    return event


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_saved_is_as_it_was_then(folder, held, device):
    with contextlib.ExitStack() as stack:
        if device == "cuda":
            with where_it_works():
                gpu = stack.enter_context(pretend_cuda())
        weights, counts = torch.ones(3).to(device), {"at": [1]}
        saver = Saver(folder)
        seen = stack.enter_context(gpu.watched()) if device == "cuda" else None
        saver.save("resume-main", {"w": weights}, counts)
        weights.add_(1)  # training goes on
        counts["at"].append(2)
        assert folder.load("resume-main") is None
        if seen is not None:
            assert not seen.waits
            assert not seen.blocking
        held.set()
        saver.close()
    tensors, plain = folder.load("resume-main")
    assert torch.equal(tensors["w"], torch.ones(3))
    assert plain == {"at": [1]}


def test_the_next_save_waits_for_the_one_before(folder, held):
    saver, order = Saver(folder), []
    saver.save("resume-main", {"w": torch.zeros(1)}, {})
    second = threading.Thread(
        target=lambda: (saver.save("resume-main", {"w": torch.ones(1)}, {}), order.append(1))
    )
    second.start()
    second.join(0.2)
    assert not order
    held.set()
    second.join(20)
    saver.close()
    assert folder.load("resume-main")[0]["w"] == 1


def test_what_writing_raises_is_raised_at_the_next_save_or_at_the_end(folder, monkeypatch):
    def full(self, *args):
        raise DiskError("no space left")

    monkeypatch.setattr(CellFolder, "save", full)
    saver = Saver(folder)
    saver.save("resume-main", {"w": torch.zeros(1)}, {})
    with pytest.raises(DiskError, match="no space"):
        saver.save("resume-main", {"w": torch.zeros(1)}, {})
    saver.save("resume-main", {"w": torch.zeros(1)}, {})
    with pytest.raises(DiskError, match="no space"):
        saver.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint")]


ALONE = """
import os, sys, torch
from pathlib import Path
from sslbench.store import Store
from sslbench.train.saving import Saver

torch.set_num_threads(2)
weight = torch.rand(512, 512, 3, 3).contiguous(memory_format=torch.channels_last)
weight.mul(2)  # the threads of training are there
saver = Saver(Store(Path(sys.argv[1])).cell("ab" * 32))
before = len(os.listdir("/proc/self/task"))
saver.save("resume-main", {"w": weight}, {})
saver.wait()
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_writing_starts_one_thread_and_no_team_beside_that_of_training(tmp_path):
    """More threads than processors let each operation of training wait asleep."""
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "1"
