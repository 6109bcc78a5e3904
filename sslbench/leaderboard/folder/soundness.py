"""Checks one record alone: its form, whether it contradicts itself, and impossible numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...cells.identity import Identity, JudgedIdentity
from ...names import unplaced
from ...records import MetricValue, Record, canonical, loads
from ...store import Answers

COUNTED = ("top1", "top5", "acc", "own_acc")  # our metrics that are a count divided by n
OURS = "sslbench"  # the distribution whose metrics are known here
WHOLE = 1e-6  # of an item


def parsed(text: str) -> Record:
    """Reads a record, and refuses repeated keys.

    Raises:
        ValueError: the text is not a record; NewerSchema: a later sslbench wrote it.
    """
    record = loads(text)
    json.loads(text, object_pairs_hook=_once)
    return record


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it says {next(n for n in names if names.count(n) > 1)!r} twice")
    return found


# ---- its identity ----------------------------------------------------------------------------


def misshapen(record: Record) -> bool:
    """Whether its identity lacks what tables need; cheaper than `contradictions`."""
    if record.kind == "evaluation":
        own = JudgedIdentity(record.identity).cell == record.cell_id
    else:
        own = Identity(record.identity).seed == record.seed
    return not (own and _shaped(record))


def _shaped(record: Record) -> bool:
    if record.kind == "train":
        return Identity(record.identity).sound
    return JudgedIdentity(record.identity).sound and bool(record.evaluator)


def contradictions(record: Record) -> Iterator[str]:
    """Where a record's own fields and its identity disagree."""
    if not _shaped(record):
        yield "its identity is not one that sslbench writes"
        return
    try:
        found = list((_of_training if record.kind == "train" else _of_judging)(record))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = [f"its identity is not one that sslbench writes ({error})"]
    yield from found


def _of_training(record: Record) -> Iterator[str]:
    identity = Identity(record.identity)
    if identity.id != record.cell_id:
        yield f"its identity makes cell {identity.id[:12]}, it claims {record.cell_id[:12]}"
    for name, said, meant in (
        ("method", record.method, identity.method),
        ("backbone", record.backbone, identity.backbone),
        ("dataset", unplaced(record.dataset), identity.dataset),
        ("seed", record.seed, identity.seed),
    ):
        if said != meant:
            yield f"its {name} is {said}, its identity's {meant}"
    yield from _unlike("hyperparameter", record.hyperparameters, identity.hyperparameters)
    yield from _unlike("recipe field", record.recipe, identity.recipe)
    for stage, (_, recipe) in identity.stages.items():
        own = record.recipe.get(stage, {})
        yield from _unlike(f"recipe field of {stage}", own, recipe)
    if record.evaluator or record.protocol or record.metrics:
        yield "it is a record of training and has fields of an evaluator"


def _of_judging(record: Record) -> Iterator[str]:
    identity = JudgedIdentity(record.identity)
    if identity.cell != record.cell_id:
        yield f"its identity judges cell {str(identity.cell)[:12]}, not its own"
    if record.evaluator != identity.name:
        yield f"its evaluator is {record.evaluator}, its identity's {identity.name}"
    if record.protocol != identity.protocol:
        yield f"its protocol is {record.protocol}, its identity's {identity.protocol}"


def _unlike(what: str, said: Mapping[str, Any], meant: Mapping[str, Any]) -> Iterator[str]:
    for name, value in meant.items():
        if name not in said or canonical(said[name]) != canonical(value):
            yield f"its {what} {name} is {said.get(name)!r}, its identity's {value!r}"


# ---- its numbers -----------------------------------------------------------------------------


def impossible(record: Record) -> Iterator[str]:
    """Numbers that no measurement can give, a sentence each."""
    known = {(m.name, m.split): m for m in record.metrics}
    if len(known) < len(record.metrics):
        yield "one metric stands in it twice"
    if record.kind == "evaluation" and record.status == "ok" and not record.metrics:
        yield "it is ok and has no metric"
    if record.status != "ok" and record.metrics:
        yield f"it is {record.status} and has metrics"
    ours = record.components.get("evaluator", {}).get("dist") == OURS
    for metric in record.metrics:
        yield from _of_metric(metric, ours=ours)
        wider = known.get((metric.name.replace("top1", "top5", 1), metric.split))
        if metric.name.startswith("top1") and wider and metric.value > wider.value:
            yield f"{metric.name} is {metric.value}, above {wider.name}, {wider.value}"
    yield from _of_costs(record)
    if record.started and record.finished and record.finished < record.started:
        yield f"it finished at {record.finished}, before it started at {record.started}"


def miscounted(record: Record, found: Answers) -> Iterator[str]:
    """Predictions that do not give the accuracy of their record; only ours are known to count."""
    first = record.metric()
    ours = record.components.get("evaluator", {}).get("dist") == OURS
    if first is None or first.n is None or not ours or not first.name.startswith("top1"):
        return
    right, of = int((found.predicted == found.truth).sum()), len(found.truth)
    if of != first.n or abs(right - first.value * of) > WHOLE:
        yield f"{right} of {of} are right in it, {first.value!r} of {first.n} in its record"


def _of_metric(metric: MetricValue, *, ours: bool) -> Iterator[str]:
    said = f"{metric.name} is {metric.value!r}"
    counted = ours and metric.name in COUNTED
    low = 0.0 if counted else -1.0  # differences and metrics corrected for chance may be below 0
    if not metric.unit and not low <= metric.value <= 1:
        yield f"{said}, a fraction outside {low:g} to 1"
    if metric.n is not None and metric.n < 1:
        yield f"{metric.name} is of {metric.n} items"
    if metric.stderr is not None and metric.stderr < 0:
        yield f"{metric.name} has a negative standard error, {metric.stderr!r}"
    if counted and metric.n:
        items = metric.value * metric.n
        if abs(items - round(items)) > WHOLE:
            yield f"{said}, which is {items:.4f} of {metric.n} items, not a whole number"
        share = metric.value * (1 - metric.value) / metric.n
        if metric.stderr is not None and abs(metric.stderr**2 - share) > WHOLE * max(share, WHOLE):
            yield f"{said}, whose standard error is {max(share, 0) ** 0.5:.6g}, not {metric.stderr:.6g}"


def _of_costs(record: Record) -> Iterator[str]:
    if record.costs is None:
        return
    for name, value in record.costs.model_dump(exclude={"stages"}).items():
        if value is not None and value < 0:
            yield f"its {name} is {value}"
    for stage in record.costs.stages:
        if min(stage.seconds, stage.images_seen) < 0:
            yield f"its stage {stage.name} took {stage.seconds} s for {stage.images_seen} images"
