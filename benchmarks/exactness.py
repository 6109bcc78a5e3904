"""Checks that cells killed with `kill -9` at random and resumed give exactly the same results.

    python benchmarks/exactness.py [--methods simclr,moco] [--kills 30] [--seed 0] [--keep DIR]

Every trained built-in method runs on a few digits for two epochs: first twice without a kill, then
with kills, at moments drawn evenly from the length of a whole cell. A cell is resumed after each kill
until it is done, and cells are begun anew until there were enough kills. Weights of every cell in the
store (pretexts too) and all records must be equal to the bit, except costs, environment, attempt, ids
and times. A checkpoint is written after every step, so that kills hit half-written ones as well.

Each attempt is a forked child of this process, so that imports are done once. All run on one thread,
since the number of threads changes the order of sums.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before anything starts threads that a fork would lose
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import contextlib
import importlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sslbench.api import Place
from sslbench.cells.cell import Cell
from sslbench.cells.parameters import anatomy
from sslbench.cells.protocol import Judge, resolve_judge
from sslbench.cells.settings import Context, Settings, resolve
from sslbench.data import open_data
from sslbench.one_cell.building import Builder
from sslbench.one_cell.workbench import Workbench
from sslbench.plugins import registry
from sslbench.store import Store
from sslbench.train.options import RunOptions

DATA = "digits[test=40,train=120]"
COMMON = {"epochs": 2, "batch": 32}
SMALL = {
    "moco.queue": 64,
    "moco.hidden": 32,
    "moco.splits": 2,
    "moco-v1.queue": 64,
    "swav.prototypes": 12,
    "swav.hidden": 32,
    "swav.crops": (2, 1),
    "swav.queue": 40,
    "swav.queue_from": 1,
    "deepcluster.clusters": 8,
    "deepcluster.whiten": 16,
    "scan.confidence": 0.1,
    "scan.neighbours": 5,
    "simclr.blur": 0.0,
}
ASIDE = {"record_id", "costs", "environment", "started", "finished", "attempt"}
LONGEST = 300.0  # seconds an attempt may take
REGISTRY = registry(installed=False)


class Task(NamedTuple):
    cell: Cell
    judges: list[Judge]


class Tally(NamedTuple):
    kills: int
    runs: int
    resumed: int  # attempts that went on from a checkpoint inside an epoch
    different: list[str]


def task_of(method: str) -> Task:
    data = open_data(DATA, REGISTRY, Place())
    setting = Context("test_resnet", data.name, data.fingerprint, data.size, 0)
    known = set(REGISTRY.names("methods"))
    small = {key: value for key, value in SMALL.items() if key.partition(".")[0] in known}
    judges = [resolve_judge(name, REGISTRY)[0] for name in ("knn", "linear", "clustering")]
    return Task(resolve(method, REGISTRY, setting, Settings(((COMMON, small),))), judges)


def start(folder: Path, task: Task, imported: Path | None = None) -> int:
    """Starts a child that runs the cell, with a checkpoint after each step; returns its process id."""
    if len([*Path("/proc/self/task").glob("*")]) > 1:
        raise RuntimeError("this process has threads, it cannot fork safely")
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        builder = Builder(REGISTRY, Place(), torch.device("cpu"))
        how = RunOptions(checkpoint_seconds=0.0)
        done = Workbench(builder, Store(folder), how).do(task.cell, task.judges)
        code = 0 if done.status == "ok" else 1
        if imported is not None:
            imported.write_text("\n".join(sys.modules))
        if code:
            print(f"{done.title}: {done.status} {done.sentence}", file=sys.stderr, flush=True)
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int, within: float) -> bool:
    """Whether the child ended in time; RuntimeError if it failed."""
    deadline = time.monotonic() + within
    while True:
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            if status:
                raise RuntimeError(f"an attempt ended with status {status}")
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(min(0.002, max(0.0, deadline - time.monotonic())))


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def outcome(folder: Path) -> dict[str, Any]:
    """Weights and successful records of every cell, without what may differ."""
    found: dict[str, Any] = {}
    for cell in Store(folder).cells():
        state = cell.load("model")
        for name, tensor in (state[0] if state else {}).items():
            found[f"{cell.id[:8]} {name}"] = (tensor.dtype, tensor.numpy().tobytes())
        for record in cell.records():
            if record.status == "ok":
                key = f"{cell.id[:8]} record {record.kind} {record.evaluator}"
                found[key] = [*found.get(key, []), record.model_dump(exclude=ASIDE)]
    return found


def resumptions(folder: Path) -> int:
    logs = (folder / "cells").glob("??/*/log.txt")
    return sum(log.read_text().count("resumed ") for log in logs)


def reference(root: Path, task: Task) -> tuple[dict[str, Any], float]:
    """The outcome of a cell without kills, the same twice, and the seconds that it takes."""
    outcomes, length = [], LONGEST
    for i in range(2):
        with emptied(root / f"whole-{i}") as folder:
            names, begun = root / "modules.txt", time.monotonic()
            root.mkdir(parents=True, exist_ok=True)
            child = start(folder, task, imported=names)
            if not ended(child, LONGEST):
                kill(child)
                raise RuntimeError(f"{task.cell.title} took longer than {LONGEST:.0f} s")
            outcomes.append(outcome(folder))
            length = min(length, time.monotonic() - begun)
        for name in names.read_text().splitlines():
            with contextlib.suppress(Exception):  # some names are made, not imported
                importlib.import_module(name)
    if wrong := differences(*outcomes):
        raise RuntimeError(f"two whole runs of {task.cell.title} differ: {wrong[:3]}")
    return outcomes[1], length


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """A folder that is removed afterwards, unless an error was raised."""
    yield folder
    shutil.rmtree(folder)


def torment(task: Task, root: Path, kills: int, dice: random.Random) -> Tally:
    """Kills and resumes cells until there were enough kills and the last cell is done."""
    expected, length = reference(root, task)
    struck = runs = resumed = 0
    while struck < kills:
        with emptied(root / f"run-{runs}") as folder:
            runs += 1
            done = False
            while not done:
                child = start(folder, task)
                patience = dice.uniform(0, length) if struck < kills else LONGEST
                done = ended(child, patience)
                if not done:
                    kill(child)
                    struck += 1
            resumed += resumptions(folder)
            if wrong := differences(outcome(folder), expected):
                return Tally(struck, runs, resumed, wrong)
    return Tally(struck, runs, resumed, [])


def trained() -> list[str]:
    entries = REGISTRY.entries("methods").items()
    return [name for name, entry in entries if anatomy(entry).recipe is not None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", help="comma-separated; all trained ones")
    parser.add_argument("--kills", type=int, default=30, help="of each method")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", type=Path, help="a folder for the stores; a failed one stays")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        for method in options.methods.split(",") if options.methods else trained():
            task, begun = task_of(method), time.monotonic()
            dice = random.Random(f"{method} {options.seed}")
            tally = torment(task, root / method, options.kills, dice)
            print(
                f"{'FAIL' if tally.different else 'PASS'} {method:12s} {tally.kills} kills, "
                f"{tally.runs} cells, {tally.resumed} times resumed inside an epoch, "
                f"{time.monotonic() - begun:.0f} s",
                flush=True,
            )
            for key in tally.different[:10]:
                print(f"     differs: {key}")
            if tally.different:
                failed.append(method)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
