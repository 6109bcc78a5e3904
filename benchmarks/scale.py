"""Measures how long it takes to plan many cells and to list many records, without imports.

    python benchmarks/scale.py plan [--methods 200] [--datasets 10] [--seeds 5] [--distinct]
    python benchmarks/scale.py records [--records 100000]

`plan` plans made-up methods on parts of digits, in an empty store. They are partials of one class
that differ in lr; with --distinct, in a hyperparameter, so that each must be built to be checked. It
is timed with and without the checks that build each distinct combination once. Bar: 2 s.
`records` lists made-up records, four per cell, as `sslbench store ls` does: first a tenth of them, to
show that the cost of one record stays the same. Bar: 5 s.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PLUGIN = """
from functools import partial
import sslbench
from sslbench.methods.simsiam import SimSiam
SSLBENCH_API = (1, 0)
@sslbench.hookimpl
def methods():
    return {{f"made-{{i:03}}": partial(SimSiam, {varied}) for i in range({count})}}
"""
VARIED = {False: "lr=0.01 + i / 1e4", True: "hidden=512 + i"}


@contextlib.contextmanager
def clock(what: str, bar: float) -> Iterator[None]:
    start, work = time.perf_counter(), time.process_time()
    yield
    seconds, work = time.perf_counter() - start, time.process_time() - work
    verdict = "ok" if seconds < bar else "OVER"
    print(f"{what:40} {seconds:6.2f} s ({work:.2f} s of processor)  {verdict} (bar {bar:g} s)")


# ---- plan ------------------------------------------------------------------------------------


def plan(given: argparse.Namespace) -> None:
    import sklearn.datasets  # noqa: F401 - digits are there: reading them is data, not planning
    import timm  # noqa: F401

    from sslbench.plan.planning import make_plan
    from sslbench.plan.selection import Selection
    from sslbench.plugins import registry

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        text = PLUGIN.format(count=given.methods, varied=VARIED[given.distinct])
        (home / "made.py").write_text(text)
        suite = {
            "summary": "made up",
            "datasets": [f"digits[train={1000 + 40 * i}]" for i in range(given.datasets)],
            "backbones": ["test_resnet"],
            "methods": [f"file:made/made-{i:03}" for i in range(given.methods)],
            "baselines": ["untrained"],
            "evaluators": ["knn", "linear", "clustering"],
            "seeds": list(range(given.seeds)),
            "epochs": 1,
            "batch": 128,
        }
        (home / "made.yaml").write_text(json.dumps(suite))
        known = registry(installed=False, files=[home / "made.py"])
        options = Selection(suite=str(home / "made.yaml"), store=home / "store")
        for checked in (False, True):
            what = "with checks that build" if checked else "cells and states alone"
            with clock(f"plan, {what}", 2):
                made = make_plan(options, known, preflight=checked)
        print(f"{len(made.cells):,} cells")


# ---- records ---------------------------------------------------------------------------------


def records(given: argparse.Namespace) -> None:
    for count in (given.records // 10, given.records):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write(root, count)
            from sslbench.cli import main

            start = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()) as said, clock_of(f"{count:,}"):
                sys.argv = ["sslbench", "store", "ls", "--store", str(root)]
                with contextlib.suppress(SystemExit):
                    main()
            each = (time.process_time() - start) / count * 1e6
            lines = len(said.getvalue().splitlines())
            print(f"{lines:,} lines, {each:.1f} us of processor a record")


@contextlib.contextmanager
def clock_of(count: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{count} records listed: {time.perf_counter() - start:.2f} s (bar 5 s)", file=sys.stderr)


def write(root: Path, count: int) -> None:
    """Writes a store of cells with four records each."""
    from sslbench.records import Costs, MetricValue, Record
    from sslbench.store import Store

    (root / "store.json").write_text('{"format": 1}')
    store = Store(root)
    judges = ("knn", "linear", "clustering")
    for number in range(count // 4):
        cell_id = hashlib.sha256(str(number).encode()).hexdigest()
        shared = {
            "cell_id": cell_id,
            "status": "ok",
            "method": f"made-{number % 200:03}",
            "backbone": "test_resnet",
            "dataset": f"digits[train={1000 + number % 10}]",
            "seed": number % 5,
            "finished": f"2026-01-01T00:00:{number % 60:02}.000Z",
        }
        made = [Record(kind="train", identity={"n": number}, costs=Costs(seconds=1.0), **shared)]
        for judge in judges:
            metrics = (MetricValue(name="top1", value=number % 997 / 997),)
            identity = {"cell": cell_id, "evaluator": {"name": judge}}
            more = {"evaluator": judge, "protocol": f"{judge}-1", "metrics": metrics}
            made.append(Record(kind="evaluation", identity=identity, **more, **shared))
        folder = store.cell(cell_id).path / "records"
        folder.mkdir(parents=True)
        for record in made:
            sealed = record.sealed()
            path = folder / f"{sealed.evaluator or 'train'}-{sealed.record_id[:24]}.json"
            path.write_text(sealed.dumps())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("plan", "records"))
    parser.add_argument("--methods", type=int, default=200)
    parser.add_argument("--datasets", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--distinct", action="store_true")
    parser.add_argument("--records", type=int, default=100_000)
    given = parser.parse_args()
    {"plan": plan, "records": records}[given.what](given)


if __name__ == "__main__":
    main()
