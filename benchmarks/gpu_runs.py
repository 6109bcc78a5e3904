"""Sections of gpu.py that start processes: devices by name, resuming, and failures of runs.

python benchmarks/gpu_runs.py FOLDER DEVICE STORE STEPS     # trains, and prints digests as JSON
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_rows import Bench, NeedsGpu
from gpu_training import METHODS, On

from sslbench.one_cell.environment import environment
from sslbench.plugins import registry
from sslbench.records import Record
from sslbench.store import Store
from sslbench.store.tensors import digest_of
from sslbench.train.device import pick_device, prepare

RESUMED = (*METHODS, "npid", "deepcluster-v2")
TINY = [
    *("--datasets", "digits[test=60,train=192]", "--backbones", "test_resnet"),
    *("--epochs", "1", "--batch", "32", "--seeds", "0"),
]
BAD = '''
"""Methods and an evaluator that fail in the ways that a GPU knows."""

import os
import signal

import torch

from sslbench import hookimpl
from sslbench.api import Evaluator, Metric
from sslbench.methods.simclr import SimCLR


class OutOfRange(SimCLR):
    """Reads a row that is not there. arXiv 2002.05709. Departures: it fails."""

    def step(self, batch):
        torch.zeros(4, device=batch.index.device)[batch.index + 10**6].sum()
        yield from super().step(batch)


class Killed(SimCLR):
    """Kills its process. arXiv 2002.05709. Departures: it fails."""

    def step(self, batch):
        os.kill(os.getpid(), signal.SIGKILL)
        yield from super().step(batch)


class Hungry(Evaluator):
    """Asks for more memory than there is."""

    metrics = (Metric("top1"),)

    def __call__(self, subject, data, seed):
        torch.empty(2**47, dtype=torch.uint8, device=subject.device)


SSLBENCH_API = (1, 1)


@hookimpl
def methods():
    return {"out-of-range": OutOfRange, "killed": Killed}


@hookimpl
def evaluators():
    return {"hungry": Hungry}
'''


# ---- commands --------------------------------------------------------------------------------


class Command:
    """A command in a process of its own, begun; the end of its section is its end."""

    def __init__(self, bench: Bench, *line: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, *line],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        bench.begun.append(self.process)

    def ended(self) -> tuple[int, str]:
        """Its exit code, and what it printed."""
        said, _ = self.process.communicate()
        return self.process.returncode, said


class Run(Command):
    """`sslbench run` on a store of its own."""

    def __init__(self, bench: Bench, name: str, line: Sequence[str], *, before: Any = ()) -> None:
        self.store = bench.folder(name) / "store"
        how = ["--store", str(self.store), "--no-predictions"]
        super().__init__(bench, "-m", "sslbench", *before, "run", *line, *how)

    def records(self) -> list[Record]:
        return [record for cell in Store(self.store).cells() for record in cell.records()]


def _device(bench: Bench) -> list[str]:
    return ["--device", str(bench.device)]


# ---- devices ---------------------------------------------------------------------------------


def devices(bench: Bench) -> None:
    """What computes here; and each name of the device trains, to the same weights."""
    said = environment(bench.device)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    for what, keys in (
        ("device", ("device", "capability")),
        ("versions", ("driver", "cuda", "cudnn", "torch", "timm", "python")),
        ("host", ("cpu", "cores", "threads")),
    ):
        found = {key: said[key] for key in keys if key in said}
        bench.tell(what, ", ".join(f"{key} {value}" for key, value in found.items()), **found)
    flags = {
        "matmul.allow_tf32": matmul.allow_tf32,
        "cudnn.allow_tf32": cudnn.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn.benchmark": cudnn.benchmark,
    }
    exact = not matmul.allow_tf32 and not cudnn.allow_tf32
    bench.tell("flags", ", ".join(f"{k} {v}" for k, v in flags.items()), exact, **flags)
    if bench.gpu:
        free, total = torch.cuda.mem_get_info(bench.device)
        bench.tell("memory", f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f}", None)
    _names(bench)


def _names(bench: Bench) -> None:
    names = ("cuda", "cuda:0", "auto") if bench.gpu else ("cpu",)
    line = ["--methods", "simclr", "--evaluators", "knn", "--deterministic", *TINY]
    runs = {name: Run(bench, name, [*line, "--device", name]) for name in names}
    weights: dict[str, set[str]] = {}
    for name, run in runs.items():
        code, said = run.ended()
        trained = [r for r in run.records() if r.kind == "train" and r.method == "simclr"]
        right = code == 0 and [r.status for r in trained] == ["ok"]
        where = [r.environment["device"] for r in trained if r.environment]
        bench.tell(f"sslbench run --device {name}", _end(code, said, where), right)
        weights[name] = {r.weights["model"] for r in trained if r.weights}
    if len(weights) > 1:
        alike = len(set().union(*weights.values())) == 1
        bench.tell("their weights, with --deterministic", "equal" if alike else "differ", alike)


def _end(code: int, said: str, where: Sequence[object] = ()) -> str:
    last = said.strip().splitlines()[-1:] if code else []
    return " ".join([f"exit code {code}", *map(str, where), *last])


# ---- resume ----------------------------------------------------------------------------------


def resume(bench: Bench) -> None:
    """What was interrupted and resumed, in two processes, ends with the weights of what was not."""
    folder = bench.folder("stores")
    methods = bench.sized(RESUMED, ("simclr", "moco"))

    def begun(store: str, steps: int) -> Command:
        parts = (str(folder / store), str(bench.device), store, str(steps), *methods)
        return Command(bench, __file__, *parts)

    straight, cut = begun("straight", 0), begun("cut", 8)  # of 12 steps, in the second epoch
    code, said = cut.ended()
    stopped = _digests(code, said)
    again = begun("cut", 0)
    whole, resumed = _digests(*straight.ended()), _digests(*again.ended())
    for name in methods:
        one, other = whole.get(name, "nothing"), resumed.get(name, "nothing")
        cut_short = stopped.get(name) == "interrupted"
        right = cut_short and one == other and len(one) == 64
        how = "equal" if one == other else f"{one[:12]} and {other[:12]}"
        how += "" if cut_short else f"; it was not interrupted: {stopped.get(name)}"
        bench.tell(f"{name}: weights, straight and resumed", how, right)


def _digests(code: int, said: str) -> dict[str, str]:
    if code:
        raise RuntimeError(f"a training ended with exit code {code}: {said.strip()[-300:]}")
    found: dict[str, str] = json.loads(said.strip().splitlines()[-1])
    return found


def train(folder: Path, device: str, store: str, steps: int, methods: Sequence[str]) -> None:
    """Trains or goes on; prints the digest of each method's weights, or how it ended."""
    place = pick_device(device)
    prepare(place, deterministic=True)
    found = {}
    for name in methods:
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        trial = On(registry(), name, own, device=place)
        fit = trial.fit(store, trial.cell(), steps=steps)
        found[name] = digest_of(dict(fit.weights)) if fit.weights else fit.done.status
        if fit.done.status == "failed":
            found[name] = fit.done.sentence
    print(json.dumps(found))


# ---- failures --------------------------------------------------------------------------------


def failures(bench: Bench) -> None:
    """A cell that fails leaves a record that says why, and the next cell of the run succeeds."""
    plugin = bench.folder("plugin") / "bad.py"
    plugin.write_text(BAD)
    before = ("--plugin", str(plugin))
    line = ["--evaluators", "knn", "--jobs", "1", *TINY, *_device(bench)]

    def run(name: str, methods: str, *more: str) -> Run:
        return Run(bench, name, ["--methods", methods, *line, *more], before=before)

    asserts = run("assert", "out-of-range,simsiam")
    killed = run("killed", "killed,simsiam")
    hungry = run("hungry", "simclr", "--evaluators", "hungry,knn")
    two = run("two", "simclr", "--seeds", "0,1", "--jobs", "2", "--epochs", "40")
    _hungry(bench, hungry)
    assertion = "device-side assert" if bench.gpu else "out of bounds"
    _fails(bench, "an index out of range", asserts, "out-of-range", assertion)
    _fails(bench, "SIGKILL of the worker", killed, "killed", "process died (signal 9)")
    _two(bench, two)
    if not bench.gpu:
        raise NeedsGpu("out of memory in training: skipped: needs a GPU")
    large = ["--backbones", "resnet101-small", "--datasets", "digits[size=48,test=60,train=1400]"]
    memory = run("memory", "simclr,simsiam", *large, "--set", "simclr.batch=1400")
    wanted = "out of memory in training with batch 1400"
    _fails(bench, "out of memory in training", memory, "simclr", wanted)


def _bare(name: str) -> str:
    """A plugin's name without its file."""
    return name.rpartition("/")[2]


def _fails(bench: Bench, what: str, run: Run, method: str, wanted: str) -> None:
    """One method fails with a sentence, and simsiam, which is after it, does not."""
    end = _end(*run.ended())
    trained = {_bare(r.method): r for r in run.records() if r.kind == "train"}
    failed, after = trained.get(method), trained.get("simsiam")
    if failed is None or after is None:
        bench.tell(what, f"no record of it or of the next cell; {end}", False)
        return
    right = failed.status == "failed" and wanted in failed.sentence
    right = right and after.status == "ok" and after.finished > failed.finished
    bench.tell(what, f"{failed.sentence[:160]}; the next cell: {after.status}", right)


def _hungry(bench: Bench, run: Run) -> None:
    end = _end(*run.ended())
    records = [r for r in run.records() if r.method == "simclr"]
    judged = {_bare(r.evaluator): r for r in records if r.evaluator}
    failed, other = judged.get("hungry"), judged.get("knn")
    if failed is None or other is None:
        bench.tell("out of memory in a judge", f"no record of it or of the next; {end}", False)
        return
    wanted = "judged it; its training is kept"
    right = wanted in failed.sentence and other.status == "ok"
    right = right and failed.error is not None and failed.error.kind == "oom"
    said = f"{failed.sentence[:160]}; the next judge: {other.status}"
    bench.tell("out of memory in a judge", said, right)


def _two(bench: Bench, run: Run) -> None:
    code, said = run.ended()
    cells = sorted((r for r in run.records() if r.kind == "train"), key=lambda r: r.started)
    at_once = any(later.started < earlier.finished for earlier, later in itertools.pairwise(cells))
    right = code == 0 and all(r.status == "ok" for r in cells) and at_once
    how = "some at once" if at_once else "one after the other"
    bench.tell("two cells on one device", _end(code, said, [f"{len(cells)} cells, {how}"]), right)


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:])
