"""What Slurm says of jobs: their states from squeue, which needs no accounting.

It knows those that have ended, too, for some minutes (MinJobAge, by default five).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from dplq.io.exit_code import DONE, PROBLEMS, TERMINATED, shell_code

FORMAT = "JobArrayID:48|,State:24|,exit_code:12|,Reason:80"
SECONDS = 60.0  # for one call of a command

FORGOTTEN = "FORGOTTEN"  # our name of the state of a job that Slurm does not list
LOST = {  # states of a job that ended through no fault of its own
    "BOOT_FAIL": "its node did not start",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "another job took its place",
    "TIMEOUT": "it reached its time limit: give more with the option time",
    FORGOTTEN: "Slurm does not know it any more",
}
REASONS = LOST | {
    "CANCELLED": "cancelled (scancel)",
    "DEADLINE": "its deadline passed",
    "OUT_OF_MEMORY": "out of memory: give more with the option memory",
}
OVER = {*REASONS, "COMPLETED", "FAILED"}
PASSING = {  # reasons for which a job waits as a matter of course
    *("", "None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Prolog"),
    *("RequeuedByPreemption", "Cleaning"),
}


@dataclass(frozen=True)
class JobState:
    """State of a job of Slurm's.

    Attributes:
        name: Slurm's, or `FORGOTTEN`.
        status: of its process, as `os.wait` returns it; 0 before the end.
        waits_for: why it waits; "" for a reason that passes.
    """

    name: str
    status: int = 0
    waits_for: str = ""

    @property
    def is_over(self) -> bool:
        """Return whether it has ended, and is not in the queue again."""
        return self.name in OVER

    @property
    def is_lost(self) -> bool:
        """Return whether it ended through no fault of its own: by Slurm, or by SIGTERM."""
        return self.name in LOST or (self.name == "FAILED" and self.code == TERMINATED)

    @property
    def code(self) -> int:
        """Return the exit code of a job that is over, as a shell gives it."""
        if self.name == "COMPLETED":
            return DONE
        if self.name != "FAILED":
            return TERMINATED
        return shell_code(os.waitstatus_to_exitcode(self.status)) or PROBLEMS

    @property
    def reason(self) -> str:
        """Return why it failed, where Slurm knows."""
        return REASONS.get(self.name, "")


def job_states(jobs: Iterable[str]) -> dict[str, JobState]:
    """Return the states of jobs of this user.

    Args:
        jobs: Slurm's numbers, such as ``17_0`` for an element of an array.

    Raises:
        OSError: Slurm does not answer; its words.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.geteuid()}"]
    lines = run([*command, f"--Format={FORMAT}"]).splitlines()
    rows = [[word.strip() for word in line.split("|")] for line in lines]
    found = {row[0]: _state(*row[1:]) for row in rows if len(row) == 4}
    return {job: found.get(job, JobState(FORGOTTEN)) for job in jobs}


def cancel(jobs: Iterable[str]) -> None:
    """Have Slurm end jobs: SIGTERM, and SIGKILL after the cluster's KillWait.

    Raises:
        OSError: Slurm does not answer; its words.
    """
    run(["scancel", *jobs])


def run(command: list[str]) -> str:
    """Return the output of a command of Slurm's.

    Raises:
        OSError: it failed; its words.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} takes more than {SECONDS:.0f} s") from error
    if done.returncode:
        raise OSError(" ".join(done.stderr.split()) or f"{command[0]} failed")
    return done.stdout


def _state(name: str, status: str, reason: str) -> JobState:
    waits_for = reason if name == "PENDING" and reason not in PASSING else ""
    return JobState(name, int(status) if status.isdecimal() else 0, waits_for)
