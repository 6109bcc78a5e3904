"""MLflow: a local store unless told otherwise."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping

from sslbench.api import CellInfo, RunInfo

from .cells import PerCell, config, flat, needs

STATUS = {"ok": "FINISHED", "skipped": "FINISHED", "interrupted": "KILLED"}  # FAILED otherwise
CELL, OUTCOME = "sslbench.cell", "sslbench.status"  # tags
LONGEST = 6000  # characters of a parameter's value; more is refused


class MLflow(PerCell):
    """Runs of MLflow in sqlite:///mlflow.db, or where uri or MLFLOW_TRACKING_URI say."""

    def __init__(self, *, uri: str = "", experiment: str = "") -> None:
        super().__init__()
        needs("mlflow", "mlflow")
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        self.experiment = experiment

    def start(self, run: RunInfo) -> None:
        super().start(run)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves this machine
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not a line for each table
        self.client = MlflowClient(tracking_uri=self.uri)
        name = self.experiment or f"sslbench {run.suite}"
        found = self.client.get_experiment_by_name(name)
        self.id = found.experiment_id if found else self.client.create_experiment(name)

    def begin(self, cell: CellInfo) -> str:
        asked = f"tags.`{CELL}` = '{cell.id}'"
        if earlier := self.client.search_runs([self.id], asked, max_results=1):
            found = str(earlier[0].info.run_id)
            self.client.update_run(found, status="RUNNING")
            return found
        made = self.client.create_run(self.id, run_name=cell.title, tags={CELL: cell.id})
        params = flat(config(cell, self.run))
        for key, value in params.items():
            self.client.log_param(made.info.run_id, named(key), str(value)[:LONGEST])
        return str(made.info.run_id)

    def epoch(self, held: str, stage: str, number: int, values: Mapping[str, float]) -> None:
        self._log(held, values, number)

    def judged(self, held: str, values: Mapping[str, float]) -> None:
        self._log(held, values, 0)

    def finish(self, held: str, status: str, sentence: str) -> None:
        self.client.set_tag(held, OUTCOME, f"{status}{sentence and f': {sentence}'}")
        self.client.set_terminated(held, STATUS.get(status, "FAILED"))

    def _log(self, held: str, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(named(tag), value, now, step) for tag, value in values.items()]
        self.client.log_batch(held, metrics=points)


def named(tag: str) -> str:
    """`knn-1[k=5]` has characters that MLflow takes in no name."""
    return re.sub(r"[^\w .:/-]", "_", tag)
