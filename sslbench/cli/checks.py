"""Checks of `sslbench doctor`: speed by precision, BLAS, faiss, free disk, and a short run."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..plan.selection import Selection
    from ..plugins import Registry

ENOUGH = 0.02  # seconds that a product must take to be timed well
SIDES = tuple(2**power for power in range(6, 14))  # of the matrices
ROOM = 2**30  # bytes; with less space a run may fail


@dataclass(frozen=True)
class DoctorCheck:
    """The result of one check."""

    name: str
    state: str  # ok note ERROR
    says: str


# ---- precisions ------------------------------------------------------------------------------


def precisions(device: torch.device) -> DoctorCheck:
    """Measures how fast a device multiplies matrices in each precision."""
    import torch

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    rates = {name: rate(device, kind) for name, kind in kinds.items()}
    known = {name: value for name, value in rates.items() if value is not None}
    parts = [
        f"{name} {value:,.0f}" if value >= 10 else f"{name} {value:.2g}"
        for name, value in known.items()
    ]
    says = f"{', '.join(parts)} GFLOP/s" if parts else "multiplies no matrices"
    if lacking := [name for name in kinds if name not in known]:
        says += f"; not supported: {', '.join(lacking)}"
    slower = list(_slower(known))
    if slower:
        says += f"; {', '.join(slower)}"
    sound = not slower or device.type != "cpu"
    return DoctorCheck(f"precision {device}", "ok" if sound and not lacking else "note", says)


def _slower(rates: dict[str, float]) -> Iterator[str]:
    for name, value in rates.items():
        if name != "fp32" and value < rates.get("fp32", 0):
            slower = rates["fp32"] / value
            yield f"{name} is {slower:.1f} times slower than fp32: --precision {name} costs time here"


def rate(device: torch.device, kind: torch.dtype) -> float | None:
    """GFLOP/s of a matrix product that is large enough to time; None: not supported."""
    best = 0.0
    for side in SIDES:
        try:
            seconds = _product(device, kind, side)
        except RuntimeError:  # what torch says of kinds and sizes that a device cannot do
            return best or None
        best = max(best, 2 * side**3 / seconds / 1e9)
        if seconds >= ENOUGH:
            break
    return best


def _product(device: torch.device, kind: torch.dtype, side: int) -> float:
    """Seconds of one product, the quicker of two."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    matrix = torch.full((side, side), 0.5, device=device, dtype=kind)
    found: list[float] = []
    while len(found) < 2 and (not found or found[0] < ENOUGH):
        wait()
        start = time.perf_counter()
        matrix @ matrix
        wait()
        found.append(time.perf_counter() - start)
    return max(min(found), 1e-9)


# ---- libraries and disk ----------------------------------------------------------------------


def blas() -> Iterator[DoctorCheck]:
    """Names the libraries by which numpy and torch multiply matrices."""
    import numpy as np
    import torch

    built: Any = np.show_config(mode="dicts")
    own = built.get("Build Dependencies", {}).get("blas", {})
    yield DoctorCheck(
        "blas of numpy", "ok", f"{own.get('name', 'unknown')} {own.get('version', '')}".strip()
    )
    named = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    has_mkldnn: Any = torch.backends.mkldnn.is_available
    more = ", oneDNN" if has_mkldnn() else ""
    yield DoctorCheck("blas of torch", "ok", f"{named[1] if named else 'unknown'}{more}")


def faiss_build() -> DoctorCheck:
    """Tells for what faiss was compiled, and whether it finds a GPU."""
    faiss = import_module("faiss")
    options = " ".join(faiss.get_compile_options().split())
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    where = f"on {gpus} GPU{'s' * (gpus > 1)}" if gpus else "on the CPU"
    return DoctorCheck("faiss build", "ok", f"{options or 'no options'}; searches {where}")


def disk(what: str, folder: Path) -> DoctorCheck:
    """Checks the free space where a folder is, or would be."""
    home = folder.absolute()
    while not home.exists():
        home = home.parent
    free = shutil.disk_usage(home).free
    enough = free >= ROOM
    says = f"{free / 2**30:.1f} GiB free at {home}"
    return DoctorCheck(
        f"disk of {what}", "ok" if enough else "note", says + ("" if enough else ": little")
    )


# ---- a short run -----------------------------------------------------------------------------


def smoke(registry: Registry, options: Selection) -> DoctorCheck:
    """Runs a suite's first method and baselines, one seed and epoch, in a store that is deleted."""
    from ..cells.suite import load_suite
    from ..errors import UserError
    from ..plan.planning import make_plan
    from ..run.matrix import run

    suite = load_suite(options.suite, registry)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sslbench-smoke-") as folder:
        asked = replace(
            options,
            store=Path(folder) / "store",
            methods=suite.methods[:1],
            seeds=suite.seeds[:1],
            epochs=1,
        )
        try:
            plan = make_plan(asked, registry)
            outcome = run(plan, registry)
        except UserError as error:
            return DoctorCheck("smoke run", "ERROR", str(error))
        faults = list(_faults(plan.cells))
    if outcome.interrupted or faults or not outcome.trained:
        return DoctorCheck("smoke run", "ERROR", "; ".join(faults) or "it did not end")
    seconds = time.perf_counter() - start
    done = f"{outcome.trained} cells trained, {outcome.evaluated} evaluations, {seconds:.0f} s"
    return DoctorCheck("smoke run", "ok", done)


def _faults(cells: Iterable[Any]) -> Iterator[str]:
    for planned in cells:
        if planned.state != "done":
            yield f"{planned.cell.method} is {planned.state}: {planned.why or 'no reason is known'}"
