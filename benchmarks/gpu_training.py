"""Sections of gpu.py that train: what a step waits for, and its losses beside the CPU's."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from gpu_rows import Bench, traced
from torch import Tensor

from sslbench.api import Update
from sslbench.cells.parameters import anatomy
from sslbench.plugins import Registry, registry
from sslbench.testing import Trial
from sslbench.train.loop import Loop

CPU = torch.device("cpu")
DATASET = "digits[test=60,train=192]"  # six steps an epoch
METHODS = ("simclr", "moco", "swav", "dino", "byol")
CLOSE = 1e-4  # relative, of the first losses to those of the CPU


@dataclass(eq=False)
class On(Trial):
    """A trial on any device."""

    dataset: str = DATASET
    device: torch.device = CPU

    def bench(
        self, store: str, stop: Any = lambda: False, device: torch.device | None = None
    ) -> Any:
        return super().bench(store, stop, device or self.device)


# ---- waits -----------------------------------------------------------------------------------

WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


class Waited(NamedTuple):
    """What made the host wait in steps of the second epoch: the most of any one step."""

    status: str
    warned: int  # by torch's own debug mode
    called: int  # by the profiler, of WAITING
    lines: list[str]  # where the debug mode saw it
    copies: float  # seconds of the longest cudaMemcpyAsync, which may hide a wait
    kernels: int


def waited(trial: On, precision: str) -> Waited:
    """Trains a cell, and watches its steps in turn by torch's debug mode and by the profiler."""
    whole = Loop._train_step
    warned, called, lines, copies, kernels = [0], [0], set[str](), [0.0], [0]

    def by_mode(act: Callable[[], None]) -> None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                act()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found = [w for w in said if "called a synchronizing" in str(w.message)]
        warned.append(len(found))
        lines.update(f"{w.filename.rpartition('/sslbench/')[2]}:{w.lineno}" for w in found)

    def by_profiler(act: Callable[[], None]) -> None:
        seen = traced(trial.device, act)
        called.append(sum(seen.calls[name] for name in WAITING))
        copies.append(seen.longest.get("cudaMemcpyAsync", 0.0))
        kernels.append(seen.kernels)

    def step(self: Loop, at: Any, taken: Any) -> None:
        # the first epoch fills queues and tries convolutions
        if at.epoch.number == 0 or at.step == 0:
            whole(self, at, taken)
        else:
            (by_mode if at.step % 2 else by_profiler)(lambda: whole(self, at, taken))

    with patch.object(Loop, "_train_step", step):
        fit = trial.fit(f"waits-{precision}", trial.cell(precision=precision))
    return Waited(
        fit.done.status if not fit.done.sentence else fit.done.sentence,
        max(warned),
        max(called),
        sorted(lines),
        max(copies),
        max(kernels),
    )


def waits(bench: Bench) -> None:
    """Steps of training make the host wait for nothing; with fp16 once, for its scaler."""
    bench.need_gpu()
    for name in METHODS:
        for precision in ("fp32", "bf16", "fp16"):
            trial = On(registry(), name, bench.folder(f"{name}-{precision}"), device=bench.device)
            found = waited(trial, precision)
            most, allowed = max(found.warned, found.called), int(precision == "fp16")
            bench.tell(
                f"{name}, {precision}: waits of a step",
                f"{found.warned} by torch's debug mode, {found.called} by the profiler; "
                f"{found.kernels} kernels, longest copy {1000 * found.copies:.2f} ms "
                f"{' '.join(found.lines)}"
                + ("" if found.status == "ok" else f"; the cell: {found.status[:160]}"),
                found.status == "ok" and most <= allowed,
                **found._asdict(),
            )


# ---- losses ----------------------------------------------------------------------------------


def trained_methods(found: Registry) -> list[str]:
    """One name of each class that is trained: the shortest."""
    names: dict[Any, str] = {}
    for name in sorted(found.names("methods"), key=lambda name: (len(name), name)):
        parts = anatomy(found.find("methods", name))
        if parts.recipe is not None:
            names.setdefault(parts.target, name)
    return sorted(names.values())


@contextlib.contextmanager
def drawn_on_host() -> Iterator[None]:
    """Lets what draws on the device draw on the host, so that both devices see the same numbers."""

    def hosted(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def drawn(*args: Any, device: Any = None, **more: Any) -> Tensor:
            if more.get("generator") is not None:
                return draw(*args, device=device, **more)
            made = draw(*args, **more)
            return made if device is None else made.to(device)

        return drawn

    with ExitStack() as stack:
        for name in ("rand", "randn", "randint", "randperm"):
            stack.enter_context(patch.object(torch, name, hosted(getattr(torch, name))))
        yield


def losses(bench: Bench) -> None:
    """The first losses of every method are those of the CPU; in half precision they are finite."""
    found = registry()
    for name in bench.sized(trained_methods(found), ["simclr", "moco", "scan"]):
        trial = On(found, name, bench.folder(name))
        with drawn_on_host():
            wanted = trial.fit("whole", trial.cell(), steps=3)
            if wanted.done.status not in ("ok", "interrupted"):
                bench.tell(f"{name}: trains on the CPU", wanted.done.sentence, None)
                continue
            trial.device = bench.device
            got = trial.fit("fp32", trial.cell(), steps=3)
        _compare(bench, name, wanted.losses[:3], got)
        for precision in ("bf16", "fp16"):
            half = trial.fit(precision, trial.cell(precision=precision), steps=3)
            _finite(bench, f"{name}, {precision}: first losses", half)
    _one_infinity(bench)


def _compare(bench: Bench, name: str, wanted: list[Any], fit: Any) -> None:
    ours, theirs = ([value for _, value in each] for each in (fit.losses[:3], wanted))
    gap = max(
        (abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours, theirs, strict=False)),
        default=math.inf,
    )
    said = f"apart by {gap:.1e}" if fit.losses else fit.done.sentence
    right = len(ours) == len(theirs) and gap <= CLOSE
    bench.tell(f"{name}, fp32: first losses and the CPU's", said, right, apart=gap, losses=ours)


def _finite(bench: Bench, what: str, fit: Any) -> None:
    values = [value for _, value in fit.losses[:3]]
    said = " ".join(f"{value:.4g}" for value in values) or fit.done.sentence
    right = bool(values) and all(math.isfinite(value) for value in values)
    bench.tell(what, said, right and fit.done.status != "failed", losses=values)


def _one_infinity(bench: Bench) -> None:
    """Gradients that are infinite once cost one step of the optimiser."""
    taken = [_steps_taken(bench, forced) for forced in (False, True)]
    bench.tell(
        "simclr, fp16: a gradient made infinite once",
        f"{taken[1]} steps of the optimiser, without it {taken[0]}",
        taken[1] == taken[0] - 1,
    )


def _steps_taken(bench: Bench, forced: bool) -> int:
    taken, asked = [0], [0]
    apply, note = Loop._apply, Loop._note_step

    def applied(self: Loop, update: Update, at: Any) -> bool:
        asked[0] += 1
        if forced and asked[0] == 9:  # past those that the scaler's first guess costs
            update.loss.register_hook(lambda gradient: gradient * math.inf)
        return apply(self, update, at)

    def noted(self: Loop) -> None:
        taken[0] += 1
        note(self)

    trial = On(registry(), "simclr", bench.folder(f"infinity-{forced}"), device=bench.device)
    with patch.object(Loop, "_apply", applied), patch.object(Loop, "_note_step", noted):
        trial.fit("whole", trial.cell(precision="fp16"))
    return taken[0]
