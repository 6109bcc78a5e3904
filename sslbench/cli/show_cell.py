"""Prints all about one cell: identity, recipe, costs, records, errors, the end of its log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .text import duration, one_line, say, say_table, size

if TYPE_CHECKING:
    from ..records import Record
    from ..store import Answers, CellFolder

LOG = 20  # lines of the log that are printed
SAID = 12  # metrics of a record that are printed
CLASSES = 1000  # of a table of who is taken for whom, at most


def say_cell(cell: CellFolder) -> None:
    identity, records = cell.identity(), cell.records()
    plain = identity.plain if identity else {}
    train = _last(r for r in records if r.kind == "train")
    say(cell.id, bold=True)
    if identity:
        say(f"{' · '.join(map(one_line, identity.title))} · seed {identity.seed}")
    say(f"{train.status if train else 'not trained'}; {cell.path}")
    section("identity", _flat({k: v for k, v in plain.items() if k != "method"}))
    if train:
        method = plain.get("method", {})
        section("method", [(k, v) for k, v in method.items() if isinstance(v, str | int)])
        section("hyperparameters", _flat(train.hyperparameters))
        section("recipe", _flat(train.recipe))
        _say_costs(train)
        section("health", [(k, f"{v:.4g}") for k, v in train.health.items()])
        section("environment", _flat(train.environment))
    _say_records(records)
    for protocol, answers in _answers(cell, records).items():
        say(f"{one_line(protocol)}: {confused(answers)}")
    for protocol, path in _sheets(cell, records).items():
        say(f"sheet of {one_line(protocol)}: {path}")
    for record in records:
        for warning in record.warnings:
            say(f"warning: {one_line(warning.code)}: {one_line(warning.message)}", fg="yellow")
    _say_errors(records)
    _say_log(cell)


def section(title: str, rows: Iterable[tuple[str, object]]) -> None:
    rows = list(rows)
    if not rows:
        return
    say()
    say(title, bold=True)
    width = max(len(one_line(name)) for name, _ in rows)
    for name, value in rows:
        say(f"  {one_line(name):<{width}}  {one_line(value)}".rstrip())


def _flat(values: Mapping[str, Any], at: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{at}{key}.")
        else:
            found.append((f"{at}{key}", value))
    return found


def _say_costs(train: Record) -> None:
    costs = train.costs
    if costs is None:
        return
    rows: list[tuple[str, object]] = [("seconds", f"{costs.seconds:.1f}")]
    rows.append(("images seen", f"{costs.images_seen:,}"))
    if costs.images_per_second is not None:
        rows.append(("images/s", f"{costs.images_per_second:,.0f}"))
    if costs.parameters is not None:
        rows.append(("parameters", f"{costs.parameters:,}"))
    if costs.flops is not None:
        rows.append(("FLOPs/image", f"{costs.flops:,.0f}"))
    if costs.peak_memory_bytes is not None:
        rows.append(("peak memory", size(costs.peak_memory_bytes)))
    for stage in costs.stages:
        loaded = ", loaded" if stage.reused else ""
        what = f"{duration(stage.seconds)}, {stage.images_seen:,} images{loaded}"
        rows.append((f"stage {stage.name}", what))
    section("costs", rows)


def _say_records(records: list[Record]) -> None:
    say()
    say("records", bold=True)
    if not records:
        say("  none")
        return
    rows = [
        (
            r.protocol or "train",
            r.status,
            r.attempt,
            r.finished,
            f"{r.costs.seconds:.1f}" if r.costs else "",
            r.record_id[:12],
            _said(r),
        )
        for r in records
    ]
    say_table(("what", "status", "attempt", "finished", "seconds", "record", "says"), rows)


def _sheets(cell: CellFolder, records: list[Record]) -> dict[str, Path]:
    """The newest sheet of each protocol."""
    found = {record.protocol or "": cell.sheet(record) for record in records}
    return {protocol: path for protocol, path in found.items() if path is not None}


def _answers(cell: CellFolder, records: list[Record]) -> dict[str, Answers]:
    """The newest predictions of each protocol, where a table of CLASSES can hold them."""
    found = {record.protocol or "": cell.predictions(record) for record in records}
    return {
        protocol: answers
        for protocol, answers in found.items()
        if answers and len(answers.truth) and max(map(max, answers)) < CLASSES
    }


def confused(answers: Answers) -> str:
    """Balanced accuracy, the weakest class, and which class is taken for which most often."""
    import numpy as np

    counts = answers.confusion()
    there = counts.sum(1) > 0
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    right = np.where(there, shares.diagonal(), np.inf)
    weakest = int(right.argmin())
    said = (
        f"balanced accuracy {100 * right[there].mean():.1f} %, "
        f"weakest class {weakest} ({100 * right[weakest]:.1f} %)"
    )
    np.fill_diagonal(shares, 0)
    truth, other = np.unravel_index(shares.argmax(), shares.shape)
    if shares[truth, other]:
        said += f", most often {truth} is taken for {other} ({100 * shares[truth, other]:.1f} %)"
    return said


def _said(record: Record) -> str:
    if record.status != "ok":
        return record.sentence
    metrics = [
        f"{m.name} {m.value:.{4 if abs(m.value) < 100 else 0}f}"
        + (f" ± {m.stderr:.4f}" if m.stderr is not None else "")
        for m in record.metrics[:SAID]
    ]
    if more := len(record.metrics) - SAID:
        metrics += [f"and {more} more metrics (--json)"] if more > 0 else []
    chosen = [f"chose {key} {value}" for key, value in record.chosen.items()]
    return ", ".join([*metrics, *chosen])


def _say_errors(records: list[Record]) -> None:
    """Prints the error of training and of each protocol, unless a later attempt succeeded."""
    last: dict[str, Record] = {}
    for record in records:
        last[record.protocol or "train"] = record
    for what, record in last.items():
        if record.error is None:
            continue
        error = record.error
        place = [("stage", error.stage), ("epoch", error.epoch), ("step", error.step)]
        where = ", ".join(f"{name} {value}" for name, value in place if value not in (None, ""))
        say()
        say(
            f"error of {one_line(what)} ({one_line(error.kind)}){where and f' at {where}'}",
            bold=True,
        )
        say(f"  {one_line(error.type)}: {one_line(error.message)}", fg="red")
        for line in error.traceback.rstrip().splitlines():
            say(f"  {line}")


def _log(cell: CellFolder) -> list[str]:
    path = cell.path / "log.txt"
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG:]


def _say_log(cell: CellFolder) -> None:
    if lines := _log(cell):
        say()
        say(f"the end of {cell.path / 'log.txt'}", bold=True)
        for line in lines:
            say(f"  {one_line(line)}")


def _last(records: Iterable[Record]) -> Record | None:
    found = None
    for found in records:  # noqa: B007 - the last one is wanted
        pass
    return found


def cell_plain(cell: CellFolder) -> dict[str, Any]:
    return {
        "id": cell.id,
        "path": str(cell.path),
        "identity": identity.plain if (identity := cell.identity()) else None,
        "records": [r.model_dump(mode="json", by_alias=True) for r in cell.records()],
        "confusion": {
            k: found.confusion().tolist() for k, found in _answers(cell, cell.records()).items()
        },
        "sheets": {k: str(path) for k, path in _sheets(cell, cell.records()).items()},
        "files": {p.name: p.stat().st_size for p in sorted(cell.path.iterdir()) if p.is_file()},
        "log": _log(cell),
    }
