"""Weights & Biases: a run of its own for every run.

Only the config, the values and the results are sent: neither the command line nor the environment,
the host's name, the code or the terminal's output. ``WANDB_MODE=offline`` keeps them in the folder
of the run, for ``wandb sync``.
"""

from __future__ import annotations

import os
import secrets
from typing import Any, ClassVar

from dplq.errors import one_line

from .base import PROJECT, NotSetUp, TrackedRun, Values
from .run_ids import keep_run_id, run_id

# An upload that does not end must not hold up what comes next; what it lacks stays in the folder.
PATIENCE = {
    "WANDB_FINISH_TIMEOUT": "120",
    "WANDB_FINISH_TIMEOUT_RAISES": "true",
    "WANDB_ERROR_REPORTING": "false",
}
ADVICE = "Run `wandb login` once, or set WANDB_MODE=offline"


class WandbTracker:
    """Tracker of Weights & Biases."""

    name: ClassVar[str] = "wandb"
    is_local: ClassVar[bool] = False

    def start(self, run: TrackedRun) -> None:
        """Begin a run, or go on with it.

        Raises:
            NotSetUp: nobody is logged in.
        """
        for key, value in PATIENCE.items():
            os.environ.setdefault(key, value)
        import wandb

        self._require_login(wandb)
        known = run_id(run.folder, self.name)
        chosen = known or secrets.token_hex(4)  # no generator of the training is used
        try:
            self.run: Any = wandb.init(
                id=chosen,
                resume="allow",
                project=run.project or os.environ.get("WANDB_PROJECT") or PROJECT,
                name=run.name,
                group=run.group,
                dir=str(run.folder),
                config=None if known else run.settings,
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    disable_git=True,
                    disable_code=True,
                    disable_job_creation=True,
                    host="",
                    x_disable_meta=True,
                    x_disable_machine_info=True,
                    x_save_requirements=False,
                ),
            )
        except wandb.errors.AuthenticationError as error:
            raise NotSetUp(f"TRAIN.TRACK wandb: {one_line(error)}. {ADVICE}.") from error
        if not known:
            keep_run_id(run.folder, self.name, chosen)
            for epoch in sorted(run.earlier):
                self.log(epoch, run.earlier[epoch])

    def log(self, epoch: int, values: Values) -> None:
        """Keep the values of an epoch, which is the step of the service."""
        self.run.log({**values, "epoch": epoch}, step=epoch)

    def results(self, values: Values) -> None:
        """Keep the results in the summary of the run."""
        self.run.summary.update(values)

    def close(self, *, failed: bool) -> None:
        """Send what is left, and end the run."""
        self.run.finish(exit_code=int(failed))

    def _require_login(self, wandb: Any) -> None:
        is_online = wandb.setup().settings.mode in ("online", "shared")
        if is_online and not wandb.login(prompt=False):  # a prompt would stop a sweep
            raise NotSetUp(f"TRAIN.TRACK wandb: nobody is logged in. {ADVICE}.")
