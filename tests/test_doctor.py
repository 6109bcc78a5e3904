"""What `doctor` says of a machine: measured, not guessed; and what it says of one that is broken."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import faiss
import pytest
import torch
from click.testing import CliRunner, Result

from sslbench.cli import checks
from sslbench.cli.app import program
from sslbench.cli.checks import DoctorCheck, disk, faiss_build, precisions, rate

CPU = torch.device("cpu")


def call(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(program, args)
    assert result.exit_code == code, result.output
    return result


def test_a_rate_is_that_of_the_largest_product_that_was_timed(monkeypatch):
    seconds = {64: 1e-4, 128: 2e-3, 256: 0.03, 512: 9.0}
    tried = []

    def product(device, kind, side):
        tried.append(side)
        return seconds[side]

    monkeypatch.setattr(checks, "_product", product)
    assert rate(CPU, torch.float32) == pytest.approx(2 * 64**3 / 1e-4 / 1e9)
    assert tried == [64, 128, 256]  # what would take long is not tried


def test_what_a_device_cannot_do_is_no_rate_and_a_note(monkeypatch):
    def product(device, kind, side):
        if kind is torch.float16:
            raise RuntimeError("not implemented for 'Half'")
        return 0.05

    monkeypatch.setattr(checks, "_product", product)
    assert rate(CPU, torch.float16) is None
    found = precisions(CPU)
    assert found.state == "note"
    assert found.says.endswith("GFLOP/s; not supported: fp16")


@pytest.mark.parametrize(
    ("bf16", "state", "said"),
    [
        (0.1, "note", "; bf16 is 10.0 times slower than fp32: --precision bf16 costs time here"),
        (0.005, "ok", "GFLOP/s"),
    ],
)
def test_a_precision_slower_than_fp32_is_said_in_a_sentence(monkeypatch, bf16, state, said):
    # ENOUGH is 0.02: half of what fp32 takes is enough for one product
    seconds = {torch.float32: 0.01, torch.float16: 0.005, torch.bfloat16: bf16}
    monkeypatch.setattr(checks, "SIDES", (64,))
    monkeypatch.setattr(checks, "_product", lambda device, kind, side: seconds[kind])
    found = precisions(CPU)
    assert (found.name, found.state) == ("precision cpu", state)
    assert found.says.endswith(said)


def test_a_product_is_measured_on_this_machine():
    found = rate(CPU, torch.float32)
    assert found is not None
    assert found > 0


def test_the_build_of_faiss_is_its_own_word():
    found = faiss_build()
    assert all(word in found.says for word in faiss.get_compile_options().split())
    assert ("on the CPU" in found.says) == (getattr(faiss, "get_num_gpus", lambda: 0)() == 0)


def test_a_disk_that_is_nearly_full_is_a_note(monkeypatch, tmp_path):
    usage = dataclasses.make_dataclass("usage", ["free"])
    asked = []
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda p: asked.append(p) or usage(2**29))
    found = disk("store", tmp_path / "not" / "there")
    assert asked == [tmp_path]
    assert found == DoctorCheck("disk of store", "note", f"0.5 GiB free at {tmp_path}: little")
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage(2**31))
    assert disk("store", tmp_path).state == "ok"


def test_doctor_says_everything_of_this_machine(tmp_path: Path):
    said = json.loads(call("doctor", "--json", "--store", str(tmp_path / "s")).stdout)
    found = {check["name"]: check for check in said}
    for name in ("numpy", "faiss build", "blas of numpy", "blas of torch", "precision cpu"):
        assert found[name]["state"] in ("ok", "note"), found[name]
    assert "fp32" in found["precision cpu"]["says"]
    assert "GiB free" in found["disk of store"]["says"]
    assert "smoke run" not in found
    assert not (tmp_path / "s").exists()


def test_what_the_smoke_run_meets_decides_the_exit(monkeypatch):
    monkeypatch.setattr("sslbench.cli.doctor._checks", lambda *args: iter(()))
    for state, code in (("ok", 0), ("ERROR", 5)):
        says = f"it was {state}"
        monkeypatch.setattr(
            "sslbench.cli.doctor.smoke",
            lambda *args, s=state, t=says: DoctorCheck("smoke run", s, t),
        )
        result = call("doctor", "--smoke", code=code)
        assert says in result.stdout


def test_nothing_is_run_where_something_is_broken(monkeypatch):
    broken = DoctorCheck("torch", "ERROR", "cannot be imported")
    monkeypatch.setattr("sslbench.cli.doctor._checks", lambda *args: iter([broken]))
    monkeypatch.setattr("sslbench.cli.doctor.smoke", lambda *args: pytest.fail("was run"))
    assert "error: broken: torch" in call("doctor", "--smoke", code=5).output


BROKEN = """
import sslbench
SSLBENCH_API = (1, 0)
class Broken(sslbench.Method):
    def __init__(self, backbone, data): raise ValueError("it never works")
    def views(self): ...
    def step(self, batch): yield None
@sslbench.hookimpl
def methods(): return {"broken": Broken}
"""
SUITE = """
summary: broken
datasets: ["digits[train=64,test=32]"]
backbones: [test_resnet]
methods: ["file:broken/broken"]
baselines: []
evaluators: [knn]
seeds: [0]
batch: 32
"""


def test_a_smoke_run_that_fails_says_why(tmp_path: Path):
    from sslbench.plan.selection import Selection
    from sslbench.plugins import registry

    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "suite.yaml").write_text(SUITE)
    known = registry(installed=False, files=[tmp_path / "broken.py"])
    found = checks.smoke(known, Selection(suite=str(tmp_path / "suite.yaml")))
    assert (found.name, found.state) == ("smoke run", "ERROR")
    assert "it never works" in found.says
