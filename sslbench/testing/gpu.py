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


def asked_of_a_gpu(trial: Trial, precision: str) -> Asked:
    """Trains the trial's cell on a pretended GPU, once; CannotPretend where that does not work."""
    if precision not in trial.on_a_gpu:
        trial.on_a_gpu[precision] = _asked(trial, precision)
    found: Asked = trial.on_a_gpu[precision]
    return found


def _asked(trial: Trial, precision: str) -> Asked:
    seen: list[Seen] = []
    updates: list[int] = []
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
            if counts[id(self)] <= STEPS:
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
    return Asked(done.status, done.sentence, seen, updates)


def keeps_a_gpu_busy(trial: Trial) -> str | None:
    """It trains on a pretended GPU without mixing devices; a remark says where it waits or rounds.

    That is where a step reads a number of the device, copies what blocks, or takes a softmax, a
    logarithm or a norm in half precision.
    """
    found: dict[str, None] = {}
    for precision in PRECISIONS:
        try:
            asked = asked_of_a_gpu(trial, precision)
        except CannotPretend as error:
            return f"not checked: {error}"
        require(asked.status == "ok", f"on a pretended GPU in {precision}: {asked.sentence}")
        for seen, updates in zip(asked.steps, asked.updates, strict=True):
            require(not seen.mixed, f"a step mixes devices: {list(seen.mixed)[:3]}")
            # whether a gradient is infinite decides on the step of an optimiser
            allowed = updates if precision == "fp16" else 0
            if sum(seen.waits.values()) > allowed:
                found |= dict.fromkeys(f"waits for {each}" for each in seen.waits)
            found |= dict.fromkeys(f"copies what blocks, {each}" for each in seen.blocking)
            found |= dict.fromkeys(f"rounds in {precision}, {each}" for each in seen.half)
    return f"on a GPU a step {'; '.join([*found][:5])}" if found else None
