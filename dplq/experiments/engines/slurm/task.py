"""What submitit runs on a node: one command, with its output in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from dplq.experiments.engines.slurm.queue import run
from dplq.io.exit_code import TERMINATED, shell_code

# Slurm's notice of the time limit goes to all processes, and would end them.
START = 'trap "" USR1 USR2; exec "$@"'
RESTARTS = 100  # after which a job that is ended again and again is left alone


@dataclass(frozen=True)
class Task:
    """A command as a function for submitit, which pickles it.

    Attributes:
        command: the program and its arguments.
        environment: variables that it has besides those of the job.
        log: file that its output is appended to; "": that of the job.
        requeue: whether it goes back into the queue before its time limit.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: str
    requeue: bool

    def __call__(self) -> None:
        """Run the command; a failure is this process's exit code, which Slurm keeps."""
        if not self.requeue:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        with open(self.log, "ab") if self.log else nullcontext() as output:
            process = subprocess.Popen(
                ["sh", "-c", START, "sh", *self.command],
                env=os.environ | dict(self.environment),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                code = process.wait()
            finally:  # submitit leaves by an exception when it has put the job into the queue
                process.terminate()
                process.wait()
        code = shell_code(code)
        if code == TERMINATED and self.requeue:
            put_back()
        if code:
            sys.exit(code)

    def checkpoint(self) -> Any:
        """Return what submitit runs when the job is started again: the same command resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def put_back() -> None:
    """Put this job back into the queue, if Slurm would not: another one takes its place soon.

    Slurm sends SIGTERM a partition's GraceTime before it ends a job, and counts one that ends in
    that time as failed. In all other cases it has noted by then what becomes of the job.
    """
    number = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        number = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format_map(os.environ)
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if not number or restarts >= RESTARTS:
        return
    try:
        if run(["squeue", "--noheader", f"--jobs={number}", "--format=%T"]).strip() == "RUNNING":
            run(["scontrol", "requeue", number])
    except OSError as error:
        print(f"Slurm did not put this job back into its queue: {error}", file=sys.stderr)
