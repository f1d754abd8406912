"""The engine: a job is a task of Ray, which places it and starts it again if it is lost.

Each task starts its run as a process of its own, so that the cluster's processes need neither this
package nor its requirements; the command, its files and the folders of the runs have to be the same
on all nodes (a shared file system). A run that fails by itself is not started again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from dplq.errors import UserError
from dplq.experiments.engines.base import Ended, Job
from dplq.experiments.engines.ray import cluster, task
from dplq.experiments.engines.ray.settings import Settings
from dplq.io.exit_code import KILLED, TERMINATED, shell_code

logger = logging.getLogger(__name__)


def open_engine(settings: Settings) -> RayEngine:
    """Return the engine, connected with its cluster.

    Raises:
        UserError: Ray is missing, the cluster cannot be reached, or no node is large enough.
    """
    ray = cluster.connect(settings.address)
    try:
        return RayEngine(ray, settings)
    except BaseException:
        ray.shutdown()
        raise


class RayEngine:
    """Runs as tasks of a Ray cluster.

    Args:
        ray: the module, connected.
        settings: of the engine.

    Raises:
        UserError: no node is large enough for a run.
    """

    def __init__(self, ray: Any, settings: Settings) -> None:
        self._ray = ray
        self._settings = settings
        self._nodes = cluster.living_nodes(ray)
        self._needs = cluster.needs(self._nodes.values(), settings)
        fitting = cluster.fitting(self._nodes.values(), self._needs)
        if not fitting and settings.jobs is None:
            raise UserError(cluster.too_small(self._nodes.values(), self._needs))
        self.slots = settings.jobs or fitting
        self._jobs: dict[Any, Job] = {}  # by the reference of the task's result
        ray.cloudpickle.register_pickle_by_value(task)
        self._task = ray.remote(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            max_retries=settings.retries,
            retry_exceptions=False,
            scheduling_strategy="SPREAD",
        )(task.carry_out)

    def start(self, job: Job) -> None:
        """Hand a job to Ray, which starts it where its CPUs and GPUs are free."""
        if job.log is not None:
            job.log.parent.mkdir(parents=True, exist_ok=True)
        log = None if job.log is None else str(job.log.absolute())
        environment = {**os.environ, **job.environment}
        named = self._task.options(name=job.name)
        reference = named.remote(list(job.command), environment, os.getcwd(), log)
        self._jobs[reference] = job

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Return the jobs that have ended since the last call.

        Args:
            seconds: how long to wait for the first of them.
        """
        if self._jobs:
            self._ray.wait(list(self._jobs), timeout=seconds)
        else:
            time.sleep(seconds)
        self._survey()
        return [self._ended(reference) for reference in self._ready()]

    def stop(self) -> None:
        """End all jobs with SIGTERM, and wait until they have ended."""
        for seconds, force in ((task.GRACE + cluster.PATIENCE, False), (cluster.PATIENCE, True)):
            deadline = time.monotonic() + seconds
            while waiting := self._jobs.keys() - self._ready():
                if time.monotonic() > deadline:
                    break
                for reference in waiting:  # again and again: Ray loses one for a task that starts
                    self._ray.cancel(reference, force=force)  # by force: the worker is killed
                self._ray.wait(list(waiting), num_returns=len(waiting), timeout=1)

    def close(self) -> None:
        """Leave the cluster; end it if it is the engine's own."""
        self._ray.shutdown()

    def _ready(self) -> list[Any]:
        if not self._jobs:
            return []
        ready, _ = self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=0)
        return list(ready)

    def _ended(self, reference: Any) -> Ended:
        job = self._jobs.pop(reference)
        try:
            code, reason = self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            return Ended(job, TERMINATED)
        except self._ray.exceptions.RayError as error:  # all attempts were lost
            why = f"Ray lost it, with retries={self._settings.retries}: {cluster.line(error)}"
            return Ended(job, KILLED, why)
        return Ended(job, shell_code(code), reason)

    def _survey(self) -> None:
        """Note how many jobs fit at present, and say which nodes were lost."""
        before, self._nodes = self._nodes, cluster.living_nodes(self._ray)
        for lost in before.keys() - self._nodes.keys():
            logger.warning(
                "Node %s of the Ray cluster was lost; nodes left: %d. Its runs go on elsewhere.",
                cluster.name(before[lost]),
                len(self._nodes),
            )
        # One job may always wait in Ray's queue, for a node that is to come.
        fitting = max(cluster.fitting(self._nodes.values(), self._needs), 1)
        self.slots = self._settings.jobs or fitting
