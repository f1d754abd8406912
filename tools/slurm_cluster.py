"""A Slurm cluster of one node on this machine, for tests: Debian's slurm-wlm, as root.

The daemons listen on the loopback and write in one folder; neither systemd, nor control groups, nor
accounting is needed. Partition `low` is the default; a job in `high` takes the place of one in
`low`, which goes back into the queue, or in `grace`, which is told ten seconds before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dplq.errors import UserError
from dplq.io.process import is_alive

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo")
CPUS = 2  # that the node says it has
PATIENCE = 60.0  # seconds for the node to come up
CONFIG = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 MaxTime=60 State=UP
PartitionName=grace Nodes={host} PriorityTier=1 GraceTime=10 MaxTime=60 State=UP
PartitionName=high Nodes={host} PriorityTier=10 MaxTime=60 State=UP
"""


def is_installed() -> bool:
    """Return whether the programs are there, and this is root."""
    return os.geteuid() == 0 and not _missing()


def start(folder: Path, cpus: int = CPUS) -> Path:
    """Start a cluster; return its config file, the value of ``SLURM_CONF``.

    Args:
        folder: for all that it writes; its path must be short enough for a socket.
        cpus: that the node says it has.

    Raises:
        UserError: a program is missing, or the node does not come up.
    """
    if missing := _missing():
        raise UserError(f"{', '.join(missing)} missing: apt-get install slurm-wlm munge")
    folder = folder.resolve()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(folder=folder, host=socket.gethostname(), ports=_free_ports(2), cpus=cpus)
    )
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    munge = ["--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    for command in (["munged", *munge], ["slurmctld", "-f", config], ["slurmd", "-f", config]):
        subprocess.run([_program(str(command[0])), *command[1:]], check=True)
    _wait_for_node(config, folder)
    return config


def stop(folder: Path) -> None:
    """End the jobs of a cluster, and its daemons."""
    if _pid(folder / "slurmctld.pid"):
        _end_jobs(folder)
    for name in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
        if pid := _pid(folder / name):
            os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            if not _pid(folder / name):
                break
            time.sleep(0.1)


@contextmanager
def running(folder: Path, cpus: int = CPUS) -> Iterator[Path]:
    """Start a cluster for a block, with ``SLURM_CONF`` set; yield its config file."""
    before = os.environ.get("SLURM_CONF")
    try:
        config = start(folder, cpus)
        os.environ["SLURM_CONF"] = str(config)
        yield config
    finally:
        stop(folder)
        os.environ.pop("SLURM_CONF", None)
        if before is not None:
            os.environ["SLURM_CONF"] = before


def _pid(path: Path) -> int:
    """Return the number in a file if it is a process's; else 0."""
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return 0
    return pid if is_alive(pid) else 0


def _end_jobs(folder: Path) -> None:
    """Cancel all jobs, and wait for their ends: without slurmd nobody would end them."""
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(["scancel", f"--user={os.geteuid()}"], env=environment, timeout=PATIENCE)
        for _ in range(int(PATIENCE)):
            queue = ["squeue", "--noheader"]
            left = subprocess.run(queue, env=environment, capture_output=True, timeout=PATIENCE)
            if not left.stdout:
                return
            time.sleep(1)


def _missing() -> list[str]:
    return [name for name in PROGRAMS if not _program(name)]


def _program(name: str) -> str:
    """Return where a program is; daemons are in folders that only root's PATH has."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or ""


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _wait_for_node(config: Path, folder: Path) -> None:
    state = ""
    environment = os.environ | {"SLURM_CONF": str(config)}
    for _ in range(int(PATIENCE * 5)):
        command = ["sinfo", "--noheader", "--format=%T"]
        state = subprocess.run(
            command, env=environment, capture_output=True, text=True
        ).stdout.strip()
        if "idle" in state:
            return
        time.sleep(0.2)
    raise UserError(f"The node does not come up (state {state!r}): see {folder}/slurmctld.log")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.slurm_cluster", description=__doc__)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cpus", type=int, default=CPUS, help="that the node says it has")
    args = parser.parse_args(argv)
    if args.action == "stop":
        stop(args.folder)
        return 0
    try:
        config = start(args.folder, args.cpus)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"export SLURM_CONF={config}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
