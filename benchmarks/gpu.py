"""Checks and measures the harness on a GPU, in under 8 minutes.

    python benchmarks/gpu.py                                  # everything, on the first GPU
    python benchmarks/gpu.py --only waits,speed --json found.json
    python benchmarks/gpu.py --device cpu --small             # what makes sense without a GPU
    python benchmarks/gpu.py --out benchmarks/results/gpu.md  # as the file there was made

    devices    what computes here; `cuda`, `cuda:0` and `auto` train a cell, to the same weights
    waits      a step of training makes the host wait for nothing; with fp16 once
    losses     first losses are those of the CPU; half precision; one infinite gradient, one step
    speed      the harness beside a bare loop (bare / harness >= 0.95), and how busy the device is
    views      a view alone, beside torchvision's and kornia's
    feed       training on images that lie on the device, and on images of the host
    resume     interrupted and resumed training ends with the weights of uninterrupted training
    exactness  judges score on a GPU what they score on a CPU; TF32 would not
    judges     knn, linear and clustering of 100,000 features of 2,048 numbers, 1,000 classes
    failures   out of memory, a device-side assert, a killed worker; two cells on one GPU

Rows are printed as they are found. A section that raises is a failed row, and the others go on; each
has a limit of time, and what has not begun after 7.5 minutes is skipped. Exit code 1 where a row
failed. `--small` shrinks everything, so that the script itself can be tried.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path

import gpu_judging
import gpu_runs
import gpu_speed
import gpu_training
from gpu_rows import VERDICTS, Bench, NeedsGpu, Row, TimeIsUp, first_line, limit

from sslbench.one_cell.environment import environment
from sslbench.run.memory import keep_freed
from sslbench.train.device import broken, pick_device, prepare

MOST = 450.0  # seconds, after which no section begins
# in the order of what matters most, should the time be up: name -> the section, its limit in seconds
SECTIONS: dict[str, tuple[Callable[[Bench], None], float]] = {
    "devices": (gpu_runs.devices, 60),
    "waits": (gpu_training.waits, 75),
    "failures": (gpu_runs.failures, 100),
    "resume": (gpu_runs.resume, 75),
    "losses": (gpu_training.losses, 100),
    "exactness": (gpu_judging.exactness, 30),
    "speed": (gpu_speed.speed, 150),
    "judges": (gpu_judging.judges, 110),
    "views": (gpu_speed.views_alone, 30),
    "feed": (gpu_speed.feed, 40),
}


def run(bench: Bench, name: str, left: float) -> None:
    """Runs a section within its limit; whatever it raises is a row."""
    section, most = SECTIONS[name]
    bench.section = name
    if left <= 0:
        bench.tell("the section", "skipped: the time is up")
        return
    begun = time.monotonic()
    try:
        if why := broken(bench.device):
            bench.tell("the section", f"skipped: {why}", False)
            return
        with limit(min(most * bench.patience, left)):
            section(bench)
    except NeedsGpu as why:
        bench.tell("the section", str(why))
    except (Exception, TimeIsUp) as error:  # noqa: BLE001 - whatever it is, the others go on
        if not isinstance(error, TimeIsUp):
            traceback.print_exc()
        bench.tell("the section", first_line(error), False)
    finally:
        bench.leave()
    print(f"{name:9} took {time.monotonic() - begun:.1f} s", flush=True)


def markdown(bench: Bench) -> str:
    said = environment(bench.device)
    keys = ("device", "driver", "cuda", "cudnn", "torch", "cpu")
    here = ", ".join(f"{key} {said[key]}" for key in keys if key in said)
    command = " ".join(["python benchmarks/gpu.py", *sys.argv[1:]])
    lines = [
        "# The harness on a GPU",
        "",
        f"Made by `{command}` (what is checked: its first lines) on {date.today()}: {here}.",
        "",
        "| section | what | found | |",
        "| --- | --- | --- | --- |",
    ]
    for row in bench.rows:
        found = row.found.replace("|", "\\|")
        lines.append(f"| {row.section} | {row.what} | {found} | {VERDICTS[row.right]} |")
    return "\n".join(lines) + "\n"


def as_json(rows: list[Row]) -> str:
    keys = ("section", "what", "found", "right")
    plain = [{key: getattr(row, key) for key in keys} | row.numbers for row in rows]
    for row in plain:  # JSON has no NaN
        odd = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
        row.update(dict.fromkeys(odd))
    return json.dumps(plain, indent=1, default=str)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="sections, with commas between them")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="shrink everything")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="stretch limits of time, on a busy machine"
    )
    parser.add_argument("--json", type=Path, help="a file for the rows and their numbers")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    asked = parser.parse_args()
    asked.only = asked.only.split(",") if asked.only else list(SECTIONS)
    if unknown := [name for name in asked.only if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return asked


def main() -> None:
    begun = time.monotonic()
    asked = options()
    device = pick_device(asked.device)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    prepare(device)
    keep_freed()  # as the processes of `sslbench run` do
    scratch = Path(tempfile.mkdtemp(prefix="sslbench-gpu-"))
    bench = Bench(device, asked.small, scratch, patience=asked.patience)
    try:
        for name in asked.only:
            run(bench, name, MOST * asked.patience - (time.monotonic() - begun))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if asked.json:
            asked.json.write_text(as_json(bench.rows))
        if asked.out:
            asked.out.write_text(markdown(bench))
    wrong = [row for row in bench.rows if row.right is False]
    print(f"\n{len(bench.rows)} rows, {len(wrong)} failed, {time.monotonic() - begun:.0f} s")
    for row in wrong:
        print(row.line)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
