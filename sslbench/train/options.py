"""Options of running cells, such as the device and how often to save. No result depends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Watch(NamedTuple):
    """An evaluator that judges on the held-out tenth of train every few epochs of training."""

    evaluator: str
    every: int  # epochs


@dataclass(frozen=True)
class RunOptions:
    """How cells are run: the options of the command line that the training loop needs."""

    device: str = "auto"  # auto cpu cuda cuda:N mps
    jobs: int = 0  # processes; 0: one for each GPU, or one on the CPU
    threads: int | None = None  # of each process; None: an equal share of the CPU's
    checkpoint_seconds: float = 60.0
    watch: Watch | None = None
    compile: bool = False  # torch.compile the backbones while they train and, on a GPU, the views
    deterministic: bool = False  # a GPU repeats itself to the bit, more slowly
    predictions: bool = True  # keep what judges predicted for each image
    train: bool = True  # False: a cell that is not trained, or has lost its model, is left alone
