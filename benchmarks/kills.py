"""Kills and signals runs at random moments, and checks that nothing is lost, doubled or called failed.

    python benchmarks/kills.py                                              # what the README states
    python benchmarks/kills.py --kills 6 --signals 4 --runs 3 --seeds 2     # as CI does

A run is `sslbench run` of tiny cells in a fork of this process, which has imported the libraries: so
it takes a second, and what is killed is the work and not the start. After each kill every record
that was there must be there, with the same bytes; no cell may be trained twice, no record may say
failed, nothing may be set aside; and in the end all numbers and weights must be those of a run that
nobody touched.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from processes import Forks

from sslbench.cli.app import program
from sslbench.run import local
from sslbench.store import Store

SUITE = """
summary: tiny cells to be killed
datasets: ["digits[test=30,train=64]"]
backbones: [test_resnet]
methods: [simclr, moco]
baselines: [untrained, pixels]
evaluators: [knn]
seeds: {seeds}
epochs: 2
batch: 16
set: {{simclr.blur: 0.0, moco.blur: 0.0, moco.queue: 64}}
"""
LINE = ["run", "--suite", "tiny.yaml", "--checkpoint-seconds", "0.05", "--jobs", "2"]
INTERRUPTED = 130
SOON = 10.0  # seconds after which a run is hurt at the latest


class Run:
    """`sslbench run` in a process group of its own."""

    def __init__(self, store: Path) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for number in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            forks = Forks()
            local.multiprocessing = SimpleNamespace(get_context=lambda _: forks)  # type: ignore[assignment]
            try:
                program.main([*LINE, "--store", str(store)])
            except SystemExit as ended:
                os._exit(ended.code if isinstance(ended.code, int) else 1)
            os._exit(0)

    def send(self, number: int, *, group: bool) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def ended(self) -> int:
        """Waits for it and all its processes; returns the exit code, negative for a signal."""
        _, status = os.waitpid(self.pid, 0)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise SystemExit("a process outlived its run by a minute")


class Watch:
    """Notes the records of a store, and finds what is wrong with them since."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.seen: dict[Path, bytes] = {}
        self.faults: list[str] = []

    def look(self) -> None:
        found = {path: path.read_bytes() for path in self.store.glob("cells/*/*/records/*.json")}
        for path, content in self.seen.items():
            if found.get(path) != content:
                self.faults.append(f"record {path.name} was lost or changed")
        self.seen = found
        self.faults += [f"set aside: {path.name}" for path in self.store.rglob("*.damaged-*")]
        for cell in Store(self.store).cells():
            records = cell.records()
            trained = [r for r in records if r.kind == "train" and r.status == "ok"]
            if len(trained) > 1:
                self.faults.append(f"{cell.id[:12]} was trained {len(trained)} times")
            judged = [r for r in records if r.kind == "evaluation" and r.status == "ok"]
            if len(judged) > 1:
                self.faults.append(f"{cell.id[:12]} was judged {len(judged)} times")
            for record in records:
                if record.status == "failed":
                    self.faults.append(f"{record.method} is called failed: {record.sentence}")


def results(store: Path) -> dict[str, Any]:
    """Weights and numbers of every cell, to the last bit."""
    return {
        cell.id: {
            r.kind: (r.weights, r.metrics, r.curves) for r in cell.records() if r.status == "ok"
        }
        for cell in Store(store).cells()
    }


def whole(store: Path, wanted: dict[str, Any]) -> bool:
    found = results(store)
    return found.keys() == wanted.keys() and all(
        found[cell].keys() == wanted[cell].keys() for cell in wanted
    )


def trials(count: int, hurt: Any, longest: float, wanted: dict[str, Any]) -> list[str]:
    """Hurts a run `count` times; where all is done, it begins with a new store."""
    faults: list[str] = []
    done = stores = 0
    while done < count:
        store = Path(f"store{stores}")
        watch, stores = Watch(store), stores + 1
        while done < count and not whole(store, wanted):
            run = Run(store)
            hurt(run, longest, faults)
            watch.look()
            done += 1
        if Run(store).ended() != 0:
            faults.append("a run that nobody touched did not end well")
        watch.look()
        if results(store) != wanted:
            faults.append("the end is not that of a run that nobody touched")
        faults += watch.faults
        shutil.rmtree(store)
    return faults


def kill(run: Run, longest: float, faults: list[str]) -> None:
    time.sleep(random.uniform(0, longest))
    run.send(signal.SIGKILL, group=random.random() < 0.5)
    run.ended()


def interrupt(run: Run, longest: float, faults: list[str]) -> None:
    time.sleep(random.uniform(0.2 * longest, longest))
    number = random.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    group, twice = random.random() < 0.5, random.random() < 0.5
    run.send(number, group=group)
    if twice:
        time.sleep(random.uniform(0, 0.3))
        run.send(number, group=group)
    code = run.ended()
    if code not in (0, INTERRUPTED):
        # before `run` listens, a signal ends the program as it ends any
        faults += [f"{signal.Signals(number).name} gave the exit code {code}"] if code > 0 else []


def at_once(count: int, wanted: dict[str, Any]) -> list[str]:
    store = Path("together")
    watch = Watch(store)
    codes = [run.ended() for run in [Run(store) for _ in range(count)]]
    watch.look()
    faults = [f"exit code {code}" for code in codes if code]
    if results(store) != wanted:
        faults.append("the end is not that of one run")
    return faults + watch.faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--signals", type=int, default=30)
    parser.add_argument("--runs", type=int, default=8, help="at once, on the same cells")
    parser.add_argument("--seeds", type=int, default=10, help="a quarter of the number of cells")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random.seed(asked.seed)
    import timm  # noqa: F401
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.argv[0] = "sslbench"
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        Path("tiny.yaml").write_text(SUITE.format(seeds=list(range(asked.seeds))))
        begun = time.monotonic()
        assert Run(Path("untouched")).ended() == 0
        longest = time.monotonic() - begun
        wanted = results(Path("untouched"))
        print(f"{len(wanted)} cells take {longest:.1f} s where nobody touches them", flush=True)
        longest = min(longest, SOON)  # the next run goes on, so that all moments are met
        faults = {
            f"{asked.kills} kills": trials(asked.kills, kill, longest, wanted),
            f"{asked.signals} signals": trials(asked.signals, interrupt, longest, wanted),
            f"{asked.runs} runs at once": at_once(asked.runs, wanted),
        }
    for what, found in faults.items():
        print(f"{what}: {len(found)} faults")
        for fault in dict.fromkeys(found):
            print(f"  {fault}")
    if any(faults.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
