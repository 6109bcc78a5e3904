"""Checks that one job and two jobs of one thread each give the same records and weights.

    python benchmarks/jobs.py [--methods moco,swav] [--seeds 0,1] [--epochs 2] [--suite quick]

Runs `sslbench run` on a few digits twice, each into a store of its own: with --jobs 1 and
OMP_NUM_THREADS=1, then with --jobs 2 and OMP_NUM_THREADS=2, which gives each process one thread.
Records (costs, environment, attempt, ids and times aside) and weights must be equal to the bit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sslbench.store import Store

DATA = "digits[test=60,train=300]"
SMALL = ("moco.queue=64", "moco.splits=2", "moco-v1.queue=64", "swav.prototypes=12")
ASIDE = {"record_id", "costs", "environment", "started", "finished", "attempt"}


def run(store: Path, jobs: int, options: argparse.Namespace) -> float:
    """Runs `sslbench run` with so many jobs, one thread each; returns the seconds."""
    command = [sys.executable, "-m", "sslbench", "run", "-q", "--store", str(store)]
    command += ["--suite", options.suite, "--datasets", DATA, "--methods", options.methods]
    command += ["--seeds", options.seeds, "--epochs", str(options.epochs), "--batch", "32"]
    command += ["--jobs", str(jobs), "--device", "cpu"]
    for setting in SMALL:
        command += ["--set", setting]
    begun = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(jobs)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - begun


def outcome(store: Path) -> dict[str, Any]:
    """Weights and records of every cell, without what may differ."""
    found: dict[str, Any] = {}
    for cell in Store(store).cells():
        state = cell.load("model")
        for name, tensor in (state[0] if state else {}).items():
            found[f"{cell.id[:8]} {name}"] = (tensor.dtype, tensor.numpy().tobytes())
        for record in cell.records():
            key = f"{cell.id[:8]} {record.method} seed {record.seed} {record.protocol or 'train'}"
            found[key] = [*found.get(key, []), record.model_dump(exclude=ASIDE)]
    return found


def threads(store: Path) -> set[Any]:
    records = [r for cell in Store(store).cells() for r in cell.records()]
    return {r.environment.get("threads") for r in records}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default="moco,swav")
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = {jobs: Path(folder) / f"jobs-{jobs}" for jobs in (1, 2)}
        for jobs, store in stores.items():
            took = run(store, jobs, options)
            print(f"--jobs {jobs}: {took:.1f} s, threads {threads(store)}", flush=True)
        one, two = (outcome(store) for store in stores.values())
    different = sorted(key for key in {*one, *two} if one.get(key) != two.get(key))
    for key in different[:10]:
        print(f"differs: {key}")
    print(f"{len(one)} tensors and records compared: {'FAIL' if different else 'PASS'}")
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
