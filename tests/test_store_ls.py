"""`sslbench store ls`: a line for every record, whatever became of its file."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from sslbench.cli.app import program
from sslbench.records import MetricValue, Record
from sslbench.store import Store


def call(*args: str) -> Result:
    result = CliRunner().invoke(program, args)
    assert result.exit_code == 0, result.output
    return result


def filled(root: Path) -> str:
    store = Store(root)
    store.create()
    cell = store.cell("ab" * 32)
    shared = {
        "cell_id": cell.id,
        "method": "moco\x1b[31m",
        "backbone": "net",
        "dataset": "digits",
        "seed": 3,
        "finished": "2026-01-01T00:00:00.000Z",
    }
    cell.add(Record(kind="train", identity={}, status="ok", **shared))
    metrics = (MetricValue(name="top1", value=0.12345), MetricValue(name="top5", value=0.5))
    more = {"evaluator": "knn", "protocol": "knn-1", "metrics": metrics}
    cell.add(Record(kind="evaluation", identity={}, status="failed", **more, **shared))
    (cell.path / "records" / "zz-broken.json").write_text("[1")
    store.cell("cd" * 32).path.mkdir(parents=True)  # a cell without records
    return cell.id


def test_every_record_has_a_line_and_a_damaged_one_says_so(tmp_path):
    cell = filled(tmp_path)
    found = json.loads(call("store", "ls", "--store", str(tmp_path), "--json").stdout)
    assert [(each["what"], each["status"], each["metric"]) for each in found[:2]] == [
        ("knn-1", "failed", "top1 0.1235"),
        ("train", "ok", ""),
    ]
    assert {each["cell"] for each in found} == {cell}
    assert (found[2]["method"], found[2]["status"]) == ("?", "damaged")
    assert len(found) == 3


def test_the_table_is_printable_and_nothing_is_moved(tmp_path):
    cell = filled(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    lines = call("store", "ls", "--store", str(tmp_path)).output.splitlines()
    assert lines[0].split()[:6] == ["cell", "method", "backbone", "dataset", "seed", "what"]
    assert lines[1].startswith(f"{cell[:12]}  moco\\x1b[31m  net")
    assert lines[-1] == f"3 records; store {tmp_path}"
    assert sorted(tmp_path.rglob("*")) == before
