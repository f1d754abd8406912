"""The same sweep through several engines: ``python -m tools.compare_engines local-2 ray``.

The sweep has 24 runs on the demo: two trainers on two datasets with three seeds, from base to new
classes. Something is broken on purpose in each engine while it runs; what comes out is compared
with `local --jobs 1`: numbers of the results, files of predictions, tensors of the checkpoints.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from dplq.experiments.base2new import base2new
from dplq.experiments.engines import Job, open_engine
from dplq.experiments.execute import execute
from dplq.experiments.plan import Plan, Run
from dplq.experiments.series import Series
from dplq.io.exit_code import DONE, PROBLEMS, exit_code
from dplq.io.runs.files import MODEL_FOLDER, RESULTS_FILE

REFERENCE = "local"
TRAINERS, DATASETS, SEEDS = ("CoOp", "QuaternionPrompt"), ("demo_aerial", "demo_tissue"), (1, 2, 3)
OPTIONS = (
    *(("OPTIM.MAX_EPOCH", "3"), ("OPTIM.WARMUP_EPOCH", "1")),
    # each engine computes everything itself: features that another left are no evidence of its own
    *(("TRAIN.FEATURE_CACHE", "0"), ("DOMAIN.CACHE", "False")),
)
SHOTS = 2
# Of one run, not of its result; what was read is counted anew when a run goes on.
OF_THE_RUN = ("seconds", "peak_memory_mib", "git_commit", "images")
# The last bits of a sum depend on how many threads share it, and engines give different numbers.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
PREEMPTED = re.compile(r"preempted JobId=([\d_]+)")  # in the log of slurmctld
RESUMED = re.compile(r"will resume after epoch (\d+)")


def sweep(out: Path) -> Plan:
    """Return the plan of the sweep in a folder."""
    plans = [
        base2new(Series(data, trainer, "demo", seeds=SEEDS, out=out, shots=SHOTS, options=OPTIONS))
        for trainer in TRAINERS
        for data in DATASETS
    ]
    folders = [folder for plan in plans for folder in plan.folders]
    return Plan([run for plan in plans for run in plan.runs], folders)


def local(plan: Plan, jobs: int = 1) -> tuple[int, str]:
    """Run the plan by the engine `local`."""
    return execute(plan, open_engine("local", {"jobs": jobs})), ""


def ray(plan: Plan) -> tuple[int, str]:
    """Run the plan on three simulated nodes, one of which is killed in the middle of a training."""
    from tools.ray_cluster import SimulatedCluster

    with contextlib.closing(SimulatedCluster(3)) as cluster:
        engine = open_engine("ray", {"address": cluster.address})
        over = threading.Event()
        hit: list[Run] = []

        def kill() -> None:
            while not hit and not over.wait(0.02):
                if sum(run.is_finished for run in plan.runs) < len(plan.runs) // 3:
                    continue
                for node, _, command in cluster.running():
                    if not hit and (run := in_training(plan.runs, command)):
                        cluster.kill(node)
                        hit.append(run)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        code = execute(plan, engine)
        over.set()
        killer.join()
    return code, f"one of 3 nodes killed: {fate(hit[0])}" if hit else "no node was killed"


def slurm(plan: Plan) -> tuple[int, str]:
    """Run the plan on a Slurm cluster of one node; a job is requeued, and the next pre-empted."""
    from dplq.experiments.engines.slurm.queue import run as command
    from tools import slurm_cluster

    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        slurm_cluster.running(Path(folder)),
    ):
        engine: Any = open_engine("slurm", {"gpus": 0, "time": 60})
        jobs: dict[str, Job] = {}  # by Slurm's number
        requeued: list[str] = []
        over = threading.Event()

        def training() -> str:
            """Wait for a job in the middle of a training; return its number, "" at the end."""
            while not over.wait(0.2):
                jobs.update(engine.jobs)
                running = command(["squeue", "--noheader", "--states=running", "--format=%i"])
                for number in running.split():
                    if number in jobs and in_training(plan.runs, jobs[number].command):
                        return number
            return ""

        def disturb() -> None:
            if number := training():
                command(["scontrol", "requeue", number])
                requeued.append(number)
            if training():
                node = f"--cpus-per-task={slurm_cluster.CPUS}"
                wrap = "--wrap=sleep 1"
                command(["sbatch", "--partition=high", node, "--output=/dev/null", wrap])

        disturber = threading.Thread(target=disturb, daemon=True)
        disturber.start()
        code = execute(plan, engine)
        over.set()
        disturber.join()
        preempted = PREEMPTED.findall((Path(folder) / "slurmctld.log").read_text())
    fates = []
    for what, numbers in {"requeued": requeued, "pre-empted": preempted}.items():
        words = [jobs[number].command for number in numbers]
        fates += [f"{what}: {fate(run)}" for run in plan.runs if run.command in words]
    return code, "; ".join(fates)


# Name -> what carries out a plan and returns its exit code and what was broken meanwhile.
WAYS: dict[str, Callable[[Plan], tuple[int, str]]] = {
    REFERENCE: local,
    "local-2": lambda plan: local(plan, jobs=2),
    "ray": ray,
    "slurm": slurm,
}


def in_training(runs: Iterable[Run], command: Sequence[str]) -> Run | None:
    """Return the run of a process that has finished an epoch and not yet its training."""
    for run in runs:
        checkpoints = run.folder / MODEL_FOLDER
        if str(run.folder) in command and run.model is None and checkpoints.is_dir():
            names = {path.name for path in checkpoints.iterdir()}
            if "resume.safetensors" in names and not any(n.startswith("model") for n in names):
                return run
    return None


def fate(run: Run) -> str:
    """Return after which epochs a run went on, by its own log."""
    text = "".join(path.read_text(errors="replace") for path in run.folder.glob("log.txt*"))
    epochs = sorted(set(map(int, RESUMED.findall(text))))
    went = f"went on after epoch {', '.join(map(str, epochs))}" if epochs else "began anew"
    return f"{run.trainer} {run.dataset} seed {run.seed} {went}"


def digests(plan: Plan) -> dict[str, str]:
    """Return a digest of each file of the runs that has to be equal, by its place."""
    from safetensors.numpy import load_file

    found = {}
    for run in plan.runs:
        place = f"{run.trainer}/{run.dataset}/{run.classes}/seed{run.seed}"
        results = json.loads((run.folder / RESULTS_FILE).read_text())
        for key in OF_THE_RUN:
            results.pop(key, None)
        results["config"].pop("OUTPUT_DIR")
        found[f"{place}/results"] = digest(json.dumps(results, sort_keys=True).encode())
        for path in sorted(run.folder.glob("predictions*.csv")):
            found[f"{place}/predictions/{path.name}"] = digest(path.read_bytes())
        for path in sorted((run.folder / MODEL_FOLDER).glob("*.safetensors")):
            parts: list[bytes] = []
            for name, array in sorted(load_file(path).items()):
                parts += [f"{name} {array.dtype} {array.shape}".encode(), array.tobytes()]
            found[f"{place}/tensors/{path.name}"] = digest(b"\0".join(parts))
    return found


def digest(content: bytes) -> str:
    """Return what is compared of a content."""
    return hashlib.sha256(content).hexdigest()


def compare(name: str, out: Path, reference: dict[str, str]) -> tuple[dict[str, Any], bool]:
    """Carry the sweep out; return a row of the table, and whether all is equal.

    Args:
        name: of the way.
        out: folder of its results; emptied before, but for the reference.
        reference: digests to compare with; empty for the first, which fills it.
    """
    if name != REFERENCE:
        shutil.rmtree(out, ignore_errors=True)
    plan, began = sweep(out), time.monotonic()
    code, broken = WAYS[name](plan)
    row: dict[str, Any] = {"engine": name, "seconds": round(time.monotonic() - began)}
    finished = sum(run.is_finished for run in plan.runs)
    row["runs finished"] = f"{finished} of {len(plan.runs)}"
    if code != DONE or finished < len(plan.runs):
        return row | {"broken on purpose": broken, "equal": f"failed, exit code {code}"}, False
    found = digests(plan)
    reference.update({} if reference else found)
    wrong = [key for key in found.keys() | reference.keys() if found.get(key) != reference.get(key)]
    for key in sorted(wrong):
        print(f"{name} differs: {key}", file=sys.stderr)
    for kind in ("results", "predictions", "tensors"):
        keys = [key for key in reference if f"/{kind}" in key]
        row[kind] = f"{len(set(keys) - set(wrong))} of {len(keys)} equal"
    return row | {"broken on purpose": broken}, not wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; the exit code is 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare_engines", description=__doc__)
    parser.add_argument("engines", nargs="+", choices=list(WAYS), help="what to compare")
    parser.add_argument(
        "--out", type=Path, help="folder of the results, where a finished reference is kept"
    )
    args = parser.parse_args(argv)
    os.environ.update(THREADS)

    def run() -> int:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) if args.out is None else args.out.absolute()
            reference: dict[str, str] = {}
            rows, equal = [], []
            for name in dict.fromkeys((REFERENCE, *args.engines)):
                row, same = compare(name, out / name, reference)
                rows.append(row)
                equal.append(same)
                if not reference:
                    break
            print(tabulate(rows, headers="keys", tablefmt="github"))
        return DONE if all(equal) else PROBLEMS

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
