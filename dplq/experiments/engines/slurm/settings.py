"""Options of the engine, and the parameters of sbatch that they are."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dplq.errors import UserError, few, shown

ARRAY = 1000  # elements; Slurm's default of MaxArraySize is 1001
NOTICE = 60  # seconds before its time limit at which a job goes back into the queue
LEAST = 3  # minutes: Slurm gives the notice up to a minute early
TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}", re.ASCII)
OURS = ("array", "error", "no-requeue", "open-mode", "output", "requeue", "signal", "time")

FOLDER = ".slurm"  # for the files of Slurm and submitit, beside the logs

Value = str | int | bool


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """Options of the engine; "" and 0 leave a matter to the cluster.

    Attributes:
        partition: of the jobs.
        account: that is charged.
        qos: quality of service.
        time: limit of a job: minutes, HH:MM:SS, D-HH or D-HH:MM:SS. A run that takes longer goes
            back into the queue and on from its last epoch, so an epoch must be shorter.
        cpus: per job.
        gpus: per job.
        memory: per job, such as 32G.
        container: words before each command, such as ``apptainer exec --nv image.sif``.
        python: that of the container; "" for the path of this one.
        setup: lines of shell before a job, such as ``module load cuda``; or one, as text.
        parallel: how many jobs may be submitted at a time, waiting ones included.
        requeue: whether a job that is lost, or reaches its time limit, goes on.
        extra: other parameters of sbatch, without the dashes; true for one without a value. Or as
            text: ``constraint=a100 exclusive``.
        folder: for the files of Slurm and submitit, on a disk that all nodes have; "": beside the
            logs.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str | int = "4:00:00"
    cpus: Annotated[int, Meta(ge=0)] = 0
    gpus: Annotated[int, Meta(ge=0)] = 1
    memory: str = ""
    container: str = ""
    python: str = ""
    setup: str | list[str] = ""
    parallel: Annotated[int, Meta(ge=1)] = ARRAY
    requeue: bool = True
    extra: str | dict[str, Value] = ""
    folder: str = ""

    def check(self) -> None:
        """Refuse (UserError) what `parameters` does."""
        self.parameters()

    def parameters(self) -> dict[str, Any]:
        """Return what submitit's executor takes.

        Raises:
            UserError: the time is none, or a parameter is not to be given.
        """
        given = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus,
            "setup": [self.setup] * bool(self.setup) if isinstance(self.setup, str) else self.setup,
            "srun_args": [f"--cpus-per-task={self.cpus}"] * bool(self.cpus),  # not inherited
        }
        other: dict[str, Value] = {"mem": self.memory} if self.memory else {}
        other["requeue" if self.requeue else "no-requeue"] = True
        return {
            "job_name": "dplq",
            "wckey": None,  # the user's own, not submitit's
            "time": minutes(self.time),
            "signal_delay_s": NOTICE,
            "array_parallelism": self.parallel,
            "additional_parameters": other | self._extra(),
            **{key: value for key, value in given.items() if value},
        }

    def _extra(self) -> dict[str, Value]:
        """Return the other parameters of sbatch."""
        extra = self.extra
        if isinstance(extra, str):
            pairs = [word.partition("=") for word in shlex.split(extra)]
            extra = {key: value if equals else True for key, equals, value in pairs}
        extra = {key.lstrip("-").replace("_", "-"): value for key, value in extra.items()}
        if taken := [key for key in extra if key in OURS]:
            raise UserError(
                f"extra of the engine slurm: {few(taken)} is not to be given there: the engine "
                "sets it, by its options parallel, requeue and time."
            )
        return extra


def minutes(time: str | int) -> int:
    """Return a time limit in minutes, rounded up.

    Args:
        time: in one of Slurm's forms: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.

    Raises:
        UserError: it has another form, or is too short.
    """
    if not TIME.fullmatch(str(time)):
        raise UserError(
            f"time of the engine slurm: {shown(time)} is no time limit. Give minutes, HH:MM:SS or "
            "D-HH:MM:SS, such as 4:00:00."
        )
    parts = [int(part) for part in re.split("[-:]", str(time))]
    if "-" not in str(time):  # M, M:S or H:M:S
        parts = [0, *parts] if len(parts) == 3 else [0, 0, *parts]
    days, hours, minute, second = [*parts, 0, 0, 0][:4]
    found = (days * 24 + hours) * 60 + minute + (second > 0)
    if found < LEAST:
        raise UserError(
            f"time of the engine slurm: {shown(time)} is less than {LEAST} minutes, and a job goes "
            "back into the queue up to two minutes before its limit. Give more."
        )
    return found
