"""Weights & Biases: offline unless told otherwise."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sslbench.api import CellInfo

from .cells import PerCell, config, needs

EXIT = {"ok": 0, "skipped": 0}  # of a run, by its cell's status; 1 otherwise


class WandB(PerCell):
    """Runs of Weights & Biases; offline, for `wandb sync`, unless mode or WANDB_MODE say online."""

    def __init__(
        self,
        *,
        project: str = "sslbench",
        entity: str = "",
        dir: str = ".",
        mode: Literal["", "offline", "online"] = "",
    ) -> None:
        super().__init__()
        needs("wandb", "wandb")
        self.project, self.entity = project, entity
        self.dir = Path(dir).expanduser().absolute()  # wandb's own process may stand elsewhere
        self.mode = mode or os.environ.get("WANDB_MODE") or "offline"

    def begin(self, cell: CellInfo) -> Any:
        if self.mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing leaves this machine
        import wandb

        self.dir.mkdir(parents=True, exist_ok=True)
        quiet = {"console": "off", "silent": True, "disable_git": True, "x_disable_stats": True}
        run = wandb.init(
            project=self.project,
            entity=self.entity or None,
            dir=self.dir,
            mode=self.mode,
            id=cell.id[:32],  # the same whenever this cell goes on
            resume="allow" if self.mode == "online" else None,
            name=cell.title,
            group=self.run.suite,
            tags=[cell.method[:64]],
            config=config(cell, self.run),
            reinit="create_new",  # cells run side by side
            settings=wandb.Settings(**quiet),
        )
        run.define_metric("*", step_metric="epoch")
        return run

    def close(self) -> None:
        super().close()
        if wandb := sys.modules.get("wandb"):  # imported with the first cell
            wandb.teardown()  # waits: a finished run may still stand in its process's memory

    def epoch(self, held: Any, stage: str, number: int, values: Mapping[str, float]) -> None:
        axis = "epoch" if stage == "main" else f"{stage}/epoch"
        if stage != "main":
            held.define_metric(f"{stage}/*", step_metric=axis)
        held.log({**values, axis: number})

    def judged(self, held: Any, values: Mapping[str, float]) -> None:
        held.summary.update(values)

    def finish(self, held: Any, status: str, sentence: str) -> None:
        held.summary.update({"status": status, "sentence": sentence})
        held.finish(exit_code=EXIT.get(status, 1))
