"""Makes records and leaderboards with valid digests and made-up numbers, without training."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslbench.cells.suite import Suite
from sslbench.leaderboard.folder.folder import Leaderboard, add
from sslbench.records import Costs, MetricValue, Record, digest

RECIPE = {"epochs": 5, "batch": 64, "lr": 0.1, "optimizer": "sgd"}
ENVIRONMENT = {"sslbench": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "threads": 1, "cores": 2}
COMPONENT = {"dist": "sslbench", "dist_version": "0.1.0", "source_sha256": "5" * 64, "version": 1}
JUDGES = {"knn": "top1", "linear": "top1"}


def suite_of(methods: Sequence[str] = ("moco", "swav"), **other: Any) -> Suite:
    fields: dict[str, Any] = {
        "summary": "made up",
        "datasets": ("digits",),
        "backbones": ("test_resnet",),
        "baselines": (),
        "evaluators": tuple(JUDGES),
        "seeds": (0, 1, 2),
        "epochs": 5,
    }
    return Suite(name="made-up", methods=tuple(methods), **{**fields, **other})


def train(method: str, seed: int, *, dataset: str = "digits", **other: Any) -> Record:
    """A record of training; `identity`, `recipe` and `hyperparameters` override the usual ones."""
    hyperparameters = {"temperature": 0.2, **other.pop("hyperparameters", {})}
    recipe = {**RECIPE, **other.pop("recipe", {})}
    identity = {
        "identity_version": 1,
        "method": {
            "name": method,
            "version": 1,
            "hyperparameters": hyperparameters,
            "recipe": recipe,
        },
        "backbone": "test_resnet",
        "dataset": {"name": dataset, "fingerprint": digest(dataset), "size": 32},
        "labels": "none",
        "seed": seed,
        "precision": "fp32",
        **other.pop("identity", {}),
    }
    fields: dict[str, Any] = {
        "kind": "train",
        "cell_id": digest(identity),
        "identity": identity,
        "status": "ok",
        "method": method,
        "backbone": "test_resnet",
        "dataset": dataset,
        "seed": seed,
        "suite": "made-up",
        "hyperparameters": hyperparameters,
        "recipe": recipe,
        "components": dict.fromkeys(("method", "backbone", "dataset"), COMPONENT),
        "environment": ENVIRONMENT,
        "costs": Costs(seconds=10.0 + seed, images_seen=5000, parameters=372_688, flops=8.2e6),
        "curves": {"loss": [(float(e), 2.0 / (1 + e)) for e in range(1, 6)]},
        "started": "2026-01-01T00:00:00.000Z",
        "finished": f"2026-01-01T00:0{seed}:10.000Z",
    }
    return Record(**{**fields, **other}).sealed()


def judged(of: Record, judge: str, values: Mapping[str, float], **other: Any) -> Record:
    """A record of the evaluator `judge` on the cell that `of` trained."""
    version = other.pop("version", 1)
    identity = {
        "cell": of.cell_id,
        "evaluator": {"name": judge, "version": version, "params": {}},
        **other.pop("identity", {}),
    }
    fields: dict[str, Any] = {
        "kind": "evaluation",
        "identity": identity,
        "status": "ok",
        "evaluator": judge,
        "protocol": f"{judge}-{version}",
        "metrics": tuple(MetricValue(name=k, value=v, n=1000) for k, v in values.items()),
        "components": {"evaluator": {**COMPONENT, "version": version}},
        "costs": Costs(seconds=0.5),
    }
    shared = [
        "cell_id",
        "method",
        "backbone",
        "dataset",
        "seed",
        "suite",
        "environment",
        "hyperparameters",
        "recipe",
    ]
    fields |= {name: getattr(of, name) for name in shared}
    fields |= {"started": of.finished, "finished": of.finished.replace("T00", "T01")}
    return Record(**{**fields, **other}).sealed()


def records_of(suite: Suite, *, draw: int = 0, judges: Iterable[str] = JUDGES) -> list[Record]:
    """Records of every cell of a suite; values are whole thousandths around a level per method."""
    dice = random.Random(draw)
    found = []
    for dataset in suite.datasets:
        for method in (*suite.methods, *suite.baselines):
            level = dice.randrange(600, 900)
            for seed in suite.seeds:
                cell = train(method, seed, dataset=dataset)
                found.append(cell)
                for judge in judges:
                    top1 = (level + dice.randrange(-9, 10)) / 1000
                    found.append(judged(cell, judge, {"top1": top1}))
    return found


def leaderboard(root: Path, suite: Suite | None = None, **other: Any) -> Leaderboard:
    """Makes a leaderboard's folder with made-up records, not yet built."""
    suite = suite or suite_of()
    return add(root, suite, records_of(suite, **other))
