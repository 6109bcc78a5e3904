"""Boards from records: whole outputs, and everything that must not hide or mix in them."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json

import pytest
from rich.console import Console

from sslbench.leaderboard import as_csv, as_json, as_markdown, as_rich, as_text, build
from sslbench.leaderboard.table import Member, printable
from sslbench.records import Costs, Failure, MetricValue, Record, Stage, Warned

PRINT = "9f" * 32
KNN = {"name": "knn", "version": 1, "params": {"k": 20}}
COSTS = Costs(
    seconds=20.5,
    images_seen=28740,
    images_per_second=1400.25,
    parameters=372_000,
    flops=12_300_000.0,
    peak_memory_bytes=512 * 2**20,
    stages=(Stage(name="main", seconds=20.5, images_seen=28740),),
)


def identity(method="moco", seed=0, *, recipe=True, **other):
    own = {"name": method, "version": 1, "hyperparameters": other.pop("hyperparameters", {})}
    if recipe:
        own["recipe"] = {"epochs": other.pop("epochs", 20), "lr": other.pop("lr", 0.03)}
    return {
        "identity_version": 1,
        "method": own,
        "backbone": "net",
        "dataset": {"name": "digits", "fingerprint": other.pop("fingerprint", PRINT), "size": 32},
        "labels": other.pop("labels", "none"),
        "seed": seed,
        "precision": other.pop("precision", "fp32"),
        **other,
    }


def record(of, *, judge=None, status="ok", values=None, **other):
    """A sealed record of the cell with this identity; of an evaluation when a judge is given."""
    protocol = other.pop("protocol", f"{judge['name']}-{judge['version']}" if judge else None)
    metrics = other.pop("metrics", None) or tuple(
        MetricValue(name=name, value=value) for name, value in (values or {}).items()
    )
    made = Record(
        kind="evaluation" if judge else "train",
        cell_id=f"{of['method']['name']}-{of['seed']}",
        identity={**of, "evaluator": judge} if judge else of,
        status=status,
        method=of["method"]["name"],
        backbone=of["backbone"],
        dataset="digits",
        seed=of["seed"],
        evaluator=judge["name"] if judge else None,
        protocol=protocol,
        metrics=metrics,
        **other,
    )
    return made.sealed()


def member(method, seed, values=None, *, of=None, judge=KNN, **other):
    """A cell judged by kNN with this accuracy, or with these metrics; None: nothing is known."""
    of = of if of is not None else identity(method, seed)
    values = {"acc": values} if isinstance(values, float) else values
    ok = values is not None
    given = {
        "identity": of,
        "cell_id": f"{method}-{seed}",
        "train": record(of, costs=COSTS) if ok else None,
        "evaluations": {"knn": record(of, judge=judge, values=values) if ok else None},
        "state": "done" if ok else "missing",
        **other,
    }
    return Member(method=method, backbone="net", dataset="digits", seed=seed, **given)


def cells(method, *values, **other):
    return [member(method, seed, value, **other) for seed, value in enumerate(values)]


def baseline(method, *values):
    found = []
    for seed, value in enumerate(values):
        of = identity(method, seed, recipe=False)
        found.append(member(method, seed, value, of=of, baseline=True, anchor=method))
    return found


def failed(method, seed, message, *, kind="nan", of=None):
    error = Failure(kind=kind, type="NotFinite", message=message, epoch=3, step=40)
    of = of if of is not None else identity(method, seed)
    return member(method, seed, of=of, train=record(of, status="failed", error=error), state="failed")


def board(*groups, suite_id="quick", **other):
    return build([m for group in groups for m in group], suite_id=suite_id, **other)


def rows(found, block=0):
    return {row.label: row for row in found.blocks[block].rows}


def scores(found, column=0, block=0):
    return {label: row.scores[column] for label, row in rows(found, block).items()}


def small():
    """Two methods apart, one with a failure, one skipped, one missing, two baselines."""
    skipped = {"state": "unsupported", "sentence": "mae needs a ViT, net has no patches"}
    return board(
        cells("swav", {"acc": 0.90, "top5": 0.99, "nmi": 0.5}, {"acc": 0.91, "top5": 0.98, "nmi": 0.4}),
        cells("moco", {"acc": 0.95, "top5": 0.99, "nmi": 0.7}, {"acc": 0.96, "top5": 0.98, "nmi": 0.8}),
        [member("byol", 0, {"acc": 0.7, "nmi": 0.2}), failed("byol", 1, "loss is nan, last was 0.3")],
        cells("mae", None, None, **skipped),
        cells("dino", None, None),
        baseline("untrained", {"acc": 0.80, "nmi": 0.3}, {"acc": 0.82, "nmi": 0.35}),
        baseline("pixels", {"acc": 0.88, "nmi": 0.4}, {"acc": 0.88, "nmi": 0.4}),
    )
