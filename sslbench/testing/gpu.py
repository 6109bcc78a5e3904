"""Checks of what a method asks of a GPU, on a pretended one."""

from __future__ import annotations

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
    steps: list[Seen]


def asked_of_a_gpu(trial: Trial, precision: str, *, steps: int = STEPS) -> Asked:
    """Trains the trial's cell on a pretended GPU; CannotPretend where that does not work."""
    seen: list[Seen] = []
    counts: dict[int, int] = {}
    whole = Loop._train_step

    with pretend_cuda() as gpu:

        def noted(self: Loop, *args: object) -> None:
            counts[id(self)] = counts.get(id(self), 0) + 1
            with gpu.watched() as one:
                whole(self, *args)  # type: ignore[arg-type]
            if counts[id(self)] <= steps:
                seen.append(one)

        cell = trial.cell(precision=precision)
        bench = trial.bench(f"gpu-{precision}", device=CUDA)
        with patch.object(Loop, "_train_step", noted), patch("os.fsync"):
            done = bench.do(cell, [])
    return Asked(done.status, done.sentence, seen)


def keeps_a_gpu_busy(trial: Trial) -> str | None:
    """On a GPU no step mixes devices, waits, copies what blocks, or takes a delicate sum in half."""
    wait = getattr(trial.parts.target, "waits", "")
    for precision in PRECISIONS:
        try:
            asked = asked_of_a_gpu(trial, precision)
        except CannotPretend as error:
            return f"not checked: {error}"
        require(asked.status == "ok", f"on a pretended GPU in {precision}: {asked.sentence}")
        allowed = int(precision == "fp16")  # whether a gradient is infinite decides on the step
        for seen in asked.steps:
            where = f"a step on a GPU in {precision}"
            require(not seen.mixed, f"{where} mixes devices: {list(seen.mixed)[:3]}")
            require(not seen.blocking, f"{where} copies what blocks: {list(seen.blocking)[:3]}")
            require(not seen.half, f"{where} is not precise: {list(seen.half)[:3]}")
            waits = sum(seen.waits.values())
            require(
                bool(wait) or waits <= allowed,
                f"{where} waits for the device: {list(seen.waits)[:3]}; where it must, say why in "
                "the class attribute `waits`",
            )
    return f"it waits for the device: {wait}" if wait else None
