"""How cells are done: on which device, how often saved, what is watched. No number hangs on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Watch(NamedTuple):
    """An evaluator that looks at the held-out tenth of train every so many epochs."""

    evaluator: str
    every: int  # epochs


@dataclass(frozen=True)
class RunOptions:
    """How cells are done; it travels whole from the command line to the loop."""

    device: str = "auto"  # auto cpu cuda cuda:N mps
    jobs: int = 0  # processes; 0: one a GPU, one in all without
    threads: int | None = None  # of each process; None: an equal share of what there is
    checkpoint_seconds: float = 60.0
    watch: Watch | None = None
    compile: bool = False  # torch.compile the backbones
    train: bool = True  # False: what is not trained, or whose model is lost, is left alone
