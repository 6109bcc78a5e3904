"""Tries recipes of a suite's methods and judges them on the held-out tenth of train, never on test.

    python benchmarks/trials.py SUITE trials.json METHOD "lr=0.3" "lr=0.1 temperature=0.2" ...

Each trial trains one cell with seed 100, which no suite reports, and adds one line to the JSON file.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from sslbench.api import Place
from sslbench.cells.protocol import resolve_judge
from sslbench.cells.settings import Context, Settings, resolve
from sslbench.cells.suite import load_suite
from sslbench.data import default_roots, open_data
from sslbench.one_cell.building import Builder
from sslbench.one_cell.subject import Frozen, Inner
from sslbench.one_cell.workbench import Workbench
from sslbench.plugins import registry
from sslbench.store import Store
from sslbench.train.options import RunOptions

SEED = 100


def main(suite_name: str, out: str, method: str, *trials: str) -> None:
    found = registry()
    suite = load_suite(suite_name, found)
    place = Place(roots=default_roots(None))
    data = open_data(suite.datasets[0], found, place)
    store = Store(Path("trials-store"))
    store.create()
    bench = Workbench(Builder(found, place, torch.device("cpu")), store, RunOptions())
    setting = Context(suite.backbones[0], data.name, data.fingerprint, data.size, SEED)
    path = Path(out)
    for trial in trials or ("",):
        asked = dict(item.split("=", 1) for item in trial.split())
        layers = (
            ({"epochs": suite.epochs, "batch": suite.batch}, suite.set),
            ({}, {f"{method}.{key}": value for key, value in asked.items()}),
        )
        cell = resolve(method, found, setting, Settings(layers))
        begun = time.monotonic()
        done = bench.do(cell, [])
        row = {"method": method, "trial": asked, "cell": cell.id, "status": done.status}
        row |= {"hyperparameters": cell.identity()["method"]}
        if done.status == "ok":
            row["seconds"] = round(time.monotonic() - begun, 1)
            row |= judged(bench, cell, data, found)
        else:
            row["sentence"] = done.sentence
        rows = json.loads(path.read_text()) if path.exists() else []
        rows = [r for r in rows if r["cell"] != cell.id] + [row]
        path.write_text(json.dumps(rows, indent=1) + "\n")
        shown = {k: v for k, v in row.items() if k not in ("cell", "hyperparameters", "method")}
        print(method, shown, flush=True)


def judged(bench, cell, data, found) -> dict:
    folder = bench.store.cell(cell.id)
    with folder.lock():
        module, _ = bench._trained(cell, folder)
    inner = Inner(Frozen(module, data, torch.device("cpu")), data)
    scores = {}
    for name in ("knn", "linear", "clustering"):
        judge, evaluator = resolve_judge(name, found)
        metrics = evaluator(inner, inner, 0).metrics
        scores |= {f"{judge.protocol} {k}": round(v.value, 4) for k, v in metrics.items()}
    record = folder.current("train", cell.identity())
    scores["loss"] = [round(y, 3) for _, y in record.curves.get("loss", [])]
    return {"held_out": scores}


if __name__ == "__main__":
    main(*sys.argv[1:])
