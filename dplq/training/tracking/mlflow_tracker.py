"""MLflow: a run of its own for every run, in an experiment per project.

Only the config, the values and the results are sent. ``MLFLOW_TRACKING_URI`` says where to: a
server, or the file of a database.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any, ClassVar

from dplq.errors import printable

from .base import PROJECT, TrackedRun, Values
from .run_ids import keep_run_id, run_id

LONGEST = 500  # characters of a parameter that every MLflow takes
MOST = 100  # parameters in a request
# A server that does not answer must not hold up a training; MLflow's own are 120 s and 7 retries.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}

logger = logging.getLogger(__name__)


class MLflowTracker:
    """Tracker of MLflow."""

    name: ClassVar[str] = "mlflow"
    is_local: ClassVar[bool] = False

    def start(self, run: TrackedRun) -> None:
        """Begin a run, or go on with it."""
        for key, value in {**PATIENCE, "MLFLOW_DISABLE_TELEMETRY": "true"}.items():
            os.environ.setdefault(key, value)
        import mlflow

        self.client: Any = mlflow.MlflowClient()
        known = run_id(run.folder, self.name)
        if known and self._is_there(known):
            self.id = known
            self.client.update_run(self.id, status="RUNNING")
            return
        self.id = self._begin(run)
        keep_run_id(run.folder, self.name, self.id)
        for epoch in sorted(run.earlier):
            self.log(epoch, run.earlier[epoch])

    def log(self, epoch: int, values: Values) -> None:
        """Keep the values of an epoch, which is MLflow's step."""
        self._metrics(values, step=epoch)

    def results(self, values: Values) -> None:
        """Keep the results of a test."""
        self._metrics(values, step=0)

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self.client.set_terminated(self.id, "KILLED" if failed else "FINISHED")

    def _begin(self, run: TrackedRun) -> str:
        from mlflow.entities import Param

        name = run.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._experiment(name)
        tags = {"group": run.group}
        begun = self.client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        settings = [Param(key, _parameter(key, value)) for key, value in run.settings.items()]
        for start in range(0, len(settings), MOST):
            self.client.log_batch(begun, params=settings[start : start + MOST])
        return str(begun)

    def _experiment(self, name: str) -> Any:
        """Return the id of a new experiment, or of one that another run has just made."""
        try:
            return self.client.create_experiment(name)
        except Exception:
            if found := self.client.get_experiment_by_name(name):
                return found.experiment_id
            raise

    def _is_there(self, known: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(known)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            logger.warning("MLflow has no run %s any more: a new one is begun.", printable(known))
            return False
        return True

    def _metrics(self, values: Values, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)


def _parameter(key: str, value: object) -> str:
    text = str(value)
    if len(text) > LONGEST:
        logger.info("MLflow keeps %d characters of %s.", LONGEST, key)
    return text[:LONGEST]
