"""Checks of what a method asks of a GPU, on a pretended one."""

from __future__ import annotations

from tempfile import mkdtemp
from typing import NamedTuple
from unittest.mock import patch

from ..train.loop import Loop
from .pretend_cuda import CUDA, CannotPretend, Seen, pretend_cuda
from .promise import require
from .trial import Trial

PRECISIONS = ("fp32", "fp16")  # bf16 is fp16 without its scaler
STEPS = 3  # of each fit


class Asked(NamedTuple):
    """What the steps of a cell asked of the device, with those of its stages and pretexts."""

    status: str
    sentence: str
    steps: list[Seen]  # without the waits of methods that say why they must
    updates: list[int]  # that each of these steps yielded
    reasons: list[str]  # which those say


def asked_of_a_gpu(trial: Trial, precision: str, *, steps: int = STEPS) -> Asked:
    """Trains the trial's cell on a pretended GPU; CannotPretend where that does not work."""
    seen: list[Seen] = []
    updates: list[int] = []
    reasons: dict[str, None] = {}
    counts: dict[int, int] = {}
    whole, apply = Loop._train_step, Loop._apply

    with pretend_cuda() as gpu:

        def noted(self: Loop, *args: object) -> None:
            counts[id(self)] = counts.get(id(self), 0) + 1
            updates.append(0)
            with gpu.watched() as one:
                whole(self, *args)  # type: ignore[arg-type]
            if self.method.waits:
                one.waits.clear()
                reasons[self.method.waits] = None
            if counts[id(self)] <= steps:
                seen.append(one)
            else:
                updates.pop()

        def applied(self: Loop, *args: object) -> bool:
            updates[-1] += 1
            return apply(self, *args)  # type: ignore[arg-type]

        cell = trial.cell(precision=precision)
        trial.folder.mkdir(parents=True, exist_ok=True)
        bench = trial.bench(mkdtemp("", "gpu-", trial.folder), device=CUDA)  # nothing is done there
        stepping = patch.object(Loop, "_train_step", noted)
        with stepping, patch.object(Loop, "_apply", applied), patch("os.fsync"):
            done = bench.do(cell, [])
    return Asked(done.status, done.sentence, seen, updates, [*reasons])


def keeps_a_gpu_busy(trial: Trial) -> str | None:
    """On a GPU no step mixes devices, waits, copies what blocks, or takes a delicate sum in half."""
    reasons: dict[str, None] = {}
    for precision in PRECISIONS:
        try:
            asked = asked_of_a_gpu(trial, precision)
        except CannotPretend as error:
            return f"not checked: {error}"
        require(asked.status == "ok", f"on a pretended GPU in {precision}: {asked.sentence}")
        for seen, updates in zip(asked.steps, asked.updates, strict=True):
            # whether a gradient is infinite decides on the step of an optimiser
            allowed = updates if precision == "fp16" else 0
            where = f"a step on a GPU in {precision}"
            require(not seen.mixed, f"{where} mixes devices: {list(seen.mixed)[:3]}")
            require(not seen.blocking, f"{where} copies what blocks: {list(seen.blocking)[:3]}")
            require(not seen.half, f"{where} is not precise: {list(seen.half)[:3]}")
            waits = sum(seen.waits.values())
            require(
                waits <= allowed,
                f"{where} waits for the device: {list(seen.waits)[:3]}; where it must, say why in "
                "the class attribute `waits`",
            )
        reasons |= dict.fromkeys(asked.reasons)
    return f"it waits for the device: {'; '.join(reasons)}" if reasons else None
