"""TensorBoard: a folder of event files a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslbench.api import CellInfo

from .cells import PerCell, config, flat, needs, slug


@dataclass
class Held:
    """A cell's writer, and what stands in its row of the tab HParams."""

    writer: Any
    config: dict[str, Any]
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


class TensorBoard(PerCell):
    """Curves, metrics and hyperparameters as event files for `tensorboard --logdir DIR`."""

    def __init__(self, *, dir: str = "runs") -> None:
        super().__init__()
        needs("tensorboard", "tensorboard")
        self.dir = Path(dir).expanduser()

    def begin(self, cell: CellInfo) -> Held:
        from torch.utils.tensorboard import SummaryWriter

        known = config(cell, self.run)
        # the same folder whenever this cell goes on: TensorBoard reads its files as one run
        name = f"{slug(cell.title)}-{cell.id[:12]}"
        writer = SummaryWriter(str(self.dir / slug(self.run.suite) / name))
        text = json.dumps(known, indent=2, default=str)
        writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
        writer.flush()
        return Held(writer, known)

    def epoch(self, held: Held, stage: str, number: int, values: Mapping[str, float]) -> None:
        held.epochs = number if stage == "main" else held.epochs
        for tag, value in values.items():
            held.writer.add_scalar(tag, value, number)
        held.writer.flush()  # or it is seconds old at best

    def judged(self, held: Held, values: Mapping[str, float]) -> None:
        held.metrics.update(values)
        for tag, value in values.items():
            held.writer.add_scalar(tag, value, held.epochs)
        held.writer.flush()

    def finish(self, held: Held, status: str, sentence: str) -> None:
        from torch.utils.tensorboard.summary import hparams

        row = {**flat(held.config), "status": status}
        for summary in hparams(row, held.metrics):
            held.writer.file_writer.add_summary(summary)
        if sentence:
            held.writer.add_text("status", f"    {status}: {sentence}")
        held.writer.close()
