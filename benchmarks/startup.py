"""Measures how long commands take that do no work, compared with `import torch` alone.

    python benchmarks/startup.py [--rounds 7]

It runs four commands in turn, each in its own process: `python -c "import torch"`, `sslbench
--help`, `sslbench list methods`, and `sslbench run` of a small suite that is all done already (in a
temporary store, filled first). It prints medians over rounds, after one to warm up. Bars: help and
list under 0.3 s; the second run at most 1.5 times `import torch` of the same round. It also lists
which heavy libraries each command imports, and its slowest imports.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUICK, SECOND = 0.3, 1.5  # seconds; times `import torch`
HEAVY = ("torch", "torchvision", "timm", "sklearn", "scipy", "faiss", "numpy", "safetensors")
SELECTION = ["--methods", "simclr", "--epochs", "1", "--seeds", "0"]
SLOWEST = 8


def commands(store: Path) -> dict[str, list[str]]:
    program = Path(sys.executable).with_name("sslbench")
    sslbench = [str(program)] if program.exists() else [sys.executable, "-m", "sslbench"]
    return {
        "import torch": [sys.executable, "-c", "import torch"],
        "--help": [*sslbench, "--help"],
        "list methods": [*sslbench, "list", "methods"],
        "second run": [*sslbench, "run", *SELECTION, "--store", str(store)],
    }


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def imports(command: list[str]) -> tuple[list[str], list[str]]:
    """The heavy libraries that a command imports, and the modules slowest in their own code."""
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \| +(\S+)$", done.stderr, re.MULTILINE)
    tops = {name.partition(".")[0] for _, name in found}
    own = sorted(((int(us), name) for us, name in found), reverse=True)
    return [h for h in HEAVY if h in tops], [f"{n} {us / 1000:.0f} ms" for us, n in own[:SLOWEST]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        todo = commands(Path(folder) / "store")
        print(f"first run: {seconds(todo['second run']):.1f} s", flush=True)
        for command in todo.values():
            seconds(command)
        rounds = []
        for i in range(options.rounds):
            order = list(todo)[:: 1 if i % 2 else -1]
            rounds.append({name: seconds(todo[name]) for name in order})
        heavy = {name: imports(todo[name]) for name in todo}
    median = {name: statistics.median(r[name] for r in rounds) for name in todo}
    ratio = statistics.median(r["second run"] / r["import torch"] for r in rounds)
    passed = {
        "--help": median["--help"] < QUICK,
        "list methods": median["list methods"] < QUICK,
        "second run": ratio <= SECOND,
    }
    for name in todo:
        verdict = {True: "PASS", False: "FAIL"}.get(passed.get(name), "")  # type: ignore[arg-type]
        times = f", {ratio:.2f} of import torch" if name == "second run" else ""
        print(f"{name:14s} {median[name]:6.3f} s{times}  {verdict}")
        if name != "import torch":
            print(f"   imports {', '.join(heavy[name][0]) or 'nothing heavy'}")
            print(f"   slowest of their own: {', '.join(heavy[name][1])}")
    raise SystemExit(not all(passed.values()))


if __name__ == "__main__":
    main()
