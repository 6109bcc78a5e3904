"""Judges a cell by evaluators, and makes a record of each result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ..api import Method
from ..cells.cell import Cell, derive, plain
from ..cells.protocol import Judge, judged_identity, resolve_judge
from ..data import Data
from ..disk import CannotRead, DiskError
from ..errors import Interrupted, Unsuited
from ..events import EvaluationDone
from ..names import parse as parse_name
from ..records import Costs, MetricValue, Record, Warned, now
from ..store import Answers, CellFolder, answers, newest, png
from ..train.feed import kept_generators, seed_all
from .building import Means
from .environment import component
from .provenance import failure, keep, next_attempt, provenance
from .subject import Frozen, Inner, JudgedData


def judge_all(
    means: Means, cell: Cell, module: nn.Module, folder: CellFolder, judges: Sequence[Judge]
) -> list[str]:
    """Runs the evaluators that have no sound record; returns a sentence for each that failed."""
    records = folder.records()
    missing = [j for j in judges if not is_judged(records, cell, j)]
    data = means.builder.data(cell.dataset)
    subject = _subject(means, module, data, cell.seed, folder)
    failed = []
    for judge in missing:
        if means.stop():
            raise Interrupted(f"before {judge.protocol}")
        attempt = next_attempt(r for r in records if r.evaluator == judge.name)
        record = keep(folder, *_judged(means, cell, subject, judge, attempt=attempt))
        first = record.metric()
        means.listener(
            EvaluationDone(
                cell.id,
                judge.protocol,
                record.status,
                first.name if first else "",
                first.value if first else None,
                tuple((metric.name, metric.value) for metric in record.metrics),
            )
        )
        if record.status == "failed":
            failed.append(f"{judge.protocol}: {record.sentence}")
    return failed


def _subject(
    means: Means, module: nn.Module, data: Data, seed: int, folder: CellFolder | None = None
) -> Frozen:
    return Frozen(
        module,
        data,
        means.device,
        folder,
        lend=lambda name: resolve_judge(name, means.builder.registry)[1],
        opened=means.builder.data,
        seed=seed,
    )


def _judged(
    means: Means, cell: Cell, subject: Frozen, judge: Judge, *, attempt: int
) -> tuple[Record, Answers | None, bytes]:
    """Runs one evaluator.

    Returns a record of what it measured or why not, its predictions, and its sheet as a PNG.
    """
    found: Answers | None = None
    sheet = b""
    begun, started = time.monotonic(), now()
    identity = judged_identity(cell, judge)
    common = {**provenance(means, cell), "kind": "evaluation", "identity": identity}
    common |= {"evaluator": judge.name, "protocol": judge.protocol}
    common |= {"started": started, "attempt": attempt}
    entry = means.builder.registry.find("evaluators", parse_name(judge.name).base)
    common["components"] = {
        **common["components"],
        "evaluator": component(entry, judge.version, store=means.store.root),
    }
    try:
        _, evaluator = resolve_judge(judge.name, means.builder.registry)
        seed = derive("judge", judge.family, cell.fingerprint, cell.seed)
        subject.uses = frozenset(evaluator.uses)
        with kept_generators(means.device):
            seed_all(seed, means.device)
            judgement = evaluator(*_asked(subject, judge), seed % 2**31)
        common["components"] |= {
            f"data {name}": {"fingerprint": sha} for name, sha in judgement.sources.items()
        }
        known = {m.name: m for m in evaluator.metrics}
        metrics = tuple(
            MetricValue(
                name=name,
                value=float(v.value),
                higher_is_better=known[name].higher_is_better if name in known else True,
                unit=known[name].unit if name in known else "",
                split="held-out" if judge.held_out else v.split,
                n=v.n,
                stderr=None if v.stderr is None else float(v.stderr),
            )
            for name, v in judgement.metrics.items()
        )
        record = Record(
            **common,
            status="ok",
            metrics=metrics,
            chosen=plain(judgement.chosen),
            warnings=tuple(Warned(code=judge.name, message=w) for w in judgement.warnings),
            costs=Costs(seconds=time.monotonic() - begun),
            finished=now(),
        )
        if judgement.predictions is not None and means.how.predictions:
            found = answers(judgement.predictions)
        if judgement.sheet is not None and means.how.predictions:
            sheet = png(judgement.sheet)
    except Unsuited as error:
        record = Record(**common, status="skipped", sentence=str(error), finished=now())
    except (Exception, SystemExit) as error:  # the other evaluators go on
        if isinstance(error, DiskError) and not isinstance(error, CannotRead):
            raise  # no record could be written either
        wrong = failure(error, cell, None, judge=judge.protocol)
        record = Record(
            **common, status="failed", sentence=wrong.message, error=wrong, finished=now()
        )
    return record, found, sheet


def watching(means: Means, data: Data, seed: int) -> Callable[[Method], Mapping[str, float]]:
    """Makes the function by which `--watch` measures a method while it trains."""
    assert means.how.watch is not None
    judge, evaluator = resolve_judge(means.how.watch.evaluator, means.builder.registry)

    def watch(method: Method) -> dict[str, float]:
        inner = Inner(_subject(means, method, data, seed), data)
        inner.subject.uses = frozenset(evaluator.uses)
        try:
            metrics = evaluator(inner, inner, 0).metrics
        except Unsuited:
            return {}
        first = evaluator.metrics[0].name
        return {f"watch.{judge.protocol}.{first}": float(metrics[first].value)}

    return watch


def _asked(subject: Frozen, judge: Judge) -> tuple[Any, Any]:
    """The encoder and the data to judge: those of test, or of the held-out tenth of train."""
    if not judge.held_out:
        return subject, JudgedData(subject.data, subject.device, subject.seed)
    inner = Inner(subject, subject.data)
    return inner, inner


def is_judged(records: list[Record], cell: Cell, judge: Judge) -> bool:
    found = newest(records, "evaluation", judged_identity(cell, judge))
    return found is not None and found.status in ("ok", "skipped")
